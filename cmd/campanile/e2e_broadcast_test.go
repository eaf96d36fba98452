package main

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/campanile-push/campanile/api"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

func (w *world) show(t *testing.T, id string, flags ...string) api.Broadcast {
	t.Helper()
	var x api.Broadcast
	if err := json.Unmarshal([]byte(w.run(t, append([]string{"broadcast", "show", id, "--json"}, flags...)...)), &x); err != nil {
		t.Fatal(err)
	}
	return x
}

// refused runs a command that must fail.
func (w *world) refused(t *testing.T, args ...string) {
	t.Helper()
	if out, err := command(t, w.dir, w.env(), args...); err == nil {
		t.Errorf("campanile %v went well: %s", args, out)
	}
}

// still checks that a broadcast's counts do not move while it is looked at some times.
func (w *world) still(t *testing.T, id string) api.Broadcast {
	t.Helper()
	first := w.show(t, id)
	looked := 0
	eventually(t, time.Minute, "it was looked at five times", func() bool {
		if now := w.show(t, id); now.Progress.Expanded != first.Progress.Expanded || now.Progress.Delivered != first.Progress.Delivered {
			t.Fatalf("it should stand still, and went from %+v to %+v", first.Progress, now.Progress)
		}
		looked++
		return looked == 5
	})
	return first
}

// TestBroadcastObeysItsOperator steers a broadcast while it runs: pause drains, resume goes on at the rate that was set, cancel is
// final, and the counts are exact.
func TestBroadcastObeysItsOperator(t *testing.T) {
	t.Parallel()
	const n = 60_000
	w := newWorld(t, "--mix", "unavailable=0.02")
	u := w.up(t)
	w.app(t, app)
	w.load(t, app, "everybody", phones("operator", n))
	id := w.run(t, "broadcast", "send", app, "--channel", "everybody", "--text", "Fire drill at noon", "--rate", "1500")

	eventually(t, time.Minute, "a part is delivered", func() bool { return w.summary(t).Accepted > 1000 })
	w.run(t, "broadcast", "pause", id, "--reason", "wrong text")
	eventually(t, time.Minute, "what was expanded has drained", func() bool {
		x := w.show(t, id)
		return x.State == api.StatePaused && x.Progress.Finished == x.Progress.Expanded
	})
	paused := w.still(t, id)
	if p := paused.Progress; p.Expanded >= n || p.Delivered != w.summary(t).Accepted {
		t.Errorf("paused with %+v; the ledger has %d", p, w.summary(t).Accepted)
	}
	if paused.Paused == nil || paused.Paused.Reason != "wrong text" {
		t.Errorf("why it is paused: %+v", paused.Paused)
	}

	const rate = 500
	w.run(t, "broadcast", "rate", id, "500")
	w.run(t, "broadcast", "resume", id)
	eventually(t, 2*time.Minute, "it went on", func() bool { return w.summary(t).Accepted > paused.Progress.Delivered+2500 })
	w.run(t, "broadcast", "cancel", id)
	eventually(t, time.Minute, "it has ended", func() bool { return w.show(t, id).State == api.StateCancelled })
	ended := w.still(t, id)
	p := ended.Progress
	if p.Expanded >= n || p.Expanded != p.Delivered+p.Cancelled+p.Failed || p.Remaining != 0 {
		t.Errorf("cancelled with %+v", p)
	}
	if ledger := w.summary(t); ledger.Accepted != p.Delivered || ledger.Repeats != 0 {
		t.Errorf("the ledger has %d pushes and %d repeats, the broadcast %d", ledger.Accepted, ledger.Repeats, p.Delivered)
	}
	if r := w.reconcile(t); r.Accepted != p.Expanded || r.Delivered != p.Delivered || r.Cancelled != p.Cancelled || r.Pending != 0 {
		t.Errorf("the log says %+v, the broadcast %+v", r, p)
	}
	// A cursor may make up for a second of lateness, and takes half a second's worth at a time.
	if n, seconds := w.emittedAfterResumption(t, id); float64(n) > rate*(seconds+1.5)+100 {
		t.Errorf("it was to go at %d a second, and %d went in %.1f s", rate, n, seconds)
	}
	for _, verb := range []string{"pause", "resume", "cancel"} {
		w.refused(t, "broadcast", verb, id)
	}
	w.refused(t, "broadcast", "rate", id, "5")
	u.stop(t)
}

