package router_test

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/campanile-push/campanile/router"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

func TestStateTellsNewerEventsFromMalformedOnes(t *testing.T) {
	t.Parallel()
	id, record := schemas.NewID(), schemas.NewID()
	content := schemas.BroadcastKey{Broadcast: id, Kind: schemas.BroadcastContent, Record: record}.String()
	request := func(change func(*pushv1.BroadcastRequested)) []byte {
		e := &pushv1.BroadcastRequested{BroadcastId: id[:], RecordId: record[:], App: "app", Channels: []string{"c"}, Ranges: 1}
		change(e)
		return schemas.AppendEvent(nil, e)
	}
	cursor := schemas.CursorKey{Broadcast: id, Transport: schemas.FCM}.String()
	progress := schemas.ProgressKey{Broadcast: id, Partition: 1}.String()
	for name, c := range map[string]struct {
		topic schemas.Topic
		key   string
		value []byte
		want  error
	}{
		"a request":                      {schemas.Broadcasts, content, request(func(*pushv1.BroadcastRequested) {}), nil},
		"a newer event":                  {schemas.Broadcasts, content, []byte{120}, schemas.ErrUnknownType},
		"a newer event under a new key":  {schemas.Broadcasts, id.String() + "/mood", []byte{120}, schemas.ErrUnknownType},
		"an event under another's key":   {schemas.Broadcasts, id.String() + "/run", request(func(*pushv1.BroadcastRequested) {}), schemas.ErrMalformed},
		"no key":                         {schemas.Broadcasts, "", request(func(*pushv1.BroadcastRequested) {}), schemas.ErrMalformed},
		"three ranges":                   {schemas.Broadcasts, content, request(func(e *pushv1.BroadcastRequested) { e.Ranges = 3 }), schemas.ErrMalformed},
		"more ranges than shards":        {schemas.Broadcasts, content, request(func(e *pushv1.BroadcastRequested) { e.Ranges = 512 }), schemas.ErrMalformed},
		"no channel":                     {schemas.Broadcasts, content, request(func(e *pushv1.BroadcastRequested) { e.Channels = nil }), schemas.ErrMalformed},
		"a cursor":                       {schemas.Expansions, cursor, schemas.AppendEvent(nil, &pushv1.CursorMoved{}), nil},
		"a newer event in expansions":    {schemas.Expansions, cursor, []byte{120}, schemas.ErrUnknownType},
		"no cursor":                      {schemas.Expansions, cursor, schemas.AppendEvent(nil, &pushv1.OwnerChanged{}), schemas.ErrMalformed},
		"a cursor under no key":          {schemas.Expansions, "x", schemas.AppendEvent(nil, &pushv1.CursorMoved{}), schemas.ErrMalformed},
		"counts":                         {schemas.Progress, progress, schemas.AppendEvent(nil, &pushv1.ProgressCounted{}), nil},
		"a newer event in progress":      {schemas.Progress, progress, []byte{120}, schemas.ErrUnknownType},
		"what tally remembers":           {schemas.Progress, "!owners/3", schemas.AppendEvent(nil, &pushv1.TallyOwnersSeen{}), nil},
		"no counts":                      {schemas.Progress, progress, schemas.AppendEvent(nil, &pushv1.CursorMoved{}), schemas.ErrMalformed},
		"a topic that nobody asked for":  {schemas.Devices, "x", []byte{1}, schemas.ErrMalformed},
		"a tombstone of what never was":  {schemas.Broadcasts, content, nil, nil},
		"a tombstone of no cursor":       {schemas.Expansions, cursor, nil, nil},
		"a tombstone of nobody's counts": {schemas.Progress, progress, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			state := router.NewState(router.StateOptions{}, schemas.Layout{Partitions: 4})
			err := state.Apply(schemas.Record{Topic: c.topic, Key: []byte(c.key), Value: c.value})
			if !errors.Is(err, c.want) {
				t.Errorf("want %v, got %v", c.want, err)
			}
			if _, there := state.Broadcast(id); there != (name == "a request") {
				t.Errorf("want the state untouched, found the broadcast: %v", there)
			}
		})
	}
}

func FuzzStateApply(f *testing.F) {
	id, record := schemas.NewID(), schemas.NewID()
	out := schemas.NewOut(schemas.Layout{Partitions: 1})
	out.BroadcastRequested(&pushv1.BroadcastRequested{BroadcastId: id[:], RecordId: record[:], App: "a", Channels: []string{"c"}})
	out.BroadcastRateChanged(&pushv1.BroadcastRateChanged{BroadcastId: id[:], Rate: 3})
	out.BroadcastEnded(&pushv1.BroadcastEnded{BroadcastId: id[:]})
	out.CursorMoved(&pushv1.CursorMoved{BroadcastId: id[:], Transport: schemas.APNS, Emitted: 4, Done: true})
	out.ProgressCounted(&pushv1.ProgressCounted{BroadcastId: id[:], Counts: []*pushv1.TransportCounts{{Transport: schemas.APNS, Accepted: 4}}})
	out.Each(func(topic schemas.Topic, _ int32, key, value []byte) { f.Add(string(topic), key, value, false) })
	f.Fuzz(func(t *testing.T, topic string, key, value []byte, tombstone bool) {
		state := router.NewState(router.StateOptions{}, schemas.Layout{Partitions: 2})
		seed := schemas.NewOut(schemas.Layout{Partitions: 2})
		seed.BroadcastRequested(&pushv1.BroadcastRequested{BroadcastId: id[:], RecordId: record[:], App: "a", Channels: []string{"c"}})
		seed.Each(func(topic schemas.Topic, p int32, key, value []byte) {
			if err := state.Apply(schemas.Record{Topic: topic, Partition: p, Key: key, Value: value}); err != nil {
				t.Fatal(err)
			}
		})
		if tombstone {
			value = nil
		}
		err := state.Apply(schemas.Record{Topic: schemas.Topic(topic), Key: key, Value: value})
		if err != nil && !errors.Is(err, schemas.ErrMalformed) && !errors.Is(err, schemas.ErrUnknownType) {
			t.Errorf("want a known error, got %v", err)
		}
		state.Live()
		state.Rewind(0)
	})
}

