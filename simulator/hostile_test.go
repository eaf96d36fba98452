package simulator_test

import (
	"bytes"
	"encoding/binary"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/campanile-push/campanile/simulator"
)

// frame is one with anything in it.
func frame(kind, flags byte, stream uint32, payload string) []byte {
	b := []byte{byte(len(payload) >> 16), byte(len(payload) >> 8), byte(len(payload)), kind, flags}
	return append(binary.BigEndian.AppendUint32(b, stream), payload...)
}

// TestWhoBreaksTheProtocolIsSentAway says one wrong thing on a connection each: it ends with that error, and is counted.
func TestWhoBreaksTheProtocolIsSentAway(t *testing.T) {
	t.Parallel()
	r := setup(t)
	settings := frame(4, 0, 0, "")
	for rule, c := range map[string]struct {
		say  []byte
		code http2.ErrCode
	}{
		"settings_not_first":           {frame(6, 0, 0, "12345678"), http2.ErrCodeProtocol},
		"frame_too_large":              {append(bytes.Clone(settings), 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1), http2.ErrCodeFrameSize},
		"stream_id":                    {append(bytes.Clone(settings), frame(1, 5, 2, "\x82")...), http2.ErrCodeProtocol},
		"malformed_headers":            {append(bytes.Clone(settings), frame(1, 0xd, 1, "\xff")...), http2.ErrCodeProtocol},
		"malformed_header_block":       {append(bytes.Clone(settings), frame(1, 5, 1, "\xff\xff\xff")...), http2.ErrCodeCompression},
		"block_interrupted":            {append(append(bytes.Clone(settings), frame(1, 0, 1, "\x82")...), frame(6, 0, 0, "12345678")...), http2.ErrCodeProtocol},
		"stray_continuation":           {append(bytes.Clone(settings), frame(9, 4, 1, "\x82")...), http2.ErrCodeProtocol},
		"header_block_too_large":       {append(append(bytes.Clone(settings), frame(1, 0, 1, "\x82")...), bytes.Repeat(frame(9, 0, 1, ""), 40)...), http2.ErrCodeEnhanceYourCalm},
		"data_on_idle_stream":          {append(bytes.Clone(settings), frame(0, 1, 1, "x")...), http2.ErrCodeProtocol},
		"rst_on_idle_stream":           {append(bytes.Clone(settings), frame(3, 0, 7, "\x00\x00\x00\x08")...), http2.ErrCodeProtocol},
		"malformed_rst_stream":         {append(bytes.Clone(settings), frame(3, 0, 7, "\x00")...), http2.ErrCodeFrameSize},
		"malformed_ping":               {append(bytes.Clone(settings), frame(6, 0, 0, "1")...), http2.ErrCodeFrameSize},
		"push_promise":                 {append(bytes.Clone(settings), frame(5, 4, 1, "\x00\x00\x00\x02")...), http2.ErrCodeProtocol},
		"malformed_settings":           {append(bytes.Clone(settings), frame(4, 0, 0, "\x00")...), http2.ErrCodeFrameSize},
		"settings_on_stream":           {append(bytes.Clone(settings), frame(4, 0, 1, "")...), http2.ErrCodeProtocol},
		"settings_ack":                 {append(append(bytes.Clone(settings), frame(4, 1, 0, "")...), frame(4, 1, 0, "")...), http2.ErrCodeProtocol},
		"malformed_priority":           {append(bytes.Clone(settings), frame(2, 0, 0, "12345")...), http2.ErrCodeProtocol},
		"window_overflow":              {append(bytes.Clone(settings), frame(8, 0, 0, "\x7f\xff\xff\xff")...), http2.ErrCodeFlowControl},
		"malformed_window_update":      {append(bytes.Clone(settings), frame(8, 0, 0, "\x7f")...), http2.ErrCodeFrameSize},
		"window_update_on_idle_stream": {append(bytes.Clone(settings), frame(8, 0, 9, "\x00\x00\x00\x01")...), http2.ErrCodeProtocol},
	} {
		w := r.rawWire(r.APNSURL())
		w.out.WriteString(http2.ClientPreface)
		w.out.Write(c.say)
		w.flush()
		if _, code, _ := w.goAway(); code != c.code {
			t.Errorf("%s: want %v, got %v", rule, c.code, code)
		}
		w.closed()
		if n := r.Stats().Violations[rule]; n != 1 {
			t.Errorf("%s: want it counted once, got %d: %v", rule, n, r.Stats().Violations)
		}
	}
	w := r.rawWire(r.APNSURL())
	w.out.WriteString("GET / HTTP/1.1\r\nHost: x\r\n\r\n    ")
	w.flush()
	w.closed()
	if r.Stats().Violations["preface"] != 1 || r.push(goodHex).status != http.StatusOK {
		t.Errorf("want a wrong preface counted and others served, got %+v", r.Stats())
	}
}

