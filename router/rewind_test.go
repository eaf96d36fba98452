package router_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/campanile-push/campanile/router"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// tear drops the sends of the newest move of each partition of expansions, as a torn transaction may, and returns how many
// sends the broken pages held.
func (h *house) tear() (lost int) {
	seen := 0
	for p := range h.log.layout.Partitions {
		moves, _ := h.log.read(schemas.Expansions, p, 0, 1<<30)
		if len(moves) == 0 {
			continue
		}
		e := &pushv1.CursorMoved{}
		if err := moves[len(moves)-1].Into(e); err != nil {
			h.t.Fatal(err)
		}
		if e.PageEmitted == 0 {
			continue
		}
		topic := schemas.SendTopic{Transport: e.Transport, Lane: schemas.Bulk}.Topic()
		from, to := schemas.CursorFrom(e.From), schemas.CursorFrom(e.To)
		first, last := schemas.ShardRange(e.Range, e.Ranges)
		inPage := func(s *pushv1.SendRequested) bool {
			at := cursorOf(schemas.Device{Token: s.Token, Environment: s.Environment})
			return at.Shard >= first && at.Shard < last && at.compare(place(to)) <= 0 && (!from.Set || at.compare(place(from)) > 0)
		}
		for part, records := range h.log.records[topic] {
			kept := records[:0]
			for _, r := range records {
				s := &pushv1.SendRequested{}
				if err := r.Into(s); err != nil {
					h.t.Fatal(err)
				}
				if string(s.BroadcastId) == string(e.BroadcastId) && inPage(s) {
					if seen++; seen%3 != 0 { // two of three are gone
						lost++
						continue
					}
				}
				kept = append(kept, r)
			}
			h.log.records[topic][part] = kept
		}
	}
	return lost
}

func TestATornLastPageIsSentAgainAndNoOther(t *testing.T) {
	t.Parallel()
	for _, d := range []time.Duration{0, time.Millisecond, 300 * time.Millisecond, time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			h := newHouse(t, 2)
			h.broadcastsOptions.MaxPage = 100
			want := h.devices("app", "news", 2000)
			id := h.request(&pushv1.BroadcastRequested{Rate: 2000})
			h.expandOnly(d)
			lost := h.tear()
			if d == time.Minute && lost == 0 {
				t.Fatal("nothing was torn")
			}
			h.broadcastsOptions.RewindLastPage = true
			h.expandOnly(time.Minute)
			got, again := h.sends()[id], 0
			for _, device := range want {
				n := got[device]
				if n == 0 {
					t.Fatalf("%v was lost", device)
				}
				again += n - 1
			}
			if limit := 100 * int(h.log.layout.Partitions); again > limit {
				t.Errorf("%d sends twice: the bound is one page for each partition, %d", again, limit)
			}
		})
	}
}

func TestRewindHappensOnceInAProcess(t *testing.T) {
	t.Parallel()
	l := newMemlog(1)
	state := router.NewState(router.StateOptions{}, l.layout)
	id, record := schemas.NewID(), schemas.NewID()
	l.append(func(out *schemas.Out) {
		out.BroadcastRequested(&pushv1.BroadcastRequested{BroadcastId: id[:], RecordId: record[:], App: "app", Channels: []string{"c"}})
		out.CursorMoved(&pushv1.CursorMoved{BroadcastId: id[:], Transport: schemas.FCM, PageEmitted: 40, Emitted: 100, Done: true})
	})
	for _, topic := range []schemas.Topic{schemas.Broadcasts, schemas.Expansions} {
		for _, r := range l.all(topic) {
			if err := state.Apply(r); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, want := range []int64{40, 0} {
		if got := state.Rewind(0); got != want {
			t.Errorf("want %d sends again, got %d", want, got)
		}
	}
	if status, _ := state.Broadcast(id); status.CursorsDone != 0 || status.Counts[1].Emitted != 60 {
		t.Errorf("want the cursor open at 60 sends, got %+v", status)
	}
}
