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
	APNS          *pushv1.ApnsCredentials
	FCM           *pushv1.FcmCredentials
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
	provider Provider // nil until first needed
	limit    int      // of provider
	queue    fifo
	inFlight int
	listed   bool // stands in Sender.ring
	pace     pacer
	flood    flood

	parked   bool
	reason   string // why
	probedUS int64  // when the last push of a parked account was let through
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
