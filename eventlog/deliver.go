package eventlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"

	"github.com/campanile-push/campanile/schemas"
)

// Deliverer pushes.
type Deliverer interface {
	// Deliver begins what in asks for and returns without waiting for it. Each record is completed on its own, in any order.
	// An error means that nothing of in was begun; what Transformer.Handle says of errors holds. in and its bytes are
	// Deliver's until it returns. ctx ends when the partition is no longer ours, or when the stage stops and has waited.
	Deliver(ctx context.Context, in schemas.Batch, done schemas.Completion) error
}

// Rememberer is a Deliverer that wants to know the ends that the takeover of a partition finds: it is called with them before
// the first Deliver of that partition, while other partitions may be delivering. e is the Rememberer's own.
type Rememberer interface {
	Remember(partition int32, e *pushv1.DeliveryFinished)
}

// Ender is a Deliverer that says what ends with a record that becomes a dead letter: beside the letter, in one append with it.
type Ender interface {
	End(r schemas.Record, generation int64, out *schemas.Out)
}

// Sharer is a Deliverer that wants to know what this process owns, as what is split between processes is split by it. It is called
// with each topic of the stage, after each change and never twice at once.
type Sharer interface {
	Owns(topic schemas.Topic, owned, partitions int)
}

// DeliverOptions say how a Deliverer is run.
type DeliverOptions struct {
	Group  string
	Topics []schemas.Topic // of one transport and lane: sends and its retry tiers
	Stage  string          // in log lines and metrics
	Window int             // records in flight for each partition; 0: 8192
	// Total bounds the records over all partitions that were given and whose ends the log has not acknowledged; 0: 8,000. Beyond it
	// each partition goes on with its equal part.
	Total int
	// NotBefore is when the time of a record of a retry tier comes, in Unix microseconds; nil, or 0: now. The records behind it in
	// its partition wait with it. First sends are not asked about: theirs is now.
	NotBefore func(schemas.Record) int64
	// LookBack is how many records of deliveries a takeover reads beyond what it needs, for the Rememberer.
	LookBack int64
	// Owner names this process in OwnerChanged; empty: the client id.
	Owner string
}

const (
	defaultWindow  = 8192
	defaultTotal   = 8_000
	commitEvery    = time.Second
	drainPushing   = time.Second     // at a revocation, for everything to finish
	drainAnswers   = 8 * time.Second // and then, with no new pushes, for what was pushed to be answered
	drainQuiet     = 2 * time.Second // no answer for so long: none will come
	drainAppending = 4 * time.Second // for outcomes to be acknowledged
	pollRecords    = 4096
	// A pause throws away what was fetched of the partition and not polled.
	fetchPartitionBytes = 128 << 10
	// pollAnyway is how long a partition that has room may wait behind others that have none before they are paused.
	pollAnyway = 100 * time.Millisecond
)

// RunDeliver runs a Deliverer as one member of its group until ctx ends, whose error it then returns. Before, it waits for
// what is in flight and commits it. Any other error is one for a person (ErrNoOffset); what heals is tried again.
//
// A partition's offsets are committed with a mark (see mark), so that its next owner knows, beyond the committed offset,
// which sends are done. A group without marks, as `campanile topics reset` leaves it, has its partitions of deliveries and
// of the tiers read from their starts at the first takeover.
func (l *Log) RunDeliver(ctx context.Context, o DeliverOptions, d Deliverer) error {
	layout, err := l.readyLayout()
	if err != nil {
		return err
	}
	if o.Window <= 0 {
		o.Window = defaultWindow
	}
	if o.Total <= 0 {
		o.Total = defaultTotal
	}
	if o.Owner == "" {
		o.Owner = l.cfg.ClientID
	}
	for _, topic := range o.Topics {
		if _, ok := schemas.ParseSendTopic(topic); !ok {
			return fmt.Errorf("stage %s: %s holds no sends", o.Stage, topic)
		}
	}
	log := l.log.With("stage", o.Stage)
	meter := l.stageMeter(o.Stage, o.Topics)
	for failures := 0; ; {
		started := time.Now()
		s := &delivery{
			l: l, o: o, handler: d, layout: layout, log: log, meter: meter,
			windows: map[place]*window{},
			spare:   make(chan *outcomes, spares),
			dirty:   make(chan struct{}, 1), urgent: make(chan struct{}, 1), settled: make(chan struct{}, 1),
			heard: newHeard(l.cfg.SessionTimeout / 2),
			crowd: crowd{most: int64(o.Total)},
		}
		s.rememberer, _ = d.(Rememberer)
		s.sharer, _ = d.(Sharer)
		err := s.run(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err() //nolint:wrapcheck // the caller's own
		case errors.Is(err, ErrNoOffset):
			log.Error("stage stopped: its consumer group has lost its place; decide with `campanile topics reset`",
				"group", o.Group, "error", err)
			l.metrics.lost.WithLabelValues(o.Group).Set(1)
			return err
		}
		if time.Since(started) > time.Minute {
			failures = 0
		}
		failures++
		log.Warn("stage starts over", "error", err, "failures", failures)
		if !sleep(ctx, retryDelay(failures)) {
			return ctx.Err() //nolint:wrapcheck // the caller's own
		}
	}
}

