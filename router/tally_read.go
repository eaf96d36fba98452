package router

import (
	"fmt"
	"strings"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// tallyScratch is what one batch adds: kept apart until the whole batch was read.
type tallyScratch struct {
	touched   map[schemas.ID]*tally
	owners    map[sourceKey]*pushv1.OwnerChanged
	attempted pushv1.DeliveryAttempted
	finished  pushv1.DeliveryFinished
	lastID    schemas.ID // of last: most records of a batch are of one broadcast
	last      *tally
}

func (s *tallyScratch) reset() {
	if s.touched == nil {
		s.touched, s.owners = map[schemas.ID]*tally{}, map[sourceKey]*pushv1.OwnerChanged{}
	}
	clear(s.touched)
	clear(s.owners)
	s.lastID, s.last = schemas.ID{}, nil
	s.attempted.Reset() // they alias a batch that is over
	s.finished.Reset()
}

// counting returns the counts of a broadcast in this batch.
func (s *tallyScratch) counting(id schemas.ID, app string) *tally {
	if s.last != nil && s.lastID == id {
		return s.last
	}
	b := s.touched[id]
	if b == nil {
		b = &tally{app: strings.Clone(app)} // app aliases the record
		s.touched[id] = b
	}
	s.lastID, s.last = id, b
	return b
}

// read counts one record into the scratch.
func (s *tallied) read(r *schemas.Record) error {
	switch r.Type() {
	case pushv1.EventType_EVENT_TYPE_DELIVERY_FINISHED:
		return s.readFinished(r)
	case pushv1.EventType_EVENT_TYPE_DELIVERY_ATTEMPTED:
		return s.readAttempted(r)
	default:
	}
	event, err := r.Event()
	if err != nil {
		return err
	}
	e, ok := event.(*pushv1.OwnerChanged)
	if !ok {
		return fmt.Errorf("%s[%d]@%d: %T: %w", r.Topic, r.Partition, r.Offset, event, schemas.ErrMalformed)
	}
	k := sourceKey{e.Transport, e.Lane, e.Tier}
	if owner := s.owner(k); owner == nil || e.Generation >= owner.Generation {
		s.scratch.owners[k] = e
	}
	return nil
}

func (s *tallied) readFinished(r *schemas.Record) error {
	e := &s.scratch.finished
	if err := r.Into(e); err != nil {
		return err
	}
	id := schemas.IDFrom(e.BroadcastId)
	i, ok := slot(e.Transport)
	if id.IsZero() || !ok {
		return nil
	}
	b := s.scratch.counting(id, e.App)
	c := &b.counts[i]
	if s.late(e.Transport, e.Source, e.Generation) {
		c.repeats++
		return nil
	}
	b.hold(i, e.LimitedBy)
	if e.First {
		c.first++
	}
	c.finish(e.Outcome)
	return nil
}

// readAttempted counts an attempt that finished nothing. One of an older owner counts nowhere: its send's new owner makes
// the first attempt anew, and a repeat is what is finished again.
func (s *tallied) readAttempted(r *schemas.Record) error {
	e := &s.scratch.attempted
	if err := r.Into(e); err != nil {
		return err
	}
	id := schemas.IDFrom(e.BroadcastId)
	i, ok := slot(e.Transport)
	if id.IsZero() || !ok || s.late(e.Transport, e.Source, e.Generation) {
		return nil
	}
	b := s.scratch.counting(id, e.App)
	b.hold(i, e.LimitedBy)
	if e.First {
		b.counts[i].first++
	}
	return nil
}

// owner is who owns a topic of sends at this place of the batch; nil where nobody said.
func (s *tallied) owner(k sourceKey) *pushv1.OwnerChanged {
	if o := s.scratch.owners[k]; o != nil {
		return o
	}
	return s.owners[k]
}

// late reports whether a newer owner had taken the source over when the record was written. What the router itself
// finished has no owner.
func (s *tallied) late(t schemas.Transport, source *pushv1.Source, generation int64) bool {
	if source.GetLane() == schemas.ByRouter {
		return false
	}
	o := s.owner(sourceKey{t, source.GetLane(), source.GetTier()})
	return o != nil && generation < o.Generation
}
