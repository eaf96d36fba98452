package api

import (
	"bytes"
	"slices"
	"time"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// The words of Broadcast.State.
const (
	StateScheduled  = "scheduled"  // its time has not come
	StateRunning    = "running"    // its audience is being expanded
	StatePaused     = "paused"     // nothing more is expanded; what was, drains
	StateDraining   = "draining"   // all is expanded, and some of it not finished
	StateCancelling = "cancelling" // cancelled; what was expanded is being finished
	StateCancelled  = "cancelled"  // ended before its end
	StateEnded      = "ended"

	stateLive = "live" // in queries: all but the last two
)

// The words of Progress.LimitedBy.
const (
	LimitSendAt    = "send_at"   // its time has not come
	LimitPause     = "pause"     // it is paused
	LimitRate      = "rate"      // the rate that was set for it
	LimitSpread    = "spread"    // the time over which it is spread
	LimitRetries   = "retries"   // all that is left was tried and waits for another attempt
	LimitProviders = "providers" // what is expanded waits for its first attempt
	LimitOthers    = "others"    // it leaves cores to direct pushes and small broadcasts, which come meanwhile
	LimitExpansion = "expansion" // the audience is read more slowly than the providers take it
	// Where a sender says what its sends wait for, its word (pushv1.Limit) stands in the place of providers, and of retries where it
	// says why those wait.
)

func (e *entry) visible() bool { return len(e.contents) > 0 || e.end != nil }

// request is the one that counts; nil once it is forgotten.
func (e *entry) request() *pushv1.BroadcastRequested {
	if len(e.contents) == 0 {
		return nil
	}
	return e.contents[0].request
}

func (e *entry) app() string {
	if r := e.request(); r != nil {
		return r.App
	}
	return e.end.GetApp()
}

func (e *entry) requestedAtUS() int64 {
	if r := e.request(); r != nil {
		return r.RequestedAtUs
	}
	return e.end.GetRequestedAtUs()
}

func (e *entry) paused() bool { return e.run != nil && e.run.paused }

// ownRate is the limit in force; zero: none.
func (e *entry) ownRate() float64 {
	if e.rate != nil {
		return *e.rate
	}
	return e.request().GetRate()
}

func (e *entry) expanded() bool {
	done := 0
	for _, c := range e.cursors {
		if c.Done {
			done++
		}
	}
	return done >= int(max(1, e.request().GetRanges()))*len(schemas.Transports)
}

func (e *entry) state(now time.Time) string {
	switch {
	case e.end != nil && e.end.Cancelled:
		return StateCancelled
	case e.end != nil:
		return StateEnded
	case e.cancel != nil:
		return StateCancelling
	case e.expanded():
		return StateDraining
	case e.paused():
		return StatePaused
	case e.request().GetSendAtUs() > now.UnixMicro():
		return StateScheduled
	}
	return StateRunning
}

// counts are the sums over partitions, one for each of schemas.Transports.
func (e *entry) counts() []*pushv1.TransportCounts {
	sums := make([]*pushv1.TransportCounts, len(schemas.Transports))
	for i, t := range schemas.Transports {
		sums[i] = &pushv1.TransportCounts{Transport: t}
		if e.end != nil {
			addCounts(sums[i], e.end.Counts)
			continue
		}
		for _, part := range e.parts {
			addCounts(sums[i], part)
			for _, c := range part {
				if c.GetTransport() == t {
					sums[i].LimitedBy = max(sums[i].LimitedBy, c.LimitedBy)
				}
			}
		}
		sums[i].Emitted = 0 // the cursors have it
		for k, c := range e.cursors {
			if k.Transport == t {
				sums[i].Emitted += c.Emitted
			}
		}
	}
	return sums
}

func addCounts(sum *pushv1.TransportCounts, list []*pushv1.TransportCounts) {
	for _, c := range list {
		if c.GetTransport() == sum.Transport {
			sum.Add(c)
		}
	}
}

func (e *entry) finished() (n int64) {
	for _, part := range e.parts {
		for _, c := range part {
			n += c.Finished()
		}
	}
	return n
}

func (e *entry) view(id schemas.ID, now time.Time) Broadcast {
	r := e.request()
	b := Broadcast{
		ID: id.String(), App: e.app(), State: e.state(now), Channels: r.GetChannels(), Platforms: r.GetPlatforms(), KeyID: r.GetKeyId(),
		RequestedAt: moment(e.requestedAtUS()), SendAt: moment(r.GetSendAtUs()), ExpiresAt: moment(r.GetExpiresAtUs()),
		EndedAt: moment(e.end.GetEndedAtUs()), Rate: e.ownRate(), SpreadSeconds: int64(r.GetSpreadSeconds()),
		AudienceEstimate: r.GetAudienceEstimate(), Cancelled: e.cancel, Progress: e.progressView(now),
	}
	if e.paused() && e.end == nil {
		act := e.run.act
		b.Paused = &act
	}
	for i := 1; i < len(e.contents); i++ {
		if !bytes.Equal(e.contents[i].request.BodyHash, r.BodyHash) { // else it is a retry that came to another ingest
			b.OtherRequests++
		}
	}
	return b
}

func (e *entry) progressView(now time.Time) Progress {
	counts := e.counts()
	sum := &pushv1.TransportCounts{}
	p := Progress{Transports: []TransportProgress{}}
	for _, c := range counts {
		sum.Add(c)
		held := c.LimitedBy
		if e.end != nil || c.Emitted <= c.Finished() {
			held = pushv1.Limit_LIMIT_UNSPECIFIED
		}
		sum.LimitedBy = max(sum.LimitedBy, held)
		p.Transports = append(p.Transports, TransportProgress{
			LimitedBy: held.Word(),
			Transport: c.Transport.Word(), Expanded: c.Emitted, Attempted: c.FirstOutcomes, Delivered: c.Accepted, Invalid: c.TokenInvalid,
			Rejected: c.Rejected, Expired: c.Expired, Cancelled: c.Cancelled, Repeats: c.Repeats,
		})
	}
	p.Expanded, p.Attempted, p.Finished = sum.Emitted, sum.FirstOutcomes, sum.Finished()
	p.Delivered, p.Invalid, p.Rejected, p.Expired, p.Cancelled, p.Repeats = sum.Accepted, sum.TokenInvalid, sum.Rejected, sum.Expired, sum.Cancelled, sum.Repeats
	p.Failed = p.Invalid + p.Rejected + p.Expired
	// Several topics are read, each at its own pace: what finished was expanded, though its cursor may not have been read yet.
	p.Expanded = max(p.Expanded, p.Finished)
	p.Audience = p.Expanded
	if e.end == nil && e.cancel == nil && !e.expanded() {
		p.Audience = max(p.Audience, e.request().GetAudienceEstimate())
	}
	p.Remaining = p.Audience - p.Finished
	if e.end != nil {
		return p
	}
	p.Waiting = max(0, p.Attempted-p.Finished)
	p.Rate = e.speed.rate(now)
	p.LimitedBy = e.limit(&p, sum.LimitedBy, now)
	p.SecondsLeft = e.left(&p, now)
	return p
}

// limit says what a live broadcast waits for most; held is what its senders say.
func (e *entry) limit(p *Progress, held pushv1.Limit, now time.Time) string {
	r, open := e.request(), e.cancel == nil && !e.expanded()
	untried := p.Expanded - p.Attempted
	switch {
	case open && e.paused():
		return LimitPause
	case open && r.GetSendAtUs() > now.UnixMicro():
		return LimitSendAt
	case open && e.ownRate() > 0:
		return LimitRate
	case open && e.rate == nil && e.spreadLeft(now) > 0:
		return LimitSpread
	case open && held <= pushv1.Limit_LIMIT_LATENCY && e.givesWay(): // what the senders say is no rate
		return LimitOthers
	case untried > 0 && held != pushv1.Limit_LIMIT_UNSPECIFIED:
		return held.Word()
	case untried > 0:
		return LimitProviders
	case open:
		return LimitExpansion
	case p.Remaining > 0 && held >= pushv1.Limit_LIMIT_THROTTLED:
		return held.Word()
	case p.Remaining > 0:
		return LimitRetries
	}
	return ""
}

// givesWay reports whether the newest page that was expanded had waited for others.
func (e *entry) givesWay() bool {
	var newest *pushv1.CursorMoved
	for _, c := range e.cursors {
		if newest == nil || c.MovedAtUs > newest.MovedAtUs {
			newest = c
		}
	}
	return newest.GetGaveWay()
}

// spreadLeft is how long a spread still lasts.
func (e *entry) spreadLeft(now time.Time) time.Duration {
	r := e.request()
	if r.GetSpreadSeconds() == 0 {
		return 0
	}
	start := max(r.RequestedAtUs, r.SendAtUs)
	if e.run != nil && !e.run.paused {
		start = max(start, e.run.act.At.UnixMicro())
	}
	return max(0, moment(start).Add(time.Duration(r.SpreadSeconds)*time.Second).Sub(now))
}

// left is how many seconds a broadcast will take at its present speed; zero where nobody can say.
func (e *entry) left(p *Progress, now time.Time) float64 {
	switch {
	case p.Remaining <= 0 || p.LimitedBy == LimitPause:
		return 0
	case p.LimitedBy == LimitSpread:
		return e.spreadLeft(now).Seconds()
	case p.LimitedBy == LimitRate:
		return float64(p.Remaining) / e.ownRate()
	case p.Rate > 0:
		return float64(p.Remaining) / p.Rate
	}
	return 0
}

// moment is a time of an event; zero is no time.
func moment(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

// The window over which speed is measured, and the least time between two samples.
const (
	speedWindow = 10 * time.Second
	speedEvery  = 250 * time.Millisecond
)

// speed is the last samples of a count that only grows. The zero value has none.
type speed struct{ samples []sample }

type sample struct {
	at time.Time
	n  int64
}

func (s *speed) sample(now time.Time, n int64) {
	if last := len(s.samples) - 1; last > 0 && now.Sub(s.samples[last-1].at) < speedEvery {
		s.samples[last] = sample{now, n}
		return
	}
	s.samples = append(slices.DeleteFunc(s.samples, func(x sample) bool { return now.Sub(x.at) > speedWindow }), sample{now, n})
}

// rate is how many a second were counted over the window; zero before it can be told.
func (s *speed) rate(now time.Time) float64 {
	from := slices.IndexFunc(s.samples, func(x sample) bool { return now.Sub(x.at) <= speedWindow })
	if from < 0 {
		return 0
	}
	first, last := s.samples[from], s.samples[len(s.samples)-1]
	if elapsed := now.Sub(first.at); elapsed >= speedEvery {
		return float64(last.n-first.n) / elapsed.Seconds()
	}
	return 0
}

// String is the act for people to read; empty for none.
func (a *Act) String() string {
	if a == nil {
		return ""
	}
	s := a.At.Format(time.RFC3339)
	if a.By != "" {
		s += " by " + a.By
	}
	if a.Reason != "" {
		s += ": " + a.Reason
	}
	return s
}
