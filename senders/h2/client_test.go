package h2_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/campanile-push/campanile/senders/h2"
)

// site is an HTTP/2 server with TLS, of net/http's own or of x/net's implementation.
type site struct {
	addr  string
	roots *x509.CertPool
	conns atomic.Int32
}

// implementations are the servers that the client must get on with.
var implementations = map[string]func(s *http.Server, streams int) error{
	"net/http": func(s *http.Server, streams int) error {
		s.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: streams}
		s.Protocols = new(http.Protocols)
		s.Protocols.SetHTTP2(true)
		return nil
	},
	"x/net": func(s *http.Server, streams int) error {
		return http2.ConfigureServer(s, &http2.Server{MaxConcurrentStreams: uint32(streams), MaxUploadBufferPerStream: 1 << 14, MaxUploadBufferPerConnection: 1 << 16})
	},
}

func serve(t testing.TB, implementation string, streams int, h http.HandlerFunc) *site {
	t.Helper()
	s := &site{roots: x509.NewCertPool()}
	ts := httptest.NewUnstartedServer(h)
	if err := implementations[implementation](ts.Config, streams); err != nil {
		t.Fatal(err)
	}
	ts.EnableHTTP2 = true
	ts.TLS = ts.Config.TLSConfig
	ts.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.conns.Add(1)
		}
	}
	ts.StartTLS()
	t.Cleanup(ts.Close)
	s.addr = ts.Listener.Addr().String()
	s.roots.AddCert(ts.Certificate())
	return s
}

func (s *site) client(t testing.TB, change ...func(o *h2.ClientOptions)) *h2.Client {
	t.Helper()
	o := h2.ClientOptions{Addr: s.addr, TLS: &tls.Config{RootCAs: s.roots, MinVersion: tls.VersionTLS12}, Timeout: time.Minute}
	for _, f := range change {
		f(&o)
	}
	return open(t, o)
}

func open(t testing.TB, o h2.ClientOptions) *h2.Client {
	t.Helper()
	c, err := h2.NewClient(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func head(t testing.TB, authority, path string, fields ...h2.Field) *h2.Head {
	t.Helper()
	h, err := h2.NewHead("POST", "https", authority, path, fields...)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// each runs a test against every server.
func each(t *testing.T, run func(t *testing.T, implementation string)) {
	t.Helper()
	for name := range implementations {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(t, name)
		})
	}
}

func echo(w http.ResponseWriter, req *http.Request) {
	body, _ := io.ReadAll(req.Body)
	w.Header().Set("x-path", req.URL.Path)
	w.Header().Set("x-id", req.Header.Get("x-id"))
	w.Header().Set("x-constant", req.Header.Get("x-constant"))
	w.WriteHeader(200 + len(body)%3)
	_, _ = w.Write(body)
}

// TestEveryRequestGetsItsOwnAnswer runs many at once, with bodies on both sides of every window and frame size.
func TestEveryRequestGetsItsOwnAnswer(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, implementation string) {
		s := serve(t, implementation, 100, echo)
		c := s.client(t, func(o *h2.ClientOptions) { o.MaxConns, o.MaxBody = 3, 128<<10 })
		heads := []*h2.Head{
			head(t, s.addr, "", h2.Field{Name: "x-constant", Value: "a"}), head(t, s.addr, "", h2.Field{Name: "x-constant", Value: strings.Repeat("b", 3000)}),
			head(t, s.addr, "", h2.Field{Name: "x-constant", Value: strings.Repeat("c", 5000)}), // above the peer's table
		}
		sizes := []int{0, 1, 200, 4096, 16_384, 16_385, 65_535, 100_000}
		var wg sync.WaitGroup
		for i := range 400 {
			wg.Go(func() {
				n := sizes[i%len(sizes)]
				body := bytes.Repeat([]byte{byte('a' + i%26)}, n)
				r := &h2.Request{Head: heads[i%3], Path: fmt.Appendf(nil, "/p/%d", i), Body: body}
				r.Fields.Add("x-id", strconv.Itoa(i))
				res, err := c.Do(t.Context(), r)
				if err != nil {
					t.Errorf("request %d: %v", i, err)
					return
				}
				if res.Status != 200+n%3 || !bytes.Equal(res.Body, body) || res.Get("x-id") != strconv.Itoa(i) ||
					res.Get("x-path") != fmt.Sprintf("/p/%d", i) || res.Get("x-constant")[0] != "abc"[i%3] {
					t.Errorf("request %d: status %d, %d bytes, path %q", i, res.Status, len(res.Body), res.Get("x-path"))
				}
			})
		}
		wg.Wait()
		if n := s.conns.Load(); n > 3 {
			t.Errorf("want at most 3 connections, got %d", n)
		}
	})
}

