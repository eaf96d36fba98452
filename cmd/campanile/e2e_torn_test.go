package main

import (
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/campanile-push/campanile/eventlog/broker/brokertest"
)

// TestTornStatesLoseNothing kills campanile in the middle of a broadcast and makes what the kill left worse: the commit of the last
// page, or of the last count, is in some of its partitions only; a batch, and a group's offset, are half written. Nothing may be lost,
// and the repeats stay within the bound that docs/guarantees.md states.
func TestTornStatesLoseNothing(t *testing.T) {
	t.Parallel()
	const n, maxPage, window = 30_000, 500, 256
	only := func(prefix string) func(string, int32) bool {
		return func(topic string, _ int32) bool { return strings.HasPrefix(topic, prefix) }
	}
	plants := []struct {
		name   string
		reboot bool // the start does not know that the machine was up all the time
		plant  func(dir string) (int, error)
	}{
		{"pages without their cursors", false, func(dir string) (int, error) { return brokertest.TearLast(dir, only("expansions")) }},
		{"cursors without their pages", false, func(dir string) (int, error) { return brokertest.TearLast(dir, only("sends.")) }},
		{"pages in every second partition, and no cursor", true, func(dir string) (int, error) {
			return brokertest.TearLast(dir, func(topic string, p int32) bool {
				return topic == "expansions" || strings.HasPrefix(topic, "sends.") && p%2 == 0
			})
		}},
		{"counts in one partition, and half a batch at every end", false, func(dir string) (int, error) {
			if _, err := brokertest.TearLast(dir, only("progress")); err != nil { // where the last count is in several
				return 0, err
			}
			return brokertest.HalfWrite(dir, func(string, int32) bool { return true })
		}},
	}
	w := newWorld(t)
	settings := []string{
		"CAMPANILE_ROUTER_MAX_PAGE=" + strconv.Itoa(maxPage), "CAMPANILE_SENDERS_WINDOW=" + strconv.Itoa(window), withoutAnalytics,
	}
	u := w.up(t, settings...)
	w.app(t, app)
	key := w.key(t, app, "all")
	w.load(t, app, "everybody", phones("torn", n))
	if _, err := u.moodle(app, key).Broadcast(t.Context(), "everybody", "The library closes at six"); err != nil {
		t.Fatal(err)
	}
	reboots, all := int64(0), 0
	for i, p := range plants {
		target := int64(n * (i + 1) / (len(plants) + 2))
		eventually(t, 2*time.Minute, strconv.FormatInt(target, 10)+" are delivered", func() bool { return w.summary(t).Accepted >= target })
		u.kill()
		if s := w.summary(t); s.Tokens >= n {
			t.Errorf("%s: the broadcast was over before the kill: nothing is shown", p.name)
		}
		planted, err := p.plant(filepath.Join(w.data(), "log"))
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d planted", p.name, planted)
		all += planted // none where the kill met a transaction before its commit: then it is torn enough
		if p.reboot {
			writeFile(t, filepath.Join(w.data(), "log", "dirty"), "another boot")
			reboots++
		}
		u = w.up(t, settings...)
	}
	r := w.settled(t, 3*time.Minute)
	s := w.summary(t)
	if all < 10 {
		t.Errorf("%d torn places in all: little is shown", all)
	}
	if s.Tokens != n {
		t.Errorf("%d of %d devices got it", s.Tokens, n)
	}
	bound := embeddedPartitions * (int64(len(plants))*2*window + reboots*2*maxPage)
	repeats := s.Accepted - s.Tokens
	t.Logf("%d pushes, %d repeats after %d torn states; bound %d", s.Accepted, repeats, len(plants), bound)
	if repeats > bound {
		t.Errorf("%d repeats, the bound is %d", repeats, bound)
	}
	if r.Accepted != n || r.Delivered != n {
		t.Errorf("the log accounts for %+v, want %d accepted and delivered", r, n)
	}
	u.stop(t)
}

// withoutAnalytics keeps the embedded engine out of a test that says nothing of it: no library is found.
const withoutAnalytics = "CHDB_LIB_PATH=/nowhere"
