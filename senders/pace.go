package senders

import (
	"math"
	"time"
)

// FCMQuota is the default quota of an FCM project in pushes a second: 600,000 messages a minute (Google, "Throttling and quotas").
const FCMQuota = 10_000

// The pacer's constants.
const (
	startRate    = 1_000 // of an app that had no limit until its provider set one
	leastRate    = 1
	rise         = 0.05  // of the limit, a second, after a fall
	slowRise     = 0.005 // near the rate that was refused last
	downAfter    = 20    // unavailable answers in a row
	brokenWeight = 5     // of those, a connection that broke
	leastPause   = time.Second
	longestPause = 30 * time.Second
	rampStart    = 0.05 // of the limit: what may start at once after a silence
	second       = int64(time.Second / time.Microsecond)
)

// When 429 answers are a sign that the rate is too high, and not the own limit of some devices, which FCM reports with the same code:
// a twentieth of a second's answers, and so many that chance does not make them of devices that are half as many; or so many in a row.
// Of many answers, chance makes a row of three sooner.
const (
	refusalShare  = 0.05
	refusalSigmas = 5
	busyAnswers   = 50 // in a second: the next has many

	leastAnswers, leastOfMany    = 30, 100 // that the share is taken of
	refusalsInARow, inARowOfMany = 3, 8
)

// pacer holds pushes to a rate: a token bucket whose rate falls with the share of answers that refuse it and rises again slowly, and
// a pause where the provider asked for one or cannot be reached. The zero pacer lets everything through. Times are Unix
// microseconds.
type pacer struct {
	limit, rate float64 // pushes a second; zero: none
	tokens      float64
	filledUS    int64

	ramp    float64 // seconds from nothing to the limit after a silence; zero: at once
	warm    float64 // pushes a second that the ramp allows
	pressed bool    // a push had to wait since the last filling
	used    float64 // pushes a second, over the last second or more
	began   int     // since usedUS
	usedUS  int64

	answers, refused int  // of this second
	many             bool // answers came in the one before
	secondUS         int64
	inARow           int     // refusals
	loweredUS        int64   // zero: never
	refusedAt        float64 // the rate that was too high

	slotUS        int64 // the turn of the last send that was put off
	pausedUntilUS int64
	pausedBy      Limit
	failures      int   // unavailable answers in a row
	brokenUS      int64 // when pushes ended without an answer last: what is seen together counts once
	pause         time.Duration
}

func newPacer(limit float64) pacer { return pacer{limit: limit, rate: limit, tokens: limit / 10} }

// ramped makes a pacer rise from a twentieth to its limit over so long, after a silence as at the start (Google: 60 s at least).
func (p pacer) ramped(over time.Duration) pacer {
	if over > 0 && p.limit > 0 {
		p.ramp, p.warm = over.Seconds(), p.limit*rampStart
		p.tokens = p.warm / 10
	}
	return p
}

// setLimit changes the limit; what was learnt keeps its proportion to it.
func (p *pacer) setLimit(limit float64) {
	limit = max(limit, leastRate)
	if p.limit > 0 {
		scale := limit / p.limit
		p.rate, p.warm, p.refusedAt = max(p.rate*scale, leastRate), p.warm*scale, p.refusedAt*scale
	} else {
		p.rate = limit
	}
	p.limit = limit
}

// now is the rate in force, pushes a second; zero: none.
func (p *pacer) now() float64 {
	if p.ramp > 0 && p.warm < p.rate {
		return max(p.warm, leastRate)
	}
	return p.rate
}

// fill adds what has come since the last time. A bucket holds a tenth of a second's worth.
func (p *pacer) fill(nowUS int64) {
	elapsed := float64(nowUS-p.filledUS) / 1e6
	if p.filledUS == 0 || elapsed < 0 {
		elapsed = 0
	}
	p.filledUS = nowUS
	if p.rate < p.limit {
		p.climb(elapsed)
	}
	if p.ramp > 0 {
		p.heat(elapsed, nowUS)
	}
	p.pressed = false
	rate := p.now()
	p.tokens = min(p.tokens+elapsed*rate, max(rate/10, 1))
}

