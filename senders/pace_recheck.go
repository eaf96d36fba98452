package senders

import (
	"sync"
	"time"
)

// How parked sends are looked at again: as often as their tier says while they are few, less often when each look moves many, and
// within seconds once any app is free.
const (
	recheckFew   = 10_000
	recheckMost  = 20 // times the tier's delay
	recheckAsked = int64(5 * time.Second / time.Microsecond)
)

// recheck says when parked sends are due. It is safe for concurrent use. Times are Unix microseconds.
type recheck struct {
	baseUS int64 // the tier's delay

	mu      sync.Mutex
	moved   int // parked in this interval
	before  int // and in the one before
	sinceUS int64
	freedUS int64 // when an app was last no longer parked
}

// count notes that a send was parked.
func (r *recheck) count(nowUS int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.roll(nowUS)
	r.moved++
}

func (r *recheck) free(nowUS int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.freedUS = nowUS
}

func (r *recheck) interval() int64 {
	n := max(r.moved, r.before)
	return r.baseUS * int64(min(max(n/recheckFew, 1), recheckMost))
}

func (r *recheck) roll(nowUS int64) {
	if elapsed, interval := nowUS-r.sinceUS, r.interval(); elapsed >= interval {
		r.before, r.moved, r.sinceUS = r.moved, 0, nowUS
		if elapsed >= 2*interval {
			r.before = 0
		}
	}
}

// due is when a send that was parked at atUS is to be looked at, or asked about again.
func (r *recheck) due(atUS, notBeforeUS, nowUS int64) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.roll(nowUS)
	due := atUS + r.interval()
	const slack = int64(5 * time.Second / time.Microsecond)
	if notBeforeUS < atUS+r.baseUS-slack { // it ends before
		due = min(due, notBeforeUS)
	}
	if atUS < r.freedUS {
		return min(due, r.freedUS)
	}
	return min(due, max(nowUS, atUS)+recheckAsked)
}