// delivery is one life of a delivering stage in its group.
type delivery struct {
	l          *Log
	o          DeliverOptions
	handler    Deliverer
	rememberer Rememberer // may be nil
	sharer     Sharer     // may be nil
	layout     schemas.Layout
	log        *slog.Logger
	meter      *meter
	client     *kgo.Client
	fail       context.CancelCauseFunc
	heard      *heard
	crowd      crowd

	spare                  chan *outcomes
	dirty, urgent, settled chan struct{} // one value: outcomes wait; some window's are many; something was acknowledged

	mu       sync.Mutex
	windows  map[place]*window
	wakePoll context.CancelFunc // ends the poll under way

	sharing sync.Mutex // of share

	committing sync.Mutex      // held by a commit, and by who gives partitions up from the beginning to the end
	takeovers  sync.WaitGroup  // goroutines of takeOver
	life       context.Context //nolint:containedctx // of run; the client's callbacks have none of their own
}

// run is one membership: it ends with ctx, or with an error that a new client may heal.
func (d *delivery) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	d.fail, d.life = cancel, ctx
	client, err := d.l.newClientHooked("deliver-"+d.o.Stage, []kgo.Hook{d.heard}, append(d.l.cfg.groupOptions(d.o.Group),
		kgo.ConsumeTopics(d.l.names(d.o.Topics)...),
		kgo.KeepControlRecords(), // the routers' transactions end in them, and an offset before one would be a lag for ever
		kgo.FetchMaxWait(fetchWait),
		kgo.FetchMaxPartitionBytes(fetchPartitionBytes),
		kgo.WithPools(&recycling{}),
		kgo.ProducerLinger(flushLinger),
		kgo.RecordDeliveryTimeout(0), // an outcome waits for its brokers
		kgo.AdjustFetchOffsetsFn(d.adjust),
		kgo.OnPartitionsAssigned(d.assigned),
		kgo.OnPartitionsRevoked(d.revoked),
		kgo.OnPartitionsLost(d.dropped),
	)...)
	if err != nil {
		return err
	}
	d.client = client
	work, stop := context.WithCancel(context.WithoutCancel(ctx)) // of the helpers: they outlive ctx until all is drained
	var helpers sync.WaitGroup
	helpers.Go(func() { d.flush(work) })
	helpers.Go(func() { d.commitOften(work) })
	err = d.loop(ctx)
	d.endLife(err)
	d.release(d.owned()) //nolint:contextcheck // it outlives ctx: it records what was pushed
	stop()
	helpers.Wait()
	client.CloseAllowingRebalance()
	return err
}

