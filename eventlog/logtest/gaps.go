package logtest

import (
	"context"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/schemas"
)

// deleteBelow deletes the records of a partition below an offset, as retention does.
func (b *bench) deleteBelow(t *testing.T, topic schemas.Topic, partition int32, offset int64) {
	t.Helper()
	opts := []kgo.Opt{kgo.SeedBrokers(b.cfg.Brokers...)}
	if b.cfg.Dial != nil {
		opts = append(opts, kgo.Dialer(b.cfg.Dial))
	}
	client, err := kgo.NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	var offsets kadm.Offsets
	offsets.AddOffset(b.cfg.Prefix+string(topic), partition, offset, -1)
	responses, err := kadm.NewClient(client).DeleteRecords(t.Context(), offsets)
	if err == nil {
		err = responses.Error()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// gapped is a stage that lives with gaps.
type gapped struct {
	mu      sync.Mutex
	gaps    map[int32][2]int64
	handled map[int32]int64 // records
}

// Handle implements eventlog.Transformer.
func (g *gapped) Handle(_ context.Context, in schemas.Batch, _ *schemas.Out) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.handled[in.Partition] += int64(len(in.Records))
	return nil
}

// Gap implements eventlog.GapHandler.
func (g *gapped) Gap(_ context.Context, _ schemas.Topic, partition int32, from, to int64) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.gaps[partition] = [2]int64{from, to}
	return nil
}

func testGap(t *testing.T, b *bench) {
	b.finish(t, 40*Partitions)
	b.deleteBelow(t, schemas.Deliveries, 2, 30)
	o := eventlog.TransformOptions{
		Group: schemas.GroupAnalytics, Topics: []schemas.Topic{schemas.Deliveries}, Stage: "analytics", Expendable: true,
		Positions: func(_ context.Context, _ schemas.Topic, partitions []int32) (map[int32]int64, error) {
			own := map[int32]int64{}
			for _, p := range partitions {
				own[p] = 10
			}
			return own, nil
		},
	}
	h := &gapped{gaps: map[int32][2]int64{}, handled: map[int32]int64{}}
	run(t, func(ctx context.Context) error { return b.log.RunTransform(ctx, o, h) })
	eventually(t, "the group is at the end", func() bool { return b.lag(t, o.Group, schemas.Deliveries) == 0 })
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.gaps) != 1 || h.gaps[2] != [2]int64{10, 30} {
		t.Errorf("want the gap [10, 30) of partition 2, got %v", h.gaps)
	}
	for p, want := range map[int32]int64{0: 30, 1: 30, 2: 10, 3: 30} {
		if h.handled[p] != want {
			t.Errorf("partition %d: want %d records handled, got %d", p, want, h.handled[p])
		}
	}
}

func testLostRange(t *testing.T, b *bench) {
	b.notify(t, numbered("token", 40)...)
	ends, err := b.log.Ends(t.Context(), schemas.Notifications)
	if err != nil {
		t.Fatal(err)
	}
	b.deleteBelow(t, schemas.Notifications, 0, ends[0])
	err = b.log.RunTransform(t.Context(), direct(false), &expand{})
	if err == nil {
		t.Fatal("want an error for records that were deleted before they were read")
	}
}

// testEmptyEnds follows partitions in which nothing is left.
func testEmptyEnds(t *testing.T, b *bench) {
	b.finish(t, 40*Partitions)
	b.deleteBelow(t, schemas.Deliveries, 1, 40)
	n := 0
	f := b.log.Follow("ends", func(schemas.Record) error { n++; return nil }, schemas.Deliveries)
	stop := run(t, f.Run)
	<-f.CaughtUp()
	if err := f.CatchUp(t.Context()); err != nil {
		t.Error(err)
	}
	stop()
	if n != 40*(Partitions-1) {
		t.Errorf("want %d records, got %d", 40*(Partitions-1), n)
	}
}
