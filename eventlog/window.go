package eventlog

import (
	"context"
	"sort"
	"sync"
	"sync/atomic"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// window is one owned partition of a delivering stage: the records in flight, in offset order, and which of them are done.
// It is the schemas.Completion of its records.
type window struct {
	at         place
	send       schemas.SendTopic
	generation int64
	base       int64 // of the mark, handed on
	session    *delivery
	ctx        context.Context //nolint:containedctx // of the pushes of this ownership
	cancel     context.CancelFunc
	closed     atomic.Bool // revoked or lost: nothing may be pushed
	refused    atomic.Bool // MayPush has said no, so that records may have been dropped

	mu    sync.Mutex
	ring  ring
	start int64 // the committed offset at the takeover
	next  int64 // after the last record that came
	epoch int32
	// skip holds, by offset, where the end stands of sends that the takeover found done and that have not come yet.
	skip  map[int64]proof
	acked ends // offset after the last acknowledged end
	// fences are where owners of the window's sends changed, in deliveries (0) and in each tier, as far as the takeover read; fence is where those
	// of all sends of the partition did, in the window's own topic where that is a tier's.
	fences  [proofs]fence
	fence   fence
	filling *outcomes   // completions that wait for the flusher
	flying  []*outcomes // given to the client, oldest first
	lost    bool        // completions are dropped, and outcomes that wait too
	sealed  bool        // completions are dropped
	waiting bool        // the loop waits for room
	pushing int         // given and not completed
	held    int         // given, and their ends not acknowledged
	ready   bool        // taken over

	// Of the loop alone.
	backlog  backlog
	paused   bool
	wake     int64 // µs; not before
	failures int
	batch    []schemas.Record
	moved    pushv1.SendRequested

	committed int64 // last commit; of who holds the session's commit lock
	marked    mark
}

// proof is where the end of a send stands: topic 0 is deliveries, n is tier n.
type proof struct {
	topic  int8 // -1: nowhere
	offset int64
}

type inFlight struct {
	offset int64
	proof  proof
	state  uint8
}

// States of a record in flight.
const (
	given uint8 = iota
	completed
	done
)

// ring holds the records in flight in the order of their offsets. Offsets may have gaps.
type ring struct {
	entries []inFlight // a power of two
	head, n int
}

func (r *ring) at(i int) *inFlight { return &r.entries[(r.head+i)&(len(r.entries)-1)] }

func (r *ring) push(e inFlight) {
	if r.n == len(r.entries) {
		grown := make([]inFlight, max(256, 2*len(r.entries)))
		for i := range r.n {
			grown[i] = *r.at(i)
		}
		r.entries, r.head = grown, 0
	}
	r.n++
	*r.at(r.n - 1) = e
}

// find returns the entry of an offset, or nil.
func (r *ring) find(offset int64) *inFlight {
	if r.n == 0 || offset < r.at(0).offset {
		return nil
	}
	i := int(min(offset-r.at(0).offset, int64(r.n-1))) // right where there is no gap
	if r.at(i).offset != offset {
		i = sort.Search(i, func(i int) bool { return r.at(i).offset >= offset })
		if r.at(i).offset != offset {
			return nil
		}
	}
	return r.at(i)
}

// advance drops what is done at the front.
func (r *ring) advance() {
	for r.n > 0 && r.at(0).state == done {
		r.head = (r.head + 1) & (len(r.entries) - 1)
		r.n--
	}
}

// Generation implements schemas.Completion.
func (w *window) Generation() int64 { return w.generation }

// MayPush implements schemas.Completion.
func (w *window) MayPush() bool {
	if !w.closed.Load() && w.session.heard.lately() {
		return true
	}
	w.refused.Store(true)
	return false
}

// Complete implements schemas.Completion.
func (w *window) Complete(offset int64, say func(out *schemas.Out)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.ring.find(offset)
	if e == nil || e.state != given || w.lost || w.sealed {
		return
	}
	e.state = completed
	w.pushing--
	o := w.filling
	if o == nil {
		o = w.session.newOutcomes(w)
		w.filling = o
	}
	first := o.out.Len()
	if say != nil {
		say(o.out)
	}
	o.items = append(o.items, item{offset: offset, first: first, last: o.out.Len()})
	if len(o.items) == 1 || o.out.Size() >= flushBytes && !o.full {
		o.full = o.out.Size() >= flushBytes
		w.session.wakeFlusher(o.full)
	}
}

// admit puts a record into the window; false: the takeover found it done.
func (w *window) admit(offset int64) bool {
	if p, ok := w.skip[offset]; ok {
		delete(w.skip, offset)
		w.ring.push(inFlight{offset: offset, proof: p, state: done})
		return false
	}
	w.ring.push(inFlight{offset: offset, proof: proof{topic: -1}})
	w.pushing++
	w.held++
	w.session.crowd.held.Add(1)
	return true
}

// acknowledged is called when the log has all of o.
func (w *window) acknowledged(o *outcomes) (room bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, flying := range w.flying {
		if flying == o {
			w.flying = append(w.flying[:i], w.flying[i+1:]...)
			break
		}
	}
	for _, it := range o.items {
		p := proof{topic: -1}
		for i := it.first; i < it.last; i++ {
			topic := o.proof[i]
			if topic < 0 {
				continue
			}
			at := o.recs[i].Offset
			w.acked[topic] = max(w.acked[topic], at+1)
			p = proof{topic: topic, offset: at}
		}
		if e := w.ring.find(it.offset); e != nil {
			e.state, e.proof = done, p
		}
	}
	w.ring.advance()
	if w.waiting && w.ring.n <= w.session.o.Window/2 {
		w.waiting = false
		room = true
	}
	if !w.lost {
		w.held -= len(o.items)
		w.session.crowd.held.Add(-int64(len(o.items)))
	}
	return w.session.crowd.told(w.held) || room
}

// position is what can be committed: the lowest offset that is not done, and where its mark stands. reached is how far the topics of
// ends were known to be written before the call: the ends of what an idle window will do stand behind that.
func (w *window) position(reached ends) (int64, mark) {
	w.mu.Lock()
	defer w.mu.Unlock()
	at := w.next
	if w.ring.n > 0 {
		at = w.ring.at(0).offset
	}
	if w.ring.n == 0 && len(w.skip) == 0 && w.filling == nil && len(w.flying) == 0 {
		w.acked = w.acked.raised(reached)
	}
	m := mark{generation: w.generation, base: w.base, from: w.acked}
	lower := func(p proof) {
		if p.topic >= 0 {
			m.from[p.topic] = min(m.from[p.topic], p.offset)
		}
	}
	for i := range w.ring.n {
		if e := w.ring.at(i); e.state == done {
			lower(e.proof)
		}
	}
	for _, p := range w.skip {
		lower(p)
	}
	if len(w.flying) > 0 { // its ends may be there already, and stand after what was acknowledged before it
		for i, from := range w.flying[0].floor {
			m.from[i] = min(m.from[i], from)
		}
	}
	for i := range m.from {
		m.owners[i] = w.fences[i].at(m.from[i])[w.send.Tier]
	}
	w.fence.forget(at)
	m.moving = w.fence.before
	return at, m
}

// settled reports whether nothing is in the air: of the given records (pushing), and of their outcomes (appending).
func (w *window) settled() (pushing int, appending bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pushing, w.filling != nil || len(w.flying) > 0
}