func (d *delivery) loop(ctx context.Context) error {
	for {
		fetches := d.poll(ctx)
		err := ctx.Err()
		for _, e := range fetches.Errors() {
			if !errors.Is(e.Err, context.Canceled) && !errors.Is(e.Err, context.DeadlineExceeded) {
				err = fmt.Errorf("fetch %s[%d]: %w", e.Topic, e.Partition, e.Err)
			}
		}
		if err == nil {
			fetches.EachPartition(d.arrived)
			d.deliverAll()
		}
		d.client.AllowRebalance()
		if ctx.Err() != nil {
			return context.Cause(ctx) //nolint:wrapcheck // the caller's own, or what failed
		}
		if err != nil {
			return err
		}
	}
}

// poll waits for records, for a window that has room again, or for a record's time.
func (d *delivery) poll(ctx context.Context) kgo.Fetches {
	var cancel context.CancelFunc
	if wake := d.wake(); wake > 0 {
		ctx, cancel = context.WithDeadline(ctx, time.UnixMicro(wake))
	} else {
		ctx, cancel = context.WithCancel(ctx)
	}
	defer cancel()
	d.mu.Lock()
	d.wakePoll = cancel
	d.mu.Unlock()
	if d.movable() { // what woke us before we could be woken
		cancel()
	}
	n := d.appetite()
	if n == 0 {
		timer := time.NewTimer(pollAnyway)
		select {
		case <-ctx.Done():
			n = 1
		case <-timer.C:
			n = pollRecords
		}
		timer.Stop()
	}
	fetches := d.client.PollRecords(ctx, n)
	d.mu.Lock()
	d.wakePoll = nil
	d.mu.Unlock()
	return fetches
}

// appetite is how many records may be polled, so that few wait beside those in memory; 0: none before there is room for those that have
// come. What is not polled keeps the client from fetching more, and nothing that was fetched is thrown away as by a pause.
func (d *delivery) appetite() int {
	n := max(d.o.Total/4, 1)
	for _, w := range d.owned() {
		if w.wake == 0 && w.wantsRoom() {
			n -= w.backlog.len()
		}
	}
	return min(max(n, 0), pollRecords)
}

func (d *delivery) wakeLoop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.wakePoll != nil {
		d.wakePoll()
	}
}

// wake is the first time, in microseconds, at which a held partition may go on; 0: none is held.
func (d *delivery) wake() (first int64) {
	for _, w := range d.owned() {
		if w.isReady() && w.backlog.len() > 0 && w.wake > 0 && (first == 0 || w.wake < first) {
			first = w.wake
		}
	}
	return first
}

// movable reports whether some partition could go on at once.
func (d *delivery) movable() bool {
	now := time.Now().UnixMicro()
	for _, w := range d.owned() {
		if w.isReady() && w.backlog.len() > 0 && w.wake <= now && !w.full() {
			return true
		}
	}
	return false
}

func (d *delivery) owned() []*window {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := make([]*window, 0, len(d.windows))
	for _, w := range d.windows {
		all = append(all, w)
	}
	return all
}

func (d *delivery) window(at place) *window {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.windows[at]
}

// arrived adds a poll's records to their window's backlog.
func (d *delivery) arrived(f kgo.FetchTopicPartition) {
	if len(f.Records) == 0 {
		return
	}
	w := d.window(place{d.l.topic(f.Topic), f.Partition})
	if w == nil {
		return
	}
	w.backlog.add(f.Records)
	w.mu.Lock()
	w.epoch = f.Records[len(f.Records)-1].LeaderEpoch
	w.mu.Unlock()
}

func (d *delivery) deliverAll() {
	now := time.Now()
	for _, w := range d.owned() {
		if w.isReady() {
			d.deliver(w, now)
		}
		enough := min(d.o.Window/2, d.o.Total/4) // so much is fetched ahead, and what the client holds
		if w.paused {
			enough /= 4
		}
		d.pause(w, w.backlog.len() > enough || w.wake > 0)
	}
}

// pause keeps more of a partition from being fetched while what came waits.
func (d *delivery) pause(w *window, on bool) {
	if w.paused == on {
		return
	}
	w.paused = on
	which := map[string][]int32{d.l.name(w.at.topic): {w.at.partition}}
	if on {
		d.client.PauseFetchPartitions(which)
	} else {
		d.client.ResumeFetchPartitions(which)
	}
}
