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
	owned, err := d.announce(ctx, windows)
	if err != nil {
		return err
	}
	spans, err := d.spans(ctx, windows, owned)
	if err != nil {
		return err
	}
	found := finder{d: d, windows: map[place]*window{}}
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

// announce appends OwnerChanged for each window, and returns the offset after each.
func (d *delivery) announce(ctx context.Context, windows []*window) ([]int64, error) {
	out := schemas.NewOut(d.layout)
	for _, w := range windows {
		out.OwnerChanged(&pushv1.OwnerChanged{
			Transport: w.send.Transport, Lane: w.send.Lane, Tier: w.send.Tier, Partition: w.at.partition,
			Generation: w.generation, Owner: d.o.Owner, ChangedAtUs: time.Now().UnixMicro(),
		})
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
	offsets := make([]int64, len(recs))
	for i := range recs {
		offsets[i] = recs[i].Offset + 1
	}
	return offsets, nil
}

// spans are what a takeover reads: deliveries from the lowest mark, less the look-back, to our announcement, and each tier's
// topic from the lowest mark to its end as it stands after it.
func (d *delivery) spans(ctx context.Context, windows []*window, owned []int64) ([]span, error) {
	merged := map[place]*span{}
	add := func(at place, from, to int64) {
		s := merged[at]
		if s == nil {
			merged[at] = &span{at, from, to}
			return
		}
		s.from, s.to = min(s.from, from), max(s.to, to)
	}
	ends := map[schemas.Topic][]int64{}
	for i, w := range windows {
		from := w.acked // as the mark says: nobody else touches it before the window is ready
		add(place{schemas.Deliveries, w.at.partition}, max(from[0]-d.o.LookBack, 0), owned[i])
		for j, topic := range topicsOfTiers(w.send) {
			if ends[topic] == nil {
				var err error
				if ends[topic], err = d.l.Ends(ctx, topic); err != nil {
					return nil, err
				}
			}
			add(place{topic, w.at.partition}, from[1+j], ends[topic][w.at.partition])
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
	read, done int
	finished   pushv1.DeliveryFinished
	moved      pushv1.SendRequested
}

func (f *finder) record(r schemas.Record) error {
	f.read++
	switch {
	case r.Topic == schemas.Deliveries:
		if r.Type() != pushv1.EventType_EVENT_TYPE_DELIVERY_FINISHED {
			return nil
		}
		if err := r.Into(&f.finished); err != nil {
			f.d.log.Error("unreadable record in a takeover", "error", err)
			return nil
		}
		f.prove(f.finished.Transport, r.Partition, f.finished.Source, proof{0, r.Offset})
		return f.remember(&r)
	case r.Type() == pushv1.EventType_EVENT_TYPE_SEND_REQUESTED:
		if err := r.Into(&f.moved); err != nil {
			f.d.log.Error("unreadable record in a takeover", "error", err)
			return nil
		}
		tier := f.d.l.topics[r.Topic].send
		f.prove(tier.Transport, r.Partition, f.moved.Source, proof{int8(tier.Tier), r.Offset})
	}
	return nil
}

// prove marks the send that source names as done.
func (f *finder) prove(t schemas.Transport, partition int32, source *pushv1.Source, p proof) {
	if source == nil {
		return
	}
	topic := schemas.SendTopic{Transport: t, Lane: source.Lane, Tier: source.Tier}.Topic()
	w := f.windows[place{topic, partition}]
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if source.Offset < w.start {
		return
	}
	if _, known := w.skip[source.Offset]; !known { // the first one: a mark must not rise above it
		w.skip[source.Offset] = p
		f.done++
	}
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
