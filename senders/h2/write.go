package h2

import (
	"runtime"
	"time"
)

// A write costs about 10 µs, of which encryption is the least, and as much again at the peer. What is begun one by one while a connection
// is busy therefore waits for company: at most half a millisecond (Go's timers make a whole one of it in an idle process), which is
// nothing beside a provider's 20 to 100.
const (
	busyStreams = 32 // requests in flight from which on a connection is busy
	eagerBytes  = 16 << 10
	gatherFor   = 500 * time.Microsecond

	writeChunk = 64 << 10
	keptBuffer = 512 << 10 // larger ones are left to the garbage collector
)

// kick wakes write.
func (l *link) kick() {
	if l.gathering && (len(l.buf) >= eagerBytes || l.dead) {
		l.gathering = false
		signal(l.rush)
	}
	if l.kicked {
		return
	}
	l.kicked = true
	signal(l.wake)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// gather waits for more to come, where that is worth it.
func (l *link) gather(timer *time.Timer) {
	l.c.mu.Lock()
	l.gathering = !l.dead && len(l.buf) < eagerBytes && l.streams.len() >= busyStreams
	wait := l.gathering
	l.c.mu.Unlock()
	if !wait {
		runtime.Gosched() // who is about to add to the batch does
		return
	}
	timer.Reset(gatherFor)
	select {
	case <-timer.C:
	case <-l.rush: // perhaps one left over: then this batch is small
	}
}

// write writes what is gathered, until the link is dead.
func (l *link) write() {
	defer func() { _ = l.conn.Close() }()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var spare []outcome
	for range l.wake {
		l.gather(timer)
		l.c.mu.Lock()
		out := l.buf
		l.buf, l.spare = l.spare[:0], out
		full := len(out) >= fullBuffer
		l.kicked, l.gathering, l.untaken, l.owed = false, false, l.next, 0
		last := l.dead
		if full {
			l.c.pump()
		}
		l.c.unlock(&spare)

		for len(out) > 0 {
			n := min(len(out), writeChunk)
			patience := l.c.o.WriteTimeout
			if last {
				patience = time.Second
			}
			_ = l.conn.SetWriteDeadline(time.Now().Add(patience))
			if _, err := l.conn.Write(out[:n]); err != nil {
				l.listen(&spare)
				return
			}
			out = out[n:]
		}
		if last {
			return
		}
		if cap(l.spare) > keptBuffer {
			l.c.mu.Lock()
			l.spare = nil
			l.c.mu.Unlock()
		}
	}
}

// lastWords is how long the answers that came before a write failed may take to be read.
const lastWords = time.Second

// listen lets read take what the peer had said when it went, before a write finds out that it has gone: answers are among it, and would be
// asked for again. It returns when the link is dead, which read's own failure makes it.
func (l *link) listen(spare *[]outcome) {
	l.c.mu.Lock()
	l.draining = true // it takes nothing more
	dead := l.dead
	l.c.pump()
	l.c.unlock(spare)
	_ = l.conn.SetReadDeadline(time.Now().Add(lastWords))
	for !dead {
		<-l.wake
		l.c.mu.Lock()
		l.kicked = false
		dead = l.dead
		l.c.mu.Unlock()
	}
}
