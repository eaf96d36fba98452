package router

import "time"

const (
	// paceTick is how much of a rate one page holds: the finer, the evener, and the more transactions.
	paceTick = 50 * time.Millisecond
	// fewPaced is what is worth a transaction: a page that a tick does not fill holds so many, or slowTick's worth.
	fewPaced = 100
	slowTick = 500 * time.Millisecond
	// paceCredit is how much lateness a partition may make up for, so that a rate is kept on average and never in a burst.
	paceCredit = 250 * time.Millisecond
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

// slice is the page that a partition with that part of a rate may take at once; zero: no rate.
func slice(rate float64) int {
	if rate <= 0 {
		return 0
	}
	n := max(rate*paceTick.Seconds(), min(rate*slowTick.Seconds(), fewPaced))
	return max(1, int(min(n, 1e9)))
}

// due is when a partition that was to take n from fromUS on may take more.
func due(fromUS int64, n, rate float64) int64 {
	if rate <= 0 || n == 0 {
		return fromUS
	}
	wait := n / rate * 1e6
	if wait > 1e15 { // some thirty years
		wait = 1e15
	}
	return fromUS + int64(wait)
}

// paced is how far a partition is with its part of a broadcast's rate. All its cursors share that: one after the other takes a page, so
// that what leaves is even, where cursors with a part each would leave together. The zero value has not begun.
type paced struct {
	fromUS int64   // when the last page was due; zero: there was none
	taken  float64 // what that page emitted
}

// begin has a partition wait for its turn among the others, as none of them knows when another takes a page.
func (p *paced) begin(place, places int32, slice int, nowUS int64) {
	if p.fromUS == 0 {
		p.fromUS, p.taken = nowUS, float64(slice)*float64(place)/float64(places)
	}
}

// take notes a page that was due at dueUS. Lateness is made up for, within bounds.
func (p *paced) take(n int, dueUS, nowUS int64) {
	p.fromUS, p.taken = max(dueUS, nowUS-paceCredit.Microseconds()), float64(n)
}
