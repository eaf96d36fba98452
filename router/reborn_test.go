package router_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/campanile-push/campanile/router"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// TestANewRequestStartsAtTheBeginningThoughTheStateStillShowsTheOldCursor: the owner has tombstoned the cursors, another
// process the rest, and the follower of expansions lags.
func TestANewRequestStartsAtTheBeginningThoughTheStateStillShowsTheOldCursor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, 1)
		want := h.devices("app", "news", 50)
		id, record := schemas.NewID(), schemas.NewID()
		state := router.NewState(router.StateOptions{}, h.log.layout)
		tell := func(say func(out *schemas.Out)) {
			out := schemas.NewOut(h.log.layout)
			say(out)
			out.Each(func(topic schemas.Topic, p int32, key, value []byte) {
				if err := state.Apply(schemas.Record{Topic: topic, Partition: p, Key: key, Value: value}); err != nil {
					t.Error(err)
				}
			})
		}
		tell(func(out *schemas.Out) {
			out.BroadcastEnded(&pushv1.BroadcastEnded{BroadcastId: id[:]})
			for _, transport := range schemas.Transports {
				out.CursorMoved(&pushv1.CursorMoved{BroadcastId: id[:], Transport: transport, Emitted: 25, Done: true})
			}
		})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() {
			_ = router.NewBroadcasts(router.BroadcastsOptions{}, state, h.audience, quiet()).Drive(ctx, 0, commitTo(h.log, 0))
		})
		synctest.Wait()
		if got := len(h.log.all(schemas.Expansions)); got != 2 {
			t.Fatalf("want both cursors tombstoned, got %d records", got)
		}
		tell(func(out *schemas.Out) {
			out.ForgetBroadcastRecord(schemas.BroadcastKey{Broadcast: id, Kind: schemas.BroadcastState})
			out.BroadcastRequested(&pushv1.BroadcastRequested{BroadcastId: id[:], RecordId: record[:], App: "app", Channels: []string{"news"}})
		})
		synctest.Wait()
		// The lagging follower reads on.
		for _, r := range h.log.all(schemas.Expansions) {
			if err := state.Apply(r); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		cancel()
		wg.Wait()
		if got := len(h.sends()[id]); got != len(want) {
			t.Errorf("want %d sends, got %d", len(want), got)
		}
	})
}
