package eventlog

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/campanile-push/campanile/schemas"
)

// assigned opens windows. They deliver nothing before they are taken over.
func (d *delivery) assigned(_ context.Context, client *kgo.Client, partitions map[string][]int32) {
	_, generation := client.GroupMetadata()
	defer d.share()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.l.inOrder(partitions, func(at place) {
		w := &window{
			at: at, send: d.l.topics[at.topic].send, session: d,
			generation: d.l.cfg.GenerationBase + int64(generation), skip: map[int64]proof{}, committed: -1,
		}
		w.ctx, w.cancel = context.WithCancel(context.WithoutCancel(d.life))
		d.windows[at] = w
		d.crowd.windows.Store(int64(len(d.windows)))
		d.log.Debug("partition assigned", "topic", at.topic, "partition", at.partition, "generation", generation)
	})
}

// adjust reads the marks beside the committed offsets, and starts the takeover of what was assigned.
func (d *delivery) adjust(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	var windows []*window
	for name, partitions := range offsets {
		topic := d.l.topic(name)
		committed, err := d.l.committed(ctx, d.o.Group, []string{name})
		if err != nil {
			return nil, err
		}
		starts, err := d.l.Starts(ctx, topic)
		if err != nil {
			return nil, err
		}
		ends, err := d.l.Ends(ctx, topic)
		if err != nil {
			return nil, err
		}
		for p, offset := range partitions {
			at := offset.EpochOffset().Offset
			if err := placed(topic, p, at, starts[p], ends[p]); err != nil {
				d.fail(err)
				return nil, err
			}
			w := d.window(place{topic, p})
			if w == nil {
				continue
			}
			text, _ := committed.Lookup(name, p)
			m, err := parseMark(text.Metadata)
			if err != nil {
				d.log.Error("offset without a readable mark: deliveries is read from its start", "topic", topic, "partition", p, "error", err)
			}
			w.mu.Lock()
			w.start, w.next, w.acked = at, at, m.from
			w.fence.begin(m.moving)
			for i, generation := range m.owners {
				var own generations
				own[w.send.Tier] = generation
				w.fences[i].begin(own)
			}
			w.base = m.base
			w.generation = max(w.generation+m.base, m.generation+1)
			w.mu.Unlock()
			windows = append(windows, w)
		}
	}
	if len(windows) > 0 {
		d.takeOverSoon(func() {
			if err := d.takeOver(d.life, windows); err != nil && d.life.Err() == nil {
				d.fail(fmt.Errorf("take partitions over: %w", err))
			}
		})
	}
	return offsets, nil
}

// takeOverSoon starts a takeover, unless the life is over: the client may assign until it is closed.
func (d *delivery) takeOverSoon(takeOver func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.life.Err() == nil {
		d.takeovers.Go(takeOver)
	}
}

// endLife ends the life and waits for the takeovers; none begins after.
func (d *delivery) endLife(err error) {
	d.mu.Lock()
	d.fail(err)
	d.mu.Unlock()
	d.takeovers.Wait()
}

// revoked gives partitions up: what was pushed is waited for, recorded and committed.
func (d *delivery) revoked(_ context.Context, client *kgo.Client, partitions map[string][]int32) {
	d.release(d.named(partitions))           //nolint:contextcheck // the callback's context ends with the client, and the stage's is to outlive it
	client.ResumeFetchPartitions(partitions) // a pause outlives an assignment
}

// dropped forgets partitions that are another's already.
func (d *delivery) dropped(_ context.Context, client *kgo.Client, partitions map[string][]int32) {
	windows := d.named(partitions)
	if len(windows) > 0 {
		d.log.Warn("partitions lost", "partitions", len(windows))
	}
	d.forget(windows)
	client.ResumeFetchPartitions(partitions)
}

func (d *delivery) named(partitions map[string][]int32) (windows []*window) {
	d.l.inOrder(partitions, func(at place) {
		if w := d.window(at); w != nil {
			windows = append(windows, w)
		}
	})
	return windows
}

// release drains, commits and forgets windows.
func (d *delivery) release(windows []*window) {
	if len(windows) == 0 {
		return
	}
	d.committing.Lock()
	defer d.committing.Unlock()
	d.drain(windows)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(d.life), drainAppending)
	defer cancel()
	d.commitAll(ctx, windows)
	d.forget(windows)
}

func (d *delivery) forget(windows []*window) {
	if len(windows) > 0 {
		d.log.Info("partitions released", "partitions", len(windows))
	}
	for _, w := range windows {
		w.closed.Store(true)
		w.mu.Lock()
		if !w.lost {
			w.lost = true
			d.crowd.held.Add(-int64(w.held))
		}
		w.mu.Unlock()
		w.cancel()
		d.mu.Lock()
		if d.windows[w.at] == w {
			delete(d.windows, w.at)
		}
		d.crowd.windows.Store(int64(len(d.windows)))
		d.mu.Unlock()
		d.log.Debug("partition released", "topic", w.at.topic, "partition", w.at.partition)
	}
	d.wakeLoop() // their part is free
	d.share()
}

