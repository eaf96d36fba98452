package eventlog

import "sync/atomic"

// crowd bounds the records that were given to the handler and are not completed, over all partitions: their memory must not grow with
// the number of partitions that a process owns. While it is full, each partition goes on with its equal part. It is safe for concurrent
// use.
type crowd struct {
	most    int64
	given   atomic.Int64
	windows atomic.Int64
	waits   atomic.Bool // a window found no room, and is to be told of some
}

// share is what each partition has in any case.
func (c *crowd) share() int64 { return max(c.most/max(c.windows.Load(), 1), 1) }

// room reports whether one more record may be given of a window of which own are. Whoever is told that there is none will be told when
// to ask again.
func (c *crowd) room(own int) bool {
	if c.given.Load() < c.most || int64(own) < c.share() {
		return true
	}
	c.waits.Store(true)
	return c.given.Load() < c.most // records that left before it was known that somebody waits told nobody
}

// told reports whether those who wait are to ask again, after records left of a window of which own are still given: a quarter at a
// time, so that batches stay large.
func (c *crowd) told(own int) bool {
	return c.waits.Load() && (c.given.Load() <= c.most*3/4 || int64(own) <= c.share()/2) && c.waits.CompareAndSwap(true, false)
}
