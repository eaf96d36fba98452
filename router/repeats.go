package router

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// repeats is what the direct router knows of the requests that it routed and may meet again: those under an Idempotency-Key, for
// schemas.RememberRequests, and those whose repeats ingest was told to drop, for schemas.MaxRepeatWithin. Whether a request is a
// repeat follows from the log alone: an earlier record of notifications has its id, and is young enough by the log's own time. So
// it does not matter how often a batch is handled, or by whom. What was routed is said in the topic routed, from which a new owner
// of a partition restores it.
type repeats struct {
	most int64 // requests over all partitions; beyond it the oldest are forgotten early
	size prometheus.Gauge
	log  *slog.Logger
	now  func() time.Time

	mu         sync.Mutex
	partitions map[int32]*partitionRepeats
	warned     time.Time
}

// partitionRepeats are of one partition. The runner handles it by one goroutine at a time.
type partitionRepeats struct {
	keyed, derived *requestSet
	newKeyed       pushv1.RequestsRouted // of the batch in hand
	newDerived     pushv1.RequestsRouted
}

func newRepeats(most int64, size prometheus.Gauge, now func() time.Time, log *slog.Logger) *repeats {
	return &repeats{most: most, size: size, log: log, now: now, partitions: map[int32]*partitionRepeats{}}
}

func (r *repeats) of(partition int32) *partitionRepeats {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.partitions[partition]
	if p == nil {
		p = &partitionRepeats{keyed: newRequestSet(schemas.RememberRequests), derived: newRequestSet(schemas.MaxRepeatWithin)}
		r.partitions[partition] = p
	}
	return p
}

func (r *repeats) reset(partition int32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.partitions, partition)
}

// repetition says what a request is to those before it.
type repetition int

const (
	isFirst    repetition = iota
	isRepeat              // the same request came under its Idempotency-Key before: the first one answers for both
	isConflict            // another request did
	isCopy                // a request that says the same came a moment before; it has an id of its own
)

// look says what a request at that place of the log is, and remembers the first of each.
func (p *partitionRepeats) look(e *pushv1.NotificationRequested, r *schemas.Record) repetition {
	if key := schemas.IDFrom(e.RepeatKey); !key.IsZero() {
		within := min(e.RepeatWithinUs, schemas.MaxRepeatWithin.Microseconds())
		_, atUS, _, ok, there := p.derived.find(key, r.Offset)
		if ok && r.TimeUS-atUS <= within {
			return isCopy
		}
		p.derived.remember(&p.newDerived, key, r, 0, there)
		return isFirst
	}
	if len(e.BodyHash) == 0 {
		return isFirst // its id is its own
	}
	id, body := schemas.IDFrom(e.RequestId), bodyPrint(e.BodyHash)
	_, atUS, first, ok, there := p.keyed.find(id, r.Offset)
	switch {
	case !ok || r.TimeUS-atUS > p.keyed.keepUS:
		p.keyed.remember(&p.newKeyed, id, r, body, there)
		return isFirst
	case first == body:
		return isRepeat
	}
	return isConflict
}

func bodyPrint(hash []byte) uint32 {
	if len(hash) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(hash)
}

// remember adds the first of its kind to the set, unless it is there since the batch is handled again, and to what is to be said of
// the batch.
func (s *requestSet) remember(said *pushv1.RequestsRouted, id schemas.ID, r *schemas.Record, body uint32, there bool) {
	if !there {
		s.put(id, r.Offset, r.TimeUS, body)
	}
	said.Keys = append(said.Keys, id[:]...)
	said.Bodies = binary.BigEndian.AppendUint32(said.Bodies, body)
	said.Offsets = append(said.Offsets, r.Offset)
	said.TimesUs = append(said.TimesUs, r.TimeUS)
}

// say writes down what the batch added.
func (p *partitionRepeats) say(out *schemas.Out, partition int32) {
	for _, e := range []*pushv1.RequestsRouted{&p.newKeyed, &p.newDerived} {
		if len(e.Offsets) > 0 {
			e.Partition, e.Derived = partition, e == &p.newDerived
			out.RequestsRouted(e)
		}
	}
}

// begin forgets what the batch before added, and what is too old for this one. The time is that of its first record: a restored
// state may hold younger ones.
func (p *partitionRepeats) begin(in *schemas.Batch) {
	if len(in.Records) > 0 {
		p.keyed.expire(in.Records[0].TimeUS)
		p.derived.expire(in.Records[0].TimeUS)
	}
	for _, e := range []*pushv1.RequestsRouted{&p.newKeyed, &p.newDerived} {
		e.Keys, e.Bodies, e.Offsets, e.TimesUs = e.Keys[:0], e.Bodies[:0], e.Offsets[:0], e.TimesUs[:0]
	}
}

// restore takes one record of routed over.
func (p *partitionRepeats) restore(e *pushv1.RequestsRouted) error {
	n := len(e.Offsets)
	if len(e.Keys) != n*len(schemas.ID{}) || len(e.Bodies) != 4*n || len(e.TimesUs) != n {
		return fmt.Errorf("lists of different lengths: %w", schemas.ErrMalformed)
	}
	set := p.keyed
	if e.Derived {
		set = p.derived
	}
	for i := range n {
		id := schemas.ID(e.Keys[16*i : 16*i+16])
		if _, _, _, _, there := set.find(id, e.Offsets[i]); !there { // else the batch was handled twice
			set.put(id, e.Offsets[i], e.TimesUs[i], binary.BigEndian.Uint32(e.Bodies[4*i:]))
		}
	}
	return nil
}

// bound forgets the oldest of a partition in hand where more is known than the memory may hold: the other partitions belong to
// other goroutines, and give when they are in hand.
func (r *repeats) bound(partition int32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	total := int64(0)
	for _, p := range r.partitions {
		total += p.keyed.n.Load() + p.derived.n.Load()
	}
	r.size.Set(float64(total))
	if total <= r.most {
		return
	}
	keyed := r.partitions[partition].keyed
	for share := r.most / int64(len(r.partitions)); keyed.n.Load() > share && keyed.drop() > 0; {
	}
	if now := r.now(); now.Sub(r.warned) > time.Minute {
		r.warned = now
		r.log.Warn("more idempotency keys than are remembered: the oldest are forgotten before their time", "known", total, "most", r.most)
	}
}
