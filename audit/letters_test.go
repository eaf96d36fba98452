package audit_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/campanile-push/campanile/audit"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// letter says the dead letter of a topic's record, as the log does.
func (h *house) letter(topic schemas.Topic, partition int32, offset int64, key []byte) {
	h.say(func(out *schemas.Out) {
		out.DeadLettered(&pushv1.DeadLettered{Topic: string(topic), Partition: partition, Offset: offset, Stage: "router.direct", Reason: "it cannot be", Key: key})
	})
}

// TestADeadLetterIsAClassOfItsOwn: it waits nowhere, and is not lost, however old it is.
func TestADeadLetterIsAClassOfItsOwn(t *testing.T) {
	t.Parallel()
	dead, ended, unknown := schemas.ID{4, 15: 4}, schemas.ID{5, 15: 5}, schemas.ID{6, 15: 6}
	h := newHouse()
	h.end(4, 1, accepted)
	h.tally(0)
	h.request(dead)
	h.request(ended)
	h.letter(schemas.Notifications, 1, 7, dead[:])
	h.letter(schemas.Notifications, 1, 7, dead[:]) // the router's batch again, after a crash
	h.letter(schemas.Notifications, 0, 3, ended[:])
	h.directEnd(ended, schemas.Direct, 1, accepted)             // by a router that could, later
	h.letter(schemas.Notifications, 0, 1, unknown[:])           // its notification could not be decoded: nobody accepted it
	h.letter(schemas.Deliveries, 0, 1, ask[:])                  // of another reader
	h.letter(schemas.Notifications, 0, 1, []byte("no id"))      // of another writer
	h.request(schemas.ID{7, 15: 7})                             // lost, beside it
	h.letter(schemas.Topic("sends.fcm.direct"), 0, 1, ended[:]) // of a sender
	r := h.prove(t, func(o *audit.Options) { o.Now = func() time.Time { return time.UnixMicro(hour(3)) } })
	want := audit.Totals{Accepted: audience + 4, Delivered: audience + 2, Dead: 1, Pending: 1}
	if diff := cmp.Diff(want, r.Totals); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	letters := []audit.Letter{{Request: dead.String(), Place: "deadletters[1]@0", Of: "notifications[1]@7", Stage: "router.direct"}}
	if diff := cmp.Diff(letters, r.DeadLetters); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(r.Differences) != 1 || r.Differences[0].Kind != audit.Lost {
		t.Errorf("want the lost one alone, got %v", r.Differences)
	}
}

// TestDeadLettersCountInAnyOrder: topics come in any order.
func TestDeadLettersCountInAnyOrder(t *testing.T) {
	t.Parallel()
	id := schemas.ID{1}
	steps := map[string]func(out *schemas.Out){
		"letter": func(out *schemas.Out) {
			out.DeadLettered(&pushv1.DeadLettered{Topic: string(schemas.Notifications), Key: id[:]})
		},
		"request": func(out *schemas.Out) { out.NotificationRequested(&pushv1.NotificationRequested{RequestId: id[:]}) },
		"end": func(out *schemas.Out) {
			e := finished(1, schemas.ByRouter, 0, invalid)
			e.RequestId = id[:]
			out.DeliveryFinished(0, 1, e)
		},
	}
	for _, c := range []struct {
		order []string
		want  audit.Totals
	}{
		{[]string{"letter"}, audit.Totals{}},
		{[]string{"letter", "request"}, audit.Totals{Accepted: 1, Dead: 1}},
		{[]string{"request", "letter", "letter"}, audit.Totals{Accepted: 1, Dead: 1}},
		{[]string{"request", "letter", "end"}, audit.Totals{Accepted: 1, Invalid: 1}},
		{[]string{"end", "letter", "request"}, audit.Totals{Accepted: 1, Invalid: 1}},
		{[]string{"letter", "end", "request"}, audit.Totals{Accepted: 1, Invalid: 1}},
	} {
		got := feed(t, func(out *schemas.Out) {
			for _, step := range c.order {
				steps[step](out)
			}
		})
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%v (-want +got):\n%s", c.order, diff)
		}
	}
}
