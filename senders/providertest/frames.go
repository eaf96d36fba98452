package providertest

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"net"
	"strconv"
	"sync"
	"time"
)

// Frames answers every push with 200 and looks at nothing: a server of raw frames that costs about a microsecond a push, so that a
// benchmark measures its client. It serves any HTTP/2 client, bodies up to a stream's first window.
type Frames struct {
	// Body of each answer; empty: none.
	Body string
	// Latency of each answer.
	Latency time.Duration
}

// Serve accepts connections until l is closed.
func (f Frames) Serve(l net.Listener) {
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		conns.Go(func() { f.serve(c) })
	}
}

// framesConn is one connection: read parses what comes, write sends the answers when they are due.
type framesConn struct {
	Frames

	conn net.Conn
	wake chan struct{}

	mu     sync.Mutex
	urgent []byte // what no latency holds back
	due    []dueAnswer
	closed bool
}

type dueAnswer struct {
	stream uint32
	at     time.Time
}

const (
	framesWindow  = 1<<31 - 1
	framesStreams = 1000
)

func (f Frames) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	if secure, ok := conn.(*tls.Conn); ok && secure.HandshakeContext(context.Background()) != nil {
		return
	}
	c := &framesConn{Frames: f, conn: conn, wake: make(chan struct{}, 1)}
	settings := binary.BigEndian.AppendUint16(nil, 3) // SETTINGS_MAX_CONCURRENT_STREAMS
	settings = binary.BigEndian.AppendUint32(settings, framesStreams)
	c.urgent = append(framesHeader(nil, len(settings), 4, 0, 0), settings...)
	c.urgent = binary.BigEndian.AppendUint32(framesHeader(c.urgent, 4, 8, 0, 0), framesWindow-65_535)
	c.kick()
	var writer sync.WaitGroup
	writer.Go(c.write)
	c.read()
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.kick()
	writer.Wait()
}

func framesHeader(b []byte, length int, kind, flags byte, stream uint32) []byte {
	b = append(b, byte(length>>16), byte(length>>8), byte(length), kind, flags)
	return binary.BigEndian.AppendUint32(b, stream)
}

func (c *framesConn) kick() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// read parses frames; what one read of the connection brought is answered together.
func (c *framesConn) read() {
	r := bufio.NewReaderSize(c.conn, 128<<10)
	if _, err := r.Discard(24); err != nil { // the preface
		return
	}
	var ended []uint32
	var urgent []byte
	taken := 0
	for {
		if r.Buffered() < 9 && len(ended)+len(urgent) > 0 {
			c.answer(ended, urgent)
			ended, urgent = ended[:0], urgent[:0]
		}
		h, err := r.Peek(9)
		if err != nil {
			return
		}
		n, kind, flags := int(h[0])<<16|int(h[1])<<8|int(h[2]), h[3], h[4]
		stream := binary.BigEndian.Uint32(h[5:])
		if r.Buffered() < 9+n && len(ended)+len(urgent) > 0 {
			c.answer(ended, urgent)
			ended, urgent = ended[:0], urgent[:0]
		}
		p, err := r.Peek(9 + n)
		if err != nil {
			return
		}
		switch {
		case kind <= 1 && flags&1 != 0: // DATA or HEADERS with END_STREAM
			ended = append(ended, stream)
		case kind == 4 && flags&1 == 0:
			urgent = framesHeader(urgent, 0, 4, 1, 0)
		case kind == 6 && flags&1 == 0:
			urgent = append(framesHeader(urgent, 8, 6, 1, 0), p[9:]...)
		}
		if kind == 0 {
			if taken += n; taken > 1<<29 {
				urgent = binary.BigEndian.AppendUint32(framesHeader(urgent, 4, 8, 0, 0), uint32(taken))
				taken = 0
			}
		}
		_, _ = r.Discard(9 + n)
	}
}

func (c *framesConn) answer(streams []uint32, urgent []byte) {
	at := time.Now().Add(c.Latency)
	c.mu.Lock()
	c.urgent = append(c.urgent, urgent...)
	for _, s := range streams {
		c.due = append(c.due, dueAnswer{s, at})
	}
	c.mu.Unlock()
	c.kick()
}

func (c *framesConn) write() {
	var out []byte
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for n := uint64(0); ; {
		select {
		case <-c.wake:
		case <-timer.C:
		}
		now := time.Now()
		c.mu.Lock()
		if c.closed {
			c.mu.Unlock()
			return
		}
		out = append(out[:0], c.urgent...)
		c.urgent = c.urgent[:0]
		i := 0
		for ; i < len(c.due) && !now.Before(c.due[i].at); i++ {
			n++
			out = c.appendAnswer(out, c.due[i].stream, n)
		}
		c.due = c.due[:copy(c.due, c.due[i:])]
		wait := time.Hour
		if len(c.due) > 0 {
			wait = c.due[0].at.Sub(now)
		}
		c.mu.Unlock()
		timer.Reset(wait)
		if len(out) > 0 {
			if _, err := c.conn.Write(out); err != nil {
				return
			}
		}
	}
}

// appendAnswer is a status of 200, an id that is different each time, as APNs sends one, and the body.
func (c *framesConn) appendAnswer(b []byte, stream uint32, n uint64) []byte {
	start := len(b)
	flags := byte(4)
	if c.Body == "" {
		flags |= 1
	}
	b = framesHeader(b, 0, 1, flags, stream)
	b = append(b, 0x88, 0x00, 7)
	b = append(b, "apns-id"...)
	b = append(b, 36)
	b = append(b, "123e4567-e89b-12d3-a456-"...)
	digits := strconv.AppendUint(make([]byte, 0, 20), 100_000_000_000+n%900_000_000_000, 10)
	b = append(b, digits...)
	b[start+2] = byte(len(b) - start - 9)
	if c.Body != "" {
		b = append(framesHeader(b, len(c.Body), 0, 1, stream), c.Body...)
	}
	return b
}
