package bench

import (
	"context"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// appending is a number of callers, each of which appends some records, waits until the log has them, and appends the next.
type appending struct {
	callers, each int // each: records of one append
	total         int // appends of a round
	events        []*pushv1.NotificationRequested
	encoded       []encoded // the same
}

// distinct events: more than the codec sees at once (snappy: 64 KiB), and few enough to be in the cache as one that was just made.
const distinct = 512

func (h *harness) appendOnes(ctx context.Context) ([]Row, error) {
	return h.appending(ctx, "append/kfake", &appending{callers: 512, each: 1, total: h.scaled(500_000)})
}

func (h *harness) appendKafka(ctx context.Context) ([]Row, error) {
	return h.appending(ctx, "append/kafka", &appending{callers: 512, each: 1, total: h.scaled(500_000)})
}

func (h *harness) appendBatches(ctx context.Context) ([]Row, error) {
	return h.appending(ctx, "append/batch/kfake", &appending{callers: 4, each: 1000, total: max(h.scaled(1_000_000)/1000, 4)})
}

func (h *harness) appending(ctx context.Context, name string, a *appending) ([]Row, error) {
	c, err := h.newClusterOf(ctx, name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.close() }()
	t, err := c.newTopics(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = t.Close(context.WithoutCancel(ctx)) }()
	raw, err := t.bare()
	if err != nil {
		return nil, err
	}
	defer raw.Close()
	for i := range distinct {
		a.events = append(a.events, notification(i))
	}
	a.encoded = encode(t.Layout(), func(out *schemas.Out) {
		for _, e := range a.events {
			out.NotificationRequested(e)
		}
	})
	h.say("%d records of %d bytes a round", a.total*a.each, len(a.encoded[0].key)+len(a.encoded[0].value))
	d, err := h.duel(ctx, name,
		func(ctx context.Context) (sample, error) {
			return a.round(c, func(int) func(from int) error {
				var from int
				say := func(out *schemas.Out) {
					for i := range a.each {
						out.NotificationRequested(a.events[(from+i)%distinct])
					}
				}
				return func(first int) error {
					from = first
					return t.Append(ctx, say)
				}
			})
		},
		func(ctx context.Context) (sample, error) {
			return a.round(c, func(int) func(from int) error { return a.bare(ctx, raw, t.name(schemas.Notifications)) })
		})
	if err != nil {
		return nil, err
	}
	return d.rows(name, "record"), nil
}

// bare is one caller of a bare client: its records' memory is used again when all of them have been acknowledged.
func (a *appending) bare(ctx context.Context, client *kgo.Client, topic string) func(from int) error {
	records := make([]kgo.Record, a.each)
	var waiting sync.WaitGroup
	failed := newFirstError()
	promise := func(_ *kgo.Record, err error) {
		failed.set(err)
		waiting.Done()
	}
	return func(from int) error {
		waiting.Add(len(records))
		for i := range records {
			e := &a.encoded[(from+i)%distinct]
			records[i] = kgo.Record{Topic: topic, Partition: e.partition, Key: e.key, Value: e.value}
			client.Produce(ctx, &records[i], promise)
		}
		waiting.Wait()
		return failed.get()
	}
}

// round lets all callers work, and measures them.
func (a *appending) round(c *cluster, caller func(n int) func(from int) error) (sample, error) {
	watch, err := c.watch()
	if err != nil {
		return sample{}, err
	}
	failed := newFirstError()
	var callers sync.WaitGroup
	for n := range a.callers {
		call := caller(n)
		callers.Go(func() {
			for i := n; i < a.total; i += a.callers {
				if err := call(i * a.each); err != nil {
					failed.set(err)
					return
				}
			}
		})
	}
	callers.Wait()
	if err := failed.get(); err != nil {
		return sample{}, err
	}
	return watch.stop(a.total * a.each)
}
