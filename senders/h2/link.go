package h2

import (
	"net"
	"sync/atomic"
	"time"
)

// link is one connection. Its fields are guarded by Client.mu, but for those that say otherwise. Two goroutines serve it: write and
// read.
type link struct {
	c    *Client
	conn net.Conn
	wake chan struct{} // a place for one: there is something to write, or the link is dead
	rush chan struct{} // a place for one: what is gathered need not wait for more

	// Out. buf gathers frames while write writes what was gathered before.
	buf, spare []byte
	owed       int    // bytes in buf that answer PING and SETTINGS
	kicked     bool   // write has been woken, and has not taken buf yet
	gathering  bool   // write waits for more to come
	next       uint32 // stream id
	untaken    uint32 // streams from this id on are still in buf: the peer cannot have seen them
	enc        *encoder
	window     int64    // what we may send
	blocked    []uint32 // streams with an unsent body, in their order

	// What the peer allows.
	peerStreams    uint32
	peerWindow     int64 // of a new stream
	peerFrame      int
	peerHeaderList int64

	// In.
	streams streams
	credit  int64     // what the peer may still send
	now     time.Time // of the frames that are acted on

	born      time.Time
	idleSince time.Time
	greeted   bool // its first SETTINGS have come
	proven    bool // it has answered a request
	draining  bool // takes no new streams
	mourned   bool // its failure counts already
	remote    ConnError
	dead      bool
	err       error

	refusals int       // REFUSED_STREAM in a row
	held     time.Time // no new streams before; zero: no hold

	// Streams that we reset count until the peer has answered a PING behind the resets: it may be at work on them.
	resets, resetsPinged int
	resetPingAt          time.Time

	waitsSince atomic.Int64 // since when read waits for the peer, Unix nanoseconds; 0: it is at work. Without the lock.
	pinged     bool
	pingAt     time.Time

	dec *decoder // read's own
}

// Windows that we grant. No stream's needs raising: a longer body is cut off.
const connWindow = 16 << 20

const (
	fullBuffer = 256 << 10 // bytes gathered at which a link takes no new requests
	mostOwed   = 1 << 20   // bytes of unread answers to PING and SETTINGS at which a peer has asked too much
)

func newLink(c *Client, conn net.Conn, now time.Time) *link {
	l := &link{
		c: c, conn: conn, wake: make(chan struct{}, 1), rush: make(chan struct{}, 1),
		next: 1, untaken: 1, enc: newEncoder(), window: defaultWindow,
		peerStreams: largestStreamID, peerWindow: defaultWindow, peerFrame: leastFrameSize, peerHeaderList: 1 << 62,
		credit: connWindow, born: now, idleSince: now, dec: newDecoder(c.o.Keep),
	}
	l.waitsSince.Store(now.UnixNano())
	l.buf = appendOpening(nil, uint32(c.streamWindow()), connWindow)
	l.kick()
	return l
}

// room reports whether the link takes one more request. A new one takes none before its SETTINGS have come, though the RFC would allow
// it: servers reset what exceeds limits that they have not yet told, x/net's among them. One that is asked
// whether it lives takes none before it has said so.
func (l *link) room() bool {
	limit := min(int64(l.peerStreams), int64(l.c.o.MaxStreams))
	if !l.proven {
		limit = min(limit, 1)
	}
	return l.greeted && !l.draining && !l.pinged && int64(l.streams.len()+l.resets) < limit && l.window > 0 && len(l.buf) < fullBuffer && l.held.IsZero()
}

// send puts a request on the wire, as far as windows allow.
func (l *link) send(r *Request) {
	if int64(r.Head.size+r.Fields.size+fieldSize(len(":path"), len(r.Path))) > l.peerHeaderList {
		l.c.finish(r, notSent(ConnError{Code: ProtocolError, Text: "the server takes no header list of this size"}))
		return
	}
	id := l.next
	l.next += 2
	if l.next > largestStreamID {
		l.draining = true // an id is never used twice: another connection goes on
	}
	r.link, r.id, r.window, r.received, r.answered = l, id, l.peerWindow, 0, false
	l.streams.add(r)

	flags := byte(flagEndHeaders)
	if len(r.Body)+len(r.Tail) == 0 {
		flags |= flagEndStream
	}
	head := l.enc.head(r.Head)
	start, b := len(l.buf), l.buf
	b = append(appendFrameHeader(b, 0, frameHeaders, flags, id), head.pseudo...)
	if !r.Head.hasPath {
		b = appendPath(b, r.Path)
	}
	l.buf = append(append(b, head.fields...), r.Fields.block...)
	if n := len(l.buf) - start - frameHeaderSize; n <= l.peerFrame {
		putFrameLength(l.buf[start:], n)
	} else {
		l.split(start, id, flags)
	}
	r.unsent, r.tail = r.Body, r.Tail
	if r.left() > 0 && !l.flow(r) {
		if len(l.blocked) > 2*l.streams.len() { // most of them have ended
			l.unblock()
		}
		l.blocked = append(l.blocked, id)
	}
	l.kick()
}

