package senders

import (
	"math"
	"sync"
	"time"

	"github.com/campanile-push/campanile/schemas"
)

// tierShare is how much of a lane's part goes by the retry tiers that a process owns, and not by its partitions of first sends: a
// process that owns tiers alone must not stand still, and sum over all processes remains one.
const tierShare = 0.1

// Quotas are the rates of provider projects, of which FCM counts all pushes together, and those that apps were configured with. One
// Quotas serves all lanes of a transport in a process. It is safe for concurrent use.
type Quotas struct {
	options QuotaOptions

	mu    sync.Mutex
	all   map[string]*quota // by project, and by app behind a NUL
	owned [lanes]owned
}

// QuotaOptions are rates in pushes a second over all processes. The zero value limits nothing but what apps were configured with.
type QuotaOptions struct {
	// Rate of a project that is not among Projects; zero: no limit.
	Rate     float64
	Projects map[string]float64
	// Ramp is how long the bulk lane of a project takes from a twentieth of its rate to all of it, after a silence as at the start;
	// zero: no time. Google asks for a minute.
	Ramp time.Duration
}

// owned is what a process owns of a lane's topics, in partitions. The zero value is all.
type owned struct {
	known bool
	tiers [schemas.Tiers + 1]float64 // shares, by tier; 0: of the first sends
}

// share is the process's part of a rate.
func (o *owned) share() float64 {
	if !o.known {
		return 1
	}
	sum := 0.0
	for _, part := range o.tiers[1:] {
		sum += part
	}
	return (1-tierShare)*o.tiers[0] + tierShare*sum/schemas.Tiers
}

// NewQuotas returns quotas of which nothing is used.
func NewQuotas(o QuotaOptions) *Quotas { return &Quotas{options: o, all: map[string]*quota{}} }

// Lanes in the order of their right to a quota.
const (
	directLane = iota
	expressLane
	bulkLane
	lanes // their number
)

func laneIndex(lane schemas.Lane) int {
	switch lane { //nolint:exhaustive // those that senders work on
	case schemas.Direct:
		return directLane
	case schemas.Express:
		return expressLane
	}
	return bulkLane
}

// ofProject is a project's quota; nil: it has none.
func (q *Quotas) ofProject(project string) *quota {
	rate, ok := q.options.Projects[project]
	if !ok {
		rate = q.options.Rate
	}
	if rate <= 0 || project == "" {
		return nil
	}
	return q.of(project, rate, q.options.Ramp)
}

// ofApp is an app's own quota; nil: it has none.
func (q *Quotas) ofApp(app string) *quota {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.all["\x00"+app]
}

// setApp sets an app's own rate, or ends it with zero.
func (q *Quotas) setApp(app string, rate float64) {
	key := "\x00" + app
	if rate <= 0 {
		q.mu.Lock()
		defer q.mu.Unlock()
		delete(q.all, key)
		return
	}
	p := q.of(key, rate, 0)
	q.mu.Lock()
	defer q.mu.Unlock()
	p.rate = rate
	q.divide(p)
}

func (q *Quotas) of(key string, rate float64, ramp time.Duration) *quota {
	q.mu.Lock()
	defer q.mu.Unlock()
	p := q.all[key]
	if p == nil {
		p = &quota{rate: rate, lanes: [lanes]pacer{newPacer(rate), newPacer(rate), newPacer(rate).ramped(ramp)}}
		q.divide(p)
		q.all[key] = p
	}
	return p
}

// divide gives each lane of a quota this process's part; Quotas.mu is held.
func (q *Quotas) divide(p *quota) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.lanes {
		p.lanes[i].setLimit(p.rate * q.owned[i].share())
	}
}

// owns notes what part of a topic's partitions is the process's, and divides every rate anew.
func (q *Quotas) owns(where schemas.SendTopic, part float64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	o := &q.owned[laneIndex(where.Lane)]
	o.known = true
	o.tiers[where.Tier] = part
	for _, p := range q.all {
		q.divide(p)
	}
}

// quota is one project's. Each lane has the whole rate, less what the lanes before it take: none is delayed by one after it. What a lane learns from refusals is its own.
type quota struct {
	mu    sync.Mutex
	rate  float64 // over all processes; guarded by Quotas.mu
	lanes [lanes]pacer
}

func (q *quota) take(lane int, nowUS int64) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.lanes[lane].take(nowUS) {
		return false
	}
	for after := lane + 1; after < lanes; after++ {
		if p := &q.lanes[after]; p.rate > 0 {
			p.tokens = max(p.tokens-1, -p.limit) // a second's debt at most: this process may own little of that lane
		}
	}
	return true
}

func (q *quota) wait(lane int, nowUS int64, queued int) int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.lanes[lane].wait(nowUS, queued)
}

func (q *quota) reserve(lane int, nowUS, least int64) int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.lanes[lane].reserve(nowUS, least)
}

func (q *quota) rated(lane int, r Result, beganUS, nowUS int64) (paused bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.lanes[lane].rated(r, beganUS, nowUS)
}

func (q *quota) giveBack(lane int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.lanes[lane].giveBack()
}

func (q *quota) paused(lane int, nowUS int64) int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return max(q.lanes[lane].pausedUntilUS-nowUS, 0)
}

func (q *quota) why(lane int, nowUS int64) Limit {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.lanes[lane].why(nowUS)
}

// now is the rate in force and the limit, pushes a second.
func (q *quota) now(lane int) (rate, limit float64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.lanes[lane].now(), q.lanes[lane].limit
}

// solveRise is the time in which a rate that rises by slope a second lets need pass.
func solveRise(rate, slope, need float64) float64 {
	return (math.Sqrt(rate*rate+2*slope*need) - rate) / slope
}
