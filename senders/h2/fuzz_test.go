package h2

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// FuzzPeer lets a server say anything after its SETTINGS, on a connection with three requests. Each of them ends once, whatever comes,
// and nothing is left behind.
func FuzzPeer(f *testing.F) {
	frames := func(write func(fr *http2.Framer)) []byte {
		var b bytes.Buffer
		write(http2.NewFramer(&b, nil))
		return b.Bytes()
	}
	f.Add(frames(func(fr *http2.Framer) {
		_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x88}, EndHeaders: true})
		_ = fr.WriteDataPadded(1, true, []byte("body"), make([]byte, 3))
		_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: []byte{0x88}, EndStream: true})
		_ = fr.WriteContinuation(3, true, []byte{0x40, 1, 'a', 1, 'b'})
	}))
	f.Add(frames(func(fr *http2.Framer) {
		_ = fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 3}, http2.Setting{ID: http2.SettingHeaderTableSize, Val: 0})
		_ = fr.WriteWindowUpdate(0, 5)
		_ = fr.WriteWindowUpdate(1, 5)
		_ = fr.WritePing(false, [8]byte{1})
		_ = fr.WriteRSTStream(1, http2.ErrCodeRefusedStream)
		_ = fr.WriteGoAway(1, http2.ErrCodeNo, []byte("bye"))
	}))
	f.Add([]byte{0, 0, 0, frameSettings, flagAck, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, said []byte) {
		synctest.Test(t, func(t *testing.T) { feed(t, said) })
	})
}

