package senders

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

const millisecond = int64(time.Millisecond / time.Microsecond)

// wire is a pacer's side of a provider: it takes every push the latency after it began.
type wire struct {
	latencyUS int64
	answers   []int64 // when pushes in flight began, oldest first
}

// run lets a pacer push as fast as it may for so long, with answer as the provider, and returns how many pushes began in each second
// and how many were refused in all.
func (w *wire) run(p *pacer, from *int64, seconds int, answer func(beganUS int64) Result) (began []int, refused int) {
	began = make([]int, seconds)
	for ms := range int64(seconds) * 1000 {
		now := *from + ms*millisecond
		for len(w.answers) > 0 && w.answers[0]+w.latencyUS <= now {
			r := answer(w.answers[0])
			if r.Has(SlowDown) {
				refused++
			}
			p.rated(r, w.answers[0], now)
			w.answers = w.answers[1:]
		}
		for p.take(now) {
			began[ms/1000]++
			w.answers = append(w.answers, now)
		}
	}
	*from += int64(seconds) * second
	return began, refused
}

func taken(int64) Result    { return Result{Verdict: Verdict{accepted, 0}} }
func slowDown(int64) Result { return Result{Verdict: Verdict{throttled, SlowDown}} }

func TestAStormOf429EndsTheRateAtOnceAndItComesBackWithinAMinute(t *testing.T) {
	t.Parallel()
	now := 1000 * second
	p, w := newPacer(10_000), &wire{latencyUS: 50 * millisecond}
	before, _ := w.run(&p, &now, 3, taken)
	if before[2] < 9_900 || before[2] > 10_100 {
		t.Fatalf("want 10,000 a second, got %v", before)
	}
	storm, refused := w.run(&p, &now, 30, slowDown)
	if storm[0] > 500 || storm[1] > 50 || storm[29] > 50 {
		t.Errorf("want a few of 10,000 a second, from its first second on, got %v", storm)
	}
	if refused > 3_000 {
		t.Errorf("want some hundreds of refusals, got %d", refused)
	}
	after, _ := w.run(&p, &now, 60, taken)
	if after[59] < 9_500 {
		t.Errorf("want 95 %% a minute after its end, got %v", after)
	}
}

func TestAQuotaBelowOursIsUsedAndSeldomMet(t *testing.T) {
	t.Parallel()
	now := 1000 * second
	p, w := newPacer(10_000), &wire{latencyUS: 50 * millisecond}
	tokens, filled := 400.0, now
	provider := func(beganUS int64) Result {
		tokens = min(tokens+float64(max(beganUS-filled, 0))/1e6*4_000, 400)
		filled = max(filled, beganUS)
		if tokens < 1 {
			return slowDown(0)
		}
		tokens--
		return taken(0)
	}
	w.run(&p, &now, 60, provider)
	began, refused := w.run(&p, &now, 300, provider)
	sum := 0
	for _, n := range began {
		sum += n
	}
	if got := sum - refused; got < 300*4_000*80/100 {
		t.Errorf("want four fifths of the quota used at least, got %d pushes in 300 s", got)
	}
	if refused*100 > sum {
		t.Errorf("want at most one in a hundred refused, got %d of %d", refused, sum)
	}
}

func TestOneDevicesOwnLimitSlowsNobodyElse(t *testing.T) {
	t.Parallel()
	now := 1000 * second
	p, w := newPacer(1_000), &wire{latencyUS: 50 * millisecond}
	n := 0
	began, _ := w.run(&p, &now, 10, func(int64) Result {
		if n++; n%40 == 0 {
			return slowDown(0)
		}
		return taken(0)
	})
	if began[9] < 950 {
		t.Errorf("want the rate kept, got %v", began)
	}
	if p.rated(Result{Verdict: Verdict{throttled, SlowDown}, RetryAfter: time.Minute}, now, now) || !p.take(now+second) {
		t.Error("want no pause for one device's Retry-After")
	}
}

