package bench

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// answerer finishes every send at once.
type answerer struct {
	broadcast schemas.ID
	left      atomic.Int64
	done      chan struct{}
}

// Deliver implements eventlog.Deliverer.
func (a *answerer) Deliver(_ context.Context, in schemas.Batch, done schemas.Completion) error {
	if !done.MayPush() {
		return nil
	}
	var e pushv1.SendRequested
	finished := outcome(a.broadcast)
	finished.Generation = done.Generation()
	for i := range in.Records {
		if err := in.Records[i].Into(&e); err != nil {
			return err
		}
		offset := in.Records[i].Offset
		done.Complete(offset, func(out *schemas.Out) {
			finished.Source.Offset = offset
			out.DeliveryFinished(in.Partition, uint64(offset), finished)
		})
	}
	if a.left.Add(-int64(len(in.Records))) == 0 {
		close(a.done)
	}
	return nil
}

// outcome is what a first try that is accepted says.
func outcome(broadcast schemas.ID) *pushv1.DeliveryFinished {
	return &pushv1.DeliveryFinished{
		SendId: broadcast[:], BroadcastId: broadcast[:], App: app, Transport: schemas.FCM, Outcome: pushv1.Outcome_OUTCOME_ACCEPTED, Attempt: 1,
		RequestedAtUs: 1_790_000_000_000_000, FinishedAtUs: 1_790_000_000_100_000, LatencyUs: 30_000,
		Source: &pushv1.Source{Lane: schemas.Bulk}, Generation: 1, First: true,
	}
}

func (h *harness) deliver(ctx context.Context) ([]Row, error) {
	const name = "deliver/kfake"
	c, err := h.newCluster(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.close() }()
	n := h.scaled(1_000_000)
	phones := makePhones(distinct, schemas.FCM)
	broadcast := schemas.NewID()
	h.say("%d bulk sends a round, decoded and finished; the takeover, joining and leaving the group included", n)
	bulk := schemas.SendTopic{Transport: schemas.FCM, Lane: schemas.Bulk}.Topic()
	fresh := func(ctx context.Context, run func(t *topics) error) (sample, error) {
		return c.fresh(ctx, n, func(out *schemas.Out, i int) { bulkSend(out, broadcast, phones[i%distinct]) }, run)
	}
	d, err := h.duel(ctx, name,
		func(ctx context.Context) (sample, error) {
			return fresh(ctx, func(t *topics) error {
				a := &answerer{broadcast: broadcast, done: make(chan struct{})}
				a.left.Store(int64(n))
				return untilDone(ctx, a.done, func(ctx context.Context) error {
					return t.RunDeliver(ctx, eventlog.DeliverOptions{
						Group: schemas.SenderGroup(schemas.FCM, schemas.Bulk), Topics: []schemas.Topic{bulk}, Stage: "answer",
					}, a)
				})
			})
		},
		func(ctx context.Context) (sample, error) {
			return fresh(ctx, func(t *topics) error { return t.bareDeliver(ctx, bulk, n, broadcast) })
		})
	if err != nil {
		return nil, err
	}
	return d.rows(name, "record"), nil
}

// makePhones makes n phones of one transport.
func makePhones(n int, transport schemas.Transport) []Phone {
	phones := make([]Phone, n)
	for i := range phones {
		phones[i] = phoneOf(i, transport)
	}
	return phones
}

// phoneOf makes phone number i of one transport: of three phones of MakePhone, the third is an iPhone.
func phoneOf(i int, transport schemas.Transport) Phone {
	if transport == schemas.APNS {
		return MakePhone("bench", 3*i+2)
	}
	return MakePhone("bench", i/2*3+i%2)
}

func bulkSend(out *schemas.Out, broadcast schemas.ID, p Phone) {
	out.SendRequested(schemas.Bulk, p.device(), &pushv1.SendRequested{
		BroadcastId: broadcast[:], Token: p.Token, RegisteredAtUs: 1_780_000_000_000_000,
	})
}

// bareDeliver is at least once like ours, in the simplest way: it commits each second, and only after everything before was
// acknowledged. It knows no window and no single send that is not done.
func (t *topics) bareDeliver(ctx context.Context, topic schemas.Topic, n int, broadcast schemas.ID) error {
	client, err := t.bareGroup(topic)
	if err != nil {
		return err
	}
	defer client.CloseAllowingRebalance()
	failed := newFirstError()
	finished := outcome(broadcast)
	commit := func() error {
		if err := client.Flush(ctx); err != nil {
			return err
		}
		return errors.Join(failed.get(), client.CommitUncommittedOffsets(ctx))
	}
	committed := time.Now()
	type piece struct {
		out     *schemas.Out
		records []kgo.Record
	}
	var flying, free []piece // memory until the next commit, and to be used again
	var e pushv1.SendRequested
	for left := n; left > 0; {
		fetches := client.PollRecords(ctx, pollRecords)
		if err := fetches.Err(); err != nil {
			return err
		}
		if len(free) == 0 {
			free = append(free, piece{out: schemas.NewOut(t.Layout())})
		}
		p := free[len(free)-1]
		free = free[:len(free)-1]
		p.out.Reset()
		for it := fetches.RecordIter(); !it.Done(); left-- {
			r := it.Next()
			e.Reset()
			if err := e.UnmarshalVTUnsafe(r.Value[1:]); err != nil {
				return err
			}
			finished.Source.Offset = r.Offset
			p.out.DeliveryFinished(r.Partition, uint64(r.Offset), finished)
		}
		p.records = t.produce(ctx, client, p.out, p.records, failed.promise)
		flying = append(flying, p)
		if time.Since(committed) > time.Second {
			if err := commit(); err != nil {
				return err
			}
			committed = time.Now()
			free, flying = append(free, flying...), flying[:0]
		}
		client.AllowRebalance()
	}
	return commit()
}
