package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/pprof"
	"time"
)

// How often a stage is looked at: more often than answers come in waves, and the ledger, for which the simulator is asked, at every
// tenth look.
const (
	watchEvery = 5 * time.Millisecond
	askEvery   = 10
)

// watcher looks at a stage while it pushes.
type watcher struct {
	s      *stage
	before int64 // pushes in the ledger before the first

	looks       int
	first, last time.Time // with pushes in flight
	flying      float64   // pushes in flight × seconds, since first
	peaks       []int64
	profiled    bool
}

// look reports whether the ledger holds so many pushes.
func (w *watcher) look(ctx context.Context, until int64) (bool, error) {
	now, n := time.Now(), 0
	for _, a := range w.s.sender.Accounts() {
		n += a.InFlight
	}
	if n > 0 { // before the first push and after the last nothing is measured
		if w.first.IsZero() {
			w.first, w.last = now, now
		}
		w.flying += float64(n) * now.Sub(w.last).Seconds()
		w.last = now
	}
	w.looks++
	if w.looks%askEvery != 0 {
		return false, nil
	}
	accepted, err := w.s.p.accepted(ctx)
	if err != nil {
		return false, err
	}
	if w.s.o.Profile != "" && !w.profiled && accepted-w.before >= int64(w.s.o.N)/2 {
		w.profiled = true
		if err := heapProfile(w.s.o.Profile + ".heap"); err != nil {
			return false, err
		}
	}
	for marks := w.s.o.Marks; len(w.peaks) < len(marks) && accepted-w.before >= marks[len(w.peaks)]; {
		peak, err := peakRSS(os.Getpid())
		if err != nil {
			return false, err
		}
		w.peaks = append(w.peaks, peak)
	}
	return accepted >= until, nil
}

// heapProfile keeps what the last garbage collection found in use.
func heapProfile(file string) error {
	f, err := os.Create(file)
	if err != nil {
		return fmt.Errorf("keep a profile: %w", err)
	}
	return errors.Join(pprof.Lookup("heap").WriteTo(f, 0), f.Close())
}

// seen is what was seen.
func (w *watcher) seen() seen {
	busy := w.last.Sub(w.first)
	if busy <= 0 {
		return seen{peaks: w.peaks}
	}
	return seen{inFlight: w.flying / busy.Seconds(), busy: busy, peaks: w.peaks}
}
