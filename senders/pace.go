package senders

import "time"

// The pacer's constants. FCM's default quota is 600,000 messages a minute and project (Google, "Throttling and quotas").
const (
	fcmRate      = 10_000 // pushes a second and project
	startRate    = 1_000  // of an app that had no limit until its provider set one
	leastRate    = 1
	rise         = 0.05 // of the limit, a second, after a fall
	downAfter    = 20   // unavailable answers in a row
	leastPause   = time.Second
	longestPause = 30 * time.Second
)

// pacer holds an app to a rate: a token bucket that halves when the provider says so and rises again slowly, and a pause where
// the provider asked for one or cannot be reached. The zero pacer lets everything through. Times are Unix microseconds.
type pacer struct {
	limit, rate float64 // pushes a second; zero: none
	tokens      float64
	filledUS    int64
	loweredUS   int64

	slotUS        int64 // the turn of the last send that was put off
	pausedUntilUS int64
	pauseReason   string
	failures      int // unavailable answers in a row
	pause         time.Duration
}

func newPacer(limit float64) pacer { return pacer{limit: limit, rate: limit, tokens: limit / 10} }

// fill adds what has come since the last time. A bucket holds a tenth of a second's worth.
func (p *pacer) fill(nowUS int64) {
	elapsed := float64(nowUS-p.filledUS) / 1e6
	if p.filledUS == 0 || elapsed < 0 {
		elapsed = 0
	}
	p.filledUS = nowUS
	if p.rate < p.limit {
		p.rate = min(p.limit, p.rate+elapsed*p.limit*rise)
	}
	p.tokens = min(p.tokens+elapsed*p.rate, max(p.rate/10, 1))
}

// take reports whether one more push may start now.
func (p *pacer) take(nowUS int64) bool {
	if nowUS < p.pausedUntilUS {
		return false
	}
	if p.rate == 0 {
		return true
	}
	p.fill(nowUS)
	if p.tokens < 1 {
		return false
	}
	p.tokens--
	return true
}

// wait is how long a push behind queued others would wait, in microseconds.
func (p *pacer) wait(nowUS int64, queued int) int64 {
	wait := max(p.pausedUntilUS-nowUS, 0)
	if p.rate > 0 {
		wait += int64(max(float64(queued+1)-p.tokens, 0) / p.rate * 1e6)
	}
	return wait
}

// longestWait bounds a turn: the rate may rise meanwhile.
const longestWait = int64(15 * time.Minute / time.Microsecond)

// reserve gives a send that cannot wait here, for at least least microseconds, a turn of its own: what is put off comes back at the
// rate, not all at once.
func (p *pacer) reserve(nowUS, least int64) int64 {
	p.slotUS = max(p.slotUS, nowUS+least)
	if p.rate > 0 {
		p.slotUS += int64(1e6 / p.rate)
	}
	p.slotUS = min(p.slotUS, nowUS+max(longestWait, least))
	return p.slotUS - nowUS
}

// observe learns from an answer, and reports whether a pause began.
func (p *pacer) observe(r Result, nowUS int64) bool {
	if r.Has(SlowDown) {
		p.failures = 0
		p.lower(nowUS)
		if r.RetryAfter > 0 {
			p.stop(nowUS, r.RetryAfter, "throttled")
			return true
		}
		return false
	}
	if r.Outcome != unavailable {
		p.failures, p.pause = 0, 0
		return false
	}
	p.failures++
	if p.failures < downAfter || nowUS < p.pausedUntilUS {
		return false
	}
	p.pause = min(max(2*p.pause, leastPause), longestPause)
	p.stop(nowUS, max(p.pause, min(r.RetryAfter, longestPause)), "provider_unavailable")
	return true
}

// lower halves the rate, at most once a second: the answers of one burst are one sign.
func (p *pacer) lower(nowUS int64) {
	if nowUS-p.loweredUS < time.Second.Microseconds() {
		return
	}
	p.loweredUS = nowUS
	if p.rate == 0 {
		p.limit, p.rate = startRate, startRate
	}
	p.rate = max(p.rate/2, leastRate)
}

func (p *pacer) stop(nowUS int64, wait time.Duration, reason string) {
	p.pausedUntilUS = max(p.pausedUntilUS, nowUS+wait.Microseconds())
	p.pauseReason = reason
}

// flood counts bad-token answers by the minute, in one app.
type flood struct {
	sinceUS           int64
	answers, suspects int
}

// Defaults of Options: what counts as a flood.
const (
	floodLeast = 20
	floodShare = 0.5
)

// observe reports whether, this minute, so many answers call tokens bad that credentials or environment must be.
func (f *flood) observe(suspect bool, nowUS int64, least int, share float64) bool {
	if nowUS-f.sinceUS > time.Minute.Microseconds() {
		*f = flood{sinceUS: nowUS}
	}
	f.answers++
	if suspect {
		f.suspects++
	}
	return f.suspects >= least && float64(f.suspects) > share*float64(f.answers)
}
