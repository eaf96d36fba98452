package main

import (
	"encoding/json"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/campanile-push/campanile/projections/chdbtest"
)

// counted are the totals of `campanile stats`, in the words of `campanile reconcile`. Repeats are those that a provider took.
func (w *world) counted(t *testing.T, env ...string) (r reconciled, gaps int) {
	t.Helper()
	out, err := command(t, w.dir, w.env(env...), "stats", "--json")
	var stats struct {
		Totals []struct {
			Outcome string
			Repeat  bool
			Pushes  int64
		}
		Gaps []any
	}
	if err := json.Unmarshal([]byte(must(t, out, err)), &stats); err != nil {
		t.Fatal(err)
	}
	for _, c := range stats.Totals {
		switch {
		case c.Repeat && c.Outcome == "accepted":
			r.Repeats += c.Pushes
		case c.Repeat:
		case c.Outcome == "accepted":
			r.Delivered += c.Pushes
		case c.Outcome == "rejected":
			r.Rejected += c.Pushes
		case c.Outcome == "token_invalid":
			r.Invalid += c.Pushes
		case c.Outcome == "expired":
			r.Expired += c.Pushes
		case c.Outcome == "cancelled":
			r.Cancelled += c.Pushes
		}
	}
	r.Accepted = r.Delivered + r.Rejected + r.Invalid + r.Expired + r.Cancelled
	return r, len(stats.Gaps)
}

// TestAnalyticsCountEachDeliveryOnce kills campanile, and with it the embedded engine, again and again while deliveries flow: in the end
// the engine's totals are those of the log.
func TestAnalyticsCountEachDeliveryOnce(t *testing.T) {
	t.Parallel()
	library := "CHDB_LIB_PATH=" + chdbtest.Library(t)
	const n, kills = 30_000, 4
	w := newWorld(t, "--mix", "dead=0.05,unavailable=0.02,PayloadTooLarge=0.02")
	u := w.up(t, library)
	w.app(t, app)
	key := w.key(t, app, "all")
	all := phones("counted", n)
	w.load(t, app, "everybody", all)
	m := u.moodle(app, key)
	for _, p := range phones("direct", 200) { // in no channel
		if _, err := m.Push(t.Context(), p.Token, p.Platform, "to you"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.Broadcast(t.Context(), "everybody", "to all"); err != nil {
		t.Fatal(err)
	}
	for k := range kills {
		target := int64(n * (k + 1) / (kills + 2))
		eventually(t, 2*time.Minute, strconv.FormatInt(target, 10)+" are counted", func() bool {
			r, _ := w.counted(t, library)
			return r.Accepted >= target
		})
		u.kill()
		u = w.up(t, library)
	}
	want := w.settled(t, 2*time.Minute)
	if want.Accepted != n+200 || want.Invalid == 0 || want.Rejected == 0 {
		t.Errorf("the log accounts for %+v", want)
	}
	var got reconciled
	var gaps int
	eventually(t, time.Minute, "the engine has counted what the log holds", func() bool {
		got, gaps = w.counted(t, library)
		return got.Accepted >= want.Accepted
	})
	t.Logf("%d kills: %+v", kills, got)
	if diff := cmp.Diff(want, got); diff != "" || gaps > 0 {
		t.Errorf("the log (-) and the engine (+), %d gaps:\n%s", gaps, diff)
	}
	// It stays so: what is counted late would be counted twice.
	u.stop(t)
	if got, _ := w.counted(t, library); !cmp.Equal(want, got) {
		t.Errorf("after a stop:\n%s", cmp.Diff(want, got))
	}
}
