package simulator

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// framesServer serves one listener on the level of HTTP/2's frames. What does not speak HTTP/2 goes to net/http.
type framesServer struct {
	gate   *gate
	secure *tls.Config
	door   h2Door
	core   *core
	wheel  *wheel
	logger *slog.Logger
	http1  *http.Server
	others *handedOver // listens for http1

	running sync.WaitGroup
	mu      sync.Mutex
	conns   map[*h2Conn]struct{} // nil: closed
	pending map[net.Conn]struct{}
}

// h2Door is what the server does not know of a provider's requests. Its methods are called with the connection locked.
type h2Door interface {
	provider() Provider
	service() service
	maxBody() int // bytes that are read of a body; one more makes it too large
	// decide turns a complete request into a decided push, a refusal or a ready answer. It records nothing.
	decide(s *h2Stream, body []byte, tooLarge bool)
	// fill makes the answer of a stream that decide has seen.
	fill(r *reply, s *h2Stream)
	// fail makes a refusal of a push that could not be recorded.
	fail(s *h2Stream)
}

// Patience of the server.
const (
	handshakePatience = 10 * time.Second // for TLS and the preface
	writePatience     = 30 * time.Second // for a client that does not read
	hangUpPatience    = time.Second      // for the client to read the last answers
)

// serve accepts until the listener is closed.
func (f *framesServer) serve() error {
	for {
		c, err := f.gate.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return http.ErrServerClosed
			}
			return err
		}
		f.mu.Lock()
		if f.conns == nil {
			f.mu.Unlock()
			_ = c.Close()
			continue
		}
		f.pending[c] = struct{}{}
		f.running.Go(func() { f.greet(c) })
		f.mu.Unlock()
	}
}

// greet shakes hands and serves the connection to its end.
func (f *framesServer) greet(c net.Conn) {
	secure := tls.Server(c, f.secure)
	defer func() {
		f.mu.Lock()
		delete(f.pending, c)
		f.mu.Unlock()
	}()
	_ = c.SetDeadline(time.Now().Add(handshakePatience))
	ctx, cancel := context.WithTimeout(context.Background(), handshakePatience)
	err := secure.HandshakeContext(ctx)
	cancel()
	if err != nil {
		f.logger.Debug("handshake failed", "error", err)
		_ = c.Close()
		return
	}
	state := secure.ConnectionState()
	if state.NegotiatedProtocol != "h2" {
		_ = c.SetDeadline(time.Time{})
		f.others.give(secure)
		return
	}
	h := newH2Conn(f, secure, c)
	if len(state.PeerCertificates) > 0 {
		h.certificate = state.PeerCertificates[0]
	}
	f.mu.Lock()
	delete(f.pending, c)
	closed := f.conns == nil
	if !closed {
		f.conns[h] = struct{}{}
	}
	f.mu.Unlock()
	if !closed {
		h.serve()
	}
	_ = c.Close()
	f.mu.Lock()
	delete(f.conns, h)
	f.mu.Unlock()
}

// shutdown tells clients to go, and breaks what has not gone when ctx ends.
func (f *framesServer) shutdown(ctx context.Context) {
	_ = f.gate.Close()
	f.mu.Lock()
	conns := f.conns
	f.conns = nil
	for c := range f.pending {
		_ = c.Close()
	}
	open := make([]*h2Conn, 0, len(conns))
	for h := range conns {
		open = append(open, h)
	}
	f.mu.Unlock()
	for _, h := range open {
		h.leave(codeNo, "")
	}
	gone := make(chan struct{})
	go func() {
		f.running.Wait()
		close(gone)
	}()
	if f.http1.Shutdown(ctx) != nil {
		_ = f.http1.Close()
	}
	select {
	case <-gone:
		return
	case <-ctx.Done():
	}
	for _, h := range open {
		_ = h.under.Close()
	}
	<-gone
}

// handedOver is a listener of connections that another one accepted.
type handedOver struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newHandedOver(addr net.Addr) *handedOver {
	return &handedOver{addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}
}

func (l *handedOver) give(c net.Conn) {
	select {
	case l.conns <- c:
	case <-l.done:
		_ = c.Close()
	}
}

// Accept waits for the next.
func (l *handedOver) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close ends Accept. More than once is fine.
func (l *handedOver) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

// Addr is that of the other listener.
func (l *handedOver) Addr() net.Addr { return l.addr }
