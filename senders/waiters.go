package senders

import (
	"context"
	"sync"
	"time"
)

// waiters are sends that need what the log may say and this process has not read yet. One goroutine, there only while somebody
// waits, reads on for all of them; sends that lack nothing pass by.
type waiters struct {
	s       *Sender
	catchUp func(ctx context.Context) error
	resume  func(f *flight)

	mu      sync.Mutex
	flights []*flight
	running bool
}

// Pauses between tries to read the log's end, while it cannot be reached.
const (
	firstWait = 100 * time.Millisecond
	lastWait  = 5 * time.Second
)

func (w *waiters) add(f *flight) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.flights = append(w.flights, f)
	if !w.running {
		w.running = true
		w.s.running.Go(w.run)
	}
}

// take empties the list. Those that come later have to wait for a later reading.
func (w *waiters) take() []*flight {
	w.mu.Lock()
	defer w.mu.Unlock()
	taken := w.flights
	w.flights, w.running = nil, len(taken) > 0
	return taken
}

func (w *waiters) run() {
	for {
		waiting := w.take()
		if len(waiting) == 0 {
			return
		}
		if !w.read() {
			for _, f := range waiting {
				w.s.drop(f)
			}
			continue
		}
		now := w.s.nowUS()
		for _, f := range waiting {
			f.seenUS = now
			if f.ctx.Err() != nil || !f.done.MayPush() {
				w.s.drop(f)
				continue
			}
			w.resume(f)
		}
		w.s.pump()
	}
}

// read reads the log to its end, however long the log is away. It reports whether it did: not where the sender is closed.
func (w *waiters) read() bool {
	for wait := firstWait; ; wait = min(2*wait, lastWait) {
		err := w.catchUp(w.s.life)
		if err == nil {
			return true
		}
		if w.s.life.Err() != nil {
			return false
		}
		w.s.log.Warn("log cannot be read to its end: sends wait", "error", err)
		select {
		case <-time.After(wait):
		case <-w.s.life.Done():
			return false
		}
	}
}
