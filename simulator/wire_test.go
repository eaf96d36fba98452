package simulator_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/url"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/campanile-push/campanile/simulator"
)

// wire is an HTTP/2 client on the level of frames, by x/net's framer and HPACK: not by the simulator's own.
type wire struct {
	*http2.Framer
	t    *testing.T
	r    *rig
	conn *tls.Conn
	out  bytes.Buffer // what the framer has written; flush sends it at once
	enc  *hpack.Encoder
	head bytes.Buffer
}

// wire connects and greets. settings are the client's.
func (r *rig) wire(base string, settings ...http2.Setting) *wire {
	r.t.Helper()
	w := r.rawWire(base)
	w.out.WriteString(http2.ClientPreface)
	w.must(w.WriteSettings(settings...))
	return w
}

// rawWire connects and says nothing.
func (r *rig) rawWire(base string) *wire {
	r.t.Helper()
	w, err := r.dialWire(base)
	if err != nil {
		r.t.Fatal(err)
	}
	return w
}

func (r *rig) dialWire(base string) (*wire, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, err
	}
	d := tls.Dialer{Config: &tls.Config{RootCAs: r.RootCAs(), NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12}}
	c, err := d.DialContext(r.t.Context(), "tcp", u.Host)
	if err != nil {
		return nil, err
	}
	r.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second)) // a test that hangs
	w := &wire{t: r.t, r: r, conn: c.(*tls.Conn)}
	w.Framer = http2.NewFramer(&w.out, w.conn)
	w.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	w.enc = hpack.NewEncoder(&w.head)
	return w, nil
}

func (w *wire) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// flush sends what was written, in one TLS write.
func (w *wire) flush() {
	w.t.Helper()
	_, err := w.conn.Write(w.out.Bytes())
	w.must(err)
	w.out.Reset()
}

func (w *wire) block(fields ...string) []byte {
	w.head.Reset()
	for i := 0; i < len(fields); i += 2 {
		w.must(w.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}))
	}
	return bytes.Clone(w.head.Bytes())
}

// apnsHead is the header of a push, with more or other fields.
func (w *wire) apnsHead(token string, more ...string) []byte {
	fields := []string{":method", "POST", ":scheme", "https", ":authority", "sim", ":path", "/3/device/" + token, "authorization", w.r.bearer, "apns-topic", topic}
	return w.block(append(fields, more...)...)
}

// push writes a push.
func (w *wire) push(stream uint32, token string, more ...string) {
	w.t.Helper()
	w.must(w.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: w.apnsHead(token, more...), EndHeaders: true}))
	w.must(w.WriteData(stream, true, []byte(`{"aps":{}}`)))
}

// send writes a push to FCM.
func (w *wire) send(stream uint32, body string) {
	w.t.Helper()
	block := w.block(":method", "POST", ":scheme", "https", ":authority", "sim", ":path", "/v1/projects/"+simulator.DefaultProject+"/messages:send", "authorization", "Bearer "+w.r.access())
	w.must(w.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block, EndHeaders: true}))
	w.must(w.WriteData(stream, true, []byte(body)))
}

// until reads frames up to the first that f takes.
func until[F http2.Frame](w *wire, f func(F) bool) F {
	w.t.Helper()
	for {
		frame, err := w.ReadFrame()
		if err != nil {
			var zero F
			w.t.Fatalf("want a %T, got %v", zero, err)
			return zero
		}
		if got, ok := frame.(F); ok && f(got) {
			return got
		}
	}
}

func (w *wire) status(stream uint32) string {
	w.t.Helper()
	return until(w, func(h *http2.MetaHeadersFrame) bool { return h.StreamID == stream }).PseudoValue("status")
}

// goAway reads up to GOAWAY, and returns its last stream, code and text.
func (w *wire) goAway() (last uint32, code http2.ErrCode, text string) {
	w.t.Helper()
	f := until(w, func(*http2.GoAwayFrame) bool { return true })
	return f.LastStreamID, f.ErrCode, string(f.DebugData())
}

// streams reads up to the next SETTINGS, and returns its stream limit.
func (w *wire) streams() uint32 {
	w.t.Helper()
	f := until(w, func(f *http2.SettingsFrame) bool { return !f.IsAck() })
	n, _ := f.Value(http2.SettingMaxConcurrentStreams)
	return n
}

// closed reads to the end, which the server makes.
func (w *wire) closed() {
	w.t.Helper()
	for {
		_, err := w.ReadFrame()
		var streams http2.StreamError
		switch {
		case err == nil, errors.As(err, &streams):
			continue
		case errors.Is(err, io.EOF):
			return
		}
		var patience net.Error
		if errors.As(err, &patience) && patience.Timeout() {
			w.t.Fatal("the connection stays open")
		}
		return
	}
}
