package ingest_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http/httptest"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// TestOverHTTP2NoStreamIsResetBehindItsAnswer sends the body after the headers, as curl does, to where nobody reads it. A reset of
// the stream makes Debian's curl report a broken stream in place of the answer.
func TestOverHTTP2NoStreamIsResetBehindItsAnswer(t *testing.T) {
	t.Parallel()
	h := setup(t, 1, nil)
	web := httptest.NewUnstartedServer(h.doors[0].server.Handler())
	web.EnableHTTP2 = true
	web.StartTLS()
	defer web.Close()
	authority := x509.NewCertPool()
	authority.AddCert(web.Certificate())
	config := &tls.Config{RootCAs: authority, ServerName: "example.com", NextProtos: []string{"h2"}}
	for path, status := range map[string]string{"/nothing": "404", "/tokens/": "404", "/users": "410", "/": "405", "/api/v2/push/": "400"} {
		conn, err := (&tls.Dialer{Config: config}).DialContext(t.Context(), "tcp", strings.TrimPrefix(web.URL, "https://"))
		if err != nil {
			t.Fatal(err)
		}
		var block bytes.Buffer
		encoder := hpack.NewEncoder(&block)
		for _, f := range [][2]string{
			{":method", "POST"},
			{":path", path},
			{":scheme", "https"},
			{":authority", "x"},
			{"content-length", "7"},
			{"x-an-app-name", appName},
			{"x-an-app-key", "wrong"},
		} {
			if err := encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
			t.Fatal(err)
		}
		framer := http2.NewFramer(conn, conn)
		framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		write := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		write(framer.WriteSettings())
		write(framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true}))
		answered, said := false, ""
		until := func(done func(f http2.Frame) bool) {
			t.Helper()
			for {
				f, err := framer.ReadFrame()
				if err != nil {
					t.Fatalf("%s: %v", path, err)
				}
				switch f := f.(type) {
				case *http2.MetaHeadersFrame:
					said = f.PseudoValue("status")
				case *http2.RSTStreamFrame:
					t.Fatalf("%s: the stream is reset with %v after the answer %q", path, f.ErrCode, said)
				}
				answered = answered || f.Header().StreamID == 1 && f.Header().Flags.Has(http2.FlagDataEndStream)
				if done(f) {
					return
				}
			}
		}
		pong := func(f http2.Frame) bool { p, ok := f.(*http2.PingFrame); return ok && p.IsAck() }
		for i := range 50 { // time for a handler that does not wait for the body
			write(framer.WritePing(false, [8]byte{byte(i)}))
			until(pong)
		}
		write(framer.WriteData(1, true, []byte("a=b&c=d")))
		until(func(http2.Frame) bool { return answered })
		write(framer.WritePing(false, [8]byte{0xff}))
		until(pong)
		if said != status {
			t.Errorf("%s: want %s, got %s", path, status, said)
		}
		_ = conn.Close()
	}
}
