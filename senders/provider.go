package senders

import (
	"context"
	"errors"
	"time"

	"github.com/campanile-push/campanile/schemas"
)

// Provider pushes for one app at one provider, in one environment, under one version of its credentials. It is safe for
// concurrent use.
type Provider interface {
	// Push starts one push and returns without waiting for the answer. done is called exactly once, from any goroutine, perhaps
	// before Push returns; r belongs to the provider until then. Up to Limit pushes may be in flight: beyond that Push may wait
	// for one of them. A refusal is a Result, never an error. Result.NoAttempt says that nothing is known and nothing is to be
	// recorded: ctx ended before the answer came, or the provider was closed.
	Push(ctx context.Context, r *Request, done Done)
	// Limit is the number of pushes in flight that the provider carries without waiting. It does not change.
	Limit() int
	// Close waits for the pushes in flight (each ends with its ctx or the provider's own timeout) and closes the connections. A
	// Push that comes later is no attempt.
	Close() error
}

// Batcher is a Provider that takes several pushes at once, for less than they cost one by one, and says when several answers have
// been given (Account.Answered).
type Batcher interface {
	// PushAll is Push for each of requests, in their order. The slice is the caller's again when it returns.
	PushAll(ctx context.Context, requests []*Request, done Done)
}

// Done receives the answer to one push.
type Done func(r *Request, answer Result)

// Request is one push to one token. One of APNS and FCM is set, by the provider's transport.
type Request struct {
	SendID schemas.ID // apns-id; FCM has no place for it
	Token  string
	APNS   *APNSMessage
	FCM    *FCMMessage
	// ExpiresUS is when the push loses its meaning, Unix microseconds. Zero is the provider's default: APNs tries once and
	// stores nothing, as AirNotifier asked of it; FCM keeps a message for four weeks.
	ExpiresUS int64
	// At is when the attempt begins; zero: when Push is called.
	At time.Time
	// Tag is the caller's own.
	Tag any
}

// Result is a provider's answer to one push.
type Result struct {
	Verdict
	// NoAttempt: nothing is known of this push and nothing is to be recorded. All other fields are zero.
	NoAttempt bool
	Status    int    // of HTTP; 0: no answer came
	Reason    string // the provider's word, or one of ours (Reason…); "" for accepted
	// RetryAfter is the header's wait, counted from the answer; zero: none was given.
	RetryAfter time.Duration
	// TimestampUS is since when the token is dead, Unix microseconds; zero: not said. Only APNs says it, with 410.
	TimestampUS int64
	LatencyUS   int64 // from the start of the attempt to the whole answer
	WaitedUS    int64 // of that, for a place on a connection
}

// Reasons of our own, where the provider gave none.
const (
	ReasonTimeout    = "timeout"         // no answer in time: whether it was taken is unknown
	ReasonNetwork    = "network"         // the connection broke or could not be made
	ReasonNoBody     = "no_reason_given" // an error without a readable body
	ReasonNoToken    = "oauth_refused"   // Google's token endpoint refused the service account
	ReasonTokenDown  = "oauth_unreached" // Google's token endpoint could not be reached
	ReasonBadSigning = "signing"         // the key could not sign
	ReasonUnsendable = "unsendable"      // a field that HTTP cannot carry, such as a line break in a collapse id
)

// The HTTP/2 clients that a provider may push through: the vendor's own library, or closet h2.
const (
	StockTransport = "stock"
	H2Transport    = "h2"
)

// ErrCredentials says that credentials cannot be used as they are. What wraps it says what to do.
var ErrCredentials = errors.New("unusable credentials")
