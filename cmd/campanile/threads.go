package main

import (
	"context"
	"os"
	"runtime"

	"github.com/campanile-push/campanile/senders/maxprocs"
)

// threadsPerCore is how many goroutines may run at once for each core, where nothing is set.
//
// With one for each core, what a broadcast makes work (expansion, encoding, TLS, counting) fills the run queues of Go's scheduler, and each
// of the thirty goroutines that hand a direct push on waits there behind it: a goroutine that computes is put aside after 10 ms only, and
// a process whose processors are all at work looks at its sockets every 10 ms. With more threads than cores the kernel shares the cores
// out, in slices of 3 ms at most, and first to who has slept.
const threadsPerCore = 4

// spreadThreads sets how many goroutines may run at once: n, or threadsPerCore for each core that this process has. The variable
// GOMAXPROCS, where the operator has set it, stands. A process of senders alone then follows its work.
func spreadThreads(n int) {
	if os.Getenv("GOMAXPROCS") != "" {
		return
	}
	if n <= 0 {
		runtime.SetDefaultGOMAXPROCS() // the cores, or less by a cgroup's limit
		n = threadsPerCore * runtime.GOMAXPROCS(0)
	}
	runtime.GOMAXPROCS(n)
}

// followWork lets a process of senders alone have as many threads as it has work for, one for each core at most: nothing else's work is
// in its queues, and a push costs more CPU where threads wake for nothing. What the operator has set, as GOMAXPROCS or `threads`, stands.
func (p *process) followWork() {
	if os.Getenv("GOMAXPROCS") != "" || p.cfg.Threads > 0 {
		return
	}
	runtime.SetDefaultGOMAXPROCS()
	most := runtime.GOMAXPROCS(0)
	p.super.background(engines, func(ctx context.Context) { maxprocs.Follow(ctx, most) })
}
