package router

import "time"

const (
	// paceTick is how much of a rate one page holds: the finer, the evener, and the more transactions.
	paceTick = 500 * time.Millisecond
	// paceCredit is how much lateness a cursor may make up for, so that a rate is kept on average and never in a burst.
	paceCredit = time.Second
	// unknownAudience is what "spread over N minutes" reckons with where nobody could estimate the audience.
	unknownAudience = 1000
)

// pace is a broadcast's own speed limit.
type pace struct {
	rate    float64 // pushes a second over all its cursors; zero: none
	untilUS int64   // when the limit ends; never, unless it comes from a spread
}

// pace says how fast b may go now. A rate set later replaces what the request said. A spread is over when its time is, or
// a low estimate would stretch it for ever; after a pause its time starts anew.
func (b *broadcast) pace(r *request, nowUS int64) pace {
	if b.rate {
		return pace{max(b.ownRate, 0), never}
	}
	p := pace{max(r.Rate, 0), never}
	if r.SpreadSeconds == 0 {
		return p
	}
	start := max(r.RequestedAtUs, r.SendAtUs, b.resumedAtUS)
	end := start + int64(r.SpreadSeconds)*time.Second.Microseconds()
	if nowUS >= end {
		return p
	}
	audience := r.AudienceEstimate
	if audience <= 0 {
		audience = unknownAudience
	}
	if spread := float64(audience) / float64(r.SpreadSeconds); p.rate == 0 || spread < p.rate {
		return pace{spread, end}
	}
	return p
}

// slice is the page that a cursor with that rate may take at once.
func slice(rate float64) int {
	if rate <= 0 {
		return 0
	}
	return max(1, int(min(rate*paceTick.Seconds(), 1e9)))
}

// slice is the page that c may take at once. Its first one is a part by its place among the broadcast's cursors: from then on their turns
// are spread over the tick, and what goes out is even, where together they would send a tick's worth in one burst.
func (c *ownedCursor) slice(r *request, rate float64) int {
	n := slice(rate)
	if n == 0 || c.pacedFor > 0 {
		return n
	}
	place, places := int(c.key.rng)*slots+c.slot, int(r.Ranges)*slots
	return max(1, n*(place+1)/places)
}

// due is when a cursor that took n at fromUS may take more.
func due(fromUS, n int64, rate float64) int64 {
	if rate <= 0 || n == 0 {
		return fromUS
	}
	wait := float64(n) / rate * 1e6
	if wait > 1e15 { // some thirty years
		wait = 1e15
	}
	return fromUS + int64(wait)
}