func TestALowLimitOfStreamsIsKept(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, implementation string) {
		var open, most atomic.Int32
		s := serve(t, implementation, 2, func(w http.ResponseWriter, req *http.Request) {
			n := open.Add(1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			echo(w, req)
			open.Add(-1)
		})
		c := s.client(t, func(o *h2.ClientOptions) { o.MaxConns = 2 })
		var wg sync.WaitGroup
		h := head(t, s.addr, "/x")
		for range 300 {
			wg.Go(func() {
				if _, err := c.Do(t.Context(), &h2.Request{Head: h, Body: []byte("abc")}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n, m := s.conns.Load(), most.Load(); n > 2 || m > 4 {
			t.Errorf("want at most 2 connections with 2 streams each, got %d with %d at once", n, m)
		}
	})
}

func TestCallbacksMayStartTheNextRequest(t *testing.T) {
	t.Parallel()
	s := serve(t, "net/http", 100, echo)
	c := s.client(t)
	h := head(t, s.addr, "/x")
	const chains, each = 20, 100
	ended := make(chan error, chains)
	for range chains {
		left := each
		r := &h2.Request{Head: h, Body: []byte("abcd")}
		r.Done = func(r *h2.Request, res *h2.Response, err error) {
			left--
			if err == nil && left > 0 && string(res.Body) == "abcd" {
				err = c.Start(t.Context(), r)
				if err == nil {
					return
				}
			}
			ended <- err
		}
		if err := c.Start(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	for range chains {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// TestRequestsThatStartTogether: more of them than there are places, and one in their midst that cannot be started.
func TestRequestsThatStartTogether(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, implementation string) {
		s := serve(t, implementation, 10, echo)
		var settled, ended atomic.Int32
		c := s.client(t, func(o *h2.ClientOptions) {
			o.MaxConns = 2
			o.Settled = func() {
				for now, old := ended.Load(), settled.Load(); now > old && !settled.CompareAndSwap(old, now); old = settled.Load() {
				}
			}
		})
		const n, bad = 90, 40
		answers := make(chan int, n)
		requests := make([]*h2.Request, n)
		constant := head(t, s.addr, "")
		for i := range requests {
			requests[i] = &h2.Request{Head: constant, Path: fmt.Appendf(nil, "/p/%d", i), Body: []byte("body"), Done: func(_ *h2.Request, res *h2.Response, err error) {
				if err != nil || res.Get("x-path") != fmt.Sprintf("/p/%d", i) {
					t.Errorf("request %d: %v", i, err)
				}
				ended.Add(1)
				answers <- i
			}}
		}
		requests[bad].Path = []byte("/a b")
		started, err := c.StartAll(t.Context(), requests)
		if started != bad || !errors.Is(err, h2.ErrNotSent) {
			t.Fatalf("want %d started and %v, got %d, %v", bad, h2.ErrNotSent, started, err)
		}
		if started, err = c.StartAll(t.Context(), requests[bad+1:]); started != n-bad-1 || err != nil {
			t.Fatalf("want the rest started, got %d, %v", started, err)
		}
		seen := map[int]bool{}
		for range n - 1 {
			seen[<-answers] = true
		}
		if len(seen) != n-1 || seen[bad] {
			t.Errorf("want each of the others answered once, got %d", len(seen))
		}
		c.Shutdown(t.Context())
		if got := settled.Load(); got != n-1 {
			t.Errorf("want Settled after the last answer, got it last after %d", got)
		}
		if started, err = c.StartAll(t.Context(), requests[:2]); started != 0 || !errors.Is(err, h2.ErrClosed) {
			t.Errorf("want %v, got %d, %v", h2.ErrClosed, started, err)
		}
	})
}

func TestABodyLongerThanKeptIsCut(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, implementation string) {
		s := serve(t, implementation, 10, func(w http.ResponseWriter, req *http.Request) {
			w.WriteHeader(http.StatusTeapot)
			for range 100 {
				if _, err := w.Write(make([]byte, 10_000)); err != nil {
					return
				}
			}
		})
		c := s.client(t, func(o *h2.ClientOptions) { o.MaxBody = 1000 })
		for range 50 { // the connection's window is given back, and the streams' places too
			res, err := c.Do(t.Context(), &h2.Request{Head: head(t, s.addr, "/x")})
			if err != nil || res.Status != 418 || len(res.Body) != 1000 || !res.Cut {
				t.Fatalf("want 1000 bytes, cut, got %+v, %v", res, err)
			}
		}
	})
}

func TestADeadlineAndACancelEndARequestAlone(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, implementation string) {
		gone := make(chan struct{}, 2)
		arrived := make(chan struct{}, 2)
		s := serve(t, implementation, 100, func(w http.ResponseWriter, req *http.Request) {
			if req.URL.Path != "/hang" {
				echo(w, req)
				return
			}
			arrived <- struct{}{}
			<-req.Context().Done()
			gone <- struct{}{}
		})
		c := s.client(t)
		if _, err := c.Do(t.Context(), &h2.Request{Head: head(t, s.addr, "/x")}); err != nil {
			t.Fatal(err)
		}
		hang := head(t, s.addr, "/hang")
		_, err := c.Do(t.Context(), &h2.Request{Head: hang, Deadline: time.Now().Add(50 * time.Millisecond)})
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, h2.ErrNotSent) {
			t.Errorf("want a timeout, got %v", err)
		}
		<-arrived
		<-gone // RST_STREAM has told the server
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			<-arrived
			cancel()
		}()
		if _, err = c.Do(ctx, &h2.Request{Head: hang}); !errors.Is(err, context.Canceled) {
			t.Errorf("want a cancelled context, got %v", err)
		}
		<-gone
		if _, err := c.Do(t.Context(), &h2.Request{Head: head(t, s.addr, "/x")}); err != nil {
			t.Error(err)
		}
		if n := s.conns.Load(); n != 1 {
			t.Errorf("want one connection, got %d", n)
		}
	})
}

