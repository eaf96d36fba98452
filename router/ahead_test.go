package router_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/campanile-push/campanile/router"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// countedAudience counts the pages that were asked for.
type countedAudience struct {
	router.Audience
	pages atomic.Int64
}

// Page implements router.Audience.
func (a *countedAudience) Page(ctx context.Context, q schemas.PageQuery, page *schemas.Page) error {
	a.pages.Add(1)
	return a.Audience.Page(ctx, q, page)
}

// TestAPageIsReadWhileTheLastOneIsWritten: a commit that waits for the next page to be asked for must not wait for ever, and no page
// is read twice.
func TestAPageIsReadWhileTheLastOneIsWritten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const n, size = 1000, 100
		h := newHouse(t, 1)
		h.devices("app", "news", n)
		id := h.request(&pushv1.BroadcastRequested{Ranges: 4})
		state := router.NewState(router.StateOptions{StartRate: 1e9}, h.log.layout)
		for _, r := range h.log.all(schemas.Broadcasts) {
			if err := state.Apply(r); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		counted := &countedAudience{Audience: h.audience}
		write, commits, cursors := commitTo(h.log, 0), int64(0), 2*4
		commit := func(ctx context.Context, say func(*schemas.Out)) error {
			commits++
			synctest.Wait() // what is read meanwhile has been read
			done := 0
			for _, r := range h.log.all(schemas.Expansions) {
				var e pushv1.CursorMoved
				if err := r.Into(&e); err != nil {
					t.Error(err)
				}
				if e.Done {
					done++
				}
			}
			if ahead := counted.pages.Load() - commits; ahead != 1 && done < cursors-1 {
				t.Errorf("commit %d: %d pages are read ahead", commits, ahead)
			}
			err := write(ctx, say)
			if done == cursors-1 {
				cancel()
			}
			return err
		}
		_ = router.NewBroadcasts(router.BroadcastsOptions{MinPage: size, MaxPage: size}, state, counted, quiet()).Drive(ctx, 0, commit)
		if got := h.sentCount(id); got != n || counted.pages.Load() != commits {
			t.Errorf("%d sends of %d, in %d commits; %d pages were read", got, n, commits, counted.pages.Load())
		}
	})
}

// TestAPageThatWasReadAheadDoesNotStay: a broadcast that was paused between two pages goes on with the audience as it is then.
func TestAPageThatWasReadAheadDoesNotStay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const n, size = 400, 100
		h := newHouse(t, 1)
		h.devices("app", "news", n)
		id := h.request(&pushv1.BroadcastRequested{})
		state := router.NewState(router.StateOptions{StartRate: 1e9}, h.log.layout)
		follow := func(say func(out *schemas.Out)) {
			from := len(h.log.all(schemas.Broadcasts))
			if say != nil {
				h.log.append(say)
			} else {
				from = 0
			}
			for _, r := range h.log.all(schemas.Broadcasts)[from:] {
				if err := state.Apply(r); err != nil {
					t.Fatal(err)
				}
			}
		}
		follow(nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		write, commits := commitTo(h.log, 0), 0
		var resumed sync.WaitGroup
		commit := func(ctx context.Context, say func(*schemas.Out)) error {
			if commits++; commits == 1 {
				follow(func(out *schemas.Out) { out.BroadcastPaused(&pushv1.BroadcastPaused{BroadcastId: id[:]}) })
				resumed.Go(func() {
					pass(10 * time.Second)
					h.audience.leave() // everybody
					follow(func(out *schemas.Out) { out.BroadcastResumed(&pushv1.BroadcastResumed{BroadcastId: id[:]}) })
				})
			}
			return write(ctx, say)
		}
		_ = router.NewBroadcasts(router.BroadcastsOptions{MinPage: size, MaxPage: size}, state, h.audience, quiet()).Drive(ctx, 0, commit)
		resumed.Wait()
		if got := h.sentCount(id); got != size || commits < 2 {
			t.Errorf("%d sends in %d commits: want the page before the pause alone", got, commits)
		}
	})
}
