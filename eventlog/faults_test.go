package eventlog_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// These tests break single requests of the broker, which only kfake lets them.

func faulty(t *testing.T) (*kfake.Cluster, *eventlog.Log) {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	l, err := eventlog.Open(t.Context(), eventlog.Config{Brokers: c.ListenAddrs()}, slog.New(slog.NewTextHandler(t.Output(), nil)), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := l.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	if _, err := l.CreateTopics(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	return c, l
}

func start(t *testing.T, f func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("ended with %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	for !holds() {
		select {
		case <-ticker.C:
		case <-deadline.C:
			t.Fatalf("never: %s", what)
		}
	}
}

func lag(t *testing.T, l *eventlog.Log, group string) (n int64) {
	t.Helper()
	offsets, err := l.GroupOffsets(t.Context(), group)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range offsets {
		if o.Topic == schemas.Deliveries || o.Topic == schemas.Notifications || o.Topic == "sends.apns.bulk" {
			n += o.Lag()
		}
	}
	return n
}

// counter says after each batch how many records it has seen in the partition.
type counter struct {
	mu     sync.Mutex
	counts map[int32]int64
}

func (c *counter) Handle(_ context.Context, in schemas.Batch, out *schemas.Out) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts[in.Partition] += int64(len(in.Records))
	id := schemas.ID{1}
	out.ProgressCounted(&pushv1.ProgressCounted{BroadcastId: id[:], Partition: in.Partition, Through: c.counts[in.Partition]})
	return nil
}

func (c *counter) Reset(partition int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts[partition] = 0
}

func (c *counter) Restore(partition int32, r schemas.Record) error {
	var e pushv1.ProgressCounted
	if err := r.Into(&e); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts[partition] = e.Through
	return nil
}

// TestTransactionsCountOnceWhateverBreaks breaks every third transaction between its events and its offsets.
func TestTransactionsCountOnceWhateverBreaks(t *testing.T) {
	t.Parallel()
	c, l := faulty(t)
	var n atomic.Int64
	c.ControlKey(int16(kmsg.TxnOffsetCommit), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		if n.Add(1)%3 != 0 {
			return nil, nil, false
		}
		commit := req.(*kmsg.TxnOffsetCommitRequest)
		resp := commit.ResponseKind().(*kmsg.TxnOffsetCommitResponse)
		for _, topic := range commit.Topics {
			rt := kmsg.NewTxnOffsetCommitResponseTopic()
			rt.Topic, rt.TopicID = topic.Topic, topic.TopicID
			for _, p := range topic.Partitions {
				rp := kmsg.NewTxnOffsetCommitResponseTopicPartition()
				rp.Partition, rp.ErrorCode = p.Partition, kerr.CoordinatorNotAvailable.Code
				rt.Partitions = append(rt.Partitions, rp)
			}
			resp.Topics = append(resp.Topics, rt)
		}
		return resp, nil, true
	})
	h := &counter{counts: map[int32]int64{}}
	start(t, func(ctx context.Context) error {
		return l.RunTransform(ctx, eventlog.TransformOptions{
			Group: schemas.GroupTally, Topics: []schemas.Topic{schemas.Deliveries}, Stage: "tally", Transactional: true,
			StateTopic: schemas.Progress, MaxBatch: 7,
		}, h)
	})
	const each = 100
	for range 4 {
		if err := l.Append(t.Context(), func(out *schemas.Out) {
			for i := range 2 * each / 4 {
				out.DeliveryFinished(int32(i%2), uint64(i), &pushv1.DeliveryFinished{})
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the group is at the end", func() bool { return lag(t, l, schemas.GroupTally) == 0 })
	last := map[int32]int64{}
	f := l.Follow("check", func(r schemas.Record) error {
		var e pushv1.ProgressCounted
		if err := r.Into(&e); err != nil {
			return err
		}
		last[e.Partition] = e.Through
		return nil
	}, schemas.Progress)
	stop := start(t, f.Run)
	<-f.CaughtUp()
	stop()
	if last[0] != each || last[1] != each {
		t.Errorf("want %d counted in each partition, got %v after %d commits", each, last, n.Load())
	}
}

// waiting holds what it is given.
type waiting struct {
	mu   sync.Mutex
	done []schemas.Completion
	offs []int64
}

func (w *waiting) Deliver(_ context.Context, in schemas.Batch, done schemas.Completion) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range in.Records {
		w.done = append(w.done, done)
		w.offs = append(w.offs, in.Records[i].Offset)
	}
	return nil
}

func (w *waiting) len() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.done)
}

// TestNothingIsPushedWhileTheGroupIsSilent cuts heartbeats off. What the sender dropped meanwhile comes again.
func TestNothingIsPushedWhileTheGroupIsSilent(t *testing.T) {
	t.Parallel()
	c, l := faulty(t)
	var silent atomic.Bool
	c.ControlKey(int16(kmsg.Heartbeat), func(kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		if silent.Load() {
			return nil, errors.New("silence"), true
		}
		return nil, nil, false
	})
	h := &waiting{}
	start(t, func(ctx context.Context) error {
		return l.RunDeliver(ctx, eventlog.DeliverOptions{
			Group: schemas.SenderGroup(schemas.APNS, schemas.Bulk), Topics: []schemas.Topic{"sends.apns.bulk"}, Stage: "sender",
		}, h)
	})
	if err := l.Append(t.Context(), func(out *schemas.Out) {
		d := schemas.Device{App: "moodle", Transport: schemas.APNS, Token: "t"}
		out.SendRequested(schemas.Bulk, d, &pushv1.SendRequested{Token: "t"})
	}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the send is given", func() bool { return h.len() == 1 })
	first := h.done[0]
	if !first.MayPush() {
		t.Error("want pushes while the group answers")
	}
	silent.Store(true)
	eventually(t, "pushing ends", func() bool { return !first.MayPush() })
	silent.Store(false)
	eventually(t, "the dropped send is given again", func() bool { return h.len() == 2 })
	h.mu.Lock()
	again, offset := h.done[1], h.offs[1]
	h.mu.Unlock()
	if again.Generation() <= first.Generation() {
		t.Errorf("want a generation above %d, got %d", first.Generation(), again.Generation())
	}
	first.Complete(offset, nil) // too late, and ignored
	again.Complete(offset, func(out *schemas.Out) {
		out.DeliveryFinished(l.Layout().Of(schemas.Device{App: "moodle", Transport: schemas.APNS, Token: "t"}), 1, &pushv1.DeliveryFinished{})
	})
	eventually(t, "the offset is committed", func() bool { return lag(t, l, schemas.SenderGroup(schemas.APNS, schemas.Bulk)) == 0 })
}

// TestASilenceThatHealsGivesDroppedSendsAgain makes one heartbeat late, but not so late that the group gives the member up.
func TestASilenceThatHealsGivesDroppedSendsAgain(t *testing.T) {
	t.Parallel()
	c, l := faulty(t)
	var late atomic.Bool
	release := make(chan struct{})
	c.ControlKey(int16(kmsg.Heartbeat), func(kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		if late.CompareAndSwap(true, false) {
			c.SleepControl(func() { <-release })
		}
		return nil, nil, false
	})
	h := &waiting{}
	group := schemas.SenderGroup(schemas.APNS, schemas.Bulk)
	start(t, func(ctx context.Context) error {
		return l.RunDeliver(ctx, eventlog.DeliverOptions{Group: group, Topics: []schemas.Topic{"sends.apns.bulk"}, Stage: "sender"}, h)
	})
	d := schemas.Device{App: "moodle", Transport: schemas.APNS, Token: "t"}
	if err := l.Append(t.Context(), func(out *schemas.Out) { out.SendRequested(schemas.Bulk, d, &pushv1.SendRequested{Token: "t"}) }); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the send is given", func() bool { return h.len() == 1 })
	first := h.done[0]
	late.Store(true)
	eventually(t, "pushing ends", func() bool { return !first.MayPush() })
	close(release)
	eventually(t, "the dropped send is given again", func() bool { return h.len() == 2 })
	h.mu.Lock()
	again, offset := h.done[1], h.offs[1]
	h.mu.Unlock()
	if !again.MayPush() {
		t.Error("want pushes in the new ownership")
	}
	again.Complete(offset, nil)
	eventually(t, "the offset is committed", func() bool { return lag(t, l, group) == 0 })
}

// On a cluster of several brokers a group's coordinator may hear of topics just created later than the others do.
func TestACoordinatorThatDoesNotKnowATopicYetIsAskedAgain(t *testing.T) {
	t.Parallel()
	c, l := faulty(t)
	var asked atomic.Int32
	c.ControlKey(int16(kmsg.OffsetFetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		if asked.Add(1) > 2 {
			return nil, nil, false
		}
		resp := req.ResponseKind().(*kmsg.OffsetFetchResponse)
		for _, g := range req.(*kmsg.OffsetFetchRequest).Groups {
			partition := kmsg.NewOffsetFetchResponseGroupTopicPartition()
			partition.ErrorCode = kerr.UnknownTopicID.Code
			topic := kmsg.NewOffsetFetchResponseGroupTopic()
			topic.Topic, topic.TopicID = string(schemas.Devices), c.TopicInfo(string(schemas.Devices)).TopicID
			topic.Partitions = append(topic.Partitions, partition)
			group := kmsg.NewOffsetFetchResponseGroup()
			group.Group, group.Topics = g.Group, append(group.Topics, topic)
			resp.Groups = append(resp.Groups, group)
		}
		return resp, nil, true
	})
	offsets, err := l.GroupOffsets(t.Context(), schemas.GroupProjector)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range offsets {
		if o.Committed != 0 {
			t.Errorf("%s[%d]: want offset 0, got %d", o.Topic, o.Partition, o.Committed)
		}
	}
	if n := asked.Load(); n < 3 {
		t.Errorf("asked %d times, want 3", n)
	}
}