// share tells the Sharer what is owned.
func (d *delivery) share() {
	if d.sharer == nil {
		return
	}
	d.sharing.Lock()
	defer d.sharing.Unlock()
	owned := map[schemas.Topic]int{}
	for _, w := range d.owned() {
		owned[w.at.topic]++
	}
	for _, topic := range d.o.Topics {
		d.sharer.Owns(topic, owned[topic], int(d.layout.Partitions))
	}
}

// drain waits for what windows have in flight. First everything may finish; then nothing more is pushed, and only answers to
// what was pushed are waited for; then completions are closed, and their outcomes are appended.
func (d *delivery) drain(windows []*window) {
	d.await(drainPushing, drainPushing, windows, false)
	for _, w := range windows {
		w.closed.Store(true)
	}
	d.await(drainAnswers, drainQuiet, windows, false)
	for _, w := range windows {
		w.mu.Lock()
		w.sealed = true
		w.mu.Unlock()
	}
	d.await(drainAppending, drainAppending, windows, true)
}

// await waits until nothing is in flight: for so long at most, and until nothing has moved for quiet. appending: only until
// every outcome is acknowledged.
func (d *delivery) await(atMost, quiet time.Duration, windows []*window, appending bool) {
	deadline := time.NewTimer(atMost)
	defer deadline.Stop()
	idle := time.NewTimer(quiet)
	defer idle.Stop()
	last := -1
	for {
		total, busy := 0, false
		for _, w := range windows {
			pushing, outcomes := w.settled()
			total += pushing
			busy = busy || outcomes
		}
		if !busy && (appending || total == 0) {
			return
		}
		if total != last {
			last = total
			idle.Reset(quiet)
		}
		select {
		case <-deadline.C:
			return
		case <-idle.C:
			return
		case <-d.settled:
		}
	}
}

func (d *delivery) signalSettled() {
	select {
	case d.settled <- struct{}{}:
	default:
	}
}

// commitOften commits until ctx ends.
func (d *delivery) commitOften(ctx context.Context) {
	ticker := time.NewTicker(commitEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		d.committing.Lock()
		windows := d.owned()
		d.commitAll(ctx, windows)
		d.committing.Unlock()
		inFlight, answered := 0, d.heard.lately()
		for _, w := range windows {
			pushing, _ := w.settled()
			inFlight += pushing
			if answered && w.refused.Load() && !w.closed.Load() {
				// Nobody knows which of its sends were dropped. A new ownership gives them again, but for what is recorded.
				d.fail(fmt.Errorf("%s[%d]: the group was silent, and sends may have been dropped", w.at.topic, w.at.partition))
			}
		}
		d.meter.inFlight.Set(float64(inFlight))
	}
}

// reached is how far the ends of sends are known to be written, by partition: sends of every tier end in the same ones. A tier that
// carries nothing for a day would otherwise hold its mark at the day before, and its next owner read all since.
func (d *delivery) reached() map[int32]ends {
	all := map[int32]ends{}
	for _, w := range d.owned() {
		w.mu.Lock()
		if w.ready {
			all[w.at.partition] = all[w.at.partition].max(w.acked)
		}
		w.mu.Unlock()
	}
	return all
}

// commitAll commits how far windows are, with their marks. What fails is committed the next time, or is its next owner's.
func (d *delivery) commitAll(ctx context.Context, windows []*window) {
	offsets := map[string]map[int32]kgo.EpochOffset{}
	marks := map[string]map[int32]string{}
	var moved []*window
	reached := d.reached()
	for _, w := range windows {
		if !w.isReady() {
			continue
		}
		at, m := w.position(reached[w.at.partition])
		if at == w.committed && m == w.marked {
			continue
		}
		name := d.l.name(w.at.topic)
		set(offsets, name, w.at.partition, kgo.EpochOffset{Epoch: -1, Offset: at})
		set(marks, name, w.at.partition, m.String())
		w.committed, w.marked = at, m
		moved = append(moved, w)
	}
	if len(moved) == 0 {
		return
	}
	ctx = kgo.PreCommitFnContext(ctx, func(req *kmsg.OffsetCommitRequest) error {
		for i := range req.Topics {
			t := &req.Topics[i]
			for j := range t.Partitions {
				t.Partitions[j].Metadata = new(marks[t.Topic][t.Partitions[j].Partition])
			}
		}
		return nil
	})
	if err := commitOffsets(ctx, d.client, offsets); err != nil {
		for _, w := range moved {
			w.committed = -1
		}
		if ctx.Err() == nil {
			d.log.Warn("offsets not committed", "error", err)
		}
	}
}

// topicsOfTiers are the topics in which ends of a window's sends can stand besides deliveries, by tier from 1.
func topicsOfTiers(s schemas.SendTopic) []schemas.Topic {
	var topics []schemas.Topic
	for _, tier := range schemas.SendTopics(s.Transport, s.Lane)[1:] {
		topics = append(topics, tier.Topic())
	}
	return slices.Clip(topics)
}
