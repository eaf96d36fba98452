package router_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/campanile-push/campanile/router"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// TestTheEndIsSaidOnceWhateverChangesMeanwhile lets the followers lag far behind the closer's own words.
func TestTheEndIsSaidOnceWhateverChangesMeanwhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, 1)
		id := h.request(&pushv1.BroadcastRequested{Channels: []string{"nobody"}})
		for range 5 {
			record := schemas.NewID()
			h.log.append(func(out *schemas.Out) {
				out.BroadcastRequested(&pushv1.BroadcastRequested{BroadcastId: id[:], RecordId: record[:], App: "app", Channels: []string{"nobody"}})
			})
		}
		quick := h.request(&pushv1.BroadcastRequested{Channels: []string{"nobody"}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var wg sync.WaitGroup
		state := router.NewState(router.StateOptions{}, h.log.layout)
		followers := followAll(ctx, &wg, h.log, state, nil)
		followers[0].crawl(time.Second / 2) // its own words, and everybody's, come back late
		runDrives(ctx, &wg, h.log, router.NewCloser(router.CloserOptions{}, state, quiet()), followers, commitTo(h.log, 0))
		for i := range 20 {
			pass(300 * time.Millisecond)
			h.log.append(func(out *schemas.Out) {
				for _, b := range []schemas.ID{id, quick} {
					out.BroadcastResumed(&pushv1.BroadcastResumed{BroadcastId: b[:]})
					if i != 10 {
						continue
					}
					for _, transport := range schemas.Transports {
						out.CursorMoved(&pushv1.CursorMoved{BroadcastId: b[:], Transport: transport, Done: true})
					}
				}
			})
		}
		wg.Wait()
		for _, b := range []schemas.ID{id, quick} {
			if got := len(h.ended()[b]); got != 1 {
				t.Errorf("want one end, got %d", got)
			}
		}
		contents := map[string]bool{}
		for _, r := range h.log.all(schemas.Broadcasts) {
			if k, ok := schemas.ParseBroadcastKey(r.Key); ok && k.Kind == schemas.BroadcastContent {
				contents[string(r.Key)] = !r.Tombstone()
			}
		}
		left := 0
		for _, there := range contents {
			if there {
				left++
			}
		}
		if left != 2 {
			t.Errorf("want the losers tombstoned and the winners kept, got %d contents", left)
		}
	})
}

// TestARequestUnderAnOldIDFindsItEndedOrNothing: as long as anything of a broadcast is left, its state is, so that the same
// request come again can never find half of it; and once nothing is left, it is a new one.
func TestARequestUnderAnOldIDFindsItEndedOrNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, 2)
		h.keepEnded = time.Hour
		h.devices("app", "news", 50)
		id := h.request(&pushv1.BroadcastRequested{})
		h.untilEnded(time.Minute, id)
		pass(time.Hour)
		again := func() {
			record := schemas.NewID()
			h.log.append(func(out *schemas.Out) {
				out.BroadcastRequested(&pushv1.BroadcastRequested{BroadcastId: id[:], RecordId: record[:], App: "app", Channels: []string{"news"}})
			})
		}
		// Whether the counts are forgotten in that second, and with them the state, depends on who looks first.
		h.during(time.Second)
		h.compactEverything()
		want := 50
		if len(h.log.all(schemas.Broadcasts)) == 0 {
			want = 100
		}
		again()
		h.during(time.Minute)
		if got := h.sentCount(id); got != want {
			t.Fatalf("want %d sends, got %d", want, got)
		}
		pass(time.Hour)
		for range 5 {
			h.during(3 * time.Second) // without any traffic
			h.compactEverything()
		}
		if left := len(h.log.all(schemas.Broadcasts)) + len(h.log.all(schemas.Expansions)); left != 0 {
			t.Fatalf("%d records are left", left)
		}
		again()
		h.untilEnded(time.Minute, id)
		if got := h.sentCount(id); got != want+50 {
			t.Errorf("a new request: want 50 more sends, got %d", got-want)
		}
	})
}

func (h *house) sentCount(id schemas.ID) (n int) {
	for _, times := range h.sends()[id] {
		n += times
	}
	return n
}

func (h *house) compactEverything() {
	for _, topic := range []schemas.Topic{schemas.Broadcasts, schemas.Expansions, schemas.Progress} {
		h.log.compact(topic, true)
	}
}

func TestAnErrorOfCommitEndsTheDrive(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, 1)
		h.devices("app", "news", 10)
		h.request(&pushv1.BroadcastRequested{})
		state := router.NewState(router.StateOptions{}, h.log.layout)
		for _, r := range h.log.all(schemas.Broadcasts) {
			if err := state.Apply(r); err != nil {
				t.Fatal(err)
			}
		}
		fenced := func(context.Context, func(*schemas.Out)) error { return schemas.ErrFenced }
		err := router.NewBroadcasts(router.BroadcastsOptions{}, state, h.audience, quiet()).Drive(t.Context(), 0, fenced)
		if !errors.Is(err, schemas.ErrFenced) {
			t.Errorf("want ErrFenced, got %v", err)
		}
	})
}