// TestAMalformedRequestEndsItsStreamAlone says one wrong thing on a stream each, all of them on one connection.
func TestAMalformedRequestEndsItsStreamAlone(t *testing.T) {
	t.Parallel()
	r := setup(t)
	w := r.wire(r.APNSURL())
	stream := uint32(1)
	base := []string{":method", "POST", ":scheme", "https", ":path", "/3/device/" + goodHex}
	for i, fields := range [][]string{
		{":method", "POST", ":scheme", "https"},
		{":scheme", "https", ":path", "/"},
		append(base[:6:6], "Apns-Topic", "x"),
		append(base[:6:6], "connection", "close"),
		append(base[:6:6], "te", "gzip"),
		append(base[:6:6], "x", "a\nb"),
		append(base[:6:6], "x", "y", ":authority", "late"),
		append(base[:6:6], ":path", "/twice"),
		append(base[:6:6], ":unknown", "x"),
		append(base[:6:6], "content-length", "-1"),
		append(base[:6:6], "content-length", "3"),
		{":method", "POST", ":scheme", "https", ":path", "no/slash"},
	} {
		w.must(w.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: w.block(fields...), EndHeaders: true}))
		w.must(w.WriteData(stream, true, []byte("12345")))
		w.flush()
		if f := until(w, func(*http2.RSTStreamFrame) bool { return true }); f.StreamID != stream || f.ErrCode != http2.ErrCodeProtocol {
			t.Errorf("case %d: want the stream reset with PROTOCOL_ERROR, got %v", i, f)
		}
		stream += 2
	}
	w.must(w.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: w.apnsHead(goodHex, "x", strings.Repeat("y", 9000)), EndHeaders: true, EndStream: true}))
	w.flush()
	if got := w.status(stream); got != "431" {
		t.Errorf("want 431 for a header list that is too long, got %s", got)
	}
	w.push(stream+2, goodHex)
	w.flush()
	if got := w.status(stream + 2); got != "200" {
		t.Errorf("want the connection to work on, got %s", got)
	}
}

// TestHostileClientsHoldNoMemory floods in ways that cost a careless server memory.
func TestHostileClientsHoldNoMemory(t *testing.T) { //nolint:paralleltest // it looks at the process's memory
	r := setup(t, with(simulator.Scenario{Latency: latency(t, "1m")}))
	push := func(w *wire, stream uint32) {
		w.must(w.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: w.apnsHead(goodHex), EndHeaders: true, EndStream: true}))
	}
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	resets := func(w *wire) { // rapid reset: CVE-2023-44487
		for i := range uint32(30_000) {
			push(w, 1+2*i)
			w.must(w.WriteRSTStream(1+2*i, http2.ErrCodeCancel))
			if w.out.Len() > 60_000 {
				w.flush()
			}
		}
	}
	pings := func(w *wire) { // whose answers nobody reads
		_ = w.conn.SetWriteDeadline(time.Now().Add(3 * time.Second))
		chunk := bytes.Repeat(frame(6, 0, 0, "12345678"), 1000)
		for range 20_000 {
			if _, err := w.conn.Write(chunk); err != nil {
				return // it reads no more either
			}
		}
		t.Error("want the server to stop reading from a client that reads nothing")
	}
	bomb := func(w *wire) { // a block that refers to a large field again and again
		var b bytes.Buffer
		_ = hpack.NewEncoder(&b).WriteField(hpack.HeaderField{Name: "x", Value: strings.Repeat("a", 3900)})
		w.out.Write(frame(1, 5, 1, b.String()+strings.Repeat("\xbe", 10_000)))
		w.flush()
	}
	begin := heap()
	for name, flood := range map[string]func(w *wire){"rapid reset": resets, "pings": pings, "header bomb": bomb} {
		w := r.wire(r.APNSURL())
		w.flush()
		flood(w)
		if name == "rapid reset" {
			w.must(w.WritePing(false, [8]byte{9}))
			w.flush()
			until(w, func(f *http2.PingFrame) bool { return f.Data == [8]byte{9} })
		}
		if got := heap(); got > begin+32<<20 {
			t.Errorf("%s: %d MB are held", name, (got-begin)>>20)
		}
		_ = w.conn.Close()
	}
	if !r.waitFor(func() bool { s := r.Stats(); return s.Open == 0 && s.InFlight == 0 }) {
		t.Errorf("want nothing left, got %+v", r.Stats())
	}
}