// TestDevicesWithTheirOwnLimitSlowNobodyElse: one in fifty is refused, as chance has it, each with a Retry-After.
func TestDevicesWithTheirOwnLimitSlowNobodyElse(t *testing.T) {
	t.Parallel()
	for _, rate := range []float64{20, 100, 1_000, 10_000} {
		now, chance := 1000*second, rand.New(rand.NewPCG(1, 2))
		p, w := newPacer(rate), &wire{latencyUS: 50 * millisecond}
		began, refused := w.run(&p, &now, 300, func(int64) Result {
			if chance.Float64() < 0.02 {
				return Result{Verdict: Verdict{throttled, SlowDown}, RetryAfter: time.Second}
			}
			return taken(0)
		})
		sum := 0
		for _, n := range began {
			sum += n
		}
		if float64(sum) < 0.97*300*rate || refused == 0 {
			t.Errorf("at %.0f a second: want the rate kept, got %.1f with %d refused", rate, float64(sum)/300, refused)
		}
	}
}

// TestAPartOfTheAnswersRefusedLowersTheRate: a fifth of all, as chance has it.
func TestAPartOfTheAnswersRefusedLowersTheRate(t *testing.T) {
	t.Parallel()
	for _, rate := range []float64{20, 100, 1_000, 10_000} {
		now, chance := 1000*second, rand.New(rand.NewPCG(3, 4))
		p, w := newPacer(rate), &wire{latencyUS: 50 * millisecond}
		w.run(&p, &now, 5, taken)
		fell := false
		w.run(&p, &now, 5, func(int64) Result {
			fell = fell || p.rate < 0.9*rate
			if chance.Float64() < 0.2 {
				return slowDown(0)
			}
			return taken(0)
		})
		if !fell {
			t.Errorf("at %.0f a second: want the rate lowered within 5 s", rate)
		}
	}
}

func TestRetryAfterPausesAndTurnsComeAtTheRate(t *testing.T) {
	t.Parallel()
	now := 1000 * second
	p := newPacer(1_000)
	r := Result{Verdict: Verdict{throttled, SlowDown}, RetryAfter: 5 * time.Second}
	for n := 1; n <= 3; n++ {
		if paused := p.rated(r, now, now); paused != (n == 3) {
			t.Fatalf("want a pause at the third in a row, got %t at the %dth", paused, n)
		}
	}
	if p.take(now) || p.wait(now, 0) < 5*second || p.why(now) != limitThrottled {
		t.Errorf("want a pause of 5 s for throttling, got %d µs, %s", p.wait(now, 0), p.why(now))
	}
	first, next := p.reserve(now, 5*second), p.reserve(now, 5*second)
	if next-first < second/1000 {
		t.Errorf("want turns at the rate, got %d µs apart", next-first)
	}
	if before := p.rate; p.rated(r, now, now+second) || p.rate != before {
		t.Error("want answers to pushes from before the fall to say nothing new")
	}
}

func TestUnavailableInARowMakesLongerPauses(t *testing.T) {
	t.Parallel()
	var p pacer
	now, down := second, Result{Verdict: Verdict{unavailable, 0}, Status: 503}
	for range downAfter - 1 {
		if p.reached(down, now) {
			t.Fatal("want no pause yet")
		}
	}
	for _, want := range []int64{1, 2, 4, 8, 16, 30, 30} {
		if !p.reached(down, now) || p.pausedUntilUS-now != want*second {
			t.Fatalf("want a pause of %d s, got %d µs", want, p.pausedUntilUS-now)
		}
		if p.reached(down, now) {
			t.Fatal("want answers during a pause to add nothing")
		}
		if got := p.why(now); got != limitUnavailable {
			t.Fatalf("want the provider to be what limits, got %s", got)
		}
		now = p.pausedUntilUS
	}
	p.reached(Result{Verdict: Verdict{accepted, 0}}, now)
	if p.failures != 0 || p.pause != 0 {
		t.Error("want an answer to end it")
	}
}

func TestARampTakesItsMinuteAndASilenceStartsItAnew(t *testing.T) {
	t.Parallel()
	now := 1000 * second
	p, w := newPacer(10_000).ramped(time.Minute), &wire{latencyUS: 50 * millisecond}
	if wait := p.wait(now, 20_000); wait < 10*second || wait > 15*second {
		t.Errorf("want 20,000 to take some 12 s, rising, got %d µs", wait)
	}
	began, _ := w.run(&p, &now, 70, taken)
	if began[0] > 700 || began[29] < 4_000 || began[29] > 6_000 || began[65] < 9_800 {
		t.Errorf("want an even rise over a minute, got %v", began)
	}
	for i := 1; i < len(began); i++ {
		if began[i] > began[i-1]+400 {
			t.Errorf("want no jump, got %d after %d", began[i], began[i-1])
		}
	}
	if got := p.why(now); got != limitQuota {
		t.Errorf("want the quota to be what limits at its end, got %s", got)
	}
	now += 90 * second
	if began, _ = w.run(&p, &now, 1, taken); began[0] > 1_800 {
		t.Errorf("want a slow start after a silence, got %v", began)
	}
	if got := p.why(now); got != limitRamp {
		t.Errorf("want the ramp to be what limits, got %s", got)
	}
}

