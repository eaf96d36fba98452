package eventlog

import (
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// A producer that lost its connection writes what it holds when it has found the brokers again, which may be after another owner has
// taken its partition over. So a new owner says that it is there in every topic where an end of its sends can stand, and what an
// earlier owner has written behind that is void: it proves no end, and what it moved is not pushed. The new owner pushes it itself.

// generations are the newest owners of a partition's sends, by the tier of the sends: 0 for first sends.
type generations [proofs]int64

// newer raises the generation of a tier's owner.
func (g *generations) newer(tier uint32, generation int64) { g[tier] = max(g[tier], generation) }

// fence is where owners of a partition's sends changed, in one partition of one topic. Not safe for concurrent use.
type fence struct {
	before  generations // at the lowest offset of interest
	changes []change    // in the order of their offsets
	after   generations // all of them
}

type change struct {
	offset     int64
	tier       uint32
	generation int64
}

// begin sets who owned what at the lowest offset of interest.
func (f *fence) begin(g generations) { *f = fence{before: g, after: g} }

// add takes an OwnerChanged over. What is not behind the last one is there already.
func (f *fence) add(c change) {
	if n := len(f.changes); c.tier >= proofs || n > 0 && f.changes[n-1].offset >= c.offset {
		return
	}
	f.changes = append(f.changes, c)
	f.after.newer(c.tier, c.generation)
}

// at is who owned what at an offset.
func (f *fence) at(offset int64) generations {
	if n := len(f.changes); n == 0 || f.changes[n-1].offset < offset {
		return f.after
	}
	g := f.before
	for _, c := range f.changes {
		if c.offset >= offset {
			break
		}
		g.newer(c.tier, c.generation)
	}
	return g
}

// forget drops what is not needed to answer for offset and those above.
func (f *fence) forget(offset int64) {
	for len(f.changes) > 0 && f.changes[0].offset < offset {
		f.before.newer(f.changes[0].tier, f.changes[0].generation)
		f.changes = f.changes[1:]
	}
}

// voids reports whether an owner of sends of a tier wrote at offset when they were another's already.
func (f *fence) voids(offset int64, tier uint32, generation int64) bool {
	return tier < proofs && generation < f.at(offset)[tier]
}

// passed reports whether a record of a tier is nobody's to push: it says who owns what, or was moved too late. The window's lock is held.
func (w *window) passed(r *schemas.Record) bool {
	switch r.Type() { //nolint:exhaustive // the handler judges all others
	case pushv1.EventType_EVENT_TYPE_OWNER_CHANGED:
		var e pushv1.OwnerChanged
		if r.Into(&e) == nil {
			w.fence.add(change{r.Offset, e.Tier, e.Generation})
		}
		return true
	case pushv1.EventType_EVENT_TYPE_SEND_REQUESTED:
		defer w.moved.Reset() // it aliases the record
		if r.Into(&w.moved) != nil || w.moved.Source == nil {
			return false
		}
		return w.fence.voids(r.Offset, w.moved.Source.Tier, w.moved.Generation)
	}
	return false
}
