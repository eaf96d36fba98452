package senders

import (
	"slices"
	"testing"
)

// queueing is a provider that answers after its latency, and works on so many pushes at once; what is beyond waits for its turn: at the
// provider, or, as told, in front of the connections.
type queueing struct {
	latencyUS int64
	places    int
	down      bool
	told      bool
	grow      int   // places that another connection brings, every 75 ms while pushes wait for one
	grownAt   int64 // when the last one came
}

// run lets a gradient push as much as it may, for so many seconds of steps of a millisecond, and returns the pushes answered and the
// most in flight over the last second.
func (q *queueing) run(g *gradient, now *int64, seconds, most int) (rate, inFlight int) {
	type push struct{ began, starts, ends int64 }
	var flying []push
	free := make([]int64, q.places) // when each place is free
	next := 0
	for ms := range int64(seconds) * 1000 {
		at := *now + ms*millisecond
		last := ms >= int64(seconds-1)*1000
		kept := flying[:0]
		for _, p := range flying {
			if p.ends > at {
				kept = append(kept, p)
				continue
			}
			r := Result{Verdict: Verdict{accepted, 0}, LatencyUS: at - p.began}
			if q.told {
				r.WaitedUS = p.starts - p.began
			}
			if q.down {
				r.Verdict = Verdict{unavailable, 0}
			}
			g.observe(r, p.began, at, most)
			if last {
				rate++
			}
		}
		flying = kept
		for len(flying) < min(g.now(), most) {
			starts := max(at, free[next])
			free[next] = starts + q.latencyUS
			flying = append(flying, push{at, starts, free[next]})
			next = (next + 1) % len(free)
			if q.grow > 0 && starts > at && at >= q.grownAt+75*millisecond {
				q.grownAt = at
				q.places += q.grow
				free, next = slices.Concat(make([]int64, q.grow), free[next:], free[:next]), 0
			}
		}
		g.pressed = true
		if last {
			inFlight = max(inFlight, len(flying))
		}
	}
	*now += int64(seconds) * second
	return rate, inFlight
}

func TestPushesInFlightGrowWhileTheProviderKeepsUp(t *testing.T) {
	t.Parallel()
	for _, latency := range []int64{1, 50, 200} {
		var g gradient
		now := second
		q := queueing{latencyUS: latency * millisecond, places: 10_000}
		if rate, _ := q.run(&g, &now, 5, 2_000); int64(rate) < 2_000*1000/latency*95/100 {
			t.Errorf("%d ms: want 95 %% of in-flight ÷ latency = %d a second, got %d", latency, 2_000*1000/latency, rate)
		}
		if latency != 50 {
			continue
		}
		now += 40 * second
		if rate, _ := q.run(&g, &now, 20, 2_000); int64(rate) < 2_000*1000/latency*95/100 {
			t.Errorf("%d ms: want it kept while the floor is looked for again, got %d", latency, rate)
		}
	}
}

func TestPushesInFlightShrinkToWhatTheProviderWorksOn(t *testing.T) {
	t.Parallel()
	var g gradient
	now := second
	q := queueing{latencyUS: 50 * millisecond, places: 300}
	rate, inFlight := q.run(&g, &now, 20, 2_000)
	if rate < 300*20*95/100 || inFlight > 1_000 {
		t.Errorf("want 6,000 a second with less than 1,000 in flight, got %d with %d", rate, inFlight)
	}
	rate, inFlight = q.run(&g, &now, 40, 2_000)
	if rate < 300*20*90/100 || inFlight > 1_200 {
		t.Errorf("want the same when the floor was looked for again, got %d with %d", rate, inFlight)
	}
	q.places = 10_000
	if rate, _ = q.run(&g, &now, 30, 2_000); rate < 2_000*20*95/100 {
		t.Errorf("want all of it back when the provider keeps up again, got %d", rate)
	}
}

func TestAnUnavailableProviderGetsFewPushesAtOnce(t *testing.T) {
	t.Parallel()
	var g gradient
	now := second
	q := queueing{latencyUS: 50 * millisecond, places: 10_000}
	q.run(&g, &now, 3, 2_000)
	q.down = true
	q.run(&g, &now, 3, 2_000)
	if g.now() > 2*gradientLeast {
		t.Errorf("want about %d in flight, got %d", gradientLeast, g.now())
	}
	q.down = false
	if rate, _ := q.run(&g, &now, 20, 2_000); rate < 2_000*20*95/100 {
		t.Errorf("want all back, got %d", rate)
	}
}

func TestLatencyThatFewerPushesDoNotMendIsAccepted(t *testing.T) {
	t.Parallel()
	var g gradient
	now := second
	q := queueing{latencyUS: 2 * millisecond, places: 100_000}
	q.run(&g, &now, 3, 2_000)
	q.latencyUS = 400 * millisecond // a busy machine, or a longer way: the provider has no queue
	if _, inFlight := q.run(&g, &now, 20, 2_000); inFlight < 1_900 {
		t.Errorf("want 2,000 in flight all the same, got %d", inFlight)
	}
	q.latencyUS = 2 * millisecond
	if _, inFlight := q.run(&g, &now, 5, 2_000); inFlight < 1_900 {
		t.Errorf("want all of it after that, got %d", inFlight)
	}
}

func TestTheBoundGrowsWithThePool(t *testing.T) {
	t.Parallel()
	var g gradient
	now := second
	q := queueing{latencyUS: 50 * millisecond, places: 100, told: true, grow: 100}
	if rate, _ := q.run(&g, &now, 5, 2_000); rate < 2_000*20*95/100 || g.calm {
		t.Errorf("want 40,000 a second with 2,000 in flight over as many connections as that needs, got %d (shrunk: %v)", rate, g.calm)
	}
	if q.places > 2_500 {
		t.Errorf("want no more connections than that needs, got places for %d", q.places)
	}
}

func TestTheBoundFollowsWhatTheConnectionsCarry(t *testing.T) {
	t.Parallel()
	var g gradient
	now := second
	q := queueing{latencyUS: 50 * millisecond, places: 300, told: true}
	if rate, inFlight := q.run(&g, &now, 5, 2_000); rate < 300*20*95/100 || inFlight > 300*7/2 || g.calm {
		t.Errorf("want 6,000 a second with about as many in flight as there are places, got %d with %d (shrunk: %v)", rate, inFlight, g.calm)
	}
	q.places = 2_000
	if rate, _ := q.run(&g, &now, 5, 2_000); rate < 2_000*20*95/100 {
		t.Errorf("want all of it within seconds once there are places, got %d", rate)
	}
	q.places = 10 // as when APNs lowers its streams
	if _, inFlight := q.run(&g, &now, 30, 2_000); inFlight > gradientLeast {
		t.Errorf("want the least in flight, got %d", inFlight)
	}
}
