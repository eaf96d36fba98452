// Package audit proves from the log what became of everything that was accepted.
package audit

import (
	"fmt"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// Topics are what Reconciler.Apply must be fed with, from their beginnings.
func Topics() []schemas.Topic {
	return []schemas.Topic{schemas.Notifications, schemas.Expansions, schemas.Deliveries}
}

// Totals is where every accepted push is: accepted = delivered + rejected + invalid + expired + cancelled + pending, by construction.
// What must be shown is that pending is what it should be and that nothing is unexplained.
type Totals struct {
	Accepted  int64 `json:"accepted"` // notifications in the log, and sends that broadcasts were expanded to
	Delivered int64 `json:"delivered"`
	Rejected  int64 `json:"rejected"`
	Invalid   int64 `json:"invalid"`
	Expired   int64 `json:"expired"`
	Cancelled int64 `json:"cancelled"`
	Pending   int64 `json:"pending"`
	// Repeats are sends that a provider took again after another owner had finished them or had lost them.
	Repeats int64 `json:"repeats"`
	// Forgotten are those of Accepted whose request the log no longer holds, and of which only the end is left: deliveries are kept
	// longer than notifications and the cursors of ended broadcasts.
	Forgotten int64 `json:"forgotten"`
}

// String is the totals on one line.
func (t Totals) String() string {
	return fmt.Sprintf("accepted=%d delivered=%d rejected=%d invalid=%d expired=%d cancelled=%d pending=%d",
		t.Accepted, t.Delivered, t.Rejected, t.Invalid, t.Expired, t.Cancelled, t.Pending)
}

// Reconciler folds the log into Totals. It holds 16 bytes and a map entry for each finished send and each notification: about 60 bytes.
// Topics may come in any order among themselves. It is not safe for concurrent use.
type Reconciler struct {
	notifications map[schemas.ID]struct{} // by request
	emitted       map[schemas.CursorKey]int64
	unasked       map[schemas.ID]struct{} // requests of finished notifications that were not seen
	ended         map[schemas.ID]int64    // finished sends by broadcast
	forgotten     map[schemas.ID]struct{} // broadcasts whose cursors are being forgotten
	owners        map[source]int64
	finished      map[schemas.ID]schemas.Outcome
	outcomes      map[schemas.Outcome]int64
	repeats       int64
	request       pushv1.NotificationRequested // scratch
}

type source struct {
	transport schemas.Transport
	lane      schemas.Lane
	tier      uint32
	partition int32
}

// NewReconciler returns a Reconciler that has seen nothing.
func NewReconciler() *Reconciler {
	return &Reconciler{
		notifications: map[schemas.ID]struct{}{}, unasked: map[schemas.ID]struct{}{},
		emitted: map[schemas.CursorKey]int64{}, ended: map[schemas.ID]int64{}, forgotten: map[schemas.ID]struct{}{},
		owners:   map[source]int64{},
		finished: map[schemas.ID]schemas.Outcome{},
		outcomes: map[schemas.Outcome]int64{},
	}
}

// Apply takes the next record. It returns the errors of decoding, wrapped.
func (r *Reconciler) Apply(rec schemas.Record) error {
	if k, ok := schemas.ParseCursorKey(rec.Key); ok && rec.Topic == schemas.Expansions && rec.Tombstone() {
		delete(r.emitted, k)
		r.forgotten[k.Broadcast] = struct{}{}
		return nil
	}
	if rec.Topic != topicOf(rec.Type()) {
		return nil // a dead letter of whoever reads that topic
	}
	switch rec.Type() { //nolint:exhaustive // other events say nothing of what became of a push
	case pushv1.EventType_EVENT_TYPE_NOTIFICATION_REQUESTED:
		// What cannot be read was accepted by nobody: it is a dead letter.
		if err := rec.Into(&r.request); err != nil {
			return err
		}
		id := schemas.IDFrom(r.request.RequestId)
		r.request.Reset() // it aliases the record
		r.notifications[id] = struct{}{}
		delete(r.unasked, id)
	case pushv1.EventType_EVENT_TYPE_CURSOR_MOVED:
		var e pushv1.CursorMoved
		if err := rec.Into(&e); err != nil {
			return err
		}
		id := schemas.IDFrom(e.BroadcastId)
		r.emitted[schemas.CursorKey{Broadcast: id, Transport: e.Transport, Range: e.Range}] = e.Emitted
		delete(r.forgotten, id)
	case pushv1.EventType_EVENT_TYPE_OWNER_CHANGED:
		var e pushv1.OwnerChanged
		if err := rec.Into(&e); err != nil {
			return err
		}
		s := source{e.Transport, e.Lane, e.Tier, e.Partition}
		r.owners[s] = max(r.owners[s], e.Generation)
	case pushv1.EventType_EVENT_TYPE_DELIVERY_FINISHED:
		var e pushv1.DeliveryFinished
		if err := rec.Into(&e); err != nil {
			return err
		}
		r.finish(rec.Partition, &e)
	}
	return nil
}

// topicOf is where an event counts.
func topicOf(kind pushv1.EventType) schemas.Topic {
	switch kind { //nolint:exhaustive // as Apply
	case pushv1.EventType_EVENT_TYPE_NOTIFICATION_REQUESTED:
		return schemas.Notifications
	case pushv1.EventType_EVENT_TYPE_CURSOR_MOVED:
		return schemas.Expansions
	case pushv1.EventType_EVENT_TYPE_OWNER_CHANGED, pushv1.EventType_EVENT_TYPE_DELIVERY_FINISHED:
		return schemas.Deliveries
	}
	return ""
}

func (r *Reconciler) finish(partition int32, e *pushv1.DeliveryFinished) {
	id := schemas.IDFrom(e.SendId)
	_, again := r.finished[id]
	old := e.Source.GetLane() != schemas.ByRouter &&
		e.Generation < r.owners[source{e.Transport, e.Source.GetLane(), e.Source.GetTier(), partition}]
	if again || old {
		// Only what a provider took is a push that somebody may see twice.
		if e.Outcome == pushv1.Outcome_OUTCOME_ACCEPTED {
			r.repeats++
		}
		return
	}
	r.finished[id] = e.Outcome
	r.outcomes[e.Outcome]++
	if broadcast := schemas.IDFrom(e.BroadcastId); !broadcast.IsZero() {
		r.ended[broadcast]++
	}
	if request := schemas.IDFrom(e.RequestId); !request.IsZero() {
		if _, asked := r.notifications[request]; !asked {
			r.unasked[request] = struct{}{}
		}
	}
}

// Totals of what was applied so far.
func (r *Reconciler) Totals() Totals {
	t := Totals{
		Accepted:  int64(len(r.notifications)),
		Delivered: r.outcomes[pushv1.Outcome_OUTCOME_ACCEPTED],
		Rejected:  r.outcomes[pushv1.Outcome_OUTCOME_REJECTED],
		Invalid:   r.outcomes[pushv1.Outcome_OUTCOME_TOKEN_INVALID],
		Expired:   r.outcomes[pushv1.Outcome_OUTCOME_EXPIRED],
		Cancelled: r.outcomes[pushv1.Outcome_OUTCOME_CANCELLED],
		Repeats:   r.repeats,
	}
	emitted := map[schemas.ID]int64{}
	for k, n := range r.emitted {
		t.Accepted += n
		emitted[k.Broadcast] += n
	}
	t.Forgotten = int64(len(r.unasked))
	for id, n := range r.ended {
		// A broadcast is forgotten when all of it has finished. Of any other, more ends than sends would be a difference to be seen.
		_, here := emitted[id]
		if _, going := r.forgotten[id]; going || !here {
			t.Forgotten += max(0, n-emitted[id])
		}
	}
	t.Accepted += t.Forgotten
	t.Pending = t.Accepted - t.Delivered - t.Rejected - t.Invalid - t.Expired - t.Cancelled
	return t
}
