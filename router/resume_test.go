package router_test

import (
	"encoding/binary"
	"testing"

	"github.com/campanile-push/campanile/router"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// recordsOf are the records that one batch of events becomes, with offsets counted for each partition.
func recordsOf(t *testing.T, say func(out *schemas.Out)) []schemas.Record {
	t.Helper()
	out := schemas.NewOut(schemas.Layout{Partitions: 1})
	say(out)
	next := map[schemas.Topic]int64{}
	var records []schemas.Record
	out.Each(func(topic schemas.Topic, partition int32, key, value []byte) {
		records = append(records, schemas.Record{Topic: topic, Partition: partition, Offset: next[topic], Key: key, Value: value})
		next[topic]++
	})
	return records
}

func requestOf(i int) []byte {
	id := schemas.ID{1}
	binary.BigEndian.PutUint64(id[8:], uint64(i))
	return id[:]
}

func TestResumeIsTheFirstNotificationThatWasNotRouted(t *testing.T) {
	t.Parallel()
	const reach = 20_000 // two polls
	routed := func(out *schemas.Out, from, to int) {
		for i := from; i < to; i++ {
			switch i % 4 {
			case 0:
				out.SendRequested(schemas.Direct, schemas.Device{App: "a", Transport: schemas.FCM, Token: "t"}, &pushv1.SendRequested{RequestId: requestOf(i)})
			case 1:
				out.DeliveryFinished(0, 1, &pushv1.DeliveryFinished{RequestId: requestOf(i)})
			case 2:
				out.DeadLettered(&pushv1.DeadLettered{Topic: string(schemas.Notifications), Offset: int64(i)})
			case 3: // a retry
				send := schemas.SendTopic{Transport: schemas.APNS, Lane: schemas.Direct, Tier: 2}
				out.Retry(send, 0, []byte("key"), &pushv1.SendRequested{RequestId: requestOf(i)})
			}
		}
	}
	for name, c := range map[string]struct {
		answers func(out *schemas.Out)
		asked   int
		want    router.ResumePlace
		none    bool
	}{
		"nothing was asked":  {func(*schemas.Out) {}, 0, router.ResumePlace{}, true},
		"nothing is routed":  {func(*schemas.Out) {}, 3, router.ResumePlace{}, false},
		"everything is":      {func(out *schemas.Out) { routed(out, 0, 8) }, 8, router.ResumePlace{Offset: 8}, false},
		"all but the end is": {func(out *schemas.Out) { routed(out, 0, 5) }, 9, router.ResumePlace{Offset: 5}, false},
		"a killed router had handed on a part of its batch": {func(out *schemas.Out) {
			routed(out, 0, 5)
			routed(out, 7, 9)
		}, 12, router.ResumePlace{Offset: 5, Again: 2}, false},
		"what has no answer far behind was routed, and its answer is gone": {func(out *schemas.Out) {
			routed(out, 3, reach+10)
		}, reach + 20, router.ResumePlace{Offset: reach + 10}, false},
		"another topic's dead letter is no answer": {func(out *schemas.Out) {
			out.DeadLettered(&pushv1.DeadLettered{Topic: string(schemas.Deliveries)})
		}, 1, router.ResumePlace{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := router.NewResume()
			for _, rec := range recordsOf(t, c.answers) {
				if err := r.Answered(rec); err != nil {
					t.Fatal(err)
				}
			}
			for _, rec := range recordsOf(t, func(out *schemas.Out) {
				for i := range c.asked {
					out.NotificationRequested(&pushv1.NotificationRequested{RequestId: requestOf(i)})
				}
			}) {
				if err := r.Asked(rec); err != nil {
					t.Fatal(err)
				}
			}
			got, ok := r.Place(0)
			if got != c.want || ok == c.none {
				t.Errorf("want %+v, got %+v, %v", c.want, got, ok)
			}
		})
	}
}

// TestResumeSurvivesWhatCannotBeRead: an unreadable answer answers nothing, and an unreadable notification is still to be routed.
func TestResumeSurvivesWhatCannotBeRead(t *testing.T) {
	t.Parallel()
	r := router.NewResume()
	for _, topic := range router.ResumeTopics() {
		for _, kind := range []pushv1.EventType{
			pushv1.EventType_EVENT_TYPE_SEND_REQUESTED, pushv1.EventType_EVENT_TYPE_DELIVERY_FINISHED, pushv1.EventType_EVENT_TYPE_DEAD_LETTERED,
		} {
			if err := r.Answered(schemas.Record{Topic: topic, Value: []byte{byte(kind), 0xff, 0xff}}); err != nil {
				t.Errorf("%s: %v", topic, err)
			}
		}
	}
	if err := r.Asked(schemas.Record{Topic: schemas.Notifications, Offset: 7, Value: []byte{0xff, 0xff}}); err != nil {
		t.Fatal(err)
	}
	if got, ok := r.Place(0); !ok || got != (router.ResumePlace{Offset: 7}) {
		t.Errorf("want offset 7, got %+v, %v", got, ok)
	}
}

func TestResumeTopicsMeetASendWhereverItMovesTo(t *testing.T) {
	t.Parallel()
	last := map[schemas.Topic]int{}
	topics := router.ResumeTopics()
	for i, topic := range topics {
		last[topic] = i
	}
	for _, transport := range schemas.Transports {
		before := -1
		for _, s := range schemas.SendTopics(transport, schemas.Direct) {
			at, ok := last[s.Topic()]
			if !ok || at < before {
				t.Errorf("%s: read at %d, and what comes before it at %d", s.Topic(), at, before)
			}
			before = at
		}
	}
	if topics[len(topics)-1] != schemas.Deliveries {
		t.Errorf("deliveries, where all ends, is not read last: %v", topics)
	}
}