// split makes HEADERS and CONTINUATION of a block that is too long for one frame, and starts at buf[start].
func (l *link) split(start int, id uint32, flags byte) {
	block := append([]byte(nil), l.buf[start+frameHeaderSize:]...)
	l.buf = l.buf[:start]
	kind, first := byte(frameHeaders), flags&^flagEndHeaders
	for len(block) > 0 {
		n := min(len(block), l.peerFrame)
		if n == len(block) {
			first |= flagEndHeaders
		}
		l.buf = append(appendFrameHeader(l.buf, n, kind, first, id), block[:n]...)
		block = block[n:]
		kind, first = frameContinuation, 0
	}
}

// flow sends what the windows allow of a body, and reports whether that was all.
func (l *link) flow(r *Request) bool {
	for left := r.left(); left > 0; left = r.left() {
		n := min(int64(left), l.window, r.window, int64(l.peerFrame))
		if n <= 0 {
			return false
		}
		flags := byte(0)
		if int(n) == left {
			flags = flagEndStream
		}
		first := min(int(n), len(r.unsent))
		rest := int(n) - first
		b := appendFrameHeader(l.buf, int(n), frameData, flags, r.id)
		l.buf = append(append(b, r.unsent[:first]...), r.tail[:rest]...)
		r.unsent, r.tail = r.unsent[first:], r.tail[rest:]
		l.window -= n
		r.window -= n
	}
	return true
}

// unblock goes on with bodies, the oldest first.
func (l *link) unblock() {
	left := l.blocked[:0]
	for _, id := range l.blocked {
		if r := l.streams.get(id); r != nil && r.left() > 0 && !l.flow(r) {
			left = append(left, id)
		}
	}
	l.blocked = left
	l.kick()
}

// forget takes a stream off the link.
func (l *link) forget(r *Request) {
	l.streams.remove(r)
	r.link, r.unsent, r.tail = nil, nil, nil
	if l.streams.len() > 0 {
		return
	}
	l.idleSince = time.Now()
	if l.draining {
		l.retire()
	}
}

// reset gives a stream up.
func (l *link) reset(r *Request, code Code) {
	l.buf = appendRSTStream(l.buf, r.id, code)
	l.resets++
	l.pingForResets()
	l.forget(r)
	l.kick()
}

// resetPing marks the PING whose answer says that the peer has seen our resets; healthPing asks whether it lives.
var (
	resetPing  = []byte("resets??")
	healthPing = []byte("alive???")
)

func (l *link) pingForResets() {
	if l.resetsPinged > 0 || l.resets == 0 {
		return
	}
	l.resetsPinged, l.resetPingAt = l.resets, time.Now()
	l.buf = appendPing(l.buf, 0, resetPing)
	l.kick()
}

// drain lets the link carry out what it has, and take nothing more.
func (l *link) drain() {
	if l.draining {
		return
	}
	l.draining = true
	if l.streams.len() == 0 {
		l.retire()
	}
}

// retire ends a link that carries nothing: write says goodbye and closes it.
func (l *link) retire() {
	if l.dead {
		return
	}
	l.dead, l.draining, l.err = true, true, errRetired
	l.c.drop(l)
	l.buf = appendGoAway(l.buf, NoError)
	l.kick()
}

// die ends a link for a fault. What the peer cannot have seen goes to another one; the fate of the rest is unknown, and err is theirs.
// With a code the peer is told.
func (l *link) die(err error, code Code) {
	if l.dead {
		return
	}
	if l.remote.Remote { // it had told us why
		err = l.remote
	}
	l.dead, l.draining, l.err = true, true, err
	l.c.drop(l)
	var again []*Request
	for r := range l.streams.all() {
		l.streams.remove(r)
		r.link, r.unsent, r.tail = nil, nil, nil
		if r.id >= l.untaken {
			again = append(again, r)
		} else {
			l.c.finish(r, err)
		}
	}
	l.c.buried(l, err)
	l.c.resend(again, err, false)
	l.buf = l.buf[:0]
	if code == NoError {
		_ = raw(l.conn).Close() // a TLS goodbye could wait for the peer
	} else {
		l.buf = appendGoAway(l.buf, code)
		_ = l.conn.SetWriteDeadline(time.Now().Add(time.Second)) // for write, which may be at it
	}
	l.kicked = false
	l.kick()
}

// raw is the connection below TLS.
func raw(c net.Conn) net.Conn {
	if s, ok := c.(interface{ NetConn() net.Conn }); ok {
		return s.NetConn()
	}
	return c
}

// fail is die from outside the lock.
func (l *link) fail(err error, code Code, spare *[]outcome) {
	l.c.mu.Lock()
	l.die(err, code)
	l.c.pump()
	l.c.unlock(spare)
}
