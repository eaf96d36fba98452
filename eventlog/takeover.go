package eventlog

import (
	"context"
	"fmt"
	"time"

	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"

	"github.com/campanile-push/campanile/schemas"
)

// takeOver makes windows ours: it says so in deliveries, and learns what was finished or moved above their committed offsets.
// DeliveryAttempted proves nothing: it may be there without the Retry that it speaks of, and the send would be lost.
func (d *delivery) takeOver(ctx context.Context, windows []*window) error {
	started := time.Now()
	announced, err := d.announce(ctx, windows)
	if err != nil {
		return err
	}
	spans, err := d.spans(ctx, windows, announced)
	if err != nil {
		return err
	}
	found := finder{d: d, windows: map[place]*window{}, owners: map[place]int64{}}
	for _, w := range windows {
		found.windows[w.at] = w
	}
	if err := d.l.readSpans(ctx, "takeover-"+d.o.Stage, spans, found.record); err != nil {
		return err
	}
	ends := map[place]int64{}
	for _, s := range spans {
		ends[s.place] = s.to
	}
	for _, w := range windows {
		w.mu.Lock()
		w.acked[0] = ends[place{schemas.Deliveries, w.at.partition}]
		for i, topic := range topicsOfTiers(w.send) {
			w.acked[1+i] = ends[place{topic, w.at.partition}]
		}
		w.ready = true
		w.mu.Unlock()
	}
	d.log.Info("partitions taken over", "partitions", len(windows), "records", found.read, "done", found.done, "took_ms", time.Since(started).Milliseconds())
	d.wakeLoop()
	return nil
}

// announce appends OwnerChanged for each window, wherever ends of its sends can stand, and returns the offsets after it.
func (d *delivery) announce(ctx context.Context, windows []*window) ([]ends, error) {
	out := schemas.NewOut(d.layout)
	for _, w := range windows {
		e := &pushv1.OwnerChanged{
			Transport: w.send.Transport, Lane: w.send.Lane, Tier: w.send.Tier, Partition: w.at.partition,
			Generation: w.generation, Owner: d.o.Owner, ChangedAtUs: time.Now().UnixMicro(),
		}
		out.OwnerChanged(e)
		for _, tier := range schemas.SendTopics(w.send.Transport, w.send.Lane)[1:] {
			out.OwnerChangedIn(tier, e)
		}
	}
	recs := d.l.records(out, nil)
	var ack acks
	ack.expect(len(recs))
	for i := range recs {
		d.client.Produce(context.WithoutCancel(ctx), &recs[i], ack.promise)
	}
	if err := ack.wait(ctx); err != nil {
		return nil, fmt.Errorf("announce the owner: %w", err)
	}
	after := make([]ends, len(windows))
	for i := range recs {
		after[i/proofs][i%proofs] = recs[i].Offset + 1
	}
	return after, nil
}

// spans are what a takeover reads, from the lowest mark to our announcement: deliveries, less the look-back, and each tier's topic.
func (d *delivery) spans(ctx context.Context, windows []*window, announced []ends) ([]span, error) {
	merged := map[place]*span{}
	add := func(at place, from, to int64) {
		s := merged[at]
		if s == nil {
			merged[at] = &span{at, from, to}
			return
		}
		s.from, s.to = min(s.from, from), max(s.to, to)
	}
	for i, w := range windows {
		from, to := w.acked, announced[i] // as the mark says: nobody else touches it before the window is ready
		add(place{schemas.Deliveries, w.at.partition}, max(from[0]-d.o.LookBack, 0), to[0])
		for j, topic := range topicsOfTiers(w.send) {
			add(place{topic, w.at.partition}, from[1+j], to[1+j])
		}
	}
	spans := make([]span, 0, len(merged))
	starts := map[schemas.Topic][]int64{}
	for _, s := range merged {
		if starts[s.topic] == nil {
			var err error
			if starts[s.topic], err = d.l.Starts(ctx, s.topic); err != nil {
				return nil, err
			}
		}
		s.from = max(s.from, starts[s.topic][s.partition]) // what is deleted was below every group's offset, or too old
		spans = append(spans, *s)
	}
	return spans, nil
}

// finder collects what a takeover reads.
type finder struct {
	d          *delivery
	windows    map[place]*window
	owners     map[place]int64 // newest generation of each partition of sends, as deliveries told so far; those of others too
	read, done int
	finished   pushv1.DeliveryFinished
	moved      pushv1.SendRequested
	changed    pushv1.OwnerChanged
}

func (f *finder) record(r schemas.Record) error {
	f.read++
	in := int8(0) // deliveries
	if r.Topic != schemas.Deliveries {
		in = int8(f.d.l.topics[r.Topic].send.Tier)
	}
	var err error
	switch r.Type() { //nolint:exhaustive // others end nothing
	case pushv1.EventType_EVENT_TYPE_OWNER_CHANGED:
		if err = r.Into(&f.changed); err == nil {
			f.change(&f.changed, proof{in, r.Offset})
		}
	case pushv1.EventType_EVENT_TYPE_DELIVERY_FINISHED:
		e := &f.finished
		if err = r.Into(e); err == nil && f.prove(e.Transport, r.Partition, e.Source, e.Generation, proof{in, r.Offset}) {
			return f.remember(&r)
		}
	case pushv1.EventType_EVENT_TYPE_SEND_REQUESTED:
		e := &f.moved
		if err = r.Into(e); err == nil {
			f.prove(f.d.l.topics[r.Topic].send.Transport, r.Partition, e.Source, e.Generation, proof{in, r.Offset})
		}
	}
	if err != nil {
		f.d.log.Error("unreadable record in a takeover", "error", err)
	}
	return nil
}

// change raises the fence of a window's sends.
func (f *finder) change(e *pushv1.OwnerChanged, p proof) {
	at := place{schemas.SendTopic{Transport: e.Transport, Lane: e.Lane, Tier: e.Tier}.Topic(), e.Partition}
	if p.topic == 0 {
		f.owners[at] = max(f.owners[at], e.Generation)
	}
	w := f.windows[at]
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.offset >= w.acked[p.topic] {
		w.fences[p.topic].add(change{p.offset, e.Tier, e.Generation})
	}
}

// prove marks the send that source names as done, where that is a window's. It reports whether the end counts: what an earlier owner wrote
// too late does not. Below the mark's offset nothing is asked about any more.
func (f *finder) prove(t schemas.Transport, partition int32, source *pushv1.Source, generation int64, p proof) bool {
	if source == nil {
		return true
	}
	at := place{schemas.SendTopic{Transport: t, Lane: source.Lane, Tier: source.Tier}.Topic(), partition}
	if p.topic == 0 && generation < f.owners[at] {
		return false
	}
	w := f.windows[at]
	if w == nil {
		return true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.offset < w.acked[p.topic] {
		return true
	}
	if w.fences[p.topic].voids(p.offset, source.Tier, generation) {
		return false
	}
	if source.Offset < w.start {
		return true
	}
	if _, known := w.skip[source.Offset]; !known { // the first one: a mark must not rise above it
		w.skip[source.Offset] = p
		f.done++
	}
	return true
}

// remember hands the Rememberer a copy of its own.
func (f *finder) remember(r *schemas.Record) error {
	if f.d.rememberer == nil {
		return nil
	}
	e, err := r.Event()
	if err != nil {
		f.d.log.Error("unreadable record in a takeover", "error", err)
		return nil
	}
	if finished, ok := e.(*pushv1.DeliveryFinished); ok {
		f.d.rememberer.Remember(r.Partition, finished)
	}
	return nil
}
