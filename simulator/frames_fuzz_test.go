package simulator

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2/hpack"
)

func FuzzHPACKAgreesWithXNet(f *testing.F) {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	block := func(fields ...hpack.HeaderField) []byte {
		b.Reset()
		for _, field := range fields {
			if err := e.WriteField(field); err != nil {
				f.Fatal(err)
			}
		}
		return bytes.Clone(b.Bytes())
	}
	push := []hpack.HeaderField{
		{Name: ":method", Value: "POST"},
		{Name: ":path", Value: "/3/device/00fc"},
		{Name: "apns-topic", Value: "org.example.app"},
		{Name: "authorization", Value: strings.Repeat("x", 300)},
		{Name: "x-unknown", Value: "é\x00"},
		{Name: "cookie", Value: "secret", Sensitive: true},
	}
	f.Add(block(push...), block(push...))
	e.SetMaxDynamicTableSize(0)
	f.Add(block(push...), block(push...))
	e.SetMaxDynamicTableSize(100)
	f.Add(block(push[:3]...), block(push...))
	f.Add([]byte{0x20, 0x3f, 0xe1, 0x1f, 0x40, 0x81, 0x1c, 0x81, 0x1c}, []byte{0xbe})
	f.Add([]byte{0xff, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01}, []byte{0x0f, 0xff})
	f.Fuzz(func(t *testing.T, first, second []byte) {
		ours := newHPACKDecoder()
		var want []hpack.HeaderField
		theirs := hpack.NewDecoder(maxTable, func(f hpack.HeaderField) { want = append(want, f) })
		for _, block := range [][]byte{first, second} {
			want = want[:0]
			_, errTheirs := theirs.Write(block)
			if errTheirs == nil {
				errTheirs = theirs.Close()
			}
			err := ours.decode(block)
			if errTheirs != nil && err == nil {
				t.Fatalf("%x: we took what x/net refuses: %v", block, errTheirs)
			}
			if err != nil {
				if errTheirs == nil && !errors.Is(err, errLateResize) { // x/net lets pass some of those
					t.Fatalf("%x: we refuse what x/net takes: %v", block, err)
				}
				return
			}
			if ours.tooLong {
				want = want[:len(ours.fields)] // both read on, we keep no more
			}
			if len(ours.fields) != len(want) {
				t.Fatalf("%x: want %d fields, got %d", block, len(want), len(ours.fields))
			}
			for i, got := range ours.fields {
				if got.name != want[i].Name || got.value != want[i].Value {
					t.Fatalf("%x: field %d: want %q, got %q: %q", block, i, want[i], got.name, got.value)
				}
				if kind, name := kindOf([]byte(got.name)); kind != got.kind || kind != fieldOther && name != got.name {
					t.Fatalf("%q has the kind %d", got.name, got.kind)
				}
				fine := (validFieldName(got.name) || got.name[0] == ':') && validFieldValue(got.value)
				if got.checked && !fine {
					t.Fatalf("%q: %q passes for valid", got.name, got.value)
				}
			}
		}
	})
}

func FuzzJSONScanAgreesWithEncodingJSON(f *testing.F) {
	for _, text := range []string{
		`{"aps":{"alert":"hi"}}`, `{"a":[1,-0.5e+7,true,false,null,"\u00e9\n"]}`, `{"a":01}`, `{"a":"` + "\x1f" + `"}`, `[]`, ` {} `, `{"a":1,}`, `"\ud800"`, `-`, `1.`, `{"a" :	1}`,
		strings.Repeat("[", 70) + strings.Repeat("]", 70), `{"a":"12345678\"12345678<>&"}`, "{\"a\":\"\x80\xff\"}", `tru`, `{"a":"1234567`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if got, want := validJSON(text), json.Valid(text); got != want {
			t.Fatalf("%q: want %v, got %v", text, want, got)
		}
	})
}

func FuzzScanFCM(f *testing.F) {
	for _, text := range []string{
		`{"message":{"token":"a","notification":{"title":"t","body":"b"},"android":{"priority":"high","ttl":"86400s"}}}`,
		`{"message":{"token":"a","data":{"campanile_id":"x","k":"v"},"android":{"data":{"k":"\u00e9"},"notification":{"channel_id":"c","sticky":true,"title":"<"}}}}`,
		`{"validate_only":true,"message":{"token":"a","apns":{"headers":{"apns-priority":"10"},"payload":{"aps":{"badge":1,"alert":"<&>"}}},"fcm_options":{"analytics_label":"l"}}}`,
		`{"message":{"token":"a","token":"b"}}`, `{"message":{"token":""}}`, `{"message":{"topic":"t"}}`, `{"message":{"token":"a","data":{"from":"x"}}}`,
		`{"message":{"token":"a","android":{"ttl":"9999999s"}}}`, `{"message":null}`, `{"message":{"token":"a","apns":{"payload":{"x":"` + strings.Repeat("<", 800) + `"}}}}`,
		`{"message":{"token":"a","notification":{"title":"` + strings.Repeat("x", 4080) + `"}}}`, `{"message":{"token":"a","fcm_options":{"analytics_label":"é"}}}`,
	} {
		f.Add([]byte(text), "id")
		f.Add([]byte(text), "")
	}
	f.Fuzz(func(t *testing.T, body []byte, id string) {
		fast, ok := scanFCM(body, id)
		if !ok {
			return
		}
		strict, problem := checkFCM(body, id)
		if problem != nil {
			t.Fatalf("%q: taken, where the check says %+v", body, *problem)
		}
		if !reflect.DeepEqual(fast, strict) {
			t.Fatalf("%q: want %+v, got %+v", body, strict, fast)
		}
	})
}

