package simulator

import (
	"math/rand/v2"
	"testing"
	"time"
)

func TestTheWheelFiresWhatIsDue(t *testing.T) {
	t.Parallel()
	w := newWheel(nil)
	w.start = time.Now().Add(-time.Minute) // so that add's own clock is far from 0
	r := rand.New(rand.NewPCG(1, 2))
	type held struct {
		due  time.Time
		gone bool
	}
	all := map[*h2Stream]*held{}
	for range 5000 {
		s := &h2Stream{}
		d := time.Duration(r.Int64N(int64(20 * time.Second))) // several rounds
		all[s] = &held{due: time.Now().Add(d)}
		w.add(s, d)
		if r.IntN(4) == 0 {
			if !w.remove(s) || w.remove(s) {
				t.Fatal("want it off the wheel once")
			}
			all[s].gone = true
		}
	}
	// The clock jumps, by less than a slot and by more than a round.
	now, end := time.Now(), time.Now().Add(21*time.Second)
	for now.Before(end) {
		now = now.Add([]time.Duration{300 * time.Microsecond, time.Millisecond, 90 * time.Millisecond, 5 * time.Second}[r.IntN(4)])
		due, wait := w.take(now)
		for s := due; s != nil; s = s.next {
			h := all[s]
			if h == nil || h.gone || h.due.After(now.Add(wheelTick)) {
				t.Fatalf("fired %+v at %v", h, now)
			}
			delete(all, s)
		}
		for _, h := range all {
			if !h.gone && h.due.Before(now.Add(-2*wheelTick)) {
				t.Fatalf("want fired by %v what was due at %v", now, h.due)
			}
		}
		if w.count > 0 && (wait < 0 || wait > wheelSlots*wheelTick) || w.count == 0 && wait >= 0 {
			t.Fatalf("%d are held, and the wait is %v", w.count, wait)
		}
	}
	if w.count != 0 {
		t.Fatalf("%d are left", w.count)
	}
}

func TestDelayedAnswersAreCounted(t *testing.T) {
	t.Parallel()
	s := newStats(time.Now())
	s.delayed(0, 3)
	s.delayed(time.Millisecond, 1)
	s.delayed(30*time.Second, 2)
	s.delayed(time.Hour, 1)
	got := map[string]int64{}
	for _, d := range s.read(Summary{}).Delays {
		got[d.Upper] = d.Count
	}
	if got["0"] != 3 || got["0.001"] != 1 || got["60"] != 2 || got["+Inf"] != 1 {
		t.Errorf("got %v", got)
	}
}