func TestABrokenStreamIsAnErrorOfItsOwn(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, implementation string) {
		s := serve(t, implementation, 100, func(w http.ResponseWriter, req *http.Request) {
			if req.URL.Path == "/break" {
				panic(http.ErrAbortHandler)
			}
			echo(w, req)
		})
		c := s.client(t)
		for range 3 {
			var broken h2.StreamError
			if _, err := c.Do(t.Context(), &h2.Request{Head: head(t, s.addr, "/break")}); !errors.As(err, &broken) {
				t.Errorf("want a stream error, got %v", err)
			}
			if _, err := c.Do(t.Context(), &h2.Request{Head: head(t, s.addr, "/x")}); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestInterimAnswersAndTrailersAreSkipped(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, implementation string) {
		s := serve(t, implementation, 100, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("trailer", "x-late")
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusAccepted)
			_, _ = io.WriteString(w, "body")
			w.Header().Set("x-late", "yes")
		})
		res, err := s.client(t).Do(t.Context(), &h2.Request{Head: head(t, s.addr, "/x")})
		if err != nil || res.Status != 202 || string(res.Body) != "body" || res.Get("x-late") != "" {
			t.Errorf("want 202 and its body, got %+v, %v", res, err)
		}
	})
}

func TestRenewAndShutdownLetRequestsEnd(t *testing.T) {
	t.Parallel()
	release, arrived := make(chan struct{}), make(chan struct{}, 3)
	s := serve(t, "net/http", 100, func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/hang" {
			arrived <- struct{}{}
			<-release
		}
		echo(w, req)
	})
	c := s.client(t)
	if _, err := c.Do(t.Context(), &h2.Request{Head: head(t, s.addr, "/x")}); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	hang := func() {
		_, err := c.Do(t.Context(), &h2.Request{Head: head(t, s.addr, "/hang")})
		ended <- err
	}
	go hang()
	<-arrived
	c.Renew()
	if _, err := c.Do(t.Context(), &h2.Request{Head: head(t, s.addr, "/x")}); err != nil {
		t.Error(err)
	}
	if n := s.conns.Load(); n != 2 {
		t.Errorf("want a second connection, got %d", n)
	}
	down := make(chan struct{})
	go func() {
		c.Shutdown(context.Background())
		close(down)
	}()
	go func() {
		defer close(release)
		for { // until the client takes no more
			if _, err := c.Do(t.Context(), &h2.Request{Head: head(t, s.addr, "/x")}); err != nil {
				return
			}
		}
	}()
	<-down
	if err := <-ended; err != nil {
		t.Errorf("want the request answered, got %v", err)
	}
	if _, err := c.Do(t.Context(), &h2.Request{Head: head(t, s.addr, "/x")}); !errors.Is(err, h2.ErrClosed) || !errors.Is(err, h2.ErrNotSent) {
		t.Errorf("want a closed client to say so, got %v", err)
	}
	c.Close()
}

func TestCloseEndsWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{}, 1)
	s := serve(t, "x/net", 1, func(_ http.ResponseWriter, req *http.Request) {
		arrived <- struct{}{}
		<-req.Context().Done()
	})
	c := s.client(t, func(o *h2.ClientOptions) { o.MaxConns = 1 })
	ended := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := c.Do(t.Context(), &h2.Request{Head: head(t, s.addr, "/x")})
			ended <- err
		}()
	}
	<-arrived
	c.Close()
	for range 2 {
		if err := <-ended; !errors.Is(err, h2.ErrClosed) {
			t.Errorf("want ErrClosed, got %v", err)
		}
	}
}

func TestWhatCannotBeARequestIsRefused(t *testing.T) {
	t.Parallel()
	s := serve(t, "net/http", 10, echo)
	c := s.client(t)
	h := head(t, s.addr, "/x")
	bare := head(t, s.addr, "")
	for name, r := range map[string]*h2.Request{
		"no head": {}, "two paths": {Head: h, Path: []byte("/y")}, "no path": {Head: bare}, "a space": {Head: bare, Path: []byte("/a b")},
	} {
		if _, err := c.Do(t.Context(), r); !errors.Is(err, h2.ErrNotSent) {
			t.Errorf("%s: want ErrNotSent, got %v", name, err)
		}
	}
	for _, f := range []h2.Field{{Name: "X-Upper", Value: "a"}, {Name: "x", Value: "a\r\nb: c"}, {Name: "connection", Value: "close"}, {Name: "", Value: "a"}, {Name: ":path", Value: "/"}, {Name: "x", Value: " a"}} {
		r := &h2.Request{Head: h}
		r.Fields.Add(f.Name, f.Value)
		if _, err := c.Do(t.Context(), r); !errors.Is(err, h2.ErrNotSent) {
			t.Errorf("field %q: %q: want ErrNotSent, got %v", f.Name, f.Value, err)
		}
		if _, err := h2.NewHead("POST", "https", s.addr, "/x", f); err == nil {
			t.Errorf("field %q: %q: want no head", f.Name, f.Value)
		}
	}
	if _, err := h2.NewClient(h2.ClientOptions{Addr: "nowhere"}); err == nil {
		t.Error("want an address without a port refused")
	}
}

func TestASessionIsResumed(t *testing.T) {
	t.Parallel()
	var resumed atomic.Int32
	s := serve(t, "net/http", 10, func(w http.ResponseWriter, req *http.Request) {
		if req.TLS.DidResume {
			resumed.Add(1)
		}
		echo(w, req)
	})
	c := s.client(t)
	for range 2 {
		if _, err := c.Do(t.Context(), &h2.Request{Head: head(t, s.addr, "/x")}); err != nil {
			t.Fatal(err)
		}
		c.Renew()
	}
	if s.conns.Load() != 2 || resumed.Load() != 1 {
		t.Errorf("want the second of 2 connections resumed, got %d of %d", resumed.Load(), s.conns.Load())
	}
}

func TestAServerThatCannotBeReachedIsAnErrorAndNoStorm(t *testing.T) {
	t.Parallel()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	c := open(t, h2.ClientOptions{Addr: addr})
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if _, err := c.Do(t.Context(), &h2.Request{Head: head(t, addr, "/x")}); !errors.Is(err, h2.ErrNotSent) {
				t.Errorf("want ErrNotSent, got %v", err)
			}
		})
	}
	wg.Wait()
	if s := c.Stats(); s.Dials > 6 || s.Failed != s.Dials {
		t.Errorf("want a few dials for all, got %+v", s)
	}
}

// TestATailFollowsTheBody splits a body that needs several frames and windows everywhere that matters.
func TestATailFollowsTheBody(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, implementation string) {
		s := serve(t, implementation, 100, echo)
		c := s.client(t, func(o *h2.ClientOptions) { o.MaxBody = 128 << 10 })
		whole := bytes.Repeat([]byte("0123456789abcdef"), 5000)
		name := h2.NewName("x-id")
		for _, at := range []int{0, 1, 16_383, 16_384, 16_385, 65_535, 79_999, 80_000} {
			r := &h2.Request{Head: head(t, s.addr, ""), Path: []byte("/x"), Body: whole[:at], Tail: whole[at:]}
			r.Fields.PutInt(name, int64(at))
			res, err := c.Do(t.Context(), r)
			if err != nil || !bytes.Equal(res.Body, whole) || res.Get("x-id") != strconv.Itoa(at) || res.At.IsZero() {
				t.Errorf("cut at %d: want the body back, got %v", at, err)
			}
		}
		bad := h2.NewName("X Y")
		r := &h2.Request{Head: head(t, s.addr, "/")}
		r.Fields.Put(bad, nil)
		if _, err := c.Do(t.Context(), r); !errors.Is(err, h2.ErrNotSent) {
			t.Errorf("want ErrNotSent for a bad name, got %v", err)
		}
	})
}
