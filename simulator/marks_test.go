package simulator_test

import (
	"testing"

	"golang.org/x/net/http2"

	"github.com/campanile-push/campanile/simulator"
)

// TestAnswersNotSeenToBeReadAreInDoubt has a connection reset after answers of which the client has confirmed some.
func TestAnswersNotSeenToBeReadAreInDoubt(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		confirms bool
		doubt    int64
	}{"confirmed": {true, 2}, "silent": {false, 4}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := setup(t, withRule(simulator.Rule{Every: 5, Fault: simulator.FaultResetAfter}))
			w := r.wire(r.APNSURL())
			push := func(from, to uint32) {
				for stream := from; stream <= to; stream += 2 {
					w.push(stream, hexToken(int(stream)))
				}
				w.flush()
			}
			push(1, 3)
			if w.status(1) != "200" || w.status(3) != "200" {
				t.Fatal("want the first two answered")
			}
			mark := until(w, func(f *http2.PingFrame) bool { return !f.IsAck() })
			if c.confirms {
				w.must(w.WritePing(true, mark.Data))
			}
			push(5, 9)
			w.closed()
			r.waitFor(func() bool { return r.Stats().Doubt == c.doubt })
			if s := r.Stats(); s.Cut != 1 || s.Doubt != c.doubt || s.Ledger.Accepted != 5 {
				t.Errorf("want one answer cut and %d in doubt, got %d and %d of %d", c.doubt, s.Cut, s.Doubt, s.Ledger.Accepted)
			}
		})
	}
}

// TestWhoGivesUpOnAnAnswerMayPushAgain: the reset of a stream crosses its answer.
func TestWhoGivesUpOnAnAnswerMayPushAgain(t *testing.T) {
	t.Parallel()
	r := setup(t)
	w := r.wire(r.APNSURL())
	w.push(1, goodHex)
	w.flush()
	if w.status(1) != "200" {
		t.Fatal("want it answered")
	}
	w.must(w.WriteRSTStream(1, http2.ErrCodeCancel))
	w.flush()
	if !r.waitFor(func() bool { return r.Stats().Doubt == 1 }) {
		t.Errorf("want the answer in doubt, got %d", r.Stats().Doubt)
	}
}
