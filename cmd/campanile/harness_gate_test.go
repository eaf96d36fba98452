package main

import (
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
)

// gate is a TCP proxy in front of an engine. Shut, it is as an engine that has gone away.
type gate struct {
	listener net.Listener
	target   string

	mu    sync.Mutex
	shut  bool
	conns map[net.Conn]bool
	ended sync.WaitGroup
}

// newGate lets through to target, host:port, until the test ends.
func newGate(t *testing.T, target string) *gate {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{listener: l, target: target, conns: map[net.Conn]bool{}}
	g.ended.Go(g.accept)
	t.Cleanup(func() {
		_ = l.Close()
		g.close()
		g.ended.Wait()
	})
	return g
}

// gated is a URL that leads through a gate of its own.
func gated(t *testing.T, engine string) (through string, g *gate) {
	t.Helper()
	u, err := url.Parse(engine)
	if err != nil {
		t.Fatal(err)
	}
	g = newGate(t, u.Host)
	u.Host = g.listener.Addr().String()
	return u.String(), g
}

// close cuts every connection, and lets nobody through until open.
func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = true
	for c := range g.conns {
		_ = c.Close()
	}
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = false
}

func (g *gate) accept() {
	for {
		in, err := g.listener.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", g.target)
		if err != nil {
			_ = in.Close()
			continue
		}
		if !g.enter(in, out) {
			continue
		}
		g.ended.Go(func() { g.pass(in, out) })
		g.ended.Go(func() { g.pass(out, in) })
	}
}

func (g *gate) enter(in, out net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut {
		_, _ = in.Close(), out.Close()
		return false
	}
	g.conns[in], g.conns[out] = true, true
	return true
}

// pass copies one way until either side ends, and then ends both.
func (g *gate) pass(from, to net.Conn) {
	_, _ = io.Copy(to, from)
	_, _ = from.Close(), to.Close()
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.conns, from)
	delete(g.conns, to)
}
