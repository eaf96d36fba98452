package broker

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// pipeBuffer is what one end of a connection in memory may write before the other reads, as a socket's buffer does. What does not fit is
// copied from the writer's memory to the reader's, and the writer waits for it.
const pipeBuffer = 64 << 10

// newPipe returns the two ends of a connection in memory. Clients in the broker's process use it in place of the socket: a write makes
// its reader runnable at once, where a socket's reader waits for somebody to look at the network, which a process whose processors are
// all at work does every 10 ms only. And it costs no system call.
func newPipe() (client, server net.Conn) {
	a, b := newHalf(), newHalf()
	return &pipeEnd{in: a, out: b}, &pipeEnd{in: b, out: a}
}

// pipeEnd is a net.Conn.
type pipeEnd struct{ in, out *half }

// Read implements net.Conn.
func (e *pipeEnd) Read(b []byte) (int, error) { return e.in.read(b) }

// Write implements net.Conn.
func (e *pipeEnd) Write(b []byte) (int, error) { return e.out.write(b) }

// Close implements net.Conn. The other end reads what was written before.
func (e *pipeEnd) Close() error {
	e.in.close(func(h *half) { h.unread = true })
	e.out.close(func(h *half) { h.ended = true })
	return nil
}

// LocalAddr implements net.Conn.
func (*pipeEnd) LocalAddr() net.Addr { return fakeAddr() }

// RemoteAddr implements net.Conn.
func (*pipeEnd) RemoteAddr() net.Addr { return fakeAddr() }

// SetDeadline implements net.Conn.
func (e *pipeEnd) SetDeadline(t time.Time) error {
	e.in.reader.set(t)
	e.out.writer.set(t)
	return nil
}

// SetReadDeadline implements net.Conn.
func (e *pipeEnd) SetReadDeadline(t time.Time) error {
	e.in.reader.set(t)
	return nil
}

// SetWriteDeadline implements net.Conn.
func (e *pipeEnd) SetWriteDeadline(t time.Time) error {
	e.out.writer.set(t)
	return nil
}

// half is one direction.
type half struct {
	reading, writing sync.Mutex // held by a read, by a write: one at a time
	reader, writer   deadline

	readable chan struct{} // one value: the reader should look
	drained  chan struct{} // one value: the writer should look

	mu     sync.Mutex
	buf    []byte // from off: written and not read
	off    int
	rest   []byte // of the write under way, after buf; the writer's memory
	ended  bool   // the writer's end is closed
	unread bool   // the reader's end is closed
}

func newHalf() *half {
	return &half{reader: newDeadline(), writer: newDeadline(), readable: make(chan struct{}, 1), drained: make(chan struct{}, 1)}
}

func signal(to chan struct{}) {
	select {
	case to <- struct{}{}:
	default:
	}
}

func (h *half) close(mark func(h *half)) {
	h.mu.Lock()
	mark(h)
	h.mu.Unlock()
	signal(h.readable)
	signal(h.drained)
}

func (h *half) read(b []byte) (int, error) {
	h.reading.Lock()
	defer h.reading.Unlock()
	for {
		passed := h.reader.passed()
		if isClosed(passed) {
			return 0, os.ErrDeadlineExceeded
		}
		h.mu.Lock()
		n, ended, unread := h.take(b), h.ended, h.unread
		h.mu.Unlock()
		switch {
		case unread:
			return 0, net.ErrClosed
		case n > 0 || len(b) == 0:
			return n, nil
		case ended:
			return 0, io.EOF
		}
		select {
		case <-h.readable:
		case <-passed:
		}
	}
}

// take copies what is there; half.mu is held.
func (h *half) take(b []byte) int {
	n := copy(b, h.buf[h.off:])
	if h.off += n; h.off == len(h.buf) {
		h.buf, h.off = h.buf[:0], 0
	}
	if len(h.rest) > 0 && n < len(b) {
		more := copy(b[n:], h.rest)
		n += more
		if h.rest = h.rest[more:]; len(h.rest) == 0 {
			signal(h.drained)
		}
	}
	return n
}

func (h *half) write(b []byte) (int, error) {
	h.writing.Lock()
	defer h.writing.Unlock()
	if isClosed(h.writer.passed()) {
		return 0, os.ErrDeadlineExceeded
	}
	h.mu.Lock()
	if err := h.writable(); err != nil {
		h.mu.Unlock()
		return 0, err
	}
	buffered := len(h.buf)-h.off+len(b) <= pipeBuffer
	if buffered {
		h.keep(b)
	} else {
		h.rest = b
	}
	h.mu.Unlock()
	signal(h.readable)
	if buffered {
		return len(b), nil
	}
	return h.writeOut(len(b))
}

// writeOut waits until the reader has taken rest, of n bytes.
func (h *half) writeOut(n int) (int, error) {
	for {
		passed := h.writer.passed()
		select {
		case <-h.drained:
		case <-passed:
		}
		h.mu.Lock()
		left, err := len(h.rest), h.writable()
		if left > 0 && err == nil && isClosed(passed) {
			err = os.ErrDeadlineExceeded
		}
		if left == 0 || err != nil {
			h.rest = nil // the writer's again
			h.mu.Unlock()
			if left == 0 {
				err = nil
			}
			return n - left, err
		}
		h.mu.Unlock()
	}
}

// writable says why nothing more may be written; half.mu is held.
func (h *half) writable() error {
	switch {
	case h.ended:
		return net.ErrClosed
	case h.unread:
		return io.ErrClosedPipe
	}
	return nil
}

// keep appends to buf; half.mu is held.
func (h *half) keep(b []byte) {
	if h.off > 0 && len(h.buf)+len(b) > cap(h.buf) {
		n := copy(h.buf, h.buf[h.off:])
		h.buf, h.off = h.buf[:n], 0
	}
	h.buf = append(h.buf, b...)
}

// deadline ends waits at a time that may be moved.
type deadline struct {
	mu    sync.Mutex
	over  chan struct{} // closed when the time has come
	timer *time.Timer   // that closes over; nil: none runs
}

func newDeadline() deadline { return deadline{over: make(chan struct{})} }

// passed is closed when the time comes that is set now.
func (d *deadline) passed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.over
}

// set moves the time; the zero time is none.
func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !d.timer.Stop() {
		<-d.over // the timer is closing it
	}
	d.timer = nil
	closed := isClosed(d.over)
	wait := time.Until(t)
	switch over := d.over; {
	case !t.IsZero() && wait <= 0:
		if !closed {
			close(over)
		}
		return
	case closed:
		d.over = make(chan struct{})
	}
	if over := d.over; !t.IsZero() {
		d.timer = time.AfterFunc(wait, func() { close(over) })
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
