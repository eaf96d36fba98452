package h2_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/campanile-push/campanile/senders/h2"
)

// server is an HTTP/2 server that grants so many streams to a connection, and counts connections and streams at once.
type server struct {
	url           string
	roots         *x509.CertPool
	conns         atomic.Int32
	mu            sync.Mutex
	open, most    int
	release, seen chan struct{} // with hold: a request waits for release
	hold          bool
}

func start(t *testing.T, streams uint32) *server {
	t.Helper()
	s := &server{release: make(chan struct{}), seen: make(chan struct{}, 1000)}
	ts := httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	if err := http2.ConfigureServer(ts.Config, &http2.Server{MaxConcurrentStreams: streams}); err != nil {
		t.Fatal(err)
	}
	ts.TLS = ts.Config.TLSConfig
	ts.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.conns.Add(1)
		}
	}
	ts.StartTLS()
	t.Cleanup(ts.Close)
	s.url, s.roots = ts.URL, x509.NewCertPool()
	s.roots.AddCert(ts.Certificate())
	return s
}

func (s *server) serve(w http.ResponseWriter, req *http.Request) {
	s.mu.Lock()
	s.open++
	s.most = max(s.most, s.open)
	hold := s.hold
	s.mu.Unlock()
	s.seen <- struct{}{}
	if hold {
		select {
		case <-s.release:
		case <-req.Context().Done():
		}
	}
	s.mu.Lock()
	s.open--
	s.mu.Unlock()
	_, _ = io.WriteString(w, "ok")
}

func (s *server) transport(t *testing.T, conns int) *h2.Transport {
	t.Helper()
	tr := h2.NewTransport(h2.Options{TLS: &tls.Config{RootCAs: s.roots, MinVersion: tls.VersionTLS12}, MaxConns: conns})
	t.Cleanup(tr.Close)
	return tr
}

func get(ctx context.Context, tr *h2.Transport, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	res, err := tr.RoundTrip(req)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, res.Body)
	_ = res.Body.Close()
	return err
}

// TestALowStreamLimitNeitherStallsNorDialsWithoutEnd is the case in which x/net's client does one or the other.
func TestALowStreamLimitNeitherStallsNorDialsWithoutEnd(t *testing.T) {
	t.Parallel()
	s := start(t, 2)
	tr := s.transport(t, 3)
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			if err := get(t.Context(), tr, s.url); err != nil {
				t.Error(err)
			}
		})
	}
	go func() {
		for range s.seen {
		}
	}()
	wg.Wait()
	if n := s.conns.Load(); n > 3 {
		t.Errorf("want at most 3 connections, got %d", n)
	}
	if s.most > 6 {
		t.Errorf("want at most 2 streams on each of 3 connections, got %d at once", s.most)
	}
	close(s.seen)
}

func TestAFreshConnectionCarriesOneRequestUntilItIsAnswered(t *testing.T) {
	t.Parallel()
	s := start(t, 100)
	s.hold = true
	tr := s.transport(t, 2)
	errs := make(chan error, 10)
	for range 10 {
		go func() { errs <- get(t.Context(), tr, s.url) }()
	}
	<-s.seen
	s.mu.Lock()
	open := s.open
	s.mu.Unlock()
	if n := s.conns.Load(); open != 1 || n != 1 {
		t.Errorf("want one request on one connection, got %d on %d", open, n)
	}
	close(s.release)
	for range 10 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

func TestAWaitForAPlaceEndsWithItsContext(t *testing.T) {
	t.Parallel()
	s := start(t, 1)
	s.hold = true
	tr := s.transport(t, 1)
	first := make(chan error, 1)
	go func() { first <- get(t.Context(), tr, s.url) }()
	<-s.seen
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := get(ctx, tr, s.url); err == nil || ctx.Err() == nil {
		t.Errorf("want an error at the end of the context, got %v", err)
	}
	close(s.release)
	if err := <-first; err != nil {
		t.Error(err)
	}
}

func TestRenewLeavesTheOldConnectionToItsRequests(t *testing.T) {
	t.Parallel()
	s := start(t, 100)
	tr := s.transport(t, 2)
	if err := get(t.Context(), tr, s.url); err != nil {
		t.Fatal(err)
	}
	<-s.seen
	s.mu.Lock()
	s.hold = true
	s.mu.Unlock()
	held := make(chan error, 1)
	go func() { held <- get(t.Context(), tr, s.url) }()
	<-s.seen
	tr.Renew()
	s.mu.Lock()
	s.hold = false
	s.mu.Unlock()
	if err := get(t.Context(), tr, s.url); err != nil {
		t.Error(err)
	}
	close(s.release)
	if err := <-held; err != nil {
		t.Errorf("want the request on the old connection answered, got %v", err)
	}
	if n := s.conns.Load(); n != 2 {
		t.Errorf("want a second connection, got %d", n)
	}
}

func TestAHostThatCannotBeReachedIsAnError(t *testing.T) {
	t.Parallel()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	tr := h2.NewTransport(h2.Options{})
	defer tr.Close()
	if err := tr.Warm(t.Context(), addr); err == nil {
		t.Error("want Warm to fail")
	}
	if err := get(t.Context(), tr, "https://"+addr); err == nil {
		t.Error("want a request to fail")
	}
	tr.Close()
	if err := get(t.Context(), tr, "https://"+addr); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("want a closed transport to say so, got %v", err)
	}
}
