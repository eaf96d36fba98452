package router

import (
	"fmt"
	"sync"
	"time"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// StopRule says when a broadcast stops by itself, since too many of its pushes fail. Its zero value never stops one.
type StopRule struct {
	// Above is the share of the finished pushes of one transport, from 0 to 1, of which more must have been called dead or been
	// rejected. Zero: nothing stops by itself.
	Above float64
	// Young is for how long after they were set an app's credentials are watched; zero: for ever. A mistake in them shows at their
	// first broadcast; later it is phones that come and go.
	Young time.Duration
	// Least is how many pushes of that transport must have finished before they prove anything; zero: 200.
	Least int64
}

// StoppedBy is who paused a broadcast that stopped by itself.
const StoppedBy = "campanile"

// passed reports whether a transport's counts are beyond the rule. What was cancelled or ran out of time says nothing of it.
func (r StopRule) passed(c *counts) bool {
	failed := c.invalid + c.rejected
	judged := c.accepted + failed
	return r.Above > 0 && judged >= max(r.Least, 1) && float64(failed) > r.Above*float64(judged)
}

// watches reports whether credentials that were set then are watched now. Those of which nothing is known are not: they were not
// set while this log was written.
func (r StopRule) watches(setAtUS, nowUS int64) bool {
	return setAtUS > 0 && (r.Young == 0 || nowUS-setAtUS < r.Young.Microseconds())
}

// stop says why a broadcast is to stop now; "": it is not. One that was resumed goes on whatever comes: somebody has looked.
func (r StopRule) stop(b *broadcast, credentials func(laneKey) int64, nowUS int64) (reason string) {
	if !b.live() || b.paused || b.cancel || b.resumedAtUS != 0 || b.cursorsDone() >= b.cursorCount() {
		return ""
	}
	for i, t := range schemas.Transports {
		c := &b.sums[i]
		if r.passed(c) && r.watches(credentials(laneKey{b.app, i}), nowUS) {
			return fmt.Sprintf("it stopped by itself: of the first %d pushes by %s %d failed (%d dead tokens, %d rejected), more than %.0f %%; resume sends the rest",
				c.accepted+c.invalid+c.rejected, t.Word(), c.invalid+c.rejected, c.invalid, c.rejected, 100*r.Above)
		}
	}
	return ""
}

// credentialTimes knows since when apps have their credentials. The zero value knows none; its methods may be called from any
// goroutine.
type credentialTimes struct {
	mu    sync.Mutex
	setUS map[laneKey]int64
}

func (c *credentialTimes) apply(r schemas.Record) error {
	if r.Tombstone() {
		return nil
	}
	event, err := r.Event()
	if err != nil {
		return err
	}
	e, ok := event.(*pushv1.CredentialsSet)
	i, known := slot(e.GetTransport())
	if !ok || !known {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.setUS == nil {
		c.setUS = map[laneKey]int64{}
	}
	c.setUS[laneKey{e.App, i}] = e.SetAtUs
	return nil
}

func (c *credentialTimes) of(k laneKey) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.setUS[k]
}
