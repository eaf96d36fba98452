package eventlog_test

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// Each benchmark does the same work with bare franz-go, tuned alike (256 KiB batches, same codec, keys and partitions), in the
// same run: ratio is bare's time through ours.

const benchPartitions = 4

func benchLog(b *testing.B, prefix string) (eventlog.Config, *eventlog.Log) {
	b.Helper()
	cfg := cluster(b)
	cfg.Prefix = prefix + schemas.NewID().String() + "."
	l, err := eventlog.Open(b.Context(), cfg, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := l.Close(ctx); err != nil {
			b.Error(err)
		}
	})
	if _, err := l.CreateTopics(b.Context(), benchPartitions); err != nil {
		b.Fatal(err)
	}
	return cfg, l
}

func bare(b *testing.B, cfg eventlog.Config, opts ...kgo.Opt) *kgo.Client {
	b.Helper()
	client, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(cfg.Brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchMaxBytes(256 << 10),
		kgo.MaxBufferedRecords(400_000), kgo.ProducerBatchCompression(kgo.SnappyCompression()), kgo.DisableClientMetrics(),
	}, opts...)...)
	if err != nil {
		b.Fatal(err)
	}
	return client
}

func report(b *testing.B, records int, ours, theirs time.Duration) {
	b.Helper()
	n := float64(records) * float64(b.N)
	b.ReportMetric(float64(ours.Nanoseconds())/n, "ns/record")
	b.ReportMetric(float64(theirs.Nanoseconds())/n, "bare-ns/record")
	b.ReportMetric(float64(theirs)/float64(ours), "ratio")
	b.ReportMetric(0, "ns/op")
}

func benchToken(i int) string { return fmt.Sprintf("%064d", i) }

