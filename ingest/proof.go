package ingest

import (
	"context"
	"errors"
	"math"
	"sync/atomic"
	"time"

	"github.com/campanile-push/campanile/schemas"
)

const (
	maxBatch     = 1024 // devices in one lookup
	maxQuestions = 8192 // requests that wait for a turn; more are answered without proof
	firstPause   = 2 * time.Millisecond
	longestPause = 80 * time.Millisecond
)

// unknownEnd stands for an end of devices that could not be read: no store has applied up to it, so nobody refuses for it.
const unknownEnd = math.MaxInt64

// finding is what the store said of a device.
type finding struct {
	state schemas.DeviceState
	// proven: the store had applied the device's partition up to its end as read after the question was asked.
	proven bool
	// end is that end.
	end int64
}

// prover asks the store about devices, for many requests at once.
//
// Why a device that was registered again is never called dead: its registration was answered after the log had it, and the
// request came after that answer. The end of devices is read after the request came, so it is after that registration's record. The
// store answers only from a snapshot that has applied the device's partition up to that end, and so has folded that registration, or
// something later. Which process took the registration, or what any of them holds in memory, plays no part.
type prover struct {
	log     Log
	store   Store
	proof   bool // false: what the store knows now will do
	timeout time.Duration
	ask     chan *question
}

type question struct {
	device schemas.Device
	answer chan finding // 1
	end    atomic.Int64
	gone   atomic.Bool // nobody waits any more
}

func newProver(log Log, store Store, proof bool, timeout time.Duration) *prover {
	return &prover{log: log, store: store, proof: proof, timeout: timeout, ask: make(chan *question, maxQuestions)}
}

// about asks and waits no longer than patience.
func (p *prover) about(ctx context.Context, d schemas.Device, patience time.Duration) finding {
	q := &question{device: d, answer: make(chan finding, 1)}
	q.end.Store(unknownEnd)
	select {
	case p.ask <- q:
	default:
		return finding{end: unknownEnd}
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case f := <-q.answer:
		return f
	case <-timer.C:
	case <-ctx.Done():
	}
	q.gone.Store(true)
	return finding{end: q.end.Load()}
}

// cohort is questions that share a watermark.
type cohort struct {
	questions []*question
	need      schemas.Watermark
	split     bool // by partition: the slow one keeps only its own waiting
	pause     time.Duration
	due       time.Time
}

// run answers until ctx ends.
func (p *prover) run(ctx context.Context) {
	var waiting []*cohort
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		timer.Reset(untilDue(waiting))
		var first *question
		select {
		case <-ctx.Done():
			return
		case first = <-p.ask:
		case <-timer.C:
		}
		var still []*cohort
		if first != nil {
			still = p.try(ctx, p.gather(ctx, first), still)
		}
		now := time.Now()
		for _, c := range waiting {
			if c.due.After(now) {
				still = append(still, c)
			} else {
				still = p.try(ctx, c, still)
			}
		}
		waiting = still
	}
}

func untilDue(cohorts []*cohort) time.Duration {
	wait := time.Hour
	for _, c := range cohorts {
		wait = min(wait, time.Until(c.due))
	}
	return max(wait, 0)
}

// gather takes whoever else asks now, and reads the ends after the last of them came.
func (p *prover) gather(ctx context.Context, first *question) *cohort {
	c := &cohort{questions: []*question{first}}
	for len(c.questions) < maxBatch {
		select {
		case q := <-p.ask:
			c.questions = append(c.questions, q)
			continue
		default:
		}
		break
	}
	if !p.proof {
		return c
	}
	one, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	ends, err := p.log.Ends(one, schemas.Devices)
	layout := p.log.Layout()
	if err != nil || len(ends) != int(layout.Partitions) {
		c.giveUp()
		return c
	}
	c.need = ends
	for _, q := range c.questions {
		q.end.Store(ends[layout.Of(q.device)])
	}
	return c
}

// giveUp answers everybody that nothing is proven.
func (c *cohort) giveUp() {
	for _, q := range c.questions {
		q.answer <- finding{end: q.end.Load()}
	}
	c.questions = nil
}

// try looks a cohort up, and adds what must wait to still.
func (p *prover) try(ctx context.Context, c *cohort, still []*cohort) []*cohort {
	devices := make([]schemas.Device, 0, len(c.questions))
	asked := c.questions[:0]
	for _, q := range c.questions {
		if !q.gone.Load() {
			asked, devices = append(asked, q), append(devices, q.device)
		}
	}
	if c.questions = asked; len(asked) == 0 {
		return still
	}
	one, cancel := context.WithTimeout(ctx, p.timeout)
	states, err := p.store.Lookup(one, devices, c.need)
	cancel()
	switch {
	case errors.Is(err, schemas.ErrBehind) && p.proof && !c.split:
		for _, part := range c.byPartition(p.log.Layout()) {
			still = append(still, part)
		}
		return still
	case errors.Is(err, schemas.ErrBehind) && p.proof:
		c.wait()
		return append(still, c)
	case err != nil || len(states) != len(asked):
		c.giveUp()
		return still
	}
	for i, q := range asked {
		q.answer <- finding{state: states[i], proven: p.proof, end: q.end.Load()}
	}
	return still
}

func (c *cohort) wait() {
	c.pause = min(longestPause, max(firstPause, 2*c.pause))
	c.due = time.Now().Add(c.pause)
}

// byPartition splits a cohort; each part needs its own partition alone.
func (c *cohort) byPartition(l schemas.Layout) map[int32]*cohort {
	parts := map[int32]*cohort{}
	for _, q := range c.questions {
		n := l.Of(q.device)
		part := parts[n]
		if part == nil {
			part = &cohort{split: true, need: make(schemas.Watermark, len(c.need))}
			part.need[n] = c.need[n]
			part.wait()
			part.due = time.Time{} // at once: only the batch as a whole was behind
			parts[n] = part
		}
		part.questions = append(part.questions, q)
	}
	return parts
}
