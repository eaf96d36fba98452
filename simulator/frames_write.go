package simulator

import (
	"strconv"
	"time"
)

// answer writes an answer, as far as windows allow.
func (c *h2Conn) answer(s *h2Stream, r *reply) {
	if s.counted {
		c.counted.answer(r.status, r.reason)
		if r.status >= 400 && r.status < 500 && r.status != 410 {
			c.refused = true
		} else {
			c.fine = true
		}
		if c.under.badToken(r.reason, c.server.core.state.Load().scenario.connections(c.door.provider()).BadTokens) {
			r.end = true
		}
	}
	if s.recorded {
		c.accepted++
		c.marks.written++
	}
	c.appendHead(s.id, r)
	if r.end {
		c.away(c.lastID, codeNo, `{"reason":"Shutdown"}`)
	}
	if len(r.body) > 0 && !c.sendBody(s, r.body) {
		s.isRest = true
		c.blocked = append(c.blocked, s)
		return
	}
	c.answered(s)
}

// answered ends a stream whose answer is whole.
func (c *h2Conn) answered(s *h2Stream) {
	if s.early {
		c.out = appendRSTStream(c.out, s.id, codeNo) // RFC 9113, section 8.1: the rest of the request is not wanted
	}
	c.forget(s)
}

// HPACK's representations (RFC 7541, section 6) and indexes of the static table that answers use.
const (
	hpackIndexed     = 0x80
	hpackTableSize   = 0x20
	indexStatus      = 8
	indexContentType = 31
)

// appendHead appends a HEADERS frame. It uses the static table alone, and so knows nothing of the client's.
func (c *h2Conn) appendHead(stream uint32, r *reply) {
	flags := byte(flagEndHeaders)
	if len(r.body) == 0 {
		flags |= flagEndStream
	}
	start := len(c.out)
	b := appendFrameHeader(c.out, 0, frameHeaders, flags, stream)
	if c.tableGone { // RFC 7541, section 4.2: a smaller table is acknowledged
		c.tableGone = false
		b = append(b, hpackTableSize)
	}
	switch r.status {
	case 200:
		b = append(b, hpackIndexed|8)
	case 400:
		b = append(b, hpackIndexed|12)
	case 404:
		b = append(b, hpackIndexed|13)
	case 500:
		b = append(b, hpackIndexed|14)
	default:
		b = append(b, indexStatus, 3)
		b = strconv.AppendInt(b, int64(r.status), 10)
	}
	for _, f := range r.header {
		if f.name == "content-type" {
			b = append(b, 0x0f, indexContentType-0x0f)
		} else {
			b = append(b, 0)
			b = appendHPACKText(b, f.name)
		}
		b = appendHPACKText(b, f.value)
	}
	n := len(b) - start - frameHeaderSize
	b[start], b[start+1], b[start+2] = byte(n>>16), byte(n>>8), byte(n)
	c.out = b
}

// appendHPACKText appends a string as it is: Huffman's code would cost more CPU than the bytes that it saves.
func appendHPACKText(b []byte, s string) []byte {
	n := len(s)
	if n < 0x7f {
		return append(append(b, byte(n)), s...)
	}
	b = append(b, 0x7f)
	for n -= 0x7f; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(append(b, byte(n)), s...)
}

// flush wakes the writer where there is something for it.
func (c *h2Conn) flush() {
	c.mark()
	if len(c.out) > 0 || c.mode != modeOpen {
		c.unsent.Signal()
	}
}

// write sends what stands in out, as much as there is at once, until the connection ends.
func (c *h2Conn) write() {
	var spare []byte
	var deadline time.Time
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		for len(c.out) == 0 && c.mode == modeOpen {
			c.unsent.Wait()
		}
		if c.mode == modeClosed {
			c.lose(c.accepted)
			return
		}
		if len(c.out) == 0 {
			c.hangUp()
			return
		}
		buf, answers, drip := c.out, c.accepted, c.dripPause
		c.out, c.accepted, c.dripPause = spare[:0], 0, 0
		c.mu.Unlock()
		if drip > 0 {
			c.under.drip(drip)
		}
		if now := time.Now(); deadline.Sub(now) < writePatience/2 || drip > 0 {
			deadline = now.Add(writePatience)
			_ = c.secure.SetWriteDeadline(deadline)
		}
		_, err := c.secure.Write(buf)
		if drip > 0 {
			deadline = time.Time{} // the pieces have moved it
		}
		c.mu.Lock()
		c.sent.Signal()
		if spare = buf; cap(spare) > keepOut {
			spare = nil
		}
		if err != nil {
			c.lose(answers + c.accepted)
			c.accepted = 0
			c.close(modeReset)
			c.under.reset()
			return
		}
	}
}

// lose counts answers that were never written, or that broke with the write.
func (c *h2Conn) lose(answers int64) {
	c.counted.cut += answers
	c.marks.lost += answers
}

// hangUp ends the connection when everything is written. The reader goes on until the client has ended it too: a TCP socket that
// is closed with unread input would take back what was sent.
func (c *h2Conn) hangUp() {
	if c.mode == modeReset {
		c.under.reset()
		return
	}
	_ = c.secure.SetReadDeadline(time.Now().Add(hangUpPatience))
	c.mu.Unlock()
	_ = c.secure.CloseWrite()
	c.mu.Lock()
}
