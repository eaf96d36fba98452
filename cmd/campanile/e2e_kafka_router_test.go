package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/campanile-push/campanile/bench"
	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// expanded counts the committed bulk sends of a log, by token, while they are written: what is sent may be deleted.
type expanded struct {
	following *eventlog.Following
	mu        sync.Mutex
	total     int
	tokens    map[string]int
}

func (w *world) watchSends(t *testing.T) *expanded {
	t.Helper()
	e := &expanded{tokens: map[string]int{}}
	var topics []schemas.Topic
	for _, transport := range schemas.Transports {
		for _, lane := range []schemas.Lane{schemas.Express, schemas.Bulk} {
			topics = append(topics, schemas.SendTopic{Transport: transport, Lane: lane}.Topic())
		}
	}
	e.following = w.open(t).Follow("sends", e.apply, topics...)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- e.following.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	return e
}

func (e *expanded) apply(r schemas.Record) error {
	if r.Type() != pushv1.EventType_EVENT_TYPE_SEND_REQUESTED {
		return nil
	}
	event, err := r.Event()
	if err != nil {
		return err
	}
	send, ok := event.(*pushv1.SendRequested)
	if !ok {
		return errors.New("a send that is none")
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.total++
	e.tokens[send.Token]++
	return nil
}

func (e *expanded) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.total
}

// prober pushes one notification at a time, and measures how long each takes from the request until its provider has it.
type prober struct {
	mu      sync.Mutex
	done    int
	longest time.Duration
	failed  error
}

// probe goes on until ctx ends. No phone is pushed to twice.
func (p *prober) probe(ctx context.Context, w *world, m bench.Moodle, phones []bench.Phone) {
	for _, phone := range phones {
		began := time.Now()
		a, err := m.Push(ctx, phone.Token, phone.Platform, "one at a time")
		if ctx.Err() != nil {
			return
		}
		if err == nil && a.Status != http.StatusAccepted {
			err = errors.New("a notification was answered " + strconv.Itoa(a.Status) + " " + string(a.Body))
		}
		if err == nil {
			err = w.arrival(ctx, phone)
		}
		if ctx.Err() != nil {
			return
		}
		p.mu.Lock()
		p.done++
		p.longest = max(p.longest, time.Since(began))
		if err != nil && p.failed == nil {
			p.failed = err
		}
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// arrival returns when a phone's provider has a push for it.
func (w *world) arrival(ctx context.Context, p bench.Phone) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		got, err := w.ledger().Counts(ctx, provider(p), []string{p.Token})
		if err != nil || got[0] > 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func (p *prober) finished() (done int, longest time.Duration, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done, p.longest, p.failed
}

// TestKilledRoutersExpandABroadcastExactlyOnce kills two routers at random, again and again, while they expand one broadcast: in the
// log stands one committed send for each phone. One notification at a time is pushed meanwhile; none waits longer than it takes the
// group to find a dead member, and a second.
func TestKilledRoutersExpandABroadcastExactlyOnce(t *testing.T) {
	t.Parallel()
	devices, kills := proof(20_000, 200_000), proof(5, 30)
	const patience = 9 * time.Second // of one kill: a session, and what it takes to be ready again
	rate := float64(devices) / (time.Duration(kills+2) * patience).Seconds()
	w := newClusterWorld(t)
	c := w.startRoles(t, map[string][]string{
		"ingest": {"ingest"}, "projector": {"projector"}, "router-1": {"router"}, "router-2": {"router"},
		"apns": {"sender", "--platform", "apns"}, "fcm": {"sender", "--platform", "fcm"},
	})
	w.app(t, app)
	m := bench.Moodle{BaseURL: "http://" + c.roles["ingest"].api, App: app, Key: w.key(t, app, "all"), Client: bench.NewClient(4)}
	audience, probes := phones("everybody", devices), phones("probes", 20_000)
	w.load(t, app, "everybody", audience)
	w.load(t, app, "nobody", probes)
	w.reaches(t, 5*time.Minute, schemas.GroupProjector)
	sends := w.watchSends(t)

	probing, stop := context.WithCancel(t.Context())
	p := &prober{}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		p.probe(probing, w, m, probes)
	}()
	defer func() {
		stop()
		<-ended
	}()
	arrived := func(n int, when string) {
		t.Helper()
		first, _, _ := p.finished()
		eventually(t, time.Minute, "notifications arrive "+when, func() bool {
			done, _, err := p.finished()
			if err != nil {
				t.Fatal(err)
			}
			return done >= first+n
		})
	}
	arrived(20, "before the first kill")
	id := w.run(t, "broadcast", "send", app, "--channel", "everybody", "--text", "Fire drill at noon", "--rate", strconv.FormatFloat(rate, 'f', 1, 64))
	random := rand.New(rand.NewPCG(uint64(devices), uint64(kills)))
	for kill := range kills {
		at := devices/(kills+2)*kill + 1 + random.IntN(devices/(kills+2))
		eventually(t, 2*time.Minute, "the broadcast goes on", func() bool { return sends.count() >= at })
		if sends.count() == devices {
			t.Fatalf("all is expanded before kill %d: the rest prove nothing", kill+1)
		}
		c.restart(t, []string{"router-1", "router-2"}[random.IntN(2)])
		arrived(2*clusterPartitions, "after a kill")
	}
	eventually(t, 5*time.Minute, "everything is expanded", func() bool { return w.show(t, id).Progress.Expanded >= int64(devices) })
	stop()
	<-ended
	done, longest, err := p.finished()
	if err != nil {
		t.Fatal(err)
	}
	if err := sends.following.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := sends.count(); got != devices {
		t.Errorf("want %d committed sends, got %d", devices, got)
	}
	for i, phone := range audience {
		if got := sends.tokens[phone.Token]; got != 1 {
			t.Errorf("phone %d has %d sends", i, got)
		}
	}
	promise := eventlog.DefaultSessionTimeout + time.Second
	t.Logf("router: kills=%d devices=%d committed_sends=%d; direct lane: %d notifications, longest gap %s, promised %s",
		kills, devices, sends.count(), done, longest.Round(time.Millisecond), promise)
	// A machine that is busy with other things makes it late, but not four times: a direct lane that waited for a dead router in its
	// group would take the rebalance timeout, which is 30 s.
	if longest > 4*promise {
		t.Errorf("a notification took %s", longest)
	}
	c.stop(t)
}