// BenchmarkAppend: 512 callers, each waiting for its own record.
func BenchmarkAppend(b *testing.B) {
	const callers, each = 512, 200
	cfg, l := benchLog(b, "append-")
	raw := bare(b, cfg, kgo.ProducerLinger(0))
	defer raw.Close()
	id := schemas.NewID()
	all := func(f func(i int) error) time.Duration {
		runtime.GC()
		start := time.Now()
		var wg sync.WaitGroup
		for c := range callers {
			wg.Go(func() {
				for i := range each {
					if err := f(c*each + i); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		return time.Since(start)
	}
	var ours, theirs time.Duration
	for b.Loop() {
		ours += all(func(i int) error {
			return l.Append(b.Context(), func(out *schemas.Out) {
				id := id
				id[0], id[1], id[2] = byte(i), byte(i>>8), byte(i>>16)
				out.NotificationRequested(&pushv1.NotificationRequested{RequestId: id[:], App: "moodle", Token: benchToken(i)})
			})
		})
		theirs += all(func(i int) error {
			id := id
			id[0], id[1], id[2] = byte(i), byte(i>>8), byte(i>>16)
			value := schemas.AppendEvent(nil, &pushv1.NotificationRequested{RequestId: id[:], App: "moodle", Token: benchToken(i)})
			r := &kgo.Record{Topic: cfg.Prefix + "notifications", Partition: int32(i % benchPartitions), Key: id[:], Value: value}
			return raw.ProduceSync(b.Context(), r).FirstErr()
		})
	}
	report(b, callers*each, ours, theirs)
}

const benchRecords = 1_000_000

func fill(b *testing.B, l *eventlog.Log, say func(out *schemas.Out, i int)) {
	b.Helper()
	for from := 0; from < benchRecords; from += 10_000 {
		if err := l.Append(b.Context(), func(out *schemas.Out) {
			for i := from; i < from+10_000; i++ {
				say(out, i)
			}
		}); err != nil {
			b.Fatal(err)
		}
	}
}

type relay struct {
	n    atomic.Int64
	done chan struct{}
}

func (r *relay) Handle(_ context.Context, in schemas.Batch, out *schemas.Out) error {
	var n pushv1.NotificationRequested
	for i := range in.Records {
		if err := in.Records[i].Into(&n); err != nil {
			return err
		}
		out.SendRequested(schemas.Direct, schemas.Device{App: n.App, Transport: schemas.FCM, Token: n.Token}, &pushv1.SendRequested{Token: n.Token, App: n.App, RequestId: n.RequestId})
	}
	if r.n.Add(int64(len(in.Records))) == benchRecords {
		close(r.done)
	}
	return nil
}

// BenchmarkTransform: one record in, one out, decoded and encoded on both sides.
func BenchmarkTransform(b *testing.B) {
	var ours, theirs time.Duration
	for b.Loop() {
		cfg, l := benchLog(b, "transform-")
		fill(b, l, func(out *schemas.Out, i int) {
			id := schemas.ID{byte(i), byte(i >> 8), byte(i >> 16)}
			out.NotificationRequested(&pushv1.NotificationRequested{RequestId: id[:], App: "moodle", Token: benchToken(i)})
		})
		h := &relay{done: make(chan struct{})}
		runtime.GC()
		ours += timed(b, h.done, func(ctx context.Context) error {
			return l.RunTransform(ctx, eventlog.TransformOptions{
				Group: schemas.GroupDirectRouter, Topics: []schemas.Topic{schemas.Notifications}, Stage: "relay",
			}, h)
		})
		runtime.GC()
		theirs += bareRelay(b, cfg, l.Layout())
	}
	report(b, benchRecords, ours, theirs)
}

// timed runs a stage until done and through its end, so that its last commit counts.
func timed(b *testing.B, done chan struct{}, run func(context.Context) error) time.Duration {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	start := time.Now()
	go func() { ended <- run(ctx) }()
	select {
	case <-done:
	case err := <-ended:
		b.Fatal(err)
	}
	cancel()
	<-ended
	return time.Since(start)
}

func bareRelay(b *testing.B, cfg eventlog.Config, layout schemas.Layout) time.Duration {
	b.Helper()
	start := time.Now()
	client := bare(b, cfg, kgo.ConsumerGroup(cfg.Prefix+"bare"), kgo.ConsumeTopics(cfg.Prefix+"notifications"), kgo.DisableAutoCommit(),
		kgo.BlockRebalanceOnPoll(), kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()), kgo.ProducerLinger(0))
	defer client.CloseAllowingRebalance()
	for n := 0; n < benchRecords; {
		fetches := client.PollRecords(b.Context(), 10_000)
		var e pushv1.NotificationRequested
		for it := fetches.RecordIter(); !it.Done(); n++ {
			r := it.Next()
			if err := e.UnmarshalVTUnsafe(r.Value[1:]); err != nil {
				b.Fatal(err)
			}
			d := schemas.Device{App: e.App, Transport: schemas.FCM, Token: e.Token}
			value := schemas.AppendEvent(make([]byte, 0, 128), &pushv1.SendRequested{Token: e.Token, App: e.App, RequestId: e.RequestId})
			client.Produce(b.Context(), &kgo.Record{
				Topic: cfg.Prefix + "sends.fcm.direct", Partition: layout.Of(d), Key: d.AppendKey(make([]byte, 0, 80)), Value: value,
			}, nil)
		}
		if err := client.Flush(b.Context()); err != nil {
			b.Fatal(err)
		}
		if err := client.CommitUncommittedOffsets(b.Context()); err != nil {
			b.Fatal(err)
		}
		client.AllowRebalance()
	}
	return time.Since(start)
}

// answerer finishes every send at once.
type answerer struct {
	n    atomic.Int64
	done chan struct{}
}

func (a *answerer) Deliver(_ context.Context, in schemas.Batch, done schemas.Completion) error {
	var e pushv1.SendRequested
	for i := range in.Records {
		if err := in.Records[i].Into(&e); err != nil {
			return err
		}
		if !done.MayPush() {
			continue
		}
		offset := in.Records[i].Offset
		done.Complete(offset, func(out *schemas.Out) {
			out.DeliveryFinished(in.Partition, uint64(offset), outcome(offset))
		})
	}
	if a.n.Add(int64(len(in.Records))) == benchRecords {
		close(a.done)
	}
	return nil
}

func outcome(offset int64) *pushv1.DeliveryFinished {
	return &pushv1.DeliveryFinished{
		App: "moodle", Transport: schemas.FCM, Outcome: pushv1.Outcome_OUTCOME_ACCEPTED, Attempt: 1, FinishedAtUs: 1_700_000_000_000_000, LatencyUs: 30_000,
		Source: &pushv1.Source{Lane: schemas.Direct, Offset: offset}, Generation: 1, First: true,
	}
}

// BenchmarkDeliver: every send answered at once; bare does what it needs for the same records, without a window or a takeover.
func BenchmarkDeliver(b *testing.B) {
	var ours, theirs time.Duration
	for b.Loop() {
		cfg, l := benchLog(b, "deliver-")
		fill(b, l, func(out *schemas.Out, i int) {
			token := benchToken(i)
			out.SendRequested(schemas.Direct, schemas.Device{App: "moodle", Transport: schemas.FCM, Token: token}, &pushv1.SendRequested{Token: token, App: "moodle"})
		})
		h := &answerer{done: make(chan struct{})}
		runtime.GC()
		ours += timed(b, h.done, func(ctx context.Context) error {
			return l.RunDeliver(ctx, eventlog.DeliverOptions{
				Group: schemas.SenderGroup(schemas.FCM, schemas.Direct), Topics: []schemas.Topic{"sends.fcm.direct"}, Stage: "answer",
			}, h)
		})
		runtime.GC()
		theirs += bareDeliver(b, cfg)
	}
	report(b, benchRecords, ours, theirs)
}

func bareDeliver(b *testing.B, cfg eventlog.Config) time.Duration {
	b.Helper()
	start := time.Now()
	client := bare(b, cfg, kgo.ConsumerGroup(cfg.Prefix+"bare"), kgo.ConsumeTopics(cfg.Prefix+"sends.fcm.direct"), kgo.DisableAutoCommit(),
		kgo.BlockRebalanceOnPoll(), kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()), kgo.ProducerLinger(0))
	defer client.CloseAllowingRebalance()
	for n := 0; n < benchRecords; {
		fetches := client.PollRecords(b.Context(), 10_000)
		var e pushv1.SendRequested
		for it := fetches.RecordIter(); !it.Done(); n++ {
			r := it.Next()
			if err := e.UnmarshalVTUnsafe(r.Value[1:]); err != nil {
				b.Fatal(err)
			}
			client.Produce(b.Context(), &kgo.Record{
				Topic: cfg.Prefix + "deliveries", Partition: r.Partition, Key: []byte("12345678"), Value: schemas.AppendEvent(make([]byte, 0, 96), outcome(r.Offset)),
			}, nil)
		}
		client.AllowRebalance()
	}
	if err := client.Flush(b.Context()); err != nil {
		b.Fatal(err)
	}
	if err := client.CommitUncommittedOffsets(b.Context()); err != nil {
		b.Fatal(err)
	}
	return time.Since(start)
}