func TestANewPartOfTheQuotaKeepsWhatWasLearnt(t *testing.T) {
	t.Parallel()
	now := 1000 * second
	p := newPacer(10_000)
	for range 3 {
		p.rated(slowDown(0), now, now)
	}
	before := p.rate
	p.setLimit(5_000)
	if math.Abs(p.rate-before/2) > 1 || p.limit != 5_000 {
		t.Errorf("want half of %.0f under a limit of 5000, got %.0f under %.0f", before, p.rate, p.limit)
	}
	p.setLimit(0)
	if p.rate < leastRate || p.limit < leastRate {
		t.Errorf("want never to stand still, got %.2f under %.2f", p.rate, p.limit)
	}
}

// BenchmarkPacing is what rates, the project's quota and the bound from latency cost a push that nothing holds back.
func BenchmarkPacing(b *testing.B) {
	quotas := NewQuotas(QuotaOptions{Rate: 1e9, Ramp: time.Minute})
	quotas.setApp("campus", 1e9)
	a := &account{lane: 1, pace: newPacer(0), quotas: []*quota{quotas.ofApp("campus"), quotas.ofProject("p")}, limit: 1000}
	now, r := second, Result{Verdict: Verdict{accepted, 0}, LatencyUS: 50_000}
	b.ReportAllocs()
	for i := range b.N {
		at := now + int64(i)/10
		if !a.take(at) {
			b.Fatal("held back")
		}
		a.learn(r, at, at)
		a.gradient.observe(r, at, at, a.limit)
		a.flood.observe(false, at, floodLeast, floodShare)
	}
}

// TestABrokenConnectionIsOneSign: hundreds of pushes end with it at once, and the next connection is a moment away.
func TestABrokenConnectionIsOneSign(t *testing.T) {
	t.Parallel()
	var p pacer
	broken := Result{Verdict: Verdict{unavailable, 0}, Reason: ReasonNetwork}
	for n := range int64(downAfter/brokenWeight - 1) {
		for range 900 {
			if p.reached(broken, second+n) {
				t.Fatalf("want no pause after %d connections", n+1)
			}
		}
	}
	if !p.reached(broken, 2*second) {
		t.Error("want a pause when connection after connection breaks, and nothing is answered")
	}
}

// TestWhatWaitsBehindAFallComesBackWithTheRate: a thousand sends of a broadcast stand there when the storm takes the rate to nearly nothing.
// Neither may they be sent away for the quarter of an hour that they would take at that rate, nor may their turns lie so far off.
func TestWhatWaitsBehindAFallComesBackWithTheRate(t *testing.T) {
	t.Parallel()
	for name, p := range map[string]pacer{"without a ramp": newPacer(2_000), "after a ramp": newPacer(2_000).ramped(time.Minute)} {
		now, w := 1000*second, &wire{latencyUS: 20 * millisecond}
		w.run(&p, &now, 70, taken)
		w.run(&p, &now, 10, slowDown)
		if rate := p.now(); rate > 200 {
			t.Fatalf("%s: want a rate near nothing, got %.0f", name, rate)
		}
		if wait := p.wait(now, 1_000); wait > 15*second {
			t.Errorf("%s: want a thousand let through within 15 s of its end, got %d s", name, wait/second)
		}
		last := int64(0)
		for range 1_000 {
			last = p.reserve(now, 0)
		}
		if last < 2*second || last > 15*second {
			t.Errorf("%s: want their turns spread over some seconds, got %d µs", name, last)
		}
		if after, _ := w.run(&p, &now, 60, taken); after[59] < 1_900 {
			t.Errorf("%s: want 95 %% a minute after its end, got %v", name, after)
		}
	}
}
