package router

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// TallyOptions of the tally. The zero value works, and forgets nothing.
type TallyOptions struct {
	Now func() time.Time // nil: time.Now
	// Gone reports whether a broadcast's request is in the log no longer (State.Gone), and CatchUp reads broadcasts to its
	// end. Counts are forgotten when Gone still says so after CatchUp. Nil: they never are.
	Gone    func(schemas.ID) bool
	CatchUp func(context.Context) error
	// SweepEvery is the least time between two looks for counts to forget in a partition; zero: 1 minute.
	SweepEvery time.Duration
	// CatchUpPatience bounds CatchUp; zero: 2 s.
	CatchUpPatience time.Duration
}

func (o TallyOptions) withDefaults() TallyOptions {
	if o.Now == nil {
		o.Now = time.Now
	}
	setDefault(&o.SweepEvery, time.Minute)
	setDefault(&o.CatchUpPatience, 2*time.Second)
	return o
}

// Tally counts what became of the sends of broadcasts: a Transform over deliveries that writes cumulative counts to the same
// partition of progress. Counting is exact where the runner's commit is one transaction. Its state is what it wrote itself:
// the runner calls Reset and Restore before the first batch of a partition, and after a batch that was not committed.
// Partitions may be handled at once, each by one goroutine.
type Tally struct {
	options TallyOptions
	log     *slog.Logger

	mu         sync.Mutex
	partitions map[int32]*tallied
}

// NewTally returns a tally without state.
func NewTally(options TallyOptions, log *slog.Logger) *Tally {
	return &Tally{options: options.withDefaults(), log: log, partitions: map[int32]*tallied{}}
}

// tallied is what was counted in one partition.
type tallied struct {
	broadcasts map[schemas.ID]*tally
	owners     map[sourceKey]*pushv1.OwnerChanged
	through    int64 // records below were counted
	sweptUS    int64
	scratch    tallyScratch
}

type tally struct {
	app     string
	counts  [slots]counts
	limited [slots]pushv1.Limit // what held back most of the last batch

	held [slots][limits]int32 // in a batch's scratch: records by what held them back
}

// limits is one more than the greatest pushv1.Limit; a test compares them.
const limits = 9

// hold notes what held a send back.
func (b *tally) hold(slot int, by pushv1.Limit) {
	if by >= 0 && by < limits { // of a newer sender: it limits something that we have no word for
		b.held[slot][by]++
	}
}

// most is what held back most of a batch; ok is false where the batch had nothing.
func (b *tally) most(slot int) (by pushv1.Limit, ok bool) {
	for i, n := range b.held[slot] {
		if n > 0 && (!ok || n > b.held[slot][by]) {
			by, ok = pushv1.Limit(i), true
		}
	}
	return by, ok
}

// sourceKey is a topic of sends; the partition is that of the deliveries.
type sourceKey struct {
	transport schemas.Transport
	lane      schemas.Lane
	tier      uint32
}

func (t *Tally) partition(p int32) *tallied {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.partitions[p]
	if s == nil {
		s = newTallied()
		t.partitions[p] = s
	}
	return s
}

func newTallied() *tallied {
	return &tallied{broadcasts: map[schemas.ID]*tally{}, owners: map[sourceKey]*pushv1.OwnerChanged{}}
}

// Reset forgets what was counted in a partition.
func (t *Tally) Reset(partition int32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.partitions[partition] = newTallied()
}

// Restore takes one record of that partition of progress over, in log order.
func (t *Tally) Restore(partition int32, r schemas.Record) error {
	s := t.partition(partition)
	key, ok := schemas.ParseProgressKey(r.Key)
	if !ok || key.Partition != partition {
		return fmt.Errorf("%s[%d]@%d: key: %w", r.Topic, r.Partition, r.Offset, schemas.ErrMalformed)
	}
	if r.Tombstone() {
		delete(s.broadcasts, key.Broadcast)
		return nil
	}
	event, err := r.Event()
	if err != nil {
		return err
	}
	switch e := event.(type) {
	case *pushv1.ProgressCounted:
		b := &tally{app: e.App, counts: byTransport(e.Counts)}
		for _, c := range e.Counts {
			if i, ok := slot(c.GetTransport()); ok {
				b.limited[i] = c.LimitedBy
			}
		}
		s.broadcasts[key.Broadcast] = b
		s.through = max(s.through, e.Through)
	case *pushv1.TallyOwnersSeen:
		clear(s.owners)
		for _, o := range e.Owners {
			s.owners[sourceKey{o.Transport, o.Lane, o.Tier}] = o
		}
		s.through = max(s.through, e.Through)
	default:
		return fmt.Errorf("%s[%d]@%d: %T: %w", r.Topic, r.Partition, r.Offset, event, schemas.ErrMalformed)
	}
	return nil
}