func feed(t *testing.T, said []byte) {
	t.Helper()
	dials := 0
	c, err := NewClient(ClientOptions{MaxConns: 1, MaxBody: 100, Dial: func(context.Context) (net.Conn, error) {
		if dials++; dials > 2 {
			return nil, errors.New("no more")
		}
		ours, theirs := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, theirs) }()
		go func() {
			_, _ = theirs.Write(appendFrameHeader(nil, 0, frameSettings, 0, 0))
			_, _ = theirs.Write(said)
			_ = theirs.Close()
		}()
		return ours, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	h, err := NewHead("POST", "https", "host", "/x")
	if err != nil {
		t.Fatal(err)
	}
	ends := make([]int, 3)
	for i := range ends {
		err = c.Start(t.Context(), &Request{Head: h, Body: []byte("body"), Done: func(_ *Request, res *Response, err error) {
			ends[i]++
			if (res == nil) == (err == nil) || res != nil && (res.Status < 200 || len(res.Body) > 100) {
				t.Errorf("want an answer or an error, got %+v, %v", res, err)
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
	c.Shutdown(t.Context())
	for i, n := range ends {
		if n != 1 {
			t.Errorf("want request %d to end once, got %d times", i, n)
		}
	}
}

// FuzzResponse holds the reading of header blocks against hpack's own, over several blocks of one connection, each of which comes twice.
func FuzzResponse(f *testing.F) {
	f.Add([]byte{0x88}, []byte{0x40, 1, 'a', 1, 'b'})
	f.Add([]byte{0x08, 3, '1', '0', '3'}, []byte{0x20, 0x88, 0x10, 1, 'X', 0})
	f.Add([]byte{0x88, 0x40, 0x81, 0x1f, 0x82, 0x1c, 0x64}, []byte{0x88, 0xbe, 0x0f, 0x2f, 1, 'b'})
	f.Add([]byte{0x3f, 0xe1, 0x1f, 0x20, 0x88}, []byte{0x7f, 0x80, 0x80, 0x80, 0x80, 0x01})
	f.Fuzz(func(t *testing.T, first, second []byte) {
		for _, keep := range [][]string{nil, {"a", "retry-after"}} {
			compare(t, keep, first, first, second, second)
		}
	})
}

func compare(t *testing.T, keep []string, fragments ...[]byte) {
	t.Helper()
	d, reference := newDecoder(keep), hpack.NewDecoder(defaultTableSize, nil)
	reference.SetMaxStringLength(maxHeaderBlock)
	for _, fragment := range fragments {
		b := block{end: true}
		want, err := reference.DecodeFull(fragment)
		if err != nil && strings.Contains(err.Error(), "MUST occur at the beginning") {
			return // it takes one new size in a block, the RFC allows two
		}
		if d.begin(); d.decode(fragment, &b) != (err == nil) {
			t.Fatalf("%x: want decoded=%v: %v", fragment, err == nil, err)
		}
		if err != nil {
			return
		}
		expected := block{end: true}
		body := false
		for _, h := range want {
			expected.size += int(h.Size())
			if h.IsPseudo() {
				status := parseStatus(h.Value)
				expected.bad = expected.bad || h.Name != ":status" || status == 0 || body || expected.status != 0
				expected.status = status
				continue
			}
			body = true
			expected.bad = expected.bad || !validName(h.Name) || !clean(h.Value)
			if keep == nil || slices.Contains(keep, h.Name) {
				expected.fields = append(expected.fields, Field{h.Name, h.Value})
			}
		}
		if b.bad != expected.bad || b.size != expected.size {
			t.Fatalf("%x: want %+v, got %+v", fragment, expected, b)
		}
		if !b.bad && b.size <= maxHeaderBlock && (b.status != expected.status || !slices.Equal(b.fields, expected.fields)) {
			t.Errorf("%x: want %+v, got %+v", fragment, expected, b)
		}
	}
}

// FuzzPath holds the look at eight bytes at a time against one at each.
func FuzzPath(f *testing.F) {
	for at := range 17 {
		for _, c := range []byte{0, ' ', '!', 0x7e, 0x7f, 0x80, 0xa0, 0xff} {
			path := []byte("/3/device/0011ff~")
			path[at] = c
			f.Add(path)
		}
	}
	f.Fuzz(func(t *testing.T, path []byte) {
		want := !slices.ContainsFunc(path, func(c byte) bool { return c <= ' ' || c == 0x7f })
		if got := validPath(path); got != want {
			t.Errorf("%q: want %v, got %v", path, want, got)
		}
	})
}

// FuzzFields decodes what is encoded.
func FuzzFields(f *testing.F) {
	f.Add("x-id", "123e4567", "/3/device/00ff", 3)
	f.Add("x", string(make([]byte, 200)), "/", 9)
	f.Fuzz(func(t *testing.T, name, value, path string, heads int) {
		var own Fields
		own.Add(name, value)
		if (own.err == nil) != (validName(name) && validValue(value)) {
			t.Errorf("%q: %q: %v", name, value, own.err)
		}
		decode := hpack.NewDecoder(defaultTableSize, nil)
		e := newEncoder()
		h, err := NewHead("POST", "https", "host", "", Field{"x-constant", "constant"})
		if err != nil {
			t.Fatal(err)
		}
		for i := range min(max(heads, 1), 8) {
			e.resize(uint32(i * heads))
			head := e.head(h)
			block := append(bytes.Clone(head.pseudo), appendPath(nil, []byte(path))...)
			block = append(append(block, head.fields...), own.block...)
			got, err := decode.DecodeFull(block)
			if err != nil {
				t.Fatal(err)
			}
			want := []hpack.HeaderField{
				{Name: ":method", Value: "POST"},
				{Name: ":scheme", Value: "https"},
				{Name: ":authority", Value: "host"},
				{Name: ":path", Value: path, Sensitive: true},
				{Name: "x-constant", Value: "constant"},
			}
			if own.err == nil {
				want = append(want, hpack.HeaderField{Name: name, Value: value, Sensitive: true})
			}
			if len(got) != len(want) {
				t.Fatalf("want %d fields, got %v", len(want), got)
			}
			for j := range want {
				if got[j] != want[j] {
					t.Errorf("want %+v, got %+v", want[j], got[j])
				}
			}
		}
	})
}
