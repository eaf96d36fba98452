package providertest

import (
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
)

// HTTP is the part of a Server that does not know the provider's words: an HTTP/2 server with TLS that counts pushes and plants
// faults. A closet's test server embeds it.
type HTTP struct {
	URL   string
	Roots *x509.CertPool

	mu     sync.Mutex
	faults map[string]Fault
	seen   map[string]int
	gone   chan struct{}
}

// StartHTTP starts a server with h as its handler; it ends with t.
func (s *HTTP) StartHTTP(t testing.TB, h http.Handler) {
	t.Helper()
	s.faults, s.seen, s.gone = map[string]Fault{}, map[string]int{}, make(chan struct{})
	server := httptest.NewUnstartedServer(h)
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(func() {
		close(s.gone)
		server.Close()
	})
	s.URL, s.Roots = server.URL, x509.NewCertPool()
	s.Roots.AddCert(server.Certificate())
}

// Fault implements Server.
func (s *HTTP) Fault(_ *testing.T, token string, f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults[token] = f
}

// Seen implements Server.
func (s *HTTP) Seen(_ *testing.T, token string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[token]
}

// Count counts a push to token, and returns its fault.
func (s *HTTP) Count(token string) (f Fault, faulty bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[token]++
	f, faulty = s.faults[token]
	return f, faulty
}

// Plant acts out the faults that are the same at every provider, and reports whether f is one of them.
func (s *HTTP) Plant(w http.ResponseWriter, req *http.Request, f Fault) bool {
	switch f {
	case Page:
		w.Header().Set("content-type", "text/html")
		w.WriteHeader(http.StatusBadGateway)
		_, _ = w.Write([]byte("<html>Bad Gateway</html>"))
	case Broken:
		panic(http.ErrAbortHandler) // RST_STREAM
	case Silent:
		select {
		case <-req.Context().Done():
		case <-s.gone:
		}
	case Throttled, Busy:
		w.Header().Set("retry-after", "7")
		return false
	case Dead, Malformed, Refused:
		return false
	}
	return true
}
