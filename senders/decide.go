package senders

import (
	"encoding/binary"
	"time"

	"github.com/campanile-push/campanile/schemas"
)

// Policy is what decide goes by. All times are in microseconds.
type policy struct {
	tiers  [schemas.Tiers]int64 // delay of each tier; the last is the re-check of parked apps
	maxAge int64                // of a message without an expiry, from its record's time
}

// attempt is what decide knows of a send.
type attempt struct {
	id           schemas.ID
	made         uint32 // attempts so far, this one included
	beganUS      int64  // of this attempt
	registeredUS int64  // of the device, as the send carries it; zero: unknown
	deadlineUS   int64  // when the message loses its meaning
}

// fate is what becomes of a send.
type fate int

const (
	finish fate = iota
	retry       // to tier, not before notBeforeUS
)

// step is decide's answer.
type step struct {
	fate        fate
	outcome     schemas.Outcome
	reason      string
	tier        uint32
	notBeforeUS int64
	asOfUS      int64 // not zero: the device is dead if registered at or before this
}

// settled is how long after a registration an attempt must have begun for a bad answer to be about that registration, whatever
// the provider's clock says.
const settled = int64(10 * time.Minute / time.Microsecond)

// decide says what becomes of a send after an answer. doubt says why bad-token answers of this app are not believed; "": they are.
func decide(a attempt, r Result, nowUS int64, p policy, doubt string) step {
	switch {
	case r.Has(Invalidate) && r.Has(Suspect) && doubt == unproven:
		return p.askAgain(a, r, nowUS)
	case r.Has(Invalidate) && r.Has(Suspect) && doubt != "":
		return p.park(a, doubt, nowUS)
	case r.Has(Invalidate):
		return step{fate: finish, outcome: tokenInvalid, reason: r.Reason, asOfUS: asOf(a, r, nowUS)}
	case r.Has(Park):
		return p.park(a, r.Reason, nowUS)
	case r.Outcome.Final():
		return step{fate: finish, outcome: r.Outcome, reason: r.Reason}
	}
	s := p.again(a, r.Reason, p.delay(a, r), nowUS)
	if s.fate == retry {
		s.outcome = r.Outcome
	}
	return s
}

// unprovenTries is how often a token is called bad, where nothing proves the credentials, before its send ends.
const unprovenTries = 3

// askAgain tries a send later whose token is called bad under credentials that have not brought anything to anybody: they, or the
// environment, may be what is wrong. The last time the send ends, and its token stays.
func (p policy) askAgain(a attempt, r Result, nowUS int64) step {
	ended := step{fate: finish, outcome: tokenInvalid, reason: r.Reason}
	if a.made >= unprovenTries {
		return ended
	}
	s := p.again(a, r.Reason, p.delay(a, r), nowUS)
	if s.fate == finish {
		return ended
	}
	s.outcome = tokenInvalid
	return s
}

// asOf is rule 8 of the design: a device is dead if it was registered at or before the provider's timestamp or, where there is
// none or the attempt began long after the registration, the registration that the send carries, whichever is later.
func asOf(a attempt, r Result, nowUS int64) int64 {
	stamp := min(r.TimestampUS, nowUS) // a clock ahead of ours must not kill registrations to come
	if stamp > 0 && a.beganUS-a.registeredUS <= settled {
		return stamp
	}
	return max(stamp, a.registeredUS)
}

// delay is the wait before the next attempt: longer from attempt to attempt, jittered so that what failed together does not come
// back together, and never shorter than the provider asked for.
func (p policy) delay(a attempt, r Result) int64 {
	tier := min(max(int(a.made), 1), schemas.Tiers-1)
	nominal := p.tiers[tier-1]
	wait := max(nominal-jitter(a.id, a.made, nominal/4), r.RetryAfter.Microseconds())
	if r.Has(SlowDown) && r.RetryAfter == 0 {
		wait = max(wait, int64(time.Minute/time.Microsecond)) // Google: at least a minute after QUOTA_EXCEEDED
	}
	return wait
}

// jitter is a number below width, drawn from the send's id and attempt, so that a repeat decides alike.
func jitter(id schemas.ID, n uint32, width int64) int64 {
	if width <= 0 {
		return 0
	}
	const odd = 0x9e3779b97f4a7c15 // 2^64 over the golden ratio
	x := binary.BigEndian.Uint64(id[8:]) ^ binary.BigEndian.Uint64(id[:8])
	x = (x + uint64(n)) * odd
	x = (x ^ x>>32) * odd
	return int64((x >> 33) % uint64(width))
}

// again moves a send to the tier that waits for as long, or ends it where its time would be over by then.
func (p policy) again(a attempt, reason string, wait, nowUS int64) step {
	if nowUS+wait >= a.deadlineUS {
		return step{fate: finish, outcome: expired, reason: reason}
	}
	return step{fate: retry, reason: reason, tier: p.tierFor(wait), notBeforeUS: nowUS + wait}
}

// tierFor is the first tier whose delay covers wait, or the longest: a record must not hold up those behind it in its tier for
// longer than the tier is for. What has to wait longer than any tier passes through it more than once.
func (p policy) tierFor(wait int64) uint32 {
	for i, delay := range p.tiers[:schemas.Tiers-1] {
		if wait <= delay {
			return uint32(i + 1)
		}
	}
	return schemas.Tiers - 1
}

// park keeps a send until its app can push again, which is looked at again after the last tier's delay.
func (p policy) park(a attempt, reason string, nowUS int64) step {
	if nowUS >= a.deadlineUS {
		return step{fate: finish, outcome: expired, reason: reason}
	}
	notBefore := min(nowUS+p.tiers[schemas.ParkedTier-1], a.deadlineUS)
	return step{fate: retry, outcome: misconfigured, reason: reason, tier: schemas.ParkedTier, notBeforeUS: notBefore}
}
