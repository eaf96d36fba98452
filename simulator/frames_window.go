package simulator

import (
	"encoding/binary"
	"slices"
	"time"
)

// inputWindow is what the client may send on a connection.
type inputWindow struct {
	size    int // what it is filled up to
	left    int
	stream  int // a new stream's
	starved bool
}

func newInputWindow(s *ConnScenario) inputWindow {
	w := inputWindow{size: defaultConnWindow, stream: defaultWindow}
	if s.ConnWindow > 0 {
		w.size = s.ConnWindow
	}
	if s.Window > 0 {
		w.stream = s.Window
	}
	w.left = w.size
	return w
}

// take counts what came; false: it was more than allowed.
func (w *inputWindow) take(n int) bool {
	w.left -= n
	return w.left >= 0
}

// giveWindow fills the connection's window up when half of it is used.
func (c *h2Conn) giveWindow() {
	if w := &c.input; w.left <= w.size/2 && !w.starved {
		c.out = appendWindowUpdate(c.out, 0, w.size-w.left)
		w.left = w.size
	}
}

// starve withholds windows for a while.
func (c *h2Conn) starve(pause time.Duration) {
	if pause == 0 {
		pause = starvePause
	}
	if !c.input.starved {
		c.input.starved = true
		c.server.wheel.add(&h2Stream{conn: c, starving: true}, pause)
	}
}

// feed ends a starvation.
func (c *h2Conn) feed() {
	c.input.starved = false
	if c.mode != modeOpen {
		return
	}
	c.giveWindow()
	give := func(s *h2Stream) {
		if s != nil && !s.complete && s.window < c.input.stream/2 {
			c.out = appendWindowUpdate(c.out, s.id, c.input.stream-s.window)
			s.window = c.input.stream
		}
	}
	give(c.youngest)
	for _, s := range c.streams {
		give(s)
	}
}

// peerWindows are what the client allows us.
type peerWindows struct {
	conn   int // left
	stream int // a new stream's
	frame  int // the largest payload
}

// onWindowUpdate lets waiting answers go.
func (c *h2Conn) onWindowUpdate(h frameHeader, payload []byte) *violation {
	if h.length != 4 {
		return &violation{0, codeFrameSize, "malformed_window_update"}
	}
	n := int(binary.BigEndian.Uint32(payload) & largestWindow)
	if h.stream == 0 {
		c.peer.conn += n
		if n == 0 || c.peer.conn > largestWindow {
			return &violation{0, windowCode(n), "window_overflow"}
		}
		c.unblock()
		return nil
	}
	if c.isIdle(h.stream) {
		return &violation{0, codeProtocol, "window_update_on_idle_stream"}
	}
	s := c.find(h.stream)
	if s == nil {
		return nil
	}
	s.sending += n
	if n == 0 || s.sending > largestWindow {
		return &violation{h.stream, windowCode(n), "window_overflow"}
	}
	c.unblock()
	return nil
}

// windowCode is the error of an increment of 0, or of one that is too large.
func windowCode(n int) code {
	if n == 0 {
		return codeProtocol
	}
	return codeFlowControl
}

// resizeWindows takes the client's SETTINGS_INITIAL_WINDOW_SIZE, which changes open streams too.
func (c *h2Conn) resizeWindows(size int) *violation {
	change := size - c.peer.stream
	c.peer.stream = size
	if c.youngest != nil {
		c.youngest.sending += change
		if c.youngest.sending > largestWindow {
			return &violation{0, codeFlowControl, "window_overflow"}
		}
	}
	for _, s := range c.streams {
		s.sending += change
		if s.sending > largestWindow {
			return &violation{0, codeFlowControl, "window_overflow"}
		}
	}
	return nil
}

// sendBody appends DATA frames as far as windows allow; false: the rest waits.
func (c *h2Conn) sendBody(s *h2Stream, body []byte) bool {
	for {
		n := min(len(body), c.peer.conn, s.sending, c.peer.frame)
		if n < len(body) && n <= 0 {
			s.rest = append(s.rest[:0], body...)
			return false
		}
		flags := byte(0)
		if n == len(body) {
			flags = flagEndStream
		}
		c.out = append(appendFrameHeader(c.out, n, frameData, flags, s.id), body[:n]...)
		c.peer.conn -= n
		s.sending -= n
		body = body[n:]
		if flags != 0 {
			return true
		}
	}
}

// unblock goes on with answers that wait for window.
func (c *h2Conn) unblock() {
	if len(c.blocked) == 0 {
		return
	}
	waiting := c.blocked
	c.blocked = nil
	for _, s := range waiting {
		if !s.isRest || c.find(s.id) != s {
			continue // reset meanwhile, and perhaps another stream by now
		}
		rest := slices.Clone(s.rest)
		if !c.sendBody(s, rest) {
			c.blocked = append(c.blocked, s)
			continue
		}
		s.isRest = false
		c.answered(s)
	}
}

// streamLimits are the values of SETTINGS_MAX_CONCURRENT_STREAMS that a client may still go by.
type streamLimits struct {
	acknowledged int
	sent         []int // and not acknowledged
	now          int   // the last
}

// mostPending bounds the SETTINGS that wait for their acknowledgement.
const mostPending = 4

// allowed is how many streams break no rule: a lower limit counts from its acknowledgement on, a higher one from when it was sent.
func (l *streamLimits) allowed() int {
	most := l.acknowledged
	for _, n := range l.sent {
		most = max(most, n)
	}
	return most
}

// acknowledge takes the oldest that waits; false: none does.
func (l *streamLimits) acknowledge() bool {
	if len(l.sent) == 0 {
		return false
	}
	l.acknowledged = l.sent[0]
	l.sent = append(l.sent[:0], l.sent[1:]...)
	return true
}

// limit changes SETTINGS_MAX_CONCURRENT_STREAMS, unless too many changes wait already.
func (c *h2Conn) limit(streams int) {
	l := &c.limits
	if streams == l.now || len(l.sent) >= mostPending {
		return
	}
	l.now = streams
	l.sent = append(l.sent, streams)
	c.out = appendSettings(c.out, setting{settingMaxStreams, uint32(streams)})
}
