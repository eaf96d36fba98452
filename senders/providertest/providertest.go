// Package providertest is the conformance suite of senders.Provider. A closet runs it against a server of its own; the simulator may
// run it too.
package providertest

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
	"github.com/campanile-push/campanile/senders"
)

// Fault is how a server answers the pushes to one token.
type Fault int

// The faults. Dead is a final "unregistered" of a phone that is gone; Malformed calls the token no token; Throttled is 429 and
// Busy 503, both with Retry-After: 7; Page is 502 with HTML; Broken closes the connection without an answer; Silent never answers;
// Refused says that the app's credentials are wrong.
const (
	Dead Fault = iota
	Malformed
	Throttled
	Busy
	Page
	Broken
	Silent
	Refused
)

// Wait is the Retry-After of Throttled and Busy.
const Wait = 7 * time.Second

// Server is a provider's stand-in, and how to reach it.
type Server interface {
	// Open returns a provider that pushes to the server as an app which the server knows. timeout is for one push; zero: the
	// provider's default.
	Open(t *testing.T, timeout time.Duration) senders.Provider
	// Token is a valid token; different numbers give different ones.
	Token(n int) string
	// Fault makes the server answer the pushes to token so.
	Fault(t *testing.T, token string, f Fault)
	// Seen is the number of pushes to token that reached the server, answered or not.
	Seen(t *testing.T, token string) int
}

// Run runs the suite. start returns a fresh server, which lives until t ends.
func Run(t *testing.T, transport schemas.Transport, start func(t *testing.T) Server) {
	t.Helper()
	for _, c := range []struct {
		name string
		run  func(t *testing.T, s *suite)
	}{
		{"AnAcceptedPushHasALatency", accepted},
		{"ManyPushesAreAnsweredOnceEach", many},
		{"PushesThatStartTogetherAreAnsweredOnceEach", together},
		{"RefusalsAreOutcomes", refusals},
		{"NothingIsSentAgainBehindTheCaller", onlyOnce},
		{"ABrokenConnectionIsUnavailableAndTheNextPushWorks", broken},
		{"NoAnswerInTimeIsUnavailable", silent},
		{"ACancelledPushIsNoAttempt", cancelled},
		{"AClosedProviderAttemptsNothing", closed},
		{"CloseWaitsForWhatIsInFlight", closing},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(t, &suite{server: start(t), transport: transport})
		})
	}
}

type suite struct {
	server    Server
	transport schemas.Transport
}

// Request is a small push to token.
func Request(t *testing.T, transport schemas.Transport, token string) *senders.Request {
	t.Helper()
	c := &pushv1.Content{
		Alert: pushv1.Content_ALERT_TITLE_BODY, Title: "Campus", Body: "The bell <rings> & rings",
		Data: []*pushv1.KeyValue{{Key: "site", Value: "d41d8cd98f"}},
	}
	r := &senders.Request{SendID: schemas.NewID(), Token: token}
	var err error
	if transport == schemas.APNS {
		r.APNS, err = senders.RenderAPNS(c)
	} else {
		r.FCM, err = senders.RenderFCM(c, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// patience bounds every wait of the suite; nothing in it should take a second.
const patience = 30 * time.Second

// push makes one push and waits for its answer.
func (s *suite) push(ctx context.Context, t *testing.T, p senders.Provider, token string) senders.Result {
	t.Helper()
	answers := make(chan senders.Result, 2)
	r := Request(t, s.transport, token)
	p.Push(ctx, r, func(got *senders.Request, answer senders.Result) {
		if got != r {
			t.Error("want the request that was pushed, got another")
		}
		answers <- answer
	})
	return wait(t, answers)
}

func wait[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatal("no answer")
		panic("unreachable")
	}
}

// until polls for what happens on the server's side.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick, end := time.NewTicker(2*time.Millisecond), time.After(patience)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatal("never happened: " + what)
		}
	}
}