// TestCompactionChangesNothingThatTheStateSays folds the history of a whole life, cut anywhere, live and compacted.
func TestCompactionChangesNothingThatTheStateSays(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 2))
		l := newMemlog(1 + r.Int32N(3))
		ids := make([]schemas.ID, 1+r.IntN(4))
		for i := range ids {
			ids[i] = schemas.NewID()
		}
		live := router.NewState(router.StateOptions{}, l.layout)
		applied := map[schemas.Topic]int{}
		for range 5 + r.IntN(60) {
			l.append(func(out *schemas.Out) { randomRecord(r, out, ids[r.IntN(len(ids))]) })
		}
		topics := []schemas.Topic{schemas.Broadcasts, schemas.Expansions, schemas.Progress}
		feed := func(s *router.State) {
			for _, topic := range topics {
				for _, rec := range l.all(topic) {
					if err := s.Apply(rec); err != nil {
						t.Fatal(err)
					}
					applied[topic]++
				}
			}
		}
		feed(live)
		for _, topic := range topics {
			l.compact(topic, r.IntN(2) == 0)
		}
		compacted := router.NewState(router.StateOptions{}, l.layout)
		feed(compacted)
		for _, id := range ids {
			want, wantOK := live.Broadcast(id)
			got, gotOK := compacted.Broadcast(id)
			if wantOK != gotOK || !sameStatus(want, got) || live.Gone(id) != compacted.Gone(id) {
				t.Fatalf("seed %d: live %v %+v, compacted %v %+v", seed, wantOK, want, gotOK, got)
			}
		}
	}
}

func sameStatus(a, b router.Status) bool {
	if len(a.Counts) != len(b.Counts) {
		return false
	}
	for i := range a.Counts {
		if a.Counts[i].String() != b.Counts[i].String() {
			return false
		}
	}
	a.Counts, b.Counts = nil, nil
	return a.ID == b.ID && a.App == b.App && a.Phase == b.Phase && a.Cancelled == b.Cancelled && a.CursorsDone == b.CursorsDone &&
		a.Cursors == b.Cursors && a.RequestedAtUS == b.RequestedAtUS && a.EndedAtUS == b.EndedAtUS && a.Estimate == b.Estimate
}

// randomRecord says anything that may be said of a broadcast before its end.
func randomRecord(r *rand.Rand, out *schemas.Out, id schemas.ID) {
	record := schemas.ID{byte(r.IntN(3))}
	switch r.IntN(12) {
	case 0, 1, 2:
		out.BroadcastRequested(&pushv1.BroadcastRequested{
			BroadcastId: id[:], RecordId: record[:], App: "app", Channels: []string{"c"}, Ranges: 1 << r.IntN(3), RequestedAtUs: 1 + r.Int64N(9),
		})
	case 3:
		out.ForgetBroadcastRecord(schemas.BroadcastKey{Broadcast: id, Kind: schemas.BroadcastContent, Record: record})
	case 4:
		out.BroadcastPaused(&pushv1.BroadcastPaused{BroadcastId: id[:]})
	case 5:
		out.BroadcastResumed(&pushv1.BroadcastResumed{BroadcastId: id[:], ResumedAtUs: 5})
	case 6:
		out.BroadcastCancelled(&pushv1.BroadcastCancelled{BroadcastId: id[:]})
	case 7:
		kinds := []schemas.BroadcastKind{schemas.BroadcastRun, schemas.BroadcastRate, schemas.BroadcastCancel}
		out.ForgetBroadcastRecord(schemas.BroadcastKey{Broadcast: id, Kind: kinds[r.IntN(len(kinds))]})
	case 8, 9:
		out.CursorMoved(&pushv1.CursorMoved{
			BroadcastId: id[:], Transport: schemas.Transports[r.IntN(2)], Range: r.Uint32N(4), Emitted: r.Int64N(100), Done: r.IntN(2) == 0,
		})
	case 10:
		out.ForgetCursor(schemas.CursorKey{Broadcast: id, Transport: schemas.Transports[r.IntN(2)], Range: r.Uint32N(4)})
	default:
		p := r.Int32N(out.Layout().Partitions)
		if r.IntN(4) == 0 {
			out.ForgetProgress(schemas.ProgressKey{Broadcast: id, Partition: p})
			return
		}
		out.ProgressCounted(&pushv1.ProgressCounted{
			BroadcastId: id[:], Partition: p, Counts: []*pushv1.TransportCounts{{Transport: schemas.FCM, FirstOutcomes: r.Int64N(50), Accepted: r.Int64N(50)}},
		})
	}
}
