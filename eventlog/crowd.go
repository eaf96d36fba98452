package eventlog

import "sync/atomic"

// crowd bounds the records that were given to the handler and whose ends the log has not acknowledged, over all partitions: they and
// their ends are most of a sender's memory, which must not grow with the number of partitions that a process owns. While it is full, each
// partition goes on with its equal part. It is safe for concurrent use.
type crowd struct {
	most    int64
	held    atomic.Int64
	windows atomic.Int64
	waits   atomic.Bool // a window found no room, and is to be told of some
}

// share is what each partition has in any case.
func (c *crowd) share() int64 { return max(c.most/max(c.windows.Load(), 1), 1) }

// room reports whether one more record may be given of a window of which own are. Whoever is told that there is none will be told when
// to ask again.
func (c *crowd) room(own int) bool {
	if c.held.Load() < c.most || int64(own) < c.share() {
		return true
	}
	c.waits.Store(true)
	return c.held.Load() < c.most // records that left before it was known that somebody waits told nobody
}

// told reports whether those who wait are to ask again, after ends were acknowledged of a window of which own records are still held: a
// quarter at a time, so that batches stay large.
func (c *crowd) told(own int) bool {
	return c.waits.Load() && (c.held.Load() <= c.most*3/4 || int64(own) <= c.share()/2) && c.waits.CompareAndSwap(true, false)
}
