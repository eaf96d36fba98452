package simulator_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/campanile-push/campanile/simulator"
)

func TestFaultsOfTheConnection(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		fault    simulator.Fault
		answered bool
		recorded int64 // and unanswered
	}{
		{simulator.FaultRST, false, 0},
		{simulator.FaultReset, false, 0},
		{simulator.FaultResetAfter, false, 1},
		{simulator.FaultBlackhole, false, 1},
		{simulator.FaultFreeze, false, 1},
	} {
		t.Run(string(c.fault), func(t *testing.T) {
			t.Parallel()
			r := setup(t, with(simulator.Scenario{Rules: []simulator.Rule{{Fault: c.fault, Limit: 2}}}))
			for _, provider := range []simulator.Provider{simulator.APNS, simulator.FCM} {
				client := r.client()
				waits := c.fault == simulator.FaultBlackhole || c.fault == simulator.FaultFreeze
				try := func(ctx context.Context) (reply, error) {
					on := func(req *http.Request) { *req = *req.WithContext(ctx); req.GetBody = nil }
					if provider == simulator.APNS {
						return r.tryPush(client, r.APNSURL(), goodHex, newID(), on)
					}
					return r.trySend(client, messageTo(fcmToken, goodID), on)
				}
				ctx := t.Context()
				if waits {
					// The client's patience, ended by what the ledger shows: the push was taken.
					c, cancel := context.WithCancel(ctx)
					ctx = c
					go func() {
						defer cancel()
						r.waitFor(func() bool { return r.Ledger().Summary().Of(provider).Accepted == 1 })
					}()
				}
				if got, err := try(ctx); err == nil {
					t.Fatalf("%s: want no answer, got %+v", provider, got)
				}
				if s := r.Ledger().Summary().Of(provider); s.Accepted != c.recorded || s.Unanswered != c.recorded {
					t.Errorf("%s: want %d recorded without an answer, got %+v", provider, c.recorded, s)
				}
			}
			if got := r.Stats(); got.Requests < 2 {
				t.Errorf("want both counted, got %+v", got)
			}
			r.apns, r.fcm = r.client(), r.client()
			if got := r.push(goodHex); got.status != 200 {
				t.Errorf("want a new connection to work, got %d", got.status)
			}
		})
	}
}

// waitFor looks at a condition again and again for ten seconds.
func (r *rig) waitFor(holds func() bool) bool {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	patience := time.NewTimer(10 * time.Second)
	defer patience.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-patience.C:
			return false
		case <-r.t.Context().Done():
			return false
		}
	}
	return true
}

func TestGoAwayAnswersAndEndsTheConnection(t *testing.T) {
	t.Parallel()
	r := setup(t, with(simulator.Scenario{Rules: []simulator.Rule{{Every: 2, Fault: simulator.FaultGoAway}}}))
	for range 6 {
		if got := r.push(goodHex, newID()); got.status != 200 {
			t.Fatalf("want every push answered, got %d", got.status)
		}
	}
	if s := r.Stats(); s.Opened < 3 {
		t.Errorf("want a new connection after each GOAWAY, got %d", s.Opened)
	}
	if s := r.Ledger().Summary(); s.Accepted != 6 || s.Repeats != 0 {
		t.Errorf("want 6 pushes once, got %+v", s)
	}
}

func TestRefusedConnectionsAreReset(t *testing.T) {
	t.Parallel()
	r := setup(t)
	if err := r.Client().Refuse(t.Context(), simulator.APNS, time.Hour); err != nil {
		t.Fatal(err)
	}
	if got, err := r.tryPush(r.apns, r.APNSURL(), goodHex); err == nil {
		t.Fatalf("want no connection, got %+v", got)
	}
	if got := r.send(messageTo(fcmToken, goodID)); got.status != 200 {
		t.Errorf("want FCM untouched, got %d", got.status)
	}
	if s := r.Stats(); s.Refused == 0 {
		t.Errorf("want it counted, got %+v", s)
	}
}

func TestAClientThatGoesAwayDoesNotHoldTheServer(t *testing.T) {
	t.Parallel()
	latency, err := simulator.ParseLatency("1m")
	if err != nil {
		t.Fatal(err)
	}
	r := setup(t, with(simulator.Scenario{Latency: latency}))
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := r.tryPush(r.apns, r.APNSURL(), goodHex, func(req *http.Request) { *req = *req.WithContext(ctx) })
		failed <- err
	}()
	if !r.waitFor(func() bool { return r.Stats().InFlight == 1 }) {
		t.Fatal("the push did not arrive")
	}
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Fatalf("want a cancelled push, got %v", err)
	}
	if !r.waitFor(func() bool { return r.Stats().InFlight == 0 }) {
		t.Fatal("the push is still in flight")
	}
}