// Handle implements Transform. Records that were counted already are passed over. It returns ErrMalformed or ErrUnknownType
// for a record that it cannot read, and then has counted nothing of the batch.
func (t *Tally) Handle(ctx context.Context, in schemas.Batch, out *schemas.Out) error {
	if len(in.Records) == 0 {
		return nil
	}
	s := t.partition(in.Partition)
	s.scratch.reset()
	for i := range in.Records {
		if r := &in.Records[i]; r.Offset >= s.through && !r.Tombstone() {
			if err := s.read(r); err != nil {
				return err
			}
		}
	}
	nowUS := t.options.Now().UnixMicro()
	s.merge(in, out, nowUS)
	return t.sweep(ctx, in.Partition, s, out, nowUS)
}

// Idle forgets the counts of broadcasts that are gone in a partition into which nothing comes.
func (t *Tally) Idle(ctx context.Context, partition int32, out *schemas.Out) error {
	return t.sweep(ctx, partition, t.partition(partition), out, t.options.Now().UnixMicro())
}

// merge adds what was read to the state, and says it.
func (s *tallied) merge(in schemas.Batch, out *schemas.Out, nowUS int64) {
	s.through = max(s.through, in.Next())
	for id, delta := range s.scratch.touched {
		b := s.broadcasts[id]
		if b == nil {
			b = &tally{app: delta.app}
			s.broadcasts[id] = b
		}
		for i := range slots {
			b.counts[i].add(&delta.counts[i], 1)
			if by, ok := delta.most(i); ok {
				b.limited[i] = by
			}
		}
		out.ProgressCounted(&pushv1.ProgressCounted{
			BroadcastId: id[:], App: b.app, Partition: in.Partition, Counts: b.events(), CountedAtUs: nowUS, Through: s.through,
		})
	}
	if len(s.scratch.owners) == 0 {
		return
	}
	maps.Copy(s.owners, s.scratch.owners)
	seen := &pushv1.TallyOwnersSeen{Partition: in.Partition, Through: s.through}
	for _, o := range s.owners {
		seen.Owners = append(seen.Owners, o)
	}
	out.TallyOwnersSeen(seen)
}

func (b *tally) events() []*pushv1.TransportCounts {
	var list []*pushv1.TransportCounts
	for i, t := range schemas.Transports {
		if b.counts[i] != (counts{}) {
			e := b.counts[i].event(t, 0)
			e.LimitedBy = b.limited[i]
			list = append(list, e)
		}
	}
	return list
}

// sweep forgets the counts of broadcasts that are gone. That they were counted proves that their requests were in the log
// before: what is still missing after reading broadcasts to its end is gone, and not merely unseen.
func (t *Tally) sweep(ctx context.Context, partition int32, s *tallied, out *schemas.Out, nowUS int64) error {
	if t.options.Gone == nil || t.options.CatchUp == nil || nowUS-s.sweptUS < t.options.SweepEvery.Microseconds() {
		return nil
	}
	s.sweptUS = nowUS
	var gone []schemas.ID
	for id := range s.broadcasts {
		if t.options.Gone(id) {
			gone = append(gone, id)
		}
	}
	if len(gone) == 0 {
		return nil
	}
	bounded, cancel := context.WithTimeout(ctx, t.options.CatchUpPatience)
	defer cancel()
	if err := t.options.CatchUp(bounded); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		t.log.Warn("counts of ended broadcasts are kept until the next look: broadcasts could not be read to its end", "error", err)
		return nil
	}
	for _, id := range gone {
		if t.options.Gone(id) {
			delete(s.broadcasts, id)
			out.ForgetProgress(schemas.ProgressKey{Broadcast: id, Partition: partition})
		}
	}
	return nil
}
