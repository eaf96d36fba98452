package router

import (
	"math"
	"time"
)

// candidate is a cursor of this partition that is not done, with everything that decides whether it may take a page. Times
// are Unix microseconds.
type candidate struct {
	broadcast *owned
	cursor    *ownedCursor
	// closing: cancelled, or expired before it was expanded: the cursor is to be closed where it stands.
	closing bool
	paused  bool
	// expires is when it becomes closing by itself; zero: never.
	expires int64
	// notBefore is when its next page may go: its broadcast's time to start, its rate, its freshness, what it leaves to others.
	notBefore int64
	// gaveWay: it is its turn among the large broadcasts that notBefore is for, while others come.
	gaveWay bool
	// slice is the most that its broadcast's own rate lets a page hold; zero: no rate of its own.
	slice int
	lane  *laneView
	// express: its audience is so small that it need not wait for the lead of the others.
	express bool
	// turns: when its app, its broadcast and itself had their last page, as running numbers; lower is longer ago.
	turns [3]uint64
}

// laneView is what a Drive sees of an app's traffic on one transport.
type laneView struct {
	outstanding int64 // emitted without a first outcome
	express     int64 // of it, what is of small audiences
	lead        int64
	runnable    int // cursors, over all partitions
	plan        uint64
}

// pageSize is what one page of this lane may hold: its share of the lead, and never more than a quarter, so that the next page is there
// before the last one is through. There are no more shares than partitions have pages at once, however many cursors take turns at those:
// the more of a page, the less of its transaction a send costs.
func (l *laneView) pageSize(limits pageLimits) int {
	share := l.lead / int64(max(min(l.runnable, limits.shares), 4))
	return int(min(max(share, int64(limits.least)), int64(limits.most)))
}

// add counts what was emitted besides.
func (l *laneView) add(n int64, express bool) {
	l.outstanding += n
	if express {
		l.express += n
	}
}

// has reports whether a page has room in the lead. Small audiences have half a lead of their own, so that they wait for nobody but each
// other: what a large one has out may be many leads, where the provider has become slower since.
func (l *laneView) has(limit int64, express bool) bool {
	out, lead := l.outstanding, l.lead
	if express {
		out, lead = l.express, lead/2
	}
	return out == 0 || out+limit <= lead
}

// expressAudience is the largest audience of which a broadcast is small.
const expressAudience = 1000

// express reports whether a broadcast is small: it says so itself, and has emitted no more than that.
func (b *broadcast) express() bool {
	n := b.request().GetAudienceEstimate()
	emitted := int64(0)
	for i := range slots {
		emitted += b.emitted[i]
	}
	return n > 0 && n <= expressAudience && emitted <= 2*expressAudience
}

type pageLimits struct {
	least, most int
	shares      int // of the lead, at most
}

// sharesEach is how many shares of the lead a partition has: while a page of it is on its way to the provider, the next one is written.
const sharesEach = 2

const (
	// besideExpress is the most that a page of a large audience holds while small ones come: one of them waits for a page under way. Less
	// would cost transactions, more than a thousand records each cost no more (facts of kfake: 0.47 µs a record with 1,000, 0.41 with 10,000).
	besideExpress = 2000
	// expressLately is for how long small audiences are expected after the last one.
	expressLately = 5 * time.Second
)

// beside are the limits for large audiences where a small one came at expressUS last; zero: never.
func (l pageLimits) beside(expressUS, nowUS int64) pageLimits {
	if expressUS > 0 && nowUS-expressUS < expressLately.Microseconds() {
		l.most = max(min(l.most, besideExpress), l.least)
	}
	return l
}

type stepKind int

const (
	stepWait  stepKind = iota // until wakeAt, or until the state changes
	stepPage                  // read at most limit devices of candidates[index]
	stepClose                 // close the cursors of candidates[index]'s broadcast
)

type step struct {
	kind   stepKind
	index  int
	limit  int
	wakeAt int64 // never: math.MaxInt64
}

const never = math.MaxInt64

// nextStep says what to do now: of those that may go, the one whose app, then broadcast, then cursor has waited longest.
// Paused, scheduled, rate-limited, not fresh and too far ahead are passed over: nothing sits in front of anything else.
// Where nothing is outstanding, the lead holds nobody back, so that it can never stop for ever.
func nextStep(candidates []candidate, nowUS int64, limits pageLimits) step {
	next := step{wakeAt: never}
	for i := range candidates {
		c := &candidates[i]
		if c.closing {
			return step{kind: stepClose, index: i}
		}
		if c.expires > nowUS {
			next.wakeAt = min(next.wakeAt, c.expires)
		}
		if c.paused {
			continue
		}
		if c.notBefore > nowUS {
			next.wakeAt = min(next.wakeAt, c.notBefore)
			continue
		}
		limit := c.lane.pageSize(limits)
		if c.slice > 0 {
			limit = min(limit, c.slice)
		}
		if c.express {
			limit = min(limit, expressAudience)
		}
		if !c.lane.has(int64(limit), c.express) {
			continue
		}
		if next.kind == stepWait || earlier(c.turns, candidates[next.index].turns) {
			next.kind, next.index, next.limit = stepPage, i, limit
		}
	}
	return next
}

func earlier(a, b [3]uint64) bool {
	for i := range a {
		if a[i] != b[i] {
			return a[i] < b[i]
		}
	}
	return false
}
