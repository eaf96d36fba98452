package senders

import (
	"time"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// Account is whom a provider pushes for. One of APNS and FCM is set, by the transport.
type Account struct {
	App         string
	Environment schemas.Environment
	// CredentialsID changes with the credentials.
	CredentialsID schemas.ID
	// Apart asks for a connection of its own, for tokens in doubt: APNs grants a connection fewer streams after bad tokens.
	Apart bool
	// Answered is to be called by a Batcher after it has called done, once for answers that came together, by a goroutine that may
	// start the pushes that they make room for. Within PushAll it need not be called. Nil: nobody needs it.
	Answered func()
	APNS     *pushv1.ApnsCredentials
	FCM      *pushv1.FcmCredentials
}

// place is an app in one environment.
type place struct {
	app string
	env schemas.Environment
}

// sealed are an app's credentials as the log has them.
type sealed struct {
	id       schemas.ID
	envelope []byte
}

// account is the sender's state of one place. All of it is guarded by Sender.mu.
type account struct {
	place
	lane     int      // of the sender, as quotas count them
	provider Provider // nil until first needed
	limit    int      // of provider
	queue    backlog
	inFlight int
	listed   bool // stands in Sender.ring
	held     Limit

	apart apart

	pace     pacer // of this account in this process
	quotas   []*quota
	gradient gradient
	flood    flood
	proven   bool // a push was taken under these credentials: they and the environment are right

	parked   bool
	reason   string // why
	probedUS int64  // when the last push of a parked account was let through
}

// apart are an account's sends to tokens in doubt, which share one narrow connection.
type apart struct {
	provider Provider // nil until first needed
	queue    fifo
	inFlight int
}

// mostApart is how many pushes to tokens in doubt may be in flight.
const mostApart = 16

// waiting is the number of an account's sends in memory.
func (a *account) waiting() int { return a.queue.len() + a.apart.queue.len() }

// take reports whether one more push may start now, as far as rates and pauses go.
func (a *account) take(nowUS int64) bool {
	if !a.pace.take(nowUS) {
		return false
	}
	for i, q := range a.quotas {
		if !q.take(a.lane, nowUS) {
			a.pace.giveBack()
			for _, taken := range a.quotas[:i] {
				taken.giveBack(a.lane)
			}
			return false
		}
	}
	return true
}

// wait is how long a push behind queued others would wait for rates and pauses, in microseconds.
func (a *account) wait(nowUS int64, queued int) int64 {
	wait := a.pace.wait(nowUS, queued)
	for _, q := range a.quotas {
		wait = max(wait, q.wait(a.lane, nowUS, queued))
	}
	return wait
}

// reserve is pacer.reserve over all rates.
func (a *account) reserve(nowUS, least int64) int64 {
	wait := a.pace.reserve(nowUS, least)
	for _, q := range a.quotas {
		wait = max(wait, q.reserve(a.lane, nowUS, least))
	}
	return wait
}

// paused is how long a pause still lasts, in microseconds.
func (a *account) paused(nowUS int64) int64 {
	left := max(a.pace.pausedUntilUS-nowUS, 0)
	for _, q := range a.quotas {
		left = max(left, q.paused(a.lane, nowUS))
	}
	return left
}

// why says which rate or pause holds the account back now.
func (a *account) why(nowUS int64) Limit {
	slowest, why := a.pace.wait(nowUS, 0), a.pace.why(nowUS)
	for _, q := range a.quotas {
		if wait := q.wait(a.lane, nowUS, 0); why == limitNone || wait > slowest {
			slowest, why = wait, q.why(a.lane, nowUS)
		}
	}
	return why
}

// limitNow is what holds the account's sends back; none where nothing waits.
func (a *account) limitNow() Limit {
	switch {
	case a.parked:
		return limitParked
	case a.waiting() > 0:
		return a.held
	}
	return limitNone
}

// learn tells the rates of an answer, and reports whether a pause began. The project's, the last, is whom a refusal concerns.
func (a *account) learn(r Result, beganUS, nowUS int64) (paused bool) {
	if n := len(a.quotas); n > 0 {
		paused = a.quotas[n-1].rated(a.lane, r, beganUS, nowUS)
	} else {
		paused = a.pace.rated(r, beganUS, nowUS)
	}
	return a.pace.reached(r, nowUS) || paused
}

// mayProbe lets one push of a parked account through now and then: credentials may be mended at the provider, too.
func (a *account) mayProbe(nowUS int64, every time.Duration) bool {
	if nowUS-a.probedUS < every.Microseconds() {
		return false
	}
	a.probedUS = nowUS
	return true
}

func (a *account) park(reason string, nowUS int64) {
	a.parked, a.reason, a.probedUS = true, reason, nowUS
}

// unpark starts over with a clean record.
func (a *account) unpark() {
	a.parked, a.reason, a.flood = false, "", flood{}
}

// fifo is a queue of flights.
type fifo struct {
	items []*flight
	head  int
}

func (q *fifo) len() int { return len(q.items) - q.head }

func (q *fifo) push(f *flight) { q.items = append(q.items, f) }

func (q *fifo) pop() *flight {
	f := q.items[q.head]
	q.items[q.head] = nil
	q.head++
	if q.head == len(q.items) {
		q.items, q.head = q.items[:0], 0
	} else if q.head >= 1024 && 2*q.head >= len(q.items) { // or a queue that never empties grows for ever
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	return f
}
