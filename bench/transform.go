package bench

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// relay makes one send of each notification.
type relay struct {
	left atomic.Int64
	done chan struct{}
}

func newRelay(n int) *relay {
	r := &relay{done: make(chan struct{})}
	r.left.Store(int64(n))
	return r
}

// Handle implements eventlog.Transformer.
func (r *relay) Handle(_ context.Context, in schemas.Batch, out *schemas.Out) error {
	var e pushv1.NotificationRequested
	var send pushv1.SendRequested
	for i := range in.Records {
		if err := in.Records[i].Into(&e); err != nil {
			return err
		}
		relayOne(out, &e, &send)
	}
	if r.left.Add(-int64(len(in.Records))) == 0 {
		close(r.done)
	}
	return nil
}

func relayOne(out *schemas.Out, e *pushv1.NotificationRequested, send *pushv1.SendRequested) {
	send.RequestId, send.App, send.Token, send.Platform, send.Content = e.RequestId, e.App, e.Token, e.Platform, e.Content
	send.RequestedAtUs, send.RegisteredAtUs = e.RequestedAtUs, e.RegisteredAtUs
	out.SendRequested(schemas.Direct, schemas.DeviceOf(e), send)
}

const pollRecords = 10_000 // what RunTransform polls

func (h *harness) transformKfake(ctx context.Context) ([]Row, error) {
	return h.transform(ctx, "transform/kfake")
}

func (h *harness) transformKafka(ctx context.Context) ([]Row, error) {
	return h.transform(ctx, "transform/kafka")
}

func (h *harness) transform(ctx context.Context, name string) ([]Row, error) {
	c, err := h.newClusterOf(ctx, name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.close() }()
	n := h.scaled(500_000)
	events := make([]*pushv1.NotificationRequested, distinct)
	for i := range events {
		events[i] = notification(i)
	}
	h.say("%d notifications a round, decoded, and encoded as sends; joining and leaving the group included", n)
	fresh := func(ctx context.Context, run func(t *topics) error) (sample, error) {
		return c.fresh(ctx, n, func(out *schemas.Out, i int) { out.NotificationRequested(events[i%distinct]) }, run)
	}
	d, err := h.duel(ctx, name,
		func(ctx context.Context) (sample, error) {
			return fresh(ctx, func(t *topics) error {
				r := newRelay(n)
				return untilDone(ctx, r.done, func(ctx context.Context) error {
					return t.RunTransform(ctx, eventlog.TransformOptions{
						Group: schemas.GroupDirectRouter, Topics: []schemas.Topic{schemas.Notifications}, Stage: "relay", MaxBatch: pollRecords,
					}, r)
				})
			})
		},
		func(ctx context.Context) (sample, error) {
			return fresh(ctx, func(t *topics) error { return t.bareRelay(ctx, n) })
		})
	if err != nil {
		return nil, err
	}
	return d.rows(name, "record"), nil
}

// fresh fills topics of their own, measures run over them, and drops them.
func (c *cluster) fresh(ctx context.Context, n int, say func(out *schemas.Out, i int), run func(t *topics) error) (s sample, err error) {
	t, err := c.newTopics(ctx)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, t.drop(context.WithoutCancel(ctx))) }()
	if err := t.fill(ctx, n, say); err != nil {
		return s, err
	}
	watch, err := c.watch()
	if err != nil {
		return s, err
	}
	if err := run(t); err != nil {
		return s, err
	}
	return watch.stop(n)
}

// bareRelay is what a program does that needs the same result and has no runner: it polls, says what follows, produces, waits, commits.
// Its memory is used again, as the runner's is.
func (t *topics) bareRelay(ctx context.Context, n int) error {
	client, err := t.bareGroup(schemas.Notifications)
	if err != nil {
		return err
	}
	defer client.CloseAllowingRebalance()
	failed := newFirstError()
	out := schemas.NewOut(t.Layout())
	var records []kgo.Record
	var e pushv1.NotificationRequested
	var send pushv1.SendRequested
	for left := n; left > 0; {
		fetches := client.PollRecords(ctx, pollRecords)
		if err := fetches.Err(); err != nil {
			return err
		}
		out.Reset()
		for it := fetches.RecordIter(); !it.Done(); left-- {
			e.Reset()
			if err := e.UnmarshalVTUnsafe(it.Next().Value[1:]); err != nil {
				return err
			}
			relayOne(out, &e, &send)
		}
		records = t.produce(ctx, client, out, records, failed.promise)
		if err := client.Flush(ctx); err != nil {
			return err
		}
		if err := errors.Join(failed.get(), client.CommitUncommittedOffsets(ctx)); err != nil {
			return err
		}
		client.AllowRebalance()
	}
	return nil
}

// produce hands what out says to a bare client, in records' memory.
func (t *topics) produce(ctx context.Context, client *kgo.Client, out *schemas.Out, records []kgo.Record, promise func(*kgo.Record, error)) []kgo.Record {
	if cap(records) < out.Len() {
		records = make([]kgo.Record, 0, out.Len())
	}
	records = records[:0]
	var last schemas.Topic
	var name string
	out.Each(func(topic schemas.Topic, partition int32, key, value []byte) {
		if topic != last {
			last, name = topic, t.name(topic)
		}
		records = append(records, kgo.Record{Topic: name, Partition: partition, Key: key, Value: value})
	})
	for i := range records {
		client.Produce(ctx, &records[i], promise)
	}
	return records
}
