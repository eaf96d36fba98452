package senders

import (
	"errors"
	"testing"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// told is the log of some broadcasts, as records.
func told(say func(out *schemas.Out)) (records []schemas.Record) {
	out := schemas.NewOut(schemas.Layout{Partitions: 1})
	say(out)
	out.Each(func(topic schemas.Topic, partition int32, key, value []byte) {
		records = append(records, schemas.Record{Topic: topic, Partition: partition, Offset: int64(len(records)), Key: key, Value: value})
	})
	return records
}

// TestABroadcastsLifeInTheCatalog tells it step by step.
func TestABroadcastsLifeInTheCatalog(t *testing.T) {
	t.Parallel()
	c := NewCatalog()
	id, winner, loser := schemas.NewID(), schemas.NewID(), schemas.NewID()
	content := func(record schemas.ID, text string) *pushv1.BroadcastRequested {
		return &pushv1.BroadcastRequested{
			BroadcastId: id[:], RecordId: record[:], App: "campus", RequestedAtUs: 5, SendAtUs: 9,
			Content: &pushv1.Content{Text: text},
		}
	}
	key := func(kind schemas.BroadcastKind, record schemas.ID) schemas.BroadcastKey {
		return schemas.BroadcastKey{Broadcast: id, Kind: kind, Record: record}
	}
	for _, step := range []struct {
		name      string
		say       func(out *schemas.Out)
		text      string // "": not found
		cancelled bool
		entries   int
	}{
		{"first record", func(o *schemas.Out) { o.BroadcastRequested(content(winner, "one")) }, "one", false, 1},
		{"second record", func(o *schemas.Out) { o.BroadcastRequested(content(loser, "two")) }, "one", false, 1},
		{"loser forgotten", func(o *schemas.Out) { o.ForgetBroadcastRecord(key(schemas.BroadcastContent, loser)) }, "one", false, 1},
		{"cancelled", func(o *schemas.Out) { o.BroadcastCancelled(&pushv1.BroadcastCancelled{BroadcastId: id[:]}) }, "one", true, 1},
		{"ended", func(o *schemas.Out) { o.BroadcastEnded(&pushv1.BroadcastEnded{BroadcastId: id[:]}) }, "", false, 1},
		{"asked for again after its end", func(o *schemas.Out) { o.BroadcastRequested(content(loser, "two")) }, "", false, 1},
		{"content forgotten", func(o *schemas.Out) { o.ForgetBroadcastRecord(key(schemas.BroadcastContent, winner)) }, "", false, 1},
		{"state forgotten", func(o *schemas.Out) { o.ForgetBroadcastRecord(key(schemas.BroadcastState, schemas.ID{})) }, "", false, 0},
	} {
		for _, r := range told(step.say) {
			if err := c.ApplyBroadcasts(r); err != nil {
				t.Fatal(err)
			}
		}
		b, ok := c.find(id)
		if ok != (step.text != "") || ok && (b.content.raw.Text != step.text || b.cancelled != step.cancelled || b.requested != 9) {
			t.Errorf("%s: want %q cancelled=%v, got %+v", step.name, step.text, step.cancelled, b)
		}
		if c.Len() != step.entries {
			t.Errorf("%s: want %d entries, got %d", step.name, step.entries, c.Len())
		}
	}
}

func TestAnUnknownEventStopsTheCatalog(t *testing.T) {
	t.Parallel()
	c := NewCatalog()
	if err := c.ApplyBroadcasts(schemas.Record{Topic: schemas.Broadcasts, Value: []byte{126}}); !errors.Is(err, schemas.ErrUnknownType) {
		t.Errorf("want ErrUnknownType, got %v", err)
	}
	if err := c.ApplyBroadcasts(schemas.Record{Topic: schemas.Broadcasts, Value: []byte{48, 0xff}}); !errors.Is(err, schemas.ErrMalformed) {
		t.Errorf("want ErrMalformed, got %v", err)
	}
}
