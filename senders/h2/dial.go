package h2

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"
)

// dialIfNeeded makes one more connection where requests wait and the pool is not full: one dial at a time, not before the last
// connection has answered something, and with a growing pause after failures. mu is held.
func (c *Client) dialIfNeeded() {
	if c.dialling || c.closed && c.waiting.len() == 0 || c.aborted || c.waiting.len() == 0 && !c.wanted {
		return
	}
	active, now := 0, time.Now()
	for _, l := range c.links {
		if l.draining {
			continue
		}
		if !l.proven && now.Sub(l.born) < warmUp {
			return
		}
		active++
	}
	if c.waiting.len() == 0 && active > 0 {
		c.wanted = false
		return
	}
	if active >= c.o.MaxConns || len(c.links) >= 2*c.o.MaxConns {
		return
	}
	if now.Before(c.nextDial) {
		if c.slow {
			c.wakeSweeper() // it looks again
		}
		return
	}
	c.dialling, c.wanted = true, false
	c.stats.Dials++
	c.bg.Go(c.dial)
}

func (c *Client) dial() {
	ctx, cancel := context.WithTimeout(c.life, c.o.DialTimeout)
	defer cancel()
	conn, err := c.o.Dial(ctx)
	now := time.Now()
	var spare []outcome
	c.mu.Lock()
	defer c.unlock(&spare)
	c.dialling = false
	c.nextDial = now.Add(leastDialGap)
	if err != nil {
		c.stats.Failed++
		c.failed(now, err)
		c.dialIfNeeded()
		return
	}
	if c.aborted {
		_ = raw(conn).Close()
		return
	}
	l := newLink(c, conn, now)
	c.links = append(c.links, l)
	c.bg.Go(l.write)
	c.bg.Go(l.read)
	c.wakeSweeper()
	c.pump()
}

// failed counts a connection that came to nothing. After several, what waits fails with it, if there is no other connection; mu is
// held.
func (c *Client) failed(now time.Time, err error) {
	c.failures++
	pause := min(firstBackoff<<min(c.failures-1, 10), mostBackoff)
	c.nextDial = now.Add(pause*3/4 + rand.N(pause/2))
	if c.o.Log != nil && !c.aborted {
		c.o.Log.Warn("connection failed", "failures", c.failures, "pause_ms", pause.Milliseconds(), "error", err)
	}
	if c.failures >= patientDials && !slices.ContainsFunc(c.links, func(l *link) bool { return !l.draining }) {
		c.failWaiting(err)
	}
}

// buried learns from the end of a connection; mu is held. One that never answered anything counts as a dial that failed.
func (c *Client) buried(l *link, err error) {
	if l.mourned {
		return
	}
	l.mourned = true
	now := time.Now()
	if !l.proven {
		c.failed(now, err)
	} else if gap := now.Add(leastDialGap); gap.After(c.nextDial) {
		c.nextDial = gap
	}
	if c.waiting.len() > 0 && c.slow {
		c.wakeSweeper()
	}
}

// drop takes a dead link out of the pool; mu is held.
func (c *Client) drop(l *link) {
	if i := slices.Index(c.links, l); i >= 0 {
		c.links = slices.Delete(c.links, i, i+1)
	}
}

// deque holds requests that wait.
type deque struct {
	items []*Request
	head  int
}

func (d *deque) len() int { return len(d.items) - d.head }

func (d *deque) push(r *Request) { d.items = append(d.items, r) }

func (d *deque) pushFront(r *Request) {
	if d.head == 0 {
		d.items = slices.Insert(d.items, 0, make([]*Request, 64)...)
		d.head = 64
	}
	d.head--
	d.items[d.head] = r
}

func (d *deque) pop() *Request {
	r := d.items[d.head]
	d.items[d.head] = nil
	d.head++
	switch {
	case d.head == len(d.items):
		d.items, d.head = d.items[:0], 0
	case d.head >= 1024 && 2*d.head >= len(d.items): // or one that never empties grows for ever
		n := copy(d.items, d.items[d.head:])
		clear(d.items[n:])
		d.items, d.head = d.items[:n], 0
	}
	return r
}

func (d *deque) remove(r *Request) {
	if i := slices.Index(d.items[d.head:], r); i >= 0 {
		d.items = slices.Delete(d.items, d.head+i, d.head+i+1)
	}
}

// removeIf takes out those that drop names.
func (d *deque) removeIf(drop func(*Request) bool) {
	kept := slices.DeleteFunc(d.items[d.head:], drop)
	d.items = d.items[:d.head+len(kept)]
}
