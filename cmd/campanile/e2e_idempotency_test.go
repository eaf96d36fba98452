package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/campanile-push/campanile/api"
	"github.com/campanile-push/campanile/bench"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// twoDoors is a campanile with two ingests, whose router can be ended and started again, by the name of its shape.
type twoDoors struct {
	urls    []string
	restart func()
	routed  func() map[string]int64 // notifications by what became of them, since the routers started
	stop    func()
}

// withTwoDoors starts a campanile of either shape. Embedded, the second ingest is in the same process, and the router ends with it.
func (w *world) withTwoDoors(t *testing.T) *twoDoors {
	t.Helper()
	d := &twoDoors{}
	if w.real != nil {
		c := w.startCluster(t)
		d.urls = []string{"http://" + c.roles["ingest-1"].api, "http://" + c.roles["ingest-2"].api}
		d.restart = func() {
			c.roles["router-1"].stop(t) // one ends well, the other does not
			c.restart(t, "router-2")
			c.launch(t, "router-1")
			c.ready(t, "router-1")
		}
		d.routed = func() map[string]int64 {
			sum := map[string]int64{}
			for _, name := range []string{"router-1", "router-2"} {
				for what, n := range routedNotifications(t, "http://"+c.roles[name].ops) {
					sum[what] += n
				}
			}
			return sum
		}
		d.stop = func() { c.stop(t) }
		return d
	}
	var p *process
	begin := func() {
		p = w.process(t)
		first := p.registry
		d.urls = []string{"http://" + p.apiAddress, p.secondDoor(t)}
		d.routed = func() map[string]int64 {
			families, err := first.Gather()
			if err != nil {
				t.Fatal(err)
			}
			all := map[string]int64{}
			for _, f := range families {
				if f.GetName() != "campanile_router_notifications_total" {
					continue
				}
				for _, m := range f.GetMetric() {
					all[m.GetLabel()[0].GetValue()] = int64(m.GetCounter().GetValue())
				}
			}
			return all
		}
		eventually(t, time.Minute, "both ingests have read the log", func() bool { return len(p.health.snapshot()) == 0 })
	}
	begin()
	d.stop = func() {
		p.close()
		p.closers = nil // the test's cleanup closes it once more
	}
	d.restart = func() {
		d.stop()
		begin()
	}
	return d
}

// routedNotifications reads the router's metric from its ops port.
func routedNotifications(t *testing.T, ops string) map[string]int64 {
	t.Helper()
	res, err := http.Get(ops + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]int64{}
	for _, m := range regexp.MustCompile(`(?m)^campanile_router_notifications_total\{result="(\w+)"\} (\d+)`).FindAllStringSubmatch(string(text), -1) {
		n, err := strconv.ParseInt(m[2], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		all[m[1]] = n
	}
	return all
}

// TestARetryIsDroppedWhicheverIngestTakesIt: a client that got no answer asks another ingest, while the routers end and begin. Its
// Idempotency-Key gives the same answer everywhere, each notification is sent once, and the log says where two requests shared a key.
func TestARetryIsDroppedWhicheverIngestTakesIt(t *testing.T) {
	t.Parallel()
	eachShape(t, func(t *testing.T, s shape) {
		t.Helper()
		const n = 48
		w := s.newWorld(t)
		d := w.withTwoDoors(t)
		w.app(t, app)
		key := w.key(t, app, "all")
		all := phones("retries", n)
		w.load(t, app, "room", all)

		// ask sends every notification under its own key, each through one of the doors.
		ask := func(text string, door func(i int) int) (ids []string) {
			t.Helper()
			ids = make([]string, n)
			err := bench.Each(t.Context(), n, 8, nil, func(ctx context.Context, i int) error {
				c := &api.Client{URL: d.urls[door(i)], App: app, Key: key}
				a, err := c.SendNotification(ctx, fmt.Sprintf("note %d", i), api.NotificationRequest{
					Token: all[i].Token, Transport: deviceOf(all[i]).Transport.Word(), Message: api.Message{Text: text},
				})
				ids[i] = a.ID
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			return ids
		}
		here := func(i int) int { return i % 2 }
		there := func(i int) int { return (i + 1) % 2 }

		first := ask("the bus leaves at nine", here)
		w.accounts(t, time.Minute, n)
		d.restart()
		if again := ask("the bus leaves at nine", there); !slices.Equal(first, again) {
			t.Errorf("other ids at the other ingest: %q, then %q", first, again)
		}
		eventually(t, time.Minute, "every retry is known as one", func() bool { return d.routed()["repeat"] == n })
		d.restart()
		if s.cluster { // there the ingests have lived on, and know their own requests
			if again := ask("the bus leaves at nine", there); !slices.Equal(first, again) {
				t.Errorf("other ids the third time: %q, then %q", first, again)
			}
			c := &api.Client{URL: d.urls[here(0)], App: app, Key: key}
			_, err := c.SendNotification(t.Context(), "note 0", api.NotificationRequest{
				Token: all[0].Token, Transport: deviceOf(all[0]).Transport.Word(), Message: api.Message{Text: "the bus leaves at ten"},
			})
			if p, ok := errors.AsType[*api.Problem](err); !ok || p.Status != http.StatusConflict {
				t.Errorf("another request under a key that this ingest knows: %v", err)
			}
		} else {
			ask("the bus leaves at ten", there) // by now neither ingest knows the first ones
			eventually(t, time.Minute, "the log says that other requests came under the same keys", func() bool {
				return d.routed()["conflict"] == n && w.conflicts(t) >= n
			})
		}
		if r := w.settled(t, time.Minute); r.Accepted != n || r.Delivered != n || r.Repeats != 0 {
			t.Errorf("the log says %+v", r)
		}
		for i, got := range w.pushes(t, all...) {
			if got != 1 {
				t.Errorf("phone %d got %d pushes", i, got)
			}
		}
		d.stop()
	})
}

// conflicts are the requests of which the log says that another came first.
func (w *world) conflicts(t *testing.T) (n int) {
	t.Helper()
	err := replay(t.Context(), w.open(t), "test", func(r schemas.Record) error {
		if r.Type() != pushv1.EventType_EVENT_TYPE_DELIVERY_ATTEMPTED {
			return nil
		}
		var e pushv1.DeliveryAttempted
		if err := r.Into(&e); err != nil {
			return err
		}
		if e.Source.GetLane() == schemas.ByRouter && e.Attempt == 0 {
			n++
		}
		return nil
	}, schemas.Deliveries)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
