package simulator

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// conn is an accepted connection that can be broken on purpose, below TLS.
type conn struct {
	net.Conn
	stats   *stats
	number  uint64 // of the connection, from 1
	frozen  atomic.Bool
	slow    atomic.Int64  // nothing is read until then, Unix nanoseconds
	pieces  atomic.Int64  // nanoseconds between the pieces of the next write; 0: it goes out whole
	done    chan struct{} // closed by Close
	once    sync.Once
	release *atomic.Int64 // the gate's count of those that it let in; nil: it did not

	mu        sync.Mutex
	auth      apnsAuth
	access    accessCache
	badTokens int
}

// Read gives what the peer sent. Of a frozen connection it gives nothing, and ends with the peer's end.
func (c *conn) Read(b []byte) (int, error) {
	for {
		if until := c.slow.Swap(0); until != 0 {
			c.wait(time.Until(time.Unix(0, until)))
		}
		n, err := c.Conn.Read(b)
		if err != nil || !c.frozen.Load() {
			return n, err
		}
	}
}

// mostPieces bounds how long a dripped write takes, with its pauses.
const mostPieces = 100

// Write sends, or swallows what a frozen connection would have sent.
func (c *conn) Write(b []byte) (int, error) {
	if c.frozen.Load() {
		return len(b), nil
	}
	pause := time.Duration(c.pieces.Swap(0))
	if pause == 0 {
		return c.Conn.Write(b)
	}
	size := (len(b) + mostPieces - 1) / mostPieces
	for at := 0; at < len(b); at += size {
		if at > 0 {
			c.wait(pause)
		}
		_ = c.SetWriteDeadline(time.Now().Add(writePatience)) // of the pieces each
		if n, err := c.Conn.Write(b[at:min(at+size, len(b))]); err != nil {
			return at + n, err
		}
	}
	return len(b), nil
}

// wait ends with the connection.
func (c *conn) wait(d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.done:
	}
}

// Close closes it. More than once is fine.
func (c *conn) Close() error {
	c.once.Do(func() {
		c.stats.open.Add(-1)
		if c.release != nil {
			c.release.Add(-1)
		}
		close(c.done)
	})
	return c.Conn.Close()
}

func (c *conn) freeze() { c.frozen.Store(true) }

// Pauses of faults whose rule names none.
const (
	dripPause     = 10 * time.Millisecond
	slowReadPause = time.Second
	starvePause   = time.Second
)

// drip sends the next write in up to a hundred pieces.
func (c *conn) drip(pause time.Duration) {
	if pause == 0 {
		pause = dripPause
	}
	c.pieces.Store(int64(pause))
}

// slowRead leaves what the peer sends unread for a while, so that TCP's window fills.
func (c *conn) slowRead(pause time.Duration) {
	if pause == 0 {
		pause = slowReadPause
	}
	c.slow.Store(time.Now().Add(pause).UnixNano())
}

// reset closes with a TCP RST: what the peer waits for it will never know.
func (c *conn) reset() {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

// badToken counts an answer where it refuses a token as none of the provider's, and reports whether that was once too often.
// limit 0 is none.
func (c *conn) badToken(reason string, limit int) bool {
	if limit == 0 || reason != "BadDeviceToken" && reason != fcmInvalidToken {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.badTokens++
	return c.badTokens >= limit
}

// gate is a listener that counts, and refuses when told to.
type gate struct {
	net.Listener
	stats   *stats
	most    func() int   // connections open at once; 0: any number
	refused atomic.Int64 // until then connections are reset, Unix nanoseconds
	broken  atomic.Int64 // until then TLS fails, Unix nanoseconds
	open    atomic.Int64
	count   atomic.Uint64
}

// Accept waits for a connection that is not refused.
func (g *gate) Accept() (net.Conn, error) {
	for {
		accepted, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		g.stats.opened.Add(1)
		g.stats.open.Add(1)
		c := &conn{Conn: accepted, stats: g.stats, number: g.count.Add(1), done: make(chan struct{})}
		most := g.most()
		if time.Now().UnixNano() >= g.refused.Load() && (most == 0 || g.open.Load() < int64(most)) {
			g.open.Add(1)
			c.release = &g.open
			return c, nil
		}
		g.stats.refused.Add(1)
		c.reset()
	}
}

func (g *gate) refuse(d time.Duration)   { g.refused.Store(time.Now().Add(d).UnixNano()) }
func (g *gate) breakTLS(d time.Duration) { g.broken.Store(time.Now().Add(d).UnixNano()) }

var errBrokenTLS = errors.New("TLS is to fail now")

// handshake is a tls.Config.GetConfigForClient that fails when told to: the peer gets an alert.
func (g *gate) handshake(*tls.ClientHelloInfo) (*tls.Config, error) {
	if time.Now().UnixNano() < g.broken.Load() {
		return nil, errBrokenTLS
	}
	return nil, nil //nolint:nilnil // crypto/tls's word for "go on as you are"
}

type connKey struct{}

// withConn puts the connection where a handler finds it.
func withConn(ctx context.Context, c net.Conn) context.Context {
	if ours := underTLS(c); ours != nil {
		return context.WithValue(ctx, connKey{}, ours)
	}
	return ctx
}

// underTLS is our own connection below one of TLS; nil for a stranger's.
func underTLS(c net.Conn) *conn {
	if secure, ok := c.(*tls.Conn); ok {
		c = secure.NetConn()
	}
	ours, _ := c.(*conn)
	return ours
}

func connOf(ctx context.Context) *conn {
	c, _ := ctx.Value(connKey{}).(*conn)
	return c
}
