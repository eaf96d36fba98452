package main

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/campanile-push/campanile/projections/pebble"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// rebuild runs a rebuild to its end, which may take a while on a machine with much to do, and returns what it said.
func (w *world) rebuild(t *testing.T, args ...string) string {
	t.Helper()
	r := start(t, w.env(), append([]string{"rebuild"}, args...)...)
	select {
	case <-r.ended:
		if r.err != nil {
			t.Fatalf("rebuild %v: %v\n%s", args, r.err, r.output)
		}
	case <-time.After(5 * time.Minute):
		t.Fatalf("rebuild %v: it did not end in five minutes\n%s", args, r.output)
	}
	return strings.TrimSpace(r.output.String())
}

// TestDevicesAreRebuiltUnderABroadcast builds the device store anew while a broadcast runs over it: killed in the middle, then to its end. The
// broadcast reaches every phone once, and the log, the ledger and both epochs agree.
func TestDevicesAreRebuiltUnderABroadcast(t *testing.T) {
	t.Parallel()
	eachShape(t, func(t *testing.T, s shape) {
		t.Helper()
		n := proof(s.size(10_000, 6_000), 50_000)
		w := s.newWorld(t)
		settings := []string{"CAMPANILE_ROUTER_MAX_PAGE=500", "CAMPANILE_ROUTER_START_RATE=2000"}
		p := w.begin(t, settings...)
		w.app(t, app)
		w.load(t, app, "everybody", phones("rebuilt", int(n)))
		id := w.run(t, "broadcast", "send", app, "--channel", "everybody", "--text", "to all", "--rate", "100")
		eventually(t, 2*time.Minute, "some of it is delivered", func() bool { return w.summary(t).Accepted > 200 })

		first := start(t, w.env(), "rebuild", "devices")
		first.await(t, `(building epoch) \d+`)
		first.kill()
		if u, embedded := p.(*up); embedded { // and the process that builds for others
			second := start(t, w.env(), "rebuild", "devices")
			second.await(t, `(building epoch) \d+`)
			u.kill()
			select {
			case <-second.ended:
				if second.err == nil {
					t.Errorf("a rebuild whose process was killed went well: %s", second.output)
				}
			case <-time.After(time.Minute):
				t.Error("a rebuild outlived its process by a minute")
			}
			p = w.up(t, settings...)
		}
		out := w.rebuild(t, "devices")
		if !strings.Contains(out, "rebuilt: epoch ") || !strings.HasSuffix(out, ", the same") {
			t.Errorf("it says:\n%s", out)
		}
		if during := w.summary(t).Accepted; during >= n {
			t.Errorf("the broadcast was over when the store was swapped: %d of %d were delivered", during, n)
		}
		w.run(t, "broadcast", "rate", id, "0")
		r := w.accounts(t, 8*time.Minute, n)
		if r.Accepted != n || r.Delivered != n {
			t.Errorf("the broadcast reached %+v of %d", r, n)
		}
		if ledger := w.summary(t); s.cluster && ledger.Accepted != n {
			t.Errorf("the ledger has %d pushes for %d phones", ledger.Accepted, n)
		}
		if out := w.rebuild(t, "devices", "--keep"); !strings.HasSuffix(out, "the same; the old epoch is kept") {
			t.Errorf("with --keep it says:\n%s", out)
		}
		p.stop(t)
		if !s.cluster { // nobody runs: this process builds itself
			if out := w.rebuild(t, "devices"); !strings.HasSuffix(out, ", the same") {
				t.Errorf("offline it says:\n%s", out)
			}
		}
		var flags []string
		if !s.cluster {
			flags = []string{"--log-only"}
		}
		if r, err := w.proof(t, nil, flags...); err != nil || s.cluster && r.Compared == 0 {
			t.Errorf("%v: %v, compared with %d rows", err, r.Differences, r.Compared)
		}
	})
}

// TestARebuildThatFindsOtherRowsSwapsNothing plants a phone in the store that the log does not have.
func TestARebuildThatFindsOtherRowsSwapsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	u := w.up(t)
	w.app(t, app)
	w.load(t, app, "everybody", phones("first", 40))
	u.stop(t)
	w.plantRow(t)
	u = w.up(t)
	w.load(t, app, "everybody", phones("second", 40)) // beyond the planted offset
	for _, flags := range [][]string{nil, {"--keep"}} {
		out, err := command(t, w.dir, w.env(), append([]string{"rebuild", "devices"}, flags...)...)
		if err == nil || !strings.Contains(err.Error()+out, "nothing was swapped") {
			t.Errorf("%v: want an error that says so, got %v\n%s", flags, err, out)
		}
	}
	if out := w.rebuild(t, "devices", "--force"); !strings.HasSuffix(out, "is kept") {
		t.Errorf("with --force it says:\n%s", out)
	}
	if out := w.rebuild(t, "devices"); !strings.HasSuffix(out, ", the same") {
		t.Errorf("the rebuild after it says:\n%s", out)
	}
	u.stop(t)
}

// plantRow applies a registration to the device store of a stopped campanile, under an offset that the log has not reached.
func (w *world) plantRow(t *testing.T) {
	t.Helper()
	layout := schemas.Layout{Partitions: 4}
	store, err := pebble.Open(filepath.Join(w.data(), "devices"), pebble.Options{Layout: layout})
	if err != nil {
		t.Fatal(err)
	}
	applied, err := store.Applied(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out := schemas.NewOut(layout)
	out.TokenRegistered(&pushv1.TokenRegistered{App: app, Transport: schemas.FCM, Token: "planted", RegisteredAtUs: 1})
	out.Each(func(topic schemas.Topic, p int32, key, value []byte) {
		err = store.Apply(t.Context(), schemas.Batch{Topic: topic, Partition: p, Records: []schemas.Record{{Topic: topic, Partition: p, Offset: applied[p], Key: key, Value: value}}})
	})
	if err := errors.Join(err, store.Close()); err != nil {
		t.Fatal(err)
	}
}
