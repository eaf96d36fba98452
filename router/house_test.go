package router_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/campanile-push/campanile/router"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// house is the part of the pipeline around the router: what outlives a crash.
type house struct {
	t        *testing.T
	log      *memlog
	audience *audience
	failures float64
	lag      func() time.Duration

	stateOptions      router.StateOptions
	broadcastsOptions router.BroadcastsOptions
	keepEnded         time.Duration
	delivery          func() time.Duration // of the provider, for each batch

	mu          sync.Mutex
	tallied     []int64          // offsets that tally committed
	sent        map[string]int64 // offsets that senders committed, by topic and partition
	generations map[string]int64
	state       *router.State // of the process that runs
}

func newHouse(t *testing.T, partitions int32) *house {
	t.Helper()
	return &house{
		t: t, log: newMemlog(partitions), audience: newAudience(),
		tallied: make([]int64, partitions), sent: map[string]int64{}, generations: map[string]int64{},
		delivery: func() time.Duration { return time.Millisecond },
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// process runs every stage until ctx ends.
func (h *house) process(ctx context.Context) {
	var wg sync.WaitGroup
	state := router.NewState(h.stateOptions, h.log.layout)
	h.mu.Lock()
	h.state = state
	h.mu.Unlock()
	followers := followAll(ctx, &wg, h.log, state, h.lag)
	commit := commitTo(h.log, h.failures)
	runDrives(ctx, &wg, h.log, router.NewBroadcasts(h.broadcastsOptions, state, h.audience, quiet()), followers, commit)
	runDrives(ctx, &wg, h.log, router.NewCloser(router.CloserOptions{KeepEnded: h.keepEnded}, state, quiet()), followers, commit)
	tally := router.NewTally(router.TallyOptions{Gone: state.Gone, CatchUp: followers[0].catchUp, SweepEvery: time.Second}, quiet())
	for p := range h.log.layout.Partitions {
		wg.Go(func() { h.tally(ctx, tally, p) })
		for _, t := range schemas.Transports {
			for _, lane := range broadcastLanes {
				wg.Go(func() { h.send(ctx, t, lane, p) })
			}
		}
	}
	wg.Wait()
}

// during runs a process for a while.
func (h *house) during(d time.Duration) {
	ctx, cancel := context.WithTimeout(h.t.Context(), d)
	defer cancel()
	h.process(ctx)
}

// tally runs tally over one partition: the batch's counts and its offset are committed as one.
func (h *house) tally(ctx context.Context, tally *router.Tally, p int32) {
	restore := func() {
		tally.Reset(p)
		records, _ := h.log.read(schemas.Progress, p, 0, 1<<30)
		for _, r := range records {
			if err := tally.Restore(p, r); err != nil {
				panic(err)
			}
		}
	}
	restore()
	for ctx.Err() == nil {
		h.mu.Lock()
		from := h.tallied[p]
		h.mu.Unlock()
		records, changed := h.log.read(schemas.Deliveries, p, from, 1+rand.IntN(500))
		if len(records) == 0 {
			idle := time.NewTimer(time.Second)
			select {
			case <-ctx.Done():
			case <-changed:
			case <-idle.C:
				out := schemas.NewOut(h.log.layout)
				if err := tally.Idle(ctx, p, out); err != nil && ctx.Err() == nil {
					panic(err)
				}
				h.log.appendOut(out, nil)
			}
			idle.Stop()
			continue
		}
		in := schemas.Batch{Topic: schemas.Deliveries, Partition: p, Records: records}
		out := schemas.NewOut(h.log.layout)
		if err := tally.Handle(ctx, in, out); err != nil {
			if ctx.Err() != nil {
				return
			}
			panic(err)
		}
		commit := func() { h.mu.Lock(); h.tallied[p] = in.Next(); h.mu.Unlock() }
		switch x := rand.Float64(); {
		case x < h.failures/2:
			restore()
		case x < h.failures:
			h.log.appendOut(out, commit)
			restore()
		default:
			h.log.appendOut(out, commit)
		}
	}
}

// broadcastLanes are those on which broadcasts travel.
var broadcastLanes = []schemas.Lane{schemas.Express, schemas.Bulk}

// send delivers one partition of the broadcasts' sends of a transport and lane. A new owner says so, and now and then the old one finishes
// once more what the new one will finish: a repeat.
func (h *house) send(ctx context.Context, t schemas.Transport, lane schemas.Lane, p int32) {
	topic := schemas.SendTopic{Transport: t, Lane: lane}.Topic()
	name := fmt.Sprint(topic, p)
	h.mu.Lock()
	h.generations[name]++
	generation := h.generations[name]
	h.mu.Unlock()
	h.log.append(func(out *schemas.Out) {
		out.OwnerChanged(&pushv1.OwnerChanged{Transport: t, Lane: lane, Partition: p, Generation: generation})
	})
	late := true
	for ctx.Err() == nil {
		h.mu.Lock()
		from := h.sent[name]
		h.mu.Unlock()
		records, changed := h.log.read(topic, p, from, 1+rand.IntN(300))
		if len(records) == 0 {
			select {
			case <-ctx.Done():
			case <-changed:
			}
			continue
		}
		pass(h.delivery())
		out := schemas.NewOut(h.log.layout)
		if late {
			h.finish(out, t, lane, records[0], generation-1)
			late = false
		}
		for _, r := range records {
			h.finish(out, t, lane, r, generation)
		}
		h.log.appendOut(out, func() {
			h.mu.Lock()
			h.sent[name] = records[len(records)-1].Offset + 1
			h.mu.Unlock()
		})
	}
}

func (h *house) finish(out *schemas.Out, t schemas.Transport, lane schemas.Lane, r schemas.Record, generation int64) {
	event, err := r.Event()
	if err != nil {
		panic(err)
	}
	e, _ := event.(*pushv1.SendRequested)
	outcome := pushv1.Outcome_OUTCOME_ACCEPTED
	if len(e.Token)%7 == 0 {
		outcome = pushv1.Outcome_OUTCOME_TOKEN_INVALID
	}
	source := &pushv1.Source{Lane: lane, Offset: r.Offset}
	first := true
	if r.Offset%5 == 0 {
		out.DeliveryAttempted(r.Partition, 1, &pushv1.DeliveryAttempted{
			BroadcastId: e.BroadcastId, App: "app", Transport: t, First: true, Source: source, Generation: generation,
		})
		first = false
	}
	out.DeliveryFinished(r.Partition, 1, &pushv1.DeliveryFinished{
		BroadcastId: e.BroadcastId, App: "app", Transport: t, Outcome: outcome, First: first, Source: source, Generation: generation,
	})
}

// request asks for a broadcast and returns its id.
func (h *house) request(e *pushv1.BroadcastRequested) schemas.ID {
	id := schemas.NewID()
	record := schemas.NewID()
	e.BroadcastId, e.RecordId = id[:], record[:]
	if e.App == "" {
		e.App = "app"
	}
	if len(e.Channels) == 0 {
		e.Channels = []string{"news"}
	}
	e.RequestedAtUs = time.Now().UnixMicro()
	h.log.append(func(out *schemas.Out) { out.BroadcastRequested(e) })
	return id
}

// devices registers n devices of an app in a channel, over both transports and APNs' environments.
func (h *house) devices(app, channel string, n int) []schemas.Device {
	list := make([]schemas.Device, n)
	for i := range list {
		d := schemas.Device{App: app, Transport: schemas.FCM, Token: fmt.Sprintf("%s-%s-%d", app, channel, i)}
		switch i % 10 {
		case 0, 1, 2:
			d.Transport = schemas.APNS
		case 3:
			d.Transport, d.Environment = schemas.APNS, schemas.Sandbox
		}
		list[i] = d
	}
	h.audience.add(channel, list...)
	return list
}

// sends lists the bulk sends in the log by broadcast and device.
func (h *house) sends() map[schemas.ID]map[schemas.Device]int {
	all := map[schemas.ID]map[schemas.Device]int{}
	for _, t := range schemas.Transports {
		var records []schemas.Record
		for _, lane := range broadcastLanes {
			records = append(records, h.log.all(schemas.SendTopic{Transport: t, Lane: lane}.Topic())...)
		}
		for _, r := range records {
			event, err := r.Event()
			if err != nil {
				h.t.Fatal(err)
			}
			e, ok := event.(*pushv1.SendRequested)
			if !ok {
				h.t.Fatalf("a %T among the sends", event)
			}
			id := schemas.IDFrom(e.BroadcastId)
			if all[id] == nil {
				all[id] = map[schemas.Device]int{}
			}
			d := schemas.Device{App: string(r.Key[:indexNUL(r.Key)]), Transport: t, Environment: e.Environment, Token: e.Token}
			if h.log.layout.Of(d) != r.Partition {
				h.t.Errorf("a send lies in partition %d, its device in %d", r.Partition, h.log.layout.Of(d))
			}
			all[id][d]++
		}
	}
	return all
}

func indexNUL(key []byte) int {
	for i, c := range key {
		if c == 0 {
			return i
		}
	}
	return len(key)
}

// ended lists the ends in the log by broadcast.
func (h *house) ended() map[schemas.ID][]*pushv1.BroadcastEnded {
	all := map[schemas.ID][]*pushv1.BroadcastEnded{}
	for _, r := range h.log.all(schemas.Broadcasts) {
		if r.Type() != pushv1.EventType_EVENT_TYPE_BROADCAST_ENDED {
			continue
		}
		event, err := r.Event()
		if err != nil {
			h.t.Fatal(err)
		}
		if e, ok := event.(*pushv1.BroadcastEnded); ok {
			id := schemas.IDFrom(e.BroadcastId)
			all[id] = append(all[id], e)
		}
	}
	return all
}

// untilEnded runs a process until all these broadcasts have ended, or the time is over.
func (h *house) untilEnded(limit time.Duration, ids ...schemas.ID) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), limit)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { h.process(ctx) })
	for ctx.Err() == nil {
		_, changed := h.log.read(schemas.Broadcasts, 0, 0, 0)
		ended, missing := h.ended(), 0
		for _, id := range ids {
			if len(ended[id]) == 0 {
				missing++
			}
		}
		if missing == 0 {
			break
		}
		select {
		case <-ctx.Done():
			h.t.Errorf("%d of %d broadcasts have not ended after %v", missing, len(ids), limit)
			for _, status := range h.state.Live() {
				h.t.Logf("%+v", status)
			}
		case <-changed:
		}
	}
	cancel()
	wg.Wait()
}