// emittedAfterResumption is how many sends came after a broadcast was resumed, and in how many seconds, by the times in the log.
func (w *world) emittedAfterResumption(t *testing.T, id string) (after int64, seconds float64) {
	t.Helper()
	var resumedUS, lastUS, before int64
	emitted := map[schemas.CursorKey]int64{}
	err := replay(t.Context(), w.open(t), "test", func(r schemas.Record) error {
		event, err := r.Event()
		if e, ok := event.(*pushv1.BroadcastResumed); ok && schemas.IDFrom(e.BroadcastId).String() == id {
			resumedUS = e.ResumedAtUs
		}
		return err
	}, schemas.Broadcasts)
	if err != nil {
		t.Fatal(err)
	}
	err = replay(t.Context(), w.open(t), "test", func(r schemas.Record) error {
		event, err := r.Event()
		e, ok := event.(*pushv1.CursorMoved)
		if !ok || schemas.IDFrom(e.BroadcastId).String() != id {
			return err
		}
		k := schemas.CursorKey{Transport: e.Transport, Range: e.Range}
		if e.MovedAtUs < resumedUS {
			before += e.Emitted - emitted[k]
		} else {
			after += e.Emitted - emitted[k]
			if e.PageEmitted > 0 {
				lastUS = max(lastUS, e.MovedAtUs)
			}
		}
		emitted[k] = e.Emitted
		return nil
	}, schemas.Expansions)
	if err != nil {
		t.Fatal(err)
	}
	if after == 0 || before == 0 {
		t.Fatalf("%d before the resumption, %d after", before, after)
	}
	return after, float64(lastUS-resumedUS) / 1e6
}

// TestBroadcastCommandsSayWhatIsThere sends from the command line: dry run, idempotency, list, and what is refused.
func TestBroadcastCommandsSayWhatIsThere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	u := w.up(t)
	w.app(t, app)
	w.load(t, app, "staff", phones("commands", 40))

	var accepted api.Accepted
	out := w.run(t, "broadcast", "send", app, "--channel", "staff", "--dry-run", "--json")
	if err := json.Unmarshal([]byte(out), &accepted); err != nil || accepted.AudienceEstimate != 40 || accepted.ID != "" {
		t.Errorf("dry run: %s, %v", out, err)
	}
	send := []string{"broadcast", "send", app, "--channel", "staff", "--title", "Hello", "--body", "all of you", "--extra", "page=7", "--idempotency-key", "monday"}
	id := w.run(t, send...)
	if again := w.run(t, send...); again != id {
		t.Errorf("the same key gave %s, then %s", id, again)
	}
	w.refused(t, "broadcast", "send", app, "--channel", "staff", "--title", "Other", "--idempotency-key", "monday")
	w.refused(t, "broadcast", "send", "noapp", "--text", "x")
	w.refused(t, "broadcast", "send", app, "--channel", "staff")
	w.refused(t, "broadcast", "show", "01890000-0000-7000-8000-000000000000")
	w.run(t, "broadcast", "watch", id)
	x := w.show(t, id)
	if x.State != api.StateEnded || x.Progress.Delivered != 40 || x.AudienceEstimate != 40 {
		t.Errorf("it ended as %+v", x)
	}
	var list []api.Broadcast
	if err := json.Unmarshal([]byte(w.run(t, "broadcast", "list", app, "--json")), &list); err != nil || len(list) != 1 || list[0].ID != id {
		t.Errorf("list: %+v, %v", list, err)
	}
	u.stop(t)
}
