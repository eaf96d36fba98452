package h2

import (
	"slices"
	"time"
)

// wakeSweeper sets the sweeper to its fast pace; mu is held.
func (c *Client) wakeSweeper() {
	c.slow = false
	select {
	case c.tick <- struct{}{}:
	default:
	}
}

// sweeper looks at deadlines, contexts and the health of connections: one timer for all, since a timer and a watch on the context for
// each request would cost as much as the request.
func (c *Client) sweeper() {
	timer := time.NewTimer(idleTick)
	defer timer.Stop()
	var spare []outcome
	for {
		select {
		case <-timer.C:
		case <-c.tick:
		case <-c.life.Done():
			return
		}
		pace := c.sweep(time.Now(), &spare)
		if pace == 0 {
			timer.Stop()
		} else {
			timer.Reset(pace)
		}
	}
}

// sweep returns when to sweep again; zero: when something happens.
func (c *Client) sweep(now time.Time, spare *[]outcome) time.Duration {
	c.mu.Lock()
	defer c.unlock(spare)
	c.waiting.removeIf(func(r *Request) bool {
		err := r.over(now)
		if err != nil {
			c.finish(r, notSent(err))
		}
		return err != nil
	})
	busy := c.waiting.len() > 0
	for _, l := range slices.Clone(c.links) { // links leave while we look
		for r := range l.streams.all() {
			if err := r.over(now); err != nil {
				c.abandon(r, err)
			}
		}
		busy = busy || l.streams.len() > 0
		c.check(l, now)
	}
	c.pump()
	c.slow = !busy
	switch {
	case busy:
		return busyTick
	case len(c.links) > 0 || c.wanted:
		return idleTick
	}
	return 0
}

// over says why a request is to end; nil: it is not.
func (r *Request) over(now time.Time) error {
	if err := r.ctx.Err(); err != nil {
		return err
	}
	if !now.Before(r.expires) {
		return ErrTimeout
	}
	return nil
}

// check asks a silent connection whether it lives, gives up a dead one, and closes what is not needed; mu is held.
func (c *Client) check(l *link, now time.Time) {
	if !l.held.IsZero() && !now.Before(l.held) {
		l.held = time.Time{}
	}
	if l.dead {
		return
	}
	if !l.greeted && now.Sub(l.born) > c.o.DialTimeout {
		l.die(ConnError{Code: SettingsTimeout, Text: "no SETTINGS have come"}, SettingsTimeout)
		return
	}
	if l.resetsPinged > 0 && now.Sub(l.resetPingAt) > c.o.PingAfter+c.o.PingTimeout {
		l.drain() // it talks, but not of what we asked
		if l.dead {
			return
		}
	}
	after := c.o.PingAfter
	if l.streams.len() > 0 { // answers are due
		after /= 4
	}
	since := l.waitsSince.Load() // zero while a Done is running: then the peer may well have answered
	switch {
	case since == 0:
	case l.pinged && since >= l.pingAt.UnixNano():
		l.pinged = false
	case l.pinged && now.Sub(l.pingAt) > c.o.PingTimeout:
		l.die(ErrSilent, NoError)
		return
	case !l.pinged && now.UnixNano()-since > int64(after):
		l.pinged, l.pingAt = true, now
		l.buf = appendPing(l.buf, 0, healthPing)
		l.kick()
	}
	if l.streams.len() == 0 && !l.draining && now.Sub(l.idleSince) > c.o.IdleTimeout && c.active() > 1 {
		l.retire()
	}
}

// active is the number of connections that take requests; mu is held.
func (c *Client) active() int {
	n := 0
	for _, l := range c.links {
		if !l.draining {
			n++
		}
	}
	return n
}