// heat raises what the ramp allows while pushes wait for it, and lowers it while they do not: not below what is used.
func (p *pacer) heat(elapsed float64, nowUS int64) {
	if since := nowUS - p.usedUS; since >= second {
		p.used = float64(p.began) / (float64(since) / 1e6)
		p.began, p.usedUS = 0, nowUS
	}
	busy := 0.0
	if p.pressed { // who waits looks again within a second
		busy = min(elapsed, 1)
	}
	slope := p.limit / p.ramp
	cooled := max(p.warm-(elapsed-busy)*slope, min(p.warm, 1.5*p.used))
	p.warm = min(max(cooled+busy*slope, p.limit*rampStart), p.limit)
}

// climb raises the rate: slowly around the one that was refused last, so that a quota below our limit is met seldom.
func (p *pacer) climb(elapsed float64) {
	for elapsed > 0 && p.rate < p.limit {
		speed, to := rise*p.limit, p.limit
		switch low, high := 0.9*p.refusedAt, 1.1*p.refusedAt; {
		case p.rate < low:
			to = low
		case p.rate < high:
			speed, to = slowRise*p.limit, high
		}
		to = min(to, p.limit)
		need := (to - p.rate) / speed
		if need > elapsed {
			p.rate += speed * elapsed
			return
		}
		p.rate, elapsed = to, elapsed-need
	}
}

// take reports whether one more push may start now.
func (p *pacer) take(nowUS int64) bool {
	if nowUS < p.pausedUntilUS {
		return false
	}
	if p.rate == 0 {
		return true
	}
	if p.tokens < 1 || nowUS-p.filledUS > 1000 { // a millisecond's worth at a time is even enough
		p.fill(nowUS)
	}
	if p.tokens < 1 {
		p.pressed = true
		return false
	}
	p.tokens--
	p.began++
	return true
}

// giveBack returns what take took.
func (p *pacer) giveBack() {
	if p.rate > 0 {
		p.tokens++
	}
}

// wait is how long a push behind queued others would wait, in microseconds, if nothing more is refused: a ramp goes on rising
// meanwhile, and so does a rate that fell. A storm that goes on makes it longer, which overdue ends.
func (p *pacer) wait(nowUS int64, queued int) int64 {
	wait := max(p.pausedUntilUS-nowUS, 0)
	if p.rate == 0 {
		return wait
	}
	need := max(float64(queued+1)-p.tokens, 0)
	rate, slope := p.now(), p.slope()
	if slope > 0 {
		// need = rate·t + slope·t²/2 while it rises, for as long as the rise takes.
		top := (p.limit - rate) / slope
		risen := (rate + p.limit) / 2 * top
		if need > risen {
			return wait + int64((top+(need-risen)/p.limit)*1e6)
		}
		return wait + int64(solveRise(rate, slope, need)*1e6)
	}
	return wait + int64(need/rate*1e6)
}

// slope is how fast the rate in force rises, pushes a second in a second; zero: it is at its limit.
func (p *pacer) slope() float64 {
	switch {
	case p.now() >= p.limit:
		return 0
	case p.ramp > 0 && p.warm < p.limit:
		return min(p.limit/p.ramp, rise*p.limit)
	}
	return rise * p.limit
}

// longestWait bounds a turn: the rate may rise meanwhile.
const longestWait = int64(15 * time.Minute / time.Microsecond)

// reserve gives a send that cannot wait here, for at least least microseconds, a turn of its own: what is put off comes back at the
// rate, not all at once.
func (p *pacer) reserve(nowUS, least int64) int64 {
	p.slotUS = max(p.slotUS, nowUS+least)
	if rate := min(p.now()+p.slope()*float64(p.slotUS-nowUS)/1e6, p.limit); rate > 0 {
		p.slotUS += int64(1e6 / rate) // as it will be by then
	}
	p.slotUS = min(p.slotUS, nowUS+max(longestWait, least))
	return p.slotUS - nowUS
}