func (s *suite) open(t *testing.T, timeout time.Duration) senders.Provider {
	t.Helper()
	p := s.server.Open(t, timeout)
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// warm pushes until a push is accepted: a short timeout is then the answer's alone, not the connection's and the access token's.
func (s *suite) warm(t *testing.T, p senders.Provider) {
	t.Helper()
	until(t, "a push is accepted", func() bool {
		return s.push(t.Context(), t, p, s.server.Token(999)).Outcome == pushv1.Outcome_OUTCOME_ACCEPTED
	})
}

func accepted(t *testing.T, s *suite) {
	p := s.open(t, 0)
	got := s.push(t.Context(), t, p, s.server.Token(1))
	if got.Outcome != pushv1.Outcome_OUTCOME_ACCEPTED || got.Status != 200 || got.Reason != "" || got.NoAttempt {
		t.Errorf("want accepted with 200, got %+v", got)
	}
	if got.LatencyUS <= 0 {
		t.Errorf("want a latency, got %d µs", got.LatencyUS)
	}
}

func many(t *testing.T, s *suite) {
	p := s.open(t, 0)
	const n = 3000
	counts := make([]atomic.Int32, n)
	var wg sync.WaitGroup
	places := make(chan struct{}, min(p.Limit(), 900)) // a net/http server with the race detector has no more in its timeout
	for i := range n {
		wg.Add(1)
		places <- struct{}{}
		r := Request(t, s.transport, s.server.Token(i))
		p.Push(t.Context(), r, func(_ *senders.Request, answer senders.Result) {
			defer wg.Done()
			if answer.Outcome == pushv1.Outcome_OUTCOME_ACCEPTED {
				counts[i].Add(1)
			} else {
				t.Errorf("push %d: want accepted, got %+v", i, answer)
			}
			<-places
		})
	}
	wg.Wait()
	for i := range counts {
		if got, seen := counts[i].Load(), s.server.Seen(t, s.server.Token(i)); got != 1 || seen != 1 {
			t.Fatalf("push %d: want answered and seen once, got %d and %d", i, got, seen)
		}
	}
}

// together pushes in batches where the provider takes them, more than fit at once, and some that no server sees.
func together(t *testing.T, s *suite) {
	p := s.open(t, 0)
	batcher, ok := p.(senders.Batcher)
	if !ok {
		t.Skip("the provider takes one push at a time")
	}
	const n, size = 1200, 300
	counts := make([]atomic.Int32, n)
	var wg sync.WaitGroup
	for from := 0; from < n; from += size {
		requests := make([]*senders.Request, size)
		for i := range requests {
			requests[i] = Request(t, s.transport, s.server.Token(from+i))
			requests[i].Tag = from + i
		}
		wg.Add(size)
		batcher.PushAll(t.Context(), requests, func(r *senders.Request, answer senders.Result) {
			defer wg.Done()
			if answer.Outcome != pushv1.Outcome_OUTCOME_ACCEPTED {
				t.Errorf("push %v: want accepted, got %+v", r.Tag, answer)
			}
			if i, ok := r.Tag.(int); ok {
				counts[i].Add(1)
			}
		})
		clear(requests) // the caller's again
	}
	wg.Wait()
	for i := range counts {
		if got, seen := counts[i].Load(), s.server.Seen(t, s.server.Token(i)); got != 1 || seen != 1 {
			t.Fatalf("push %d: want answered and seen once, got %d and %d", i, got, seen)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	unseen := 0
	batcher.PushAll(ended, []*senders.Request{Request(t, s.transport, s.server.Token(n)), Request(t, s.transport, s.server.Token(n+1))},
		func(_ *senders.Request, answer senders.Result) {
			if answer.NoAttempt {
				unseen++
			}
		})
	if unseen != 2 || s.server.Seen(t, s.server.Token(n)) != 0 {
		t.Errorf("want two pushes under an ended context to be no attempts, got %d", unseen)
	}
}

func refusals(t *testing.T, s *suite) {
	p := s.open(t, 0)
	for i, c := range []struct {
		fault   Fault
		outcome schemas.Outcome
		actions senders.Action // among others
		wait    time.Duration
	}{
		{Dead, pushv1.Outcome_OUTCOME_TOKEN_INVALID, senders.Invalidate, 0},
		{Malformed, pushv1.Outcome_OUTCOME_TOKEN_INVALID, senders.Invalidate | senders.Suspect, 0},
		{Throttled, pushv1.Outcome_OUTCOME_THROTTLED, 0, Wait},
		{Busy, pushv1.Outcome_OUTCOME_UNAVAILABLE, 0, Wait},
		{Page, pushv1.Outcome_OUTCOME_UNAVAILABLE, 0, 0},
		{Refused, pushv1.Outcome_OUTCOME_MISCONFIGURED, senders.Park, 0},
	} {
		token := s.server.Token(i)
		s.server.Fault(t, token, c.fault)
		got := s.push(t.Context(), t, p, token)
		if got.Outcome != c.outcome || !got.Has(c.actions) && c.actions != 0 || got.RetryAfter != c.wait || got.Reason == "" || got.Status < 400 {
			t.Errorf("fault %d: want outcome %s, actions %b, wait %s and a reason, got %+v", c.fault, c.outcome.Word(), c.actions, c.wait, got)
		}
		if c.fault == Dead && s.transport == schemas.APNS && got.TimestampUS%1_000_000 == 0 {
			t.Errorf("want the milliseconds of the timestamp, got %d", got.TimestampUS)
		}
	}
}

func onlyOnce(t *testing.T, s *suite) {
	p := s.open(t, 0)
	for i, f := range []Fault{Busy, Page, Throttled, Broken} {
		token := s.server.Token(i)
		s.server.Fault(t, token, f)
		s.push(t.Context(), t, p, token)
		if seen := s.server.Seen(t, token); seen != 1 {
			t.Errorf("fault %d: want one request, got %d", f, seen)
		}
	}
}

func broken(t *testing.T, s *suite) {
	p := s.open(t, 0)
	s.server.Fault(t, s.server.Token(1), Broken)
	got := s.push(t.Context(), t, p, s.server.Token(1))
	if got.Outcome != pushv1.Outcome_OUTCOME_UNAVAILABLE || got.NoAttempt || got.Status != 0 || got.Reason != senders.ReasonNetwork {
		t.Errorf("want unavailable for want of an answer, got %+v", got)
	}
	if got = s.push(t.Context(), t, p, s.server.Token(2)); got.Outcome != pushv1.Outcome_OUTCOME_ACCEPTED {
		t.Errorf("want the next push accepted, got %+v", got)
	}
}

func silent(t *testing.T, s *suite) {
	const timeout = time.Second
	p := s.open(t, timeout)
	s.warm(t, p)
	s.server.Fault(t, s.server.Token(1), Silent)
	got := s.push(t.Context(), t, p, s.server.Token(1))
	if got.Outcome != pushv1.Outcome_OUTCOME_UNAVAILABLE || got.NoAttempt || got.Reason != senders.ReasonTimeout {
		t.Errorf("want unavailable after the timeout, got %+v", got)
	}
}

func cancelled(t *testing.T, s *suite) {
	p := s.open(t, 0)
	token := s.server.Token(1)
	s.server.Fault(t, token, Silent)
	ctx, cancel := context.WithCancel(t.Context())
	answers := make(chan senders.Result, 1)
	p.Push(ctx, Request(t, s.transport, token), func(_ *senders.Request, answer senders.Result) { answers <- answer })
	until(t, "the push reaches the server", func() bool { return s.server.Seen(t, token) == 1 })
	cancel()
	if got := wait(t, answers); got != (senders.Result{NoAttempt: true}) {
		t.Errorf("want no attempt, got %+v", got)
	}
	if got := s.push(ctx, t, p, s.server.Token(2)); got != (senders.Result{NoAttempt: true}) {
		t.Errorf("want no attempt under an ended context, got %+v", got)
	}
	if seen := s.server.Seen(t, s.server.Token(2)); seen != 0 {
		t.Errorf("want nothing sent under an ended context, got %d requests", seen)
	}
}

func closed(t *testing.T, s *suite) {
	p := s.server.Open(t, 0)
	s.push(t.Context(), t, p, s.server.Token(1))
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if got := s.push(t.Context(), t, p, s.server.Token(2)); got != (senders.Result{NoAttempt: true}) {
		t.Errorf("want no attempt, got %+v", got)
	}
	if err := p.Close(); err != nil {
		t.Errorf("want a second Close to do nothing, got %v", err)
	}
}

func closing(t *testing.T, s *suite) {
	p := s.server.Open(t, 2*time.Second)
	s.warm(t, p)
	token := s.server.Token(1)
	s.server.Fault(t, token, Silent)
	var answered atomic.Bool
	p.Push(t.Context(), Request(t, s.transport, token), func(*senders.Request, senders.Result) { answered.Store(true) })
	until(t, "the push reaches the server", func() bool { return s.server.Seen(t, token) == 1 })
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if !answered.Load() {
		t.Error("want the answer before Close returns")
	}
}
