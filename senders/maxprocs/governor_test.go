package maxprocs

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// looks are so many of the same.
type looks struct {
	times  int
	cores  float64
	waited time.Duration
	want   int // after the last
}

func TestProcessorsFollowTheLoad(t *testing.T) {
	t.Parallel()
	const wait = 2 * time.Millisecond
	for _, c := range []struct {
		name  string
		most  int
		looks []looks
	}{
		{"an idle process has one in a second", 16, []looks{{9, 0, 0, 16}, {1, 0, 0, 1}}},
		{"a third of a core needs one", 16, []looks{{10, 0.36, 0, 1}, {100, 0.36, 0, 1}}},
		{"the peak of a second counts", 16, []looks{{1, 1.9, 0, 16}, {9, 0.1, 0, 4}, {10, 0.1, 0, 1}}},
		{"half full is neither too few nor too many", 4, []looks{{100, 2.4, 0, 4}}},
		{"full load doubles them at each look", 4, []looks{{10, 0, 0, 1}, {1, 0.95, 0, 2}, {1, 1.9, 0, 4}, {1, 3.9, 0, 4}}},
		{"twice the cores are enough where none is free", 16, []looks{{10, 0, 0, 1}, {1, 1, 0, 2}, {1, 2, 0, 4}, {1, 4, 0, 8}, {100, 4, 0, 7}}},
		{"a goroutine in ten that waits brings more, with CPU to spare", 16, []looks{{10, 0.2, 0, 1}, {1, 0.2, wait, 2}, {1, 0.2, wait, 4}}},
		{"a millisecond is not too long", 16, []looks{{20, 0.2, time.Millisecond, 1}}},
		{"a window begins anew when more are wanted", 16, []looks{{9, 0, 0, 16}, {1, 0, wait, 16}, {9, 0, 0, 16}, {1, 0, 0, 1}}},
		{"a wait soon after a shrink makes windows longer", 2, []looks{
			{10, 0.2, 0, 1},
			{1, 0.2, wait, 2},
			{19, 0.2, 0, 2},
			{1, 0.2, 0, 1},
			{100, 0.2, wait, 2},
			{39, 0.2, 0, 2},
			{1, 0.2, 0, 1},
		}},
		{"one shrink is regretted once", 16, []looks{{10, 0.2, 0, 1}, {4, 0.2, wait, 16}, {19, 0.2, 0, 16}, {1, 0.2, 0, 1}}},
		{"more work after a shrink is no regret", 2, []looks{{10, 0.2, 0, 1}, {1, 0.9, wait, 2}, {9, 0.2, 0, 2}, {1, 0.2, 0, 1}}},
		{"nor is a wait that comes late", 2, []looks{{10, 0.2, 0, 1}, {100, 0.2, 0, 1}, {1, 0.2, wait, 2}, {9, 0.2, 0, 2}, {1, 0.2, 0, 1}}},
		{"a minute without regret forgives", 2, []looks{
			{10, 0.2, 0, 1},
			{1, 0.2, wait, 2},
			{20, 0.2, 0, 1},
			{640, 0.2, 0, 1},
			{1, 0.9, 0, 2},
			{9, 0.2, 0, 2},
			{1, 0.2, 0, 1},
		}},
		{"none is less than one", 0, []looks{{1, 5, wait, 1}, {20, 0, 0, 1}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			g := newGovernor(c.most)
			for i, l := range c.looks {
				var got int
				for range l.times {
					got = g.step(l.cores, l.waited)
				}
				if got != l.want {
					t.Fatalf("step %d, %d times %.2f cores and %v: want %d, got %d", i, l.times, l.cores, l.waited, l.want, got)
				}
			}
		})
	}
}

// TestFlappingBacksOff has work that one processor never does for: goroutines wait as soon as there are fewer than two.
func TestFlappingBacksOff(t *testing.T) {
	t.Parallel()
	g := newGovernor(2)
	n, last := 2, 0
	var between []int
	for look := range 5 * longest {
		before := n
		waited := time.Duration(0)
		if n < 2 {
			waited = 5 * time.Millisecond
		}
		if n = g.step(0.3, waited); n < before {
			between = append(between, look-last)
			last = look
		}
	}
	want := []int{9, 21, 41, 81, 161, 321, 641, 641, 641, 641}
	if !slices.Equal(between, want) {
		t.Errorf("want shrinks after %d looks, got %d", want, between)
	}
}

func TestProcessorsStayWithinTheirBounds(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	for _, most := range []int{1, 2, 3, 6, 16, 100} {
		g := newGovernor(most)
		busy := 0.0
		for look := range 10_000 {
			if look%50 == 0 {
				busy = random.Float64() * float64(2*most)
			}
			cores, waited := busy*random.Float64(), time.Duration(random.ExpFloat64()*float64(growLate)/4)
			if n := g.step(cores, waited); n < 1 || n > most {
				t.Fatalf("look %d, %.2f cores and %v: want 1 to %d, got %d", look, cores, waited, most, n)
			}
		}
	}
}
