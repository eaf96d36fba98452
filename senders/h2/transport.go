package h2

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/http2"
)

// Options are what NewTransport needs; the zero value works.
type Options struct {
	// TLS is cloned. Nil: the system's roots.
	TLS *tls.Config
	// MaxConns bounds the connections to each host: 4.
	MaxConns int
	// DialTimeout is for TCP and TLS together: 10 s.
	DialTimeout time.Duration
}

// Transport is an http.RoundTripper over at most MaxConns HTTP/2 connections to each host. A new connection carries one request
// alone until that is answered: APNs allows no more before it has seen a valid one. What finds every connection full waits for a
// place. It is safe for concurrent use.
type Transport struct {
	http2 http2.Transport
	pool  pool
}

// NewTransport returns a transport without connections.
func NewTransport(o Options) *Transport {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.TLS != nil {
		config = o.TLS.Clone()
	}
	config.NextProtos = []string{"h2"}
	if o.MaxConns <= 0 {
		o.MaxConns = 4
	}
	if o.DialTimeout <= 0 {
		o.DialTimeout = 10 * time.Second
	}
	t := &Transport{}
	dialer := &tls.Dialer{NetDialer: &net.Dialer{KeepAlive: 15 * time.Second}, Config: config}
	t.pool = pool{
		max: o.MaxConns, hosts: map[string]*host{},
		dial: func(addr string) (*http2.ClientConn, error) {
			ctx, cancel := context.WithTimeout(context.Background(), o.DialTimeout) // the connection is for all, not for who asked first
			defer cancel()
			return t.connect(ctx, dialer, addr)
		},
	}
	t.http2 = http2.Transport{
		DisableCompression: true,
		// x/net's defaults find a dead peer after 30 s; a push has 15.
		ReadIdleTimeout: 10 * time.Second, PingTimeout: 4 * time.Second, WriteByteTimeout: 8 * time.Second,
		ConnPool: &t.pool,
	}
	return t
}

func (t *Transport) connect(ctx context.Context, dialer *tls.Dialer, addr string) (*http2.ClientConn, error) {
	c, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if conn, ok := c.(*tls.Conn); !ok || conn.ConnectionState().NegotiatedProtocol != "h2" {
		return nil, errors.Join(fmt.Errorf("%s speaks no HTTP/2", addr), c.Close())
	}
	cc, err := t.http2.NewClientConn(c)
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return cc, nil
}

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	var s slot
	res, err := t.http2.RoundTrip(req.WithContext(context.WithValue(req.Context(), slotKey{}, &s)))
	t.pool.release(s.c)
	return res, err
}

// Warm makes a connection to addr (host:port) if there is none, and waits for it.
func (t *Transport) Warm(ctx context.Context, addr string) error { return t.pool.warm(ctx, addr) }

// Renew gives the present connections no more requests; each closes with its last answer.
func (t *Transport) Renew() { t.pool.renew() }

// CloseIdleConnections closes the connections that carry nothing.
func (t *Transport) CloseIdleConnections() { t.pool.closeIdle() }

// Close closes every connection, whatever it carries, and waits for dials under way.
func (t *Transport) Close() { t.pool.close() }

// Conns is the number of connections.
func (t *Transport) Conns() int { return t.pool.len() }
