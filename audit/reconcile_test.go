package audit_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/campanile-push/campanile/audit"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

const (
	accepted = pushv1.Outcome_OUTCOME_ACCEPTED
	invalid  = pushv1.Outcome_OUTCOME_TOKEN_INVALID
)

func feed(t *testing.T, say func(out *schemas.Out)) audit.Totals {
	t.Helper()
	out := schemas.NewOut(schemas.Layout{Partitions: 2})
	say(out)
	r := audit.NewReconciler()
	var err error
	out.Each(func(topic schemas.Topic, partition int32, key, value []byte) {
		if e := r.Apply(schemas.Record{Topic: topic, Partition: partition, Key: key, Value: value}); e != nil {
			err = e
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return r.Totals()
}

func finished(id byte, lane schemas.Lane, generation int64, o schemas.Outcome) *pushv1.DeliveryFinished {
	send := schemas.ID{id}
	return &pushv1.DeliveryFinished{SendId: send[:], Transport: schemas.FCM, Source: &pushv1.Source{Lane: lane}, Generation: generation, Outcome: o}
}

func TestEveryAcceptedPushIsSomewhere(t *testing.T) {
	t.Parallel()
	owner := func(p int32, generation int64) *pushv1.OwnerChanged {
		return &pushv1.OwnerChanged{Transport: schemas.FCM, Lane: schemas.Bulk, Partition: p, Generation: generation}
	}
	b := schemas.ID{7}
	for name, c := range map[string]struct {
		say  func(out *schemas.Out)
		want audit.Totals
	}{
		"nothing": {func(*schemas.Out) {}, audit.Totals{}},
		"a notification waits, another is refused by the router": {func(out *schemas.Out) {
			for i := range 2 {
				id := schemas.ID{byte(i)}
				out.NotificationRequested(&pushv1.NotificationRequested{RequestId: id[:]})
			}
			out.DeliveryFinished(0, 1, finished(1, schemas.ByRouter, 0, invalid))
			out.DeliveryFinished(0, 1, finished(1, schemas.ByRouter, 0, invalid)) // its batch again, after a crash
		}, audit.Totals{Accepted: 2, Invalid: 1, Pending: 1}},
		"a cursor counts by its last record": {func(out *schemas.Out) {
			out.CursorMoved(&pushv1.CursorMoved{BroadcastId: b[:], Transport: schemas.FCM, Emitted: 2})
			out.CursorMoved(&pushv1.CursorMoved{BroadcastId: b[:], Transport: schemas.FCM, Emitted: 3})
			out.CursorMoved(&pushv1.CursorMoved{BroadcastId: b[:], Transport: schemas.APNS, Emitted: 1})
			out.OwnerChanged(owner(0, 1))
			out.DeliveryFinished(0, 1, finished(1, schemas.Bulk, 1, accepted))
		}, audit.Totals{Accepted: 4, Delivered: 1, Pending: 3}},
		"what an older owner finishes is a repeat, in its own partition only": {func(out *schemas.Out) {
			out.CursorMoved(&pushv1.CursorMoved{BroadcastId: b[:], Transport: schemas.FCM, Emitted: 2})
			out.OwnerChanged(owner(0, 1))
			out.OwnerChanged(owner(0, 2))
			out.OwnerChanged(owner(0, 1)) // late, and no owner any more
			out.DeliveryFinished(0, 1, finished(1, schemas.Bulk, 1, accepted))
			out.DeliveryFinished(0, 1, finished(1, schemas.Bulk, 2, accepted))
			out.DeliveryFinished(1, 2, finished(2, schemas.Bulk, 1, accepted))
		}, audit.Totals{Accepted: 2, Delivered: 2, Repeats: 1}},
		"of what is forgotten, the ends are left": {func(out *schemas.Out) {
			other, waits := schemas.ID{8}, schemas.ID{9}
			bulk := func(id byte, broadcast schemas.ID) {
				e := finished(id, schemas.Bulk, 1, accepted)
				e.BroadcastId = broadcast[:]
				out.DeliveryFinished(0, 1, e)
			}
			bulk(1, b) // its cursors are compacted away
			bulk(2, other)
			bulk(3, other)
			for _, tr := range schemas.Transports {
				out.CursorMoved(&pushv1.CursorMoved{BroadcastId: other[:], Transport: tr, Emitted: 1})
			}
			out.ForgetCursor(schemas.CursorKey{Broadcast: other, Transport: schemas.FCM}) // and the other one is next
			direct := finished(4, schemas.Direct, 1, accepted)
			direct.RequestId = b[:]
			out.DeliveryFinished(0, 1, direct) // retention was faster with its request
			out.NotificationRequested(&pushv1.NotificationRequested{RequestId: waits[:]})
		}, audit.Totals{Accepted: 5, Delivered: 4, Pending: 1, Forgotten: 3}},
		"an end before its request": {func(out *schemas.Out) {
			direct := finished(4, schemas.Direct, 1, accepted)
			direct.RequestId = b[:]
			out.DeliveryFinished(0, 1, direct)
			out.NotificationRequested(&pushv1.NotificationRequested{RequestId: b[:]})
		}, audit.Totals{Accepted: 1, Delivered: 1}},
		"more ends than sends are no forgotten ones": {func(out *schemas.Out) {
			out.CursorMoved(&pushv1.CursorMoved{BroadcastId: b[:], Transport: schemas.FCM, Emitted: 1})
			for id := range byte(2) {
				e := finished(id, schemas.Bulk, 1, accepted)
				e.BroadcastId = b[:]
				out.DeliveryFinished(0, 1, e)
			}
		}, audit.Totals{Accepted: 1, Delivered: 2, Pending: -1}},
		"a send finished twice by its owner counts once": {func(out *schemas.Out) {
			out.CursorMoved(&pushv1.CursorMoved{BroadcastId: b[:], Transport: schemas.FCM, Emitted: 1})
			out.DeliveryFinished(0, 1, finished(1, schemas.Bulk, 1, accepted))
			out.DeliveryFinished(0, 1, finished(1, schemas.Bulk, 1, accepted))
		}, audit.Totals{Accepted: 1, Delivered: 1, Repeats: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(c.want, feed(t, c.say)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestUnreadableRecordsWereNeverAccepted: they are dead letters, and nobody waits for them.
func TestUnreadableRecordsWereNeverAccepted(t *testing.T) {
	t.Parallel()
	r := audit.NewReconciler()
	for topic, kind := range map[schemas.Topic]pushv1.EventType{
		schemas.Notifications: pushv1.EventType_EVENT_TYPE_NOTIFICATION_REQUESTED,
		schemas.Expansions:    pushv1.EventType_EVENT_TYPE_CURSOR_MOVED,
		schemas.Deliveries:    pushv1.EventType_EVENT_TYPE_DELIVERY_FINISHED,
	} {
		if err := r.Apply(schemas.Record{Topic: topic, Value: []byte{byte(kind), 0xff, 0xff}}); !errors.Is(err, schemas.ErrMalformed) {
			t.Errorf("%s: want ErrMalformed, got %v", topic, err)
		}
	}
	for _, kind := range []pushv1.EventType{pushv1.EventType_EVENT_TYPE_NOTIFICATION_REQUESTED, pushv1.EventType_EVENT_TYPE_DELIVERY_FINISHED} {
		if err := r.Apply(schemas.Record{Topic: schemas.Expansions, Value: []byte{byte(kind)}}); err != nil {
			t.Errorf("an event that does not belong there: %v", err)
		}
	}
	if diff := cmp.Diff(audit.Totals{}, r.Totals()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
