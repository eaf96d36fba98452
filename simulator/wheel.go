package simulator

import (
	"sync"
	"time"
)

// wheel holds back the answers of all connections: one goroutine and one timer for any number of streams, which are linked into
// the slot of their millisecond. Lock a connection before the wheel.
type wheel struct {
	start time.Time
	fire  func(due *h2Stream) // gets a list, linked by next, off the wheel
	wake  chan struct{}
	done  chan struct{}

	mu     sync.Mutex
	slots  [wheelSlots]*h2Stream
	now    int64 // tick up to which everything is fired
	target int64 // tick that run waits for; noTarget: none
	count  int
}

const (
	wheelTick  = time.Millisecond
	wheelSlots = 4096 // ticks; what takes longer goes round
	noTarget   = 1<<63 - 1
)

func newWheel(fire func(due *h2Stream)) *wheel {
	return &wheel{start: time.Now(), fire: fire, wake: make(chan struct{}, 1), done: make(chan struct{}), target: noTarget}
}

// add holds s back for d. s is on no wheel.
func (w *wheel) add(s *h2Stream, d time.Duration) {
	tick := int64((time.Since(w.start) + d + wheelTick - 1) / wheelTick)
	w.mu.Lock()
	s.tick = max(tick, w.now+1)
	slot := &w.slots[s.tick%wheelSlots]
	s.next, s.prev, s.onWheel = *slot, nil, true
	if s.next != nil {
		s.next.prev = s
	}
	*slot = s
	w.count++
	early := s.tick < w.target
	if early {
		w.target = s.tick
	}
	w.mu.Unlock()
	if early {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// remove takes s off; false: it was fired, and fire has it or had it.
func (w *wheel) remove(s *h2Stream) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !s.onWheel {
		return false
	}
	w.unlink(s)
	return true
}

func (w *wheel) unlink(s *h2Stream) {
	if s.prev != nil {
		s.prev.next = s.next
	} else {
		w.slots[s.tick%wheelSlots] = s.next
	}
	if s.next != nil {
		s.next.prev = s.prev
	}
	s.prev, s.next, s.onWheel = nil, nil, false
	w.count--
}

// take unlinks what is due at now, and sets the next target.
func (w *wheel) take(now time.Time) (due *h2Stream, wait time.Duration) {
	tick := int64(now.Sub(w.start) / wheelTick)
	w.mu.Lock()
	defer w.mu.Unlock()
	// A round at most: by then every slot has been looked at.
	for at := max(w.now+1, tick-wheelSlots+1); at <= tick && w.count > 0; at++ {
		for s := w.slots[at%wheelSlots]; s != nil; {
			next := s.next
			if s.tick <= tick {
				w.unlink(s)
				s.next, due = due, s
			}
			s = next
		}
	}
	w.now = max(w.now, tick)
	w.target = noTarget
	if w.count == 0 {
		return due, -1
	}
	for at := w.now + 1; at <= w.now+wheelSlots; at++ {
		if w.slots[at%wheelSlots] != nil {
			w.target = at
			break
		}
	}
	return due, w.start.Add(time.Duration(w.target) * wheelTick).Sub(now)
}

// run fires what is due until stop.
func (w *wheel) run() {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		due, wait := w.take(time.Now())
		if due != nil {
			w.fire(due)
			continue // that took time
		}
		var expired <-chan time.Time
		if wait >= 0 {
			t.Reset(wait)
			expired = t.C
		}
		select {
		case <-expired:
		case <-w.wake:
		case <-w.done:
			return
		}
	}
}

func (w *wheel) stop() { close(w.done) }
