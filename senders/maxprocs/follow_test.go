package maxprocs

import (
	"context"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// The tests of this file are not parallel: GOMAXPROCS is the process's.

// keepProcs leaves GOMAXPROCS as it was when the test ends.
func keepProcs(t *testing.T) {
	t.Helper()
	before := runtime.GOMAXPROCS(0)
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
}

func TestFollowSetsWhatTheLoadNeeds(t *testing.T) {
	keepProcs(t)
	const most = 6
	ctx, cancel := context.WithCancel(t.Context())
	script := slices.Concat(slices.Repeat([]load{{cores: 0.1}}, shortest), []load{{cores: 0.9}, {cores: 0.3, waited: 5 * time.Millisecond}, {cores: 3.9}, {}})
	var seen []int // at the time of each look
	tick, done := make(chan time.Time), make(chan struct{})
	go func() {
		defer close(done)
		follow(ctx, most, tick, func() (load, bool) {
			seen = append(seen, runtime.GOMAXPROCS(0))
			return script[len(seen)-1], true
		})
	}()
	for range script {
		tick <- time.Time{}
	}
	cancel()
	<-done
	if want := slices.Concat(slices.Repeat([]int{most}, shortest), []int{1, 2, 4, 6}); !slices.Equal(seen, want) {
		t.Errorf("want %d, got %d", want, seen)
	}
	if got := runtime.GOMAXPROCS(0); got != most {
		t.Errorf("want %d when the context has ended, got %d", most, got)
	}
}

func TestFollowRestoresWhenItsContextEnds(t *testing.T) {
	keepProcs(t)
	const most = 3
	ctx, cancel := context.WithCancel(t.Context())
	tick, done := make(chan time.Time), make(chan struct{})
	go func() {
		defer close(done)
		follow(ctx, most, tick, func() (load, bool) { return load{}, true })
	}()
	for range shortest + 1 { // the last is taken when the one before has been acted on
		tick <- time.Time{}
	}
	if got := runtime.GOMAXPROCS(0); got != 1 {
		t.Errorf("want 1 for an idle process, got %d", got)
	}
	cancel()
	<-done
	if got := runtime.GOMAXPROCS(0); got != most {
		t.Errorf("want %d when the context has ended, got %d", most, got)
	}
}

func TestFollowLeavesMostWhereNothingCanBeRead(t *testing.T) {
	keepProcs(t)
	tick := make(chan time.Time, 1)
	tick <- time.Time{}
	follow(t.Context(), 3, tick, func() (load, bool) { return load{}, false })
	if got := runtime.GOMAXPROCS(0); got != 3 {
		t.Errorf("want 3, got %d", got)
	}
}

// TestFollowReadsTheRuntime is of the real readings, two seconds of them by the bubble's clock.
func TestFollowReadsTheRuntime(t *testing.T) {
	keepProcs(t)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		Follow(ctx, 3)
		if ctx.Err() == nil {
			t.Error("want it to go on until its context ends")
		}
	})
	if got := runtime.GOMAXPROCS(0); got != 3 {
		t.Errorf("want 3, got %d", got)
	}
}
