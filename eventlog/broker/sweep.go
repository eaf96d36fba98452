package broker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// sweep looks after retention and compaction until ctx ends. kfake's own timer for them does not start on a loaded directory.
func (b *Broker) sweep(ctx context.Context) {
	tick := time.NewTicker(b.opts.SweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			if err := b.Sweep(ctx, now, false); err != nil && ctx.Err() == nil {
				b.log.Warn("looking after the log did not end", "error", err.Error())
			}
		}
	}
}

// errBusy says that a transaction was open, and compaction has to wait.
var errBusy = errors.New("a transaction is open")

// Sweep deletes what retention says, and compacts if that is worth it and little was written since the Sweep before, or if force asks for
// it. The broker does so by itself. Compaction waits until no compacted topic has an open transaction, for a few seconds at most.
func (b *Broker) Sweep(ctx context.Context, now time.Time, force bool) error {
	b.sweeping.Lock()
	defer b.sweeping.Unlock()
	if err := b.failed.Load(); err != nil {
		return *err
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.Brokers()...), kgo.Dialer(b.Dial))
	if err != nil {
		return fmt.Errorf("sweep the log: %w", err)
	}
	defer cl.Close()
	topics, err := b.topics(ctx, cl)
	if err != nil {
		return fmt.Errorf("sweep the log: list topics: %w", err)
	}
	if err := b.retain(ctx, cl, topics, now); err != nil {
		return fmt.Errorf("sweep the log: apply retention: %w", err)
	}
	compacted := compactedTopics(topics)
	worth := worthCompacting(b.compactedBytes(compacted), b.lastCompacted(), b.opts.CompactGrowth)
	busy := b.isBusy(topics, now)
	if len(compacted) == 0 || !force && (!worth || busy && !b.Pressed()) {
		return nil
	}
	return b.compactWhenQuiet(ctx, cl, compacted)
}

// worthCompacting: the compacted topics have doubled since the last time, and by enough to notice. So the work is in
// proportion to what was written, and an idle broker never compacts.
func worthCompacting(size, last, growth int64) bool { return size-last >= max(growth, last) }

// busyRate is how many records a second make a broker busy: what thirty pushes write. kfake does one thing at a time, and to compact a
// million devices takes it three seconds: by day each push would feel that, and in a broadcast, on a machine without a free core, the
// members of groups, unheard for so long, would lose their partitions.
const busyRate = 100

// traffic is how much was ever written, at some time.
type traffic struct {
	records int64
	at      time.Time
}

// isBusy reports whether much was written since the last time that it was asked. The first time nobody knows, and it is. sweeping is held.
func (b *Broker) isBusy(topics []*kfake.TopicInfo, now time.Time) bool {
	before, seen := b.seen, traffic{at: now}
	for _, t := range topics {
		for _, p := range b.cluster.PartitionInfos(t.Topic) {
			seen.records += p.HighWatermark
		}
	}
	b.seen = seen
	return before.at.IsZero() || float64(seen.records-before.records) > busyRate*now.Sub(before.at).Seconds()
}

func compactedTopics(topics []*kfake.TopicInfo) (names []string) {
	for _, t := range topics {
		if p := t.Configs["cleanup.policy"]; p != nil && strings.Contains(*p, "compact") {
			names = append(names, t.Topic)
		}
	}
	return names
}

func (b *Broker) compactedBytes(topics []string) (size int64) {
	for _, t := range topics {
		for _, p := range b.cluster.PartitionInfos(t) {
			size += p.NumBytes
		}
	}
	return size
}

// compactTries is how often to look for a moment without open transactions. Transactions of a busy log are open for a few
// milliseconds at a time.
const (
	compactTries = 100
	compactPause = 50 * time.Millisecond
)

func (b *Broker) compactWhenQuiet(ctx context.Context, cl *kgo.Client, topics []string) error {
	began := time.Now()
	for range compactTries {
		err := b.compactNow(ctx, cl, topics)
		if err == nil {
			b.log.Info("compacted the log", "bytes", b.lastCompacted(), "took_ms", time.Since(began).Milliseconds())
			return nil
		}
		if !errors.Is(err, errBusy) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("compact the log: %w", ctx.Err())
		case <-time.After(compactPause):
		}
	}
	return fmt.Errorf("compact the log: %w each time that we looked", errBusy)
}
