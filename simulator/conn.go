package simulator

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// conn is an accepted connection that can be broken on purpose.
type conn struct {
	net.Conn
	stats  *stats
	frozen atomic.Bool
	once   sync.Once

	mu   sync.Mutex
	auth apnsAuth
}

// Read gives what the peer sent. Of a frozen connection it gives nothing, and ends with the peer's end.
func (c *conn) Read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		if err != nil || !c.frozen.Load() {
			return n, err
		}
	}
}

// Write sends, or swallows what a frozen connection would have sent.
func (c *conn) Write(b []byte) (int, error) {
	if c.frozen.Load() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

// Close closes it. More than once is fine.
func (c *conn) Close() error {
	c.once.Do(func() { c.stats.open.Add(-1) })
	return c.Conn.Close()
}

func (c *conn) freeze() { c.frozen.Store(true) }

// reset closes with a TCP RST: what the peer waits for it will never know.
func (c *conn) reset() {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

// gate is a listener that counts, and refuses when told to.
type gate struct {
	net.Listener
	stats   *stats
	refused atomic.Int64 // until then connections are reset, Unix nanoseconds
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
		c := &conn{Conn: accepted, stats: g.stats}
		if time.Now().UnixNano() >= g.refused.Load() {
			return c, nil
		}
		g.stats.refused.Add(1)
		c.reset()
	}
}

func (g *gate) refuse(d time.Duration) { g.refused.Store(time.Now().Add(d).UnixNano()) }

type connKey struct{}

// withConn puts the connection where a handler finds it.
func withConn(ctx context.Context, c net.Conn) context.Context {
	if secure, ok := c.(*tls.Conn); ok {
		c = secure.NetConn()
	}
	if ours, ok := c.(*conn); ok {
		return context.WithValue(ctx, connKey{}, ours)
	}
	return ctx
}

func connOf(ctx context.Context) *conn {
	c, _ := ctx.Value(connKey{}).(*conn)
	return c
}
