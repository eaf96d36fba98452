// Package audit proves from the log what became of everything that was accepted, and builds anew what is derived from it.
package audit

import (
	"math"
	"time"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// Topics are what Reconciler.Apply must be fed with for its Totals, from their beginnings.
func Topics() []schemas.Topic {
	return []schemas.Topic{schemas.Notifications, schemas.Expansions, schemas.Deliveries, schemas.DeadLetters}
}

// Reconciler folds the log into Totals, and marks what does not fit. It holds 15 to 18 bytes for each notification and each ended send
// (table), and what it knows of each broadcast. Topics may come in any order among themselves. It is not safe for concurrent use.
type Reconciler struct {
	fromUS, toUS int64           // requests of this time count: [from, to)
	overdueUS    int64           // what was asked for before should have ended; 0: nothing
	routed       []int64         // by partition of notifications: where the direct router was, before anything was read
	expanded     []int64         // by partition of expansions: its end, before the sends were read
	through      map[int32]int64 // by partition of deliveries: where the tally was
	found        *found
	starts       map[schemas.Topic][]int64 // of the topics read, where Prove knows them
	firstUS      map[place2]int64          // times of the first records that are left, where some are gone

	pushes     table
	broadcasts map[schemas.ID]*broadcast
	lastID     schemas.ID // of last: most ends of a batch are of one broadcast
	last       *broadcast
	owners     map[source]int64
	digests    digests

	asked, unasked int64 // notifications, and direct sends that ended and were not asked for
	dead           int64 // notifications that are dead letters, and have not ended
	outcomes       [16]int64
	repeats        int64

	request  pushv1.NotificationRequested // scratch
	send     pushv1.SendRequested
	finished pushv1.DeliveryFinished
	attempt  pushv1.DeliveryAttempted
	lettered pushv1.DeadLettered
}

// What a push's value in the table says. Above these bits stand the outcome, and a mark of who finished it.
const (
	isAsked   uint32 = 1 << iota // its notification is in the log
	isEnded                      // it finished
	isWaiting                    // a topic of sends holds it
	isRouted                     // the direct router is past its notification
	isOverdue                    // it is older than any sender works on it
	isDirect
	isNamed      // it is among the differences
	isLettered   // the direct router made a dead letter of its notification
	outcomeShift = 8
	markShift    = 12
)

type source struct {
	partition int32
	transport schemas.Transport
	lane      schemas.Lane
	tier      uint32
}

// place2 is a partition of a topic.
type place2 struct {
	topic     schemas.Topic
	partition int32
}

// NewReconciler returns a Reconciler of all requests, which has seen nothing.
func NewReconciler() *Reconciler {
	return &Reconciler{
		fromUS: math.MinInt64, toUS: math.MaxInt64, found: newFound(0), starts: map[schemas.Topic][]int64{}, firstUS: map[place2]int64{},
		broadcasts: map[schemas.ID]*broadcast{}, owners: map[source]int64{},
	}
}

// Apply takes the next record. It returns the errors of decoding, wrapped.
func (r *Reconciler) Apply(rec schemas.Record) error {
	r.first(&rec)
	switch rec.Topic { //nolint:exhaustive // the topics of sends have many names
	case schemas.Notifications:
		return r.notification(&rec)
	case schemas.Expansions:
		return r.expansion(&rec)
	case schemas.Broadcasts:
		return r.broadcastSaid(&rec)
	case schemas.Progress:
		return r.progressed(&rec)
	case schemas.Deliveries:
		return r.delivery(&rec)
	case schemas.DeadLetters:
		return r.letter(&rec)
	}
	if s, ok := schemas.ParseSendTopic(rec.Topic); ok {
		return r.waits(s, &rec)
	}
	return nil
}

// first keeps the time of the first record of a partition that has lost its beginning.
func (r *Reconciler) first(rec *schemas.Record) {
	starts := r.starts[rec.Topic]
	if int(rec.Partition) >= len(starts) || starts[rec.Partition] == 0 {
		return
	}
	at := place2{rec.Topic, rec.Partition}
	if _, seen := r.firstUS[at]; !seen {
		r.firstUS[at] = rec.TimeUS
	}
}

// wholeSince is the time after which the log holds every record of a topic; the least time where nothing was deleted.
func (r *Reconciler) wholeSince(topic schemas.Topic) int64 {
	since := int64(math.MinInt64)
	for p, start := range r.starts[topic] {
		if start == 0 {
			continue
		}
		at, left := r.firstUS[place2{topic, int32(p)}]
		if !left {
			return math.MaxInt64 // nothing is left to tell the time by
		}
		since = max(since, at)
	}
	return since
}

func (r *Reconciler) in(us int64) bool { return us >= r.fromUS && us < r.toUS }

func (r *Reconciler) notification(rec *schemas.Record) error {
	if rec.Type() != pushv1.EventType_EVENT_TYPE_NOTIFICATION_REQUESTED {
		return nil // a dead letter of who reads that topic
	}
	// What cannot be read was accepted by nobody: it is a dead letter.
	if err := rec.Into(&r.request); err != nil {
		return err
	}
	id, at := schemas.IDFrom(r.request.RequestId), r.request.RequestedAtUs
	r.request.Reset() // it aliases the record
	if !r.in(at) {
		return nil
	}
	push := r.pushes.at(id)
	if *push&isAsked != 0 {
		return nil
	}
	if *push&isEnded != 0 {
		r.unasked--
	}
	*push |= isAsked | isDirect
	r.asked++
	if isDead(*push) {
		r.dead++
	}
	if int(rec.Partition) < len(r.routed) && rec.Offset < r.routed[rec.Partition] {
		*push |= isRouted
	}
	if at != 0 && at < r.overdueUS {
		*push |= isOverdue
	}
	return nil
}

// letter marks a notification that the direct router could not handle: no send comes of it. The letter has its key, which is its id.
func (r *Reconciler) letter(rec *schemas.Record) error {
	if rec.Type() != pushv1.EventType_EVENT_TYPE_DEAD_LETTERED {
		return nil
	}
	e := &r.lettered
	if err := rec.Into(e); err != nil {
		return err
	}
	defer e.Reset() // it aliases the record
	if e.Topic != string(schemas.Notifications) || len(e.Key) != len(schemas.ID{}) {
		return nil
	}
	id := schemas.IDFrom(e.Key)
	push := r.pushes.at(id)
	if *push&isLettered != 0 {
		return nil // the router's batch again, after a crash
	}
	*push |= isLettered
	if isDead(*push) {
		r.dead++
	}
	return nil
}

// isDead reports whether a push was asked for, became a dead letter, and has no end of another kind.
func isDead(push uint32) bool { return push&(isAsked|isLettered|isEnded) == isAsked|isLettered }

// waits marks a send that its topic still holds. It may have ended long ago: topics of sends forget late.
func (r *Reconciler) waits(topic schemas.SendTopic, rec *schemas.Record) error {
	if rec.Tombstone() || rec.Type() != pushv1.EventType_EVENT_TYPE_SEND_REQUESTED {
		return nil
	}
	if err := rec.Into(&r.send); err != nil {
		return err
	}
	defer r.send.Reset() // it aliases the record
	id := pushOf(&r.send, topic.Transport, rec.Key)
	since := r.send.RequestedAtUs
	broadcast := schemas.IDFrom(r.send.BroadcastId)
	if broadcast.IsZero() && !r.in(since) {
		return nil
	}
	if since == 0 {
		since = rec.TimeUS
	}
	push := r.pushes.at(id)
	if since < r.overdueUS {
		*push |= isOverdue
	}
	if *push&isWaiting != 0 {
		return nil
	}
	*push |= isWaiting
	if broadcast.IsZero() {
		*push |= isDirect
		return nil
	}
	if t, ok := slot(topic.Transport); ok && *push&isEnded == 0 {
		r.broadcast(broadcast).waiting[t]++
	}
	return nil
}

// pushOf is the id under which a push stands in the table: the request's of a direct one, whose send follows from it, else the send's.
func pushOf(e *pushv1.SendRequested, t schemas.Transport, key []byte) schemas.ID {
	if id := schemas.IDFrom(e.RequestId); !id.IsZero() {
		return id
	}
	if id := schemas.IDFrom(e.SendId); !id.IsZero() {
		return id
	}
	return schemas.BulkSendID(schemas.IDFrom(e.BroadcastId), deviceOf(e, t, key))
}

func (r *Reconciler) delivery(rec *schemas.Record) error {
	switch rec.Type() { //nolint:exhaustive // others are dead letters of who reads that topic
	case pushv1.EventType_EVENT_TYPE_OWNER_CHANGED:
		var e pushv1.OwnerChanged
		if err := rec.Into(&e); err != nil {
			return err
		}
		s := source{e.Partition, e.Transport, e.Lane, e.Tier}
		r.owners[s] = max(r.owners[s], e.Generation)
	case pushv1.EventType_EVENT_TYPE_DELIVERY_ATTEMPTED:
		if err := rec.Into(&r.attempt); err != nil {
			return err
		}
		r.attempted(rec, &r.attempt)
		r.attempt.Reset() // it aliases the record
	case pushv1.EventType_EVENT_TYPE_DELIVERY_FINISHED:
		if err := rec.Into(&r.finished); err != nil {
			return err
		}
		r.finish(rec, &r.finished)
		r.finished.Reset()
	}
	return nil
}

// late reports whether a newer owner had taken the source over when the record was written. What the router itself finished has no owner.
func (r *Reconciler) late(partition int32, t schemas.Transport, s *pushv1.Source, generation int64) bool {
	return s.GetLane() != schemas.ByRouter && generation < r.owners[source{partition, t, s.GetLane(), s.GetTier()}]
}

func (r *Reconciler) finish(rec *schemas.Record, e *pushv1.DeliveryFinished) {
	if !e.Outcome.Final() { // of a newer sender; tally and ClickHouse count it so too
		e.Outcome = pushv1.Outcome_OUTCOME_REJECTED
	}
	late := r.late(rec.Partition, e.Transport, e.Source, e.Generation)
	of := schemas.IDFrom(e.BroadcastId)
	if !of.IsZero() {
		r.broadcast(of).finished(r, rec, e, late)
	}
	if !r.in(e.RequestedAtUs) {
		return
	}
	r.digests.add(rec, e, late)
	id := schemas.IDFrom(e.RequestId)
	direct := !id.IsZero()
	if !direct {
		id = schemas.IDFrom(e.SendId)
	}
	push := r.pushes.at(id)
	if late || *push&isEnded != 0 {
		// Only what a provider took is a push that somebody may see twice.
		if e.Outcome == pushv1.Outcome_OUTCOME_ACCEPTED {
			r.repeats++
		}
		if !late {
			r.again(rec, e, *push)
		}
		return
	}
	if isDead(*push) {
		r.dead--
	}
	*push |= isEnded | uint32(e.Outcome)<<outcomeShift | markOf(rec.Partition, e)<<markShift
	r.outcomes[e.Outcome&15]++
	if t, ok := slot(e.Transport); ok && !of.IsZero() {
		b := r.broadcast(of)
		b.ends[t]++
		if *push&isWaiting != 0 {
			b.waiting[t]--
		}
	}
	if direct {
		*push |= isDirect
		if *push&isAsked == 0 {
			r.unasked++
		}
	}
}

// again looks at a send that ended once more, and not by an owner of before. The direct router may: it is at-least-once, and what it refuses
// after a crash it refuses again.
func (r *Reconciler) again(rec *schemas.Record, e *pushv1.DeliveryFinished, before uint32) {
	mark := markOf(rec.Partition, e)
	was := schemas.Outcome(before >> outcomeShift & 15).Word()
	detail := "its end by an earlier owner was in the log: " + was + " before"
	switch old := before >> markShift; {
	case mark == byRouter && old == byRouter:
		return
	case mark == byRouter || old == byRouter:
		detail = "once by the router and once by a sender: " + was + " before"
	case mark == old:
		detail = "in one generation: " + was + " before"
	}
	r.found.add(Difference{
		Kind: FinishedTwice, Request: text(schemas.IDFrom(e.RequestId)), Broadcast: text(schemas.IDFrom(e.BroadcastId)), Send: text(schemas.IDFrom(e.SendId)),
		App: cloned(e.App), Transport: e.Transport.Word(), Outcome: e.Outcome.Word(), Place: place(rec.Topic, rec.Partition, rec.Offset), Detail: detail,
	})
}

// byRouter marks what the direct router finished.
const byRouter = 1

// markOf is 20 bits of who finished a send: the source and its owner's generation.
func markOf(partition int32, e *pushv1.DeliveryFinished) uint32 {
	if e.Source.GetLane() == schemas.ByRouter {
		return byRouter
	}
	h := uint64(e.Generation)*0x9e3779b97f4a7c15 ^ uint64(partition)<<40 ^ uint64(e.Transport)<<20 ^ uint64(e.Source.GetLane())<<10 ^ uint64(e.Source.GetTier())
	h = (h ^ h>>29) * 0xbf58476d1ce4e5b9
	return max(uint32(h>>markShift)>>markShift, 2)
}

// Totals of what was applied so far.
func (r *Reconciler) Totals() Totals {
	t := Totals{
		Accepted:  r.asked,
		Delivered: r.outcomes[pushv1.Outcome_OUTCOME_ACCEPTED],
		Rejected:  r.outcomes[pushv1.Outcome_OUTCOME_REJECTED],
		Invalid:   r.outcomes[pushv1.Outcome_OUTCOME_TOKEN_INVALID],
		Expired:   r.outcomes[pushv1.Outcome_OUTCOME_EXPIRED],
		Cancelled: r.outcomes[pushv1.Outcome_OUTCOME_CANCELLED],
		Dead:      r.dead,
		Repeats:   r.repeats,
		Forgotten: r.unasked,
	}
	for _, b := range r.broadcasts {
		if !b.counts(r) {
			continue
		}
		emitted, ended := b.emitted(), b.ends[0]+b.ends[1]
		t.Accepted += emitted
		// A broadcast is forgotten when all of it has finished. Of any other, more ends than sends would be a difference to be seen.
		if b.forgotten || len(b.cursors) == 0 {
			t.Forgotten += max(0, ended-emitted)
		}
	}
	t.Accepted += t.Forgotten
	t.Pending = t.Accepted - t.Delivered - t.Rejected - t.Invalid - t.Expired - t.Cancelled - t.Dead
	return t
}

// sinceUS is a bound of the time range; a zero time is none.
func sinceUS(t time.Time, none int64) int64 {
	if t.IsZero() {
		return none
	}
	return t.UnixMicro()
}
