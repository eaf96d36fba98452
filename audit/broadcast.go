package audit

import (
	"bytes"
	"strings"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// slots is the number of schemas.Transports.
const slots = 2

// slot is a transport's place in arrays by transport.
func slot(t schemas.Transport) (i int, ok bool) {
	switch t { //nolint:exhaustive // the transports that Campanile delivers to
	case schemas.APNS:
		return 0, true
	case schemas.FCM:
		return 1, true
	}
	return 0, false
}

// broadcast is what the log says of one broadcast.
type broadcast struct {
	id          schemas.ID
	app         string
	requestedUS int64 // 0: nobody has said it yet
	here        bool  // its request is in the log
	forgotten   bool  // its cursors are being forgotten
	cursors     map[cursor]moved
	ends        [slots]int64 // sends that have ended
	waiting     [slots]int64 // sends that have not, and stand in a topic of sends
	over        []*pushv1.TransportCounts
	isOver      bool
	parts       map[int32]*part // by partition of deliveries
}

type cursor struct {
	transport schemas.Transport
	rng       uint32
}

// moved is how far a cursor was expanded: now, and as the deliveries were about to be read.
type moved struct{ emitted, before, atUS int64 }

// part is what one partition of deliveries says, and what the tally counted there.
type part struct {
	tallied, counted [slots]tally
	known            bool // the tally has counted
}

// tally are counts by the tally's rule: ends of an older owner are repeats, and every other end counts.
type tally struct{ first, accepted, invalid, rejected, expired, cancelled, repeats int64 }

func (r *Reconciler) broadcast(id schemas.ID) *broadcast {
	if r.last != nil && r.lastID == id {
		return r.last
	}
	b := r.broadcasts[id]
	if b == nil {
		b = &broadcast{id: id, cursors: map[cursor]moved{}, parts: map[int32]*part{}}
		r.broadcasts[id] = b
	}
	r.lastID, r.last = id, b
	return b
}

func (b *broadcast) part(p int32) *part {
	at := b.parts[p]
	if at == nil {
		at = &part{}
		b.parts[p] = at
	}
	return at
}

// counts reports whether the broadcast was asked for in the reconciler's time.
func (b *broadcast) counts(r *Reconciler) bool {
	at := b.requestedUS
	if at == 0 { // neither its request nor an end of it is left
		for _, m := range b.cursors {
			at = max(at, m.atUS)
		}
	}
	return r.in(at)
}

func (b *broadcast) emitted() (n int64) {
	for _, m := range b.cursors {
		n += m.emitted
	}
	return n
}

// emittedOn is one transport's part: now, and before the deliveries were read.
func (b *broadcast) emittedOn(t schemas.Transport) (now, before int64) {
	for k, m := range b.cursors {
		if k.transport == t {
			now, before = now+m.emitted, before+m.before
		}
	}
	return now, before
}

func (r *Reconciler) expansion(rec *schemas.Record) error {
	k, ok := schemas.ParseCursorKey(rec.Key)
	if ok && rec.Tombstone() {
		b := r.broadcast(k.Broadcast)
		delete(b.cursors, cursor{k.Transport, k.Range})
		b.forgotten = true
		return nil
	}
	if rec.Type() != pushv1.EventType_EVENT_TYPE_CURSOR_MOVED {
		return nil
	}
	var e pushv1.CursorMoved
	if err := rec.Into(&e); err != nil {
		return err
	}
	b := r.broadcast(schemas.IDFrom(e.BroadcastId))
	b.forgotten = false
	if b.app == "" {
		b.app = cloned(e.App)
	}
	at := cursor{e.Transport, e.Range}
	m := moved{emitted: e.Emitted, before: b.cursors[at].before, atUS: e.MovedAtUs}
	if ends := r.before(rec.Partition); rec.Offset < ends {
		m.before = e.Emitted
	}
	b.cursors[at] = m
	return nil
}

// before is the end of a partition of expansions as it was before the sends were read.
func (r *Reconciler) before(partition int32) int64 {
	if ends := r.expanded; int(partition) < len(ends) {
		return ends[partition]
	}
	return 0
}

func (r *Reconciler) broadcastSaid(rec *schemas.Record) error {
	k, ok := schemas.ParseBroadcastKey(rec.Key)
	if !ok {
		return nil
	}
	b := r.broadcast(k.Broadcast)
	if rec.Tombstone() {
		if k.Kind == schemas.BroadcastContent {
			b.here = false
		}
		return nil
	}
	event, err := rec.Event()
	if err != nil {
		return err
	}
	switch e := event.(type) {
	case *pushv1.BroadcastRequested:
		if !b.here { // the first one wins
			b.here, b.app, b.requestedUS = true, e.App, e.RequestedAtUs
		}
	case *pushv1.BroadcastEnded:
		b.isOver, b.over, b.app = true, e.Counts, e.App
		if b.requestedUS == 0 {
			b.requestedUS = e.RequestedAtUs
		}
	}
	return nil
}

func (r *Reconciler) progressed(rec *schemas.Record) error {
	k, ok := schemas.ParseProgressKey(rec.Key)
	if !ok {
		return nil
	}
	if rec.Tombstone() {
		if !k.Broadcast.IsZero() {
			*r.broadcast(k.Broadcast).part(k.Partition) = part{}
		}
		return nil
	}
	event, err := rec.Event()
	if err != nil {
		return err
	}
	switch e := event.(type) {
	case *pushv1.ProgressCounted:
		at := r.broadcast(k.Broadcast).part(k.Partition)
		at.known, at.tallied = true, [slots]tally{}
		for _, c := range e.Counts {
			if t, ok := slot(c.Transport); ok {
				at.tallied[t] = tallyOf(c)
			}
		}
		r.tallied(k.Partition, e.Through)
	case *pushv1.TallyOwnersSeen:
		r.tallied(k.Partition, e.Through)
	}
	return nil
}

// tallied keeps how far the tally has counted a partition.
func (r *Reconciler) tallied(partition int32, through int64) {
	if r.through == nil {
		r.through = map[int32]int64{}
	}
	r.through[partition] = max(r.through[partition], through)
}

func tallyOf(c *pushv1.TransportCounts) tally {
	return tally{c.FirstOutcomes, c.Accepted, c.TokenInvalid, c.Rejected, c.Expired, c.Cancelled, c.Repeats}
}

// finished counts an end by the tally's rule, as far as the tally has come.
func (b *broadcast) finished(r *Reconciler, rec *schemas.Record, e *pushv1.DeliveryFinished, late bool) {
	if b.requestedUS == 0 {
		b.requestedUS = e.RequestedAtUs
	}
	if b.app == "" {
		b.app = cloned(e.App)
	}
	t, ok := slot(e.Transport)
	if !ok || rec.Offset >= r.through[rec.Partition] {
		return
	}
	c := &b.part(rec.Partition).counted[t]
	if late {
		c.repeats++
		return
	}
	if e.First {
		c.first++
	}
	switch e.Outcome {
	case pushv1.Outcome_OUTCOME_ACCEPTED:
		c.accepted++
	case pushv1.Outcome_OUTCOME_TOKEN_INVALID:
		c.invalid++
	case pushv1.Outcome_OUTCOME_EXPIRED:
		c.expired++
	case pushv1.Outcome_OUTCOME_CANCELLED:
		c.cancelled++
	default: // finish has made every other one a rejection
		c.rejected++
	}
}

// attempted counts the first word of a send.
func (r *Reconciler) attempted(rec *schemas.Record, e *pushv1.DeliveryAttempted) {
	t, ok := slot(e.Transport)
	id := schemas.IDFrom(e.BroadcastId)
	if !ok || id.IsZero() || !e.First || rec.Offset >= r.through[rec.Partition] || r.late(rec.Partition, e.Transport, e.Source, e.Generation) {
		return
	}
	r.broadcast(id).part(rec.Partition).counted[t].first++
}

// deviceOf is the device of a send: a bulk send's app stands in its key alone.
func deviceOf(e *pushv1.SendRequested, t schemas.Transport, key []byte) schemas.Device {
	d := schemas.Device{App: e.App, Transport: t, Environment: e.Environment, Token: e.Token}
	if d.App == "" {
		app, _, _ := bytes.Cut(key, []byte{0})
		d.App = string(app)
	}
	return d
}

// cloned is a string that outlives its record.
func cloned(s string) string { return strings.Clone(s) }
