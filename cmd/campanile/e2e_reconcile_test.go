package main

import (
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/campanile-push/campanile/audit"
	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/eventlog/broker"
	"github.com/campanile-push/campanile/projections/chdbtest"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// proof runs `campanile reconcile --json`, which may fail.
func (w *world) proof(t *testing.T, env []string, flags ...string) (audit.Report, error) {
	t.Helper()
	out, err := command(t, w.dir, w.env(env...), append([]string{"reconcile", "--json"}, flags...)...)
	var r audit.Report
	if bad := json.Unmarshal([]byte(out), &r); bad != nil {
		t.Fatalf("%v: %s %v", bad, out, err)
	}
	return r, err
}

// say appends to the log of a running campanile.
func (w *world) say(t *testing.T, say func(out *schemas.Out)) {
	t.Helper()
	dial, running := broker.Running(w.data() + "/log")
	if !running {
		t.Fatal("no embedded log runs")
	}
	log, err := eventlog.Open(t.Context(), eventlog.Config{Brokers: broker.Brokers(), Dial: dial, Replication: 1}, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := log.Append(t.Context(), say); err != nil {
		t.Error(err)
	}
	if err := log.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// analyticsRebuilt runs a rebuild of the analytics, which must replace a day.
func (w *world) analyticsRebuilt(t *testing.T, env ...string) string {
	t.Helper()
	out, err := command(t, w.dir, w.env(env...), "rebuild", "analytics")
	if must(t, out, err); !strings.Contains(out, ": replaced, ") {
		t.Errorf("no day is replaced:\n%s", out)
	}
	return out
}

// TestReconcileProvesLogAndClickHouse kills a campanile in a broadcast: nothing differs afterwards, in the log and in ClickHouse, while it runs
// and when it is stopped. Then an end of a push that nobody asked for is found, by its ids and its place, and the exit status says so.
func TestReconcileProvesLogAndClickHouse(t *testing.T) {
	t.Parallel()
	const n = 4000
	w := newWorld(t, "--mix", "dead=0.05,unavailable=0.02")
	library := "CAMPANILE_CLICKHOUSE_LIBRARY=" + chdbtest.Library(t)
	u := w.up(t, library)
	w.app(t, app)
	key := w.key(t, app, "all")
	w.load(t, app, "everybody", phones("proof", n))
	m := u.moodle(app, key)
	for _, p := range phones("proof direct", 50) {
		if _, err := m.Push(t.Context(), p.Token, p.Platform, "to you"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.Broadcast(t.Context(), "everybody", "to all"); err != nil {
		t.Fatal(err)
	}
	for k := range 2 {
		eventually(t, time.Minute, "some of it is delivered", func() bool { return w.summary(t).Accepted > int64(n*(k+1)/4) })
		if r, err := w.proof(t, []string{library}); err != nil { // while it runs
			t.Errorf("kill %d: %v: %v", k, err, r.Differences)
		}
		u.kill()
		u = w.up(t, library)
	}
	want := w.settled(t, 2*time.Minute)
	var r audit.Report
	eventually(t, time.Minute, "ClickHouse is compared with every end", func() bool {
		var err error
		if r, err = w.proof(t, []string{library}); err != nil {
			t.Fatalf("%v: %v", err, r.Differences)
		}
		return r.Compared >= want.Accepted
	})
	if r.Accepted != n+50 || len(r.Notes) > 0 {
		t.Errorf("want %d accepted and nothing unproven, got %s, %v", n+50, r, r.Notes)
	}
	if r, err := w.proof(t, []string{library}, "--from", "-1s", "--to", "1h"); err != nil || r.Accepted != 0 {
		t.Errorf("the last second: %v %s", err, r)
	}

	// The days are built anew and replaced under the running analytics, which go on.
	for line := range strings.Lines(must(t, w.analyticsRebuilt(t, library), nil)) {
		if strings.Contains(line, ": re") && !strings.HasSuffix(strings.TrimSpace(line), ", the same") {
			t.Errorf("rebuild analytics: %s", line)
		}
	}
	if r, err := w.proof(t, []string{library}); err != nil || r.Compared < want.Accepted {
		t.Errorf("after the rebuild: %v: %s, %v %v", err, r, r.Differences, r.Notes)
	}

	stranger, send := schemas.ID{1, 15: 9}, schemas.DirectSendID(schemas.ID{1, 15: 9})
	w.say(t, func(out *schemas.Out) {
		out.DeliveryFinished(1, 7, &pushv1.DeliveryFinished{
			SendId: send[:], RequestId: stranger[:], App: app, Transport: schemas.FCM, Outcome: pushv1.Outcome_OUTCOME_ACCEPTED,
			RequestedAtUs: time.Now().UnixMicro(), FinishedAtUs: time.Now().UnixMicro(), Source: &pushv1.Source{Lane: schemas.ByRouter},
		})
	})
	r, err := w.proof(t, []string{library})
	if err == nil || len(r.Differences) != 1 {
		t.Fatalf("an end that nobody asked for: %v: %s, %v", err, r, r.Differences)
	}
	if d := r.Differences[0]; d.Kind != audit.FinishedWithoutSend || d.Request != stranger.String() || d.Send != send.String() || !strings.HasPrefix(d.Place, "deliveries[1]@") {
		t.Errorf("it is told as %s", d)
	}
	u.stop(t)
	out, err := command(t, w.dir, w.env("CAMPANILE_CLICKHOUSE_URL=http://127.0.0.1:1/campanile"), "reconcile")
	if err == nil || !strings.Contains(out, "difference: finished_without_send request="+stranger.String()) ||
		!strings.Contains(out, "reconciled: accepted=") || !strings.Contains(out, "note: not proven for ClickHouse: ") {
		t.Errorf("stopped, and without the engine: %v\n%s", err, out)
	}
}
