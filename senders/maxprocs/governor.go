package maxprocs

import (
	"math"
	"time"
)

// The governor's constants. Ten looks are a second.
const (
	growAbove  = 0.8              // of the processors used: beyond it, the next burst finds none that is free
	growLate   = time.Millisecond // that a goroutine in ten waited to run: a tenth of Go's time slice, and little beside a provider's 50 ms
	shrinkTo   = 0.6              // of the processors used, at the peak: well below growAbove, so that a shrink is not undone by noise
	shortest   = 10               // looks of a window: a second, so that a pause between two batches is not taken for the end of the work
	longest    = 640              // looks: with a load that fewer processors do not do for, they are tried once a minute
	regretTime = 100              // looks after a shrink: who waits so soon had too few
)

// governor decides how many processors a process has, from 1 to most, look by look. It grows at once, by doubling; it shrinks to what a
// window of looks needed in which it did not want to grow. Where goroutines wait soon after a shrink, though there is CPU to spare, the
// work comes in bursts that are shorter than a look: windows double then.
type governor struct {
	most, n int
	window  int     // looks
	quiet   int     // looks of the window under way
	peak    float64 // cores, the most of a look of that window
	calm    int     // looks since a shrink, or since one was regretted
	shrunk  bool    // once at least, and that was not regretted
}

func newGovernor(most int) *governor {
	most = max(most, 1)
	return &governor{most: most, n: most, window: shortest}
}

// step is how many there should be after a look at the cores used since the last one, and how long goroutines waited to run.
func (g *governor) step(cores float64, waited time.Duration) int {
	if g.calm++; g.calm > longest { // so that the shrink that a longest window ends with is tried before all is forgiven
		g.window = shortest
	}
	full, late := cores > growAbove*float64(g.n), waited > growLate
	if full || late {
		if !full && g.n < g.most && g.shrunk && g.calm <= regretTime {
			g.window, g.shrunk, g.calm = min(2*g.window, longest), false, 0
		}
		g.n = min(2*g.n, g.most)
		g.quiet, g.peak = 0, 0
		return g.n
	}
	g.quiet++
	g.peak = max(g.peak, cores)
	if g.quiet < g.window {
		return g.n
	}
	if need := max(int(math.Ceil(g.peak/shrinkTo)), 1); need < g.n {
		g.n, g.shrunk, g.calm = need, true, 0
	}
	g.quiet, g.peak = 0, 0
	return g.n
}