// TestScanFCMTakesWhatSendersSend keeps the fast way from being lost unseen: its answer would be right all the same.
func TestScanFCMTakesWhatSendersSend(t *testing.T) {
	t.Parallel()
	for _, body := range []string{
		`{"message":{"notification":{"title":"t","body":"b"},"data":{"k":"v"},"android":{"priority":"high","ttl":"3600s","collapse_key":"c","notification":{"sound":"default","channel_id":"x"}},"apns":{"headers":{"apns-priority":"10"},"payload":{"aps":{"alert":{"title":"t"},"badge":3}}},"token":"a:b"}}`,
		`{"validate_only":false, "message": {"token": "a", "notification": {"title": "x"}}}`,
	} {
		if _, ok := scanFCM([]byte(body), "id"); !ok {
			t.Errorf("want it read fast: %s", body)
		}
	}
}

// FuzzFrames feeds a connection with whatever a client may say: it must neither crash nor hold more than its bounds.
func FuzzFrames(f *testing.F) {
	hello := appendSettings(nil, setting{settingEnablePush, 0})
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for _, h := range []hpack.HeaderField{
		{Name: ":method", Value: "POST"},
		{Name: ":scheme", Value: "https"},
		{Name: ":authority", Value: "x"},
		{Name: ":path", Value: "/3/device/00fc13adff785122"},
		{Name: "apns-topic", Value: "a.b"},
	} {
		if err := e.WriteField(h); err != nil {
			f.Fatal(err)
		}
	}
	headers := func(stream uint32, flags byte, block []byte) []byte {
		return append(appendFrameHeader(nil, len(block), frameHeaders, flags, stream), block...)
	}
	data := func(stream uint32, flags byte, body string) []byte {
		return append(appendFrameHeader(nil, len(body), frameData, flags, stream), body...)
	}
	block := b.Bytes()
	push := append(headers(1, flagEndHeaders, block), data(1, flagEndStream, `{"aps":{}}`)...)
	f.Add(append(bytes.Clone(hello), push...))
	f.Add(append(append(bytes.Clone(hello), headers(1, flagEndHeaders, block)...), appendRSTStream(nil, 1, codeCancel)...))
	f.Add(append(append(bytes.Clone(hello), headers(1, 0, block[:3])...), append(appendFrameHeader(nil, len(block)-3, frameContinuation, flagEndHeaders, 1), block[3:]...)...))
	f.Add(append(append(bytes.Clone(hello), headers(3, flagEndHeaders|flagPadded|flagPriority, block)...), data(3, flagPadded, "\x01x")...))
	f.Add(append(append(bytes.Clone(hello), appendWindowUpdate(nil, 0, largestWindow)...), appendGoAway(nil, 0, codeNo, "x")...))
	f.Add(append(append(bytes.Clone(hello), appendFrameHeader(nil, 0, frameSettings, flagAck, 0)...), appendFrameHeader(nil, 0, frameSettings, flagAck, 0)...))
	connect := quietServer(f)
	f.Fuzz(func(t *testing.T, input []byte) {
		c := connect()
		for len(input) > 0 {
			n := min(len(input), 1+len(input)/3)
			kept := c.take(input[:n])
			if kept == 0 && n == len(input) {
				break // an unfinished frame
			}
			if kept == 0 {
				kept = c.take(input)
				if kept == 0 {
					break
				}
			}
			input = input[kept:]
			c.out = c.out[:0] // the client reads
			open := len(c.streams)
			if c.youngest != nil {
				open++
			}
			if open != c.active || c.active > apnsStreams {
				t.Fatalf("%d streams are open, %d counted", open, c.active)
			}
			if len(c.block) > mostBlock+leastFrameSize || c.decoder.size > maxTable || c.decoder.entries > dynamicSlots {
				t.Fatalf("a block of %d bytes, a table of %d", len(c.block), c.decoder.size)
			}
		}
		c.end()
		if c.active != 0 || len(c.streams) != 0 {
			t.Fatalf("%d streams are left", c.active)
		}
	})
}

// quietServer makes connections without a peer.
func quietServer(tb testing.TB) func() *h2Conn {
	tb.Helper()
	ledger, err := OpenLedger(tb.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = ledger.Close() })
	core := newCore(Scenario{}, ledger, 0, time.Now)
	logger := slog.New(slog.DiscardHandler)
	ca, _, err := newAuthority()
	if err != nil {
		tb.Fatal(err)
	}
	door := &apnsDoor{core, &identity{ca: ca, byKID: map[string]*APNSKey{}}, Production, serviceAPNS, logger}
	f := &framesServer{door: apnsFrames{door}, core: core, wheel: newWheel(fire), logger: logger}
	near, far := net.Pipe()
	tb.Cleanup(func() { _, _ = near.Close(), far.Close() })
	return func() *h2Conn {
		return newH2Conn(f, nil, &conn{Conn: near, stats: core.stats, done: make(chan struct{})})
	}
}
