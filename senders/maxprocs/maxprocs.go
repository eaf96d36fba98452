// Package maxprocs lets a process have as many of Go's processors (GOMAXPROCS) as it has work for. It imports nothing of ours.
package maxprocs

import (
	"context"
	"runtime"
	"time"
)

// interval is between two looks: as long as work that has grown waits for more, and many times what a look costs (about a microsecond).
const interval = 100 * time.Millisecond

// Follow sets GOMAXPROCS, from 1 to most, by how much CPU the process uses and how long its goroutines wait to run, until ctx ends. It
// begins and ends with most, and returns at once where the CPU time cannot be read. It is for one goroutine of a process.
//
// A processor without work is not free: whatever makes a goroutine ready wakes a thread for it, which looks for more and sleeps again. A
// sender that is busy for a third of a core takes two fifths more CPU a push with four of them than with one (docs/adr/0021).
func Follow(ctx context.Context, most int) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	follow(ctx, most, ticker.C, newMeter().look)
}

// follow takes a look at each tick, until there is nothing to be seen.
func follow(ctx context.Context, most int, tick <-chan time.Time, look func() (load, bool)) {
	runtime.GOMAXPROCS(most)
	defer runtime.GOMAXPROCS(most)
	g := newGovernor(most)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick:
		}
		seen, ok := look()
		if !ok {
			return
		}
		if n := g.step(seen.cores, seen.waited); n != runtime.GOMAXPROCS(0) {
			runtime.GOMAXPROCS(n) // stops the world, if for microseconds
		}
	}
}
