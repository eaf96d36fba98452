package h2

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/http2"
)

var errClosed = errors.New("h2: transport is closed")

// slotKey names, in a request's context, the slot where the pool notes the connection that it gave.
type slotKey struct{}

type slot struct{ c *conn }

// conn is one connection. It is fresh until its first answer.
type conn struct {
	cc    *http2.ClientConn
	h     *host
	fresh bool
	taken bool // a fresh one carries its one request
}

// host are the connections to one address.
type host struct {
	conns    []*conn
	dialling bool
	dials    int // that ended
	err      error
	waiting  int
	changed  chan struct{} // closed, and made anew, when somebody waits and something changed
}

// pool is an http2.ClientConnPool with a bound. One dial to a host runs at a time.
type pool struct {
	max  int
	dial func(addr string) (*http2.ClientConn, error)

	mu     sync.Mutex
	hosts  map[string]*host
	closed bool
	dials  sync.WaitGroup
}

// GetClientConn implements http2.ClientConnPool. It waits for a place, as long as the request's context allows.
func (p *pool) GetClientConn(req *http.Request, addr string) (*http2.ClientConn, error) {
	s, _ := req.Context().Value(slotKey{}).(*slot)
	c, err := p.get(req.Context(), addr, true)
	if err != nil {
		return nil, err
	}
	if s != nil {
		p.release(s.c) // x/net tries again on another connection
		s.c = c
	}
	return c.cc, nil
}

// lookAgain is how long a waiter trusts that a freed place will be told: some places (a raised limit) come without an answer.
const lookAgain = 5 * time.Millisecond

func (p *pool) get(ctx context.Context, addr string, reserve bool) (*conn, error) {
	seen := -1 // dials that had ended when we came
	var timer *time.Timer
	for {
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			return nil, errClosed
		}
		h := p.host(addr)
		if seen < 0 {
			seen = h.dials
		}
		if c := h.pick(reserve); c != nil {
			p.mu.Unlock()
			return c, nil
		}
		if h.dials > seen && h.err != nil && len(h.conns) == 0 {
			err := h.err
			p.mu.Unlock()
			return nil, err
		}
		if !h.dialling && len(h.conns) < p.max && !h.unproven() {
			p.start(addr, h)
		}
		changed := h.changed
		h.waiting++
		p.mu.Unlock()

		if timer == nil {
			timer = time.NewTimer(lookAgain)
			defer timer.Stop()
		} else {
			timer.Reset(lookAgain)
		}
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
		}
		p.mu.Lock()
		h.waiting--
		p.mu.Unlock()
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
}

func (p *pool) host(addr string) *host {
	h := p.hosts[addr]
	if h == nil {
		h = &host{changed: make(chan struct{})}
		p.hosts[addr] = h
	}
	return h
}

// pick returns a connection with a place, in turn, and forgets those that are no more. pool.mu is held.
func (h *host) pick(reserve bool) *conn {
	h.conns = slices.DeleteFunc(h.conns, func(c *conn) bool {
		state := c.cc.State()
		return state.Closed || state.Closing
	})
	if !reserve && len(h.conns) > 0 {
		return h.conns[0]
	}
	// The first with a place, not each in turn: few busy connections batch better than many idle ones, and stay proven.
	for _, c := range h.conns {
		if c.fresh && c.taken || !c.cc.ReserveNewRequest() {
			continue
		}
		c.taken = true
		return c
	}
	return nil
}

// unproven reports whether a connection waits for its first answer: no other is dialled meanwhile.
func (h *host) unproven() bool {
	return slices.ContainsFunc(h.conns, func(c *conn) bool { return c.fresh })
}

func (h *host) tell() {
	if h.waiting == 0 {
		return
	}
	close(h.changed)
	h.changed = make(chan struct{})
}

// start dials; pool.mu is held.
func (p *pool) start(addr string, h *host) {
	h.dialling = true
	p.dials.Go(func() {
		cc, err := p.dial(addr)
		p.mu.Lock()
		defer p.mu.Unlock()
		h.dialling, h.err = false, err
		h.dials++
		switch {
		case err != nil:
		case p.closed:
			_ = cc.Close()
		default:
			h.conns = append(h.conns, &conn{cc: cc, h: h, fresh: true})
		}
		h.tell()
	})
}

// release notes that a request on c was answered or failed; nil is nothing.
func (p *pool) release(c *conn) {
	if c == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	c.fresh, c.taken = false, false
	c.h.tell()
}

// MarkDead implements http2.ClientConnPool.
func (p *pool) MarkDead(cc *http2.ClientConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, h := range p.hosts {
		h.conns = slices.DeleteFunc(h.conns, func(c *conn) bool { return c.cc == cc })
		h.tell()
	}
}

func (p *pool) warm(ctx context.Context, addr string) error {
	_, err := p.get(ctx, addr, false)
	return err
}

func (p *pool) renew() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, h := range p.hosts {
		for _, c := range h.conns {
			c.cc.SetDoNotReuse()
			if idle(c.cc) {
				_ = c.cc.Close()
			}
		}
		h.conns = nil
		h.tell()
	}
}

func idle(cc *http2.ClientConn) bool {
	state := cc.State()
	return state.StreamsActive+state.StreamsReserved+state.StreamsPending == 0
}

func (p *pool) closeIdle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, h := range p.hosts {
		for _, c := range h.conns {
			if idle(c.cc) {
				_ = c.cc.Close() // pick forgets it
			}
		}
	}
}

func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	for _, h := range p.hosts {
		for _, c := range h.conns {
			_ = c.cc.Close()
		}
		h.conns = nil
		h.tell()
	}
	p.mu.Unlock()
	p.dials.Wait()
}

func (p *pool) len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, h := range p.hosts {
		n += len(h.conns)
	}
	return n
}