// rated learns about the rate from the answer to a push that began at beganUS, and reports whether a pause began.
func (p *pacer) rated(r Result, beganUS, nowUS int64) bool {
	if since := nowUS - p.secondUS; since > second {
		p.many = p.answers >= busyAnswers && since <= 2*second
		p.secondUS, p.answers, p.refused = nowUS, 0, 0
	}
	p.answers++
	if r.Has(SlowDown) {
		return p.slowDown(r, beganUS, nowUS)
	}
	p.inARow = 0
	return false
}

// reached learns from an answer whether the provider can be reached, and reports whether a pause began.
func (p *pacer) reached(r Result, nowUS int64) bool {
	if r.Outcome != unavailable {
		p.failures, p.pause = 0, 0
		return false
	}
	weight := 1
	if r.Status == 0 { // a connection that breaks takes all its pushes with it: they are one sign, and a greater one
		if nowUS == p.brokenUS {
			return false
		}
		p.brokenUS, weight = nowUS, brokenWeight
	}
	p.failures += weight
	if p.failures < downAfter || nowUS < p.pausedUntilUS {
		return false
	}
	p.pause = min(max(2*p.pause, leastPause), longestPause)
	p.stop(nowUS, max(p.pause, min(r.RetryAfter, longestPause)), limitUnavailable)
	return true
}

// slowDown weighs one refusal, and reports whether a pause began. What began before the rate fell last says nothing new.
func (p *pacer) slowDown(r Result, beganUS, nowUS int64) bool {
	if p.loweredUS > 0 && beganUS <= p.loweredUS {
		return false
	}
	p.refused++
	p.inARow++
	share := float64(p.refused) / float64(p.answers)
	inARow, least := refusalsInARow, leastAnswers
	if p.many {
		inARow, least = inARowOfMany, leastOfMany
	}
	switch {
	case p.inARow >= inARow:
		share = 1
	case float64(p.refused) >= mostRefused(max(p.answers, least)):
	default:
		return false
	}
	p.lower(nowUS, 1-share)
	if r.RetryAfter <= 0 {
		return false
	}
	p.stop(nowUS, r.RetryAfter, limitThrottled)
	return true
}

// mostRefused is how many of so many answers may be refused before the rate is what they refuse.
func mostRefused(answers int) float64 {
	mean := refusalShare / 2 * float64(answers) // of devices
	return max(refusalShare*float64(answers), mean+refusalSigmas*math.Sqrt(mean))
}

// lower cuts the rate to what was taken of it, and a little more: to a tenth at least, and by a fifth.
func (p *pacer) lower(nowUS int64, taken float64) {
	if p.rate == 0 {
		p.limit, p.rate = startRate, startRate
	}
	if p.ramp > 0 {
		p.rate = min(p.rate, max(p.warm, leastRate)) // what was in force
	}
	p.refusedAt = p.rate
	p.rate = max(p.rate*min(max(0.9*taken, 0.1), 0.8), leastRate)
	p.tokens = min(p.tokens, 1)
	p.loweredUS, p.answers, p.refused, p.inARow = nowUS, 0, 0, 0
}

func (p *pacer) stop(nowUS int64, wait time.Duration, why Limit) {
	p.pausedUntilUS = max(p.pausedUntilUS, nowUS+wait.Microseconds())
	p.pausedBy = why
}

// why says what holds the pacer's pushes back now; limitNone: nothing.
func (p *pacer) why(nowUS int64) Limit {
	switch {
	case nowUS < p.pausedUntilUS:
		return p.pausedBy
	case p.rate == 0:
		return limitNone
	case p.rate < p.limit && (p.ramp == 0 || p.rate <= p.warm):
		return limitThrottled
	case p.ramp > 0 && p.warm < p.limit:
		return limitRamp
	}
	return limitQuota
}
