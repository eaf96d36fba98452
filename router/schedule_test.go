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

// expandOnly runs the broadcast router alone: nobody delivers, counts or ends anything.
func (h *house) expandOnly(d time.Duration) {
	ctx, cancel := context.WithTimeout(h.t.Context(), d)
	defer cancel()
	var wg sync.WaitGroup
	state := router.NewState(h.stateOptions, h.log.layout)
	followers := followAll(ctx, &wg, h.log, state, nil)
	runDrives(ctx, &wg, h.log, router.NewBroadcasts(h.broadcastsOptions, state, h.audience, quiet()), followers, commitTo(h.log, 0))
	wg.Wait()
}

func (h *house) sentOf(id schemas.ID) int { return len(h.sends()[id]) }

func TestExpansionStaysWithinTheLead(t *testing.T) {
	t.Parallel()
	for _, ranges := range []uint32{1, 16, 64} {
		synctest.Test(t, func(t *testing.T) {
			h := newHouse(t, 3)
			h.stateOptions.StartRate, h.stateOptions.LeadSeconds, h.stateOptions.MinLead = 1000, 2, 100
			h.devices("app", "news", 20_000)
			first := h.request(&pushv1.BroadcastRequested{Ranges: ranges})
			second := h.request(&pushv1.BroadcastRequested{Ranges: ranges})
			h.expandOnly(time.Minute)
			// Each transport has its lead of 2,000; what another partition has just sent may be unseen, which at most doubles it.
			got := h.sentOf(first) + h.sentOf(second)
			if got > 2*2*2000 {
				t.Errorf("%d ranges: %d sends without one outcome, the lead is 2,000 a transport", ranges, got)
			}
			if got < 2*2000/2 {
				t.Errorf("%d ranges: only %d sends of a lead of 2,000 a transport", ranges, got)
			}
		})
	}
}

func TestAnotherAppAndATinyLeadAreNeverHeldBackForEver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, 2)
		h.stateOptions.MinLead, h.stateOptions.StartRate, h.stateOptions.LeadSeconds = 1, 0.001, 0.001
		want := h.devices("app", "news", 3000)
		id := h.request(&pushv1.BroadcastRequested{Ranges: 64})
		h.untilEnded(time.Hour, id)
		checkExact(t, h, id, want)
	})
}

func TestASmallBroadcastPassesAHugeOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, 1)
		h.devices("big", "news", 30_000)
		small := h.devices("small", "news", 500)
		huge := h.request(&pushv1.BroadcastRequested{App: "big"})
		id := h.request(&pushv1.BroadcastRequested{App: "small"})
		h.broadcastsOptions.MaxPage = 500
		h.expandOnly(time.Second)
		var bigBefore int
		records := h.log.all(schemas.Expansions)
		for _, r := range records {
			e := &pushv1.CursorMoved{}
			if err := r.Into(e); err != nil {
				t.Fatal(err)
			}
			if schemas.IDFrom(e.BroadcastId) == id && e.Done && e.Emitted > 0 {
				break
			}
			if schemas.IDFrom(e.BroadcastId) == huge {
				bigBefore++
			}
		}
		if got := h.sentOf(id); got != len(small) {
			t.Errorf("the small broadcast: want %d sends, got %d", len(small), got)
		}
		if bigBefore > 6 {
			t.Errorf("%d pages of the huge broadcast went before the small one was through", bigBefore)
		}
	})
}

// TestASmallBroadcastDoesNotWaitForTheLeadOfALargeOne: a provider that has become slower since the large one was expanded, as FCM is at
// the beginning of its ramp, makes many leads of what is out.
func TestASmallBroadcastDoesNotWaitForTheLeadOfALargeOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, 2)
		h.devices("app", "news", 30_000)
		class := h.devices("app", "class", 50)
		h.stateOptions.StartRate, h.stateOptions.LeadSeconds, h.stateOptions.MinLead = 5000, 2, 200
		large := h.request(&pushv1.BroadcastRequested{AudienceEstimate: 30_000})
		h.expandOnly(time.Second)
		before := h.sentOf(large)
		h.stateOptions.StartRate = 50
		small := h.request(&pushv1.BroadcastRequested{Channels: []string{"class"}, AudienceEstimate: 50})
		h.expandOnly(time.Second)
		if got := h.sentOf(small); got != len(class) {
			t.Errorf("the small broadcast: want %d sends, got %d", len(class), got)
		}
		if got := h.sentOf(large); before < 5000 || got != before {
			t.Errorf("the large broadcast: want thousands of sends and no more, got %d and then %d", before, got)
		}
	})
}

func TestAStoreThatIsBehindHoldsUpOnlyItsBroadcast(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, 2)
		h.audience.applied = []int64{10, 10}
		h.devices("app", "news", 100)
		fresh := h.request(&pushv1.BroadcastRequested{Watermark: &pushv1.Watermark{Ends: []int64{10, 4}}})
		stale := h.request(&pushv1.BroadcastRequested{Watermark: &pushv1.Watermark{Ends: []int64{10, 11}}})
		h.expandOnly(10 * time.Second)
		if got := h.sentOf(fresh); got != 100 {
			t.Errorf("the fresh one: want 100 sends, got %d", got)
		}
		if got := h.sentOf(stale); got != 0 {
			t.Errorf("the store had not applied what its request had seen, and %d sends went", got)
		}
		h.audience.mu.Lock()
		reads := h.audience.reads
		h.audience.applied = []int64{10, 11}
		h.audience.mu.Unlock()
		if reads > 100 {
			t.Errorf("%d questions to a store that was behind for 10 s", reads)
		}
		h.expandOnly(10 * time.Second)
		if got := h.sentOf(stale); got != 100 {
			t.Errorf("once applied: want 100 sends, got %d", got)
		}
	})
}

func TestAStoreThatIsAwayIsAskedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, 2)
		want := h.devices("app", "news", 100)
		h.audience.away = errors.New("connection refused")
		id := h.request(&pushv1.BroadcastRequested{})
		go func() {
			pass(5 * time.Second)
			h.audience.mu.Lock()
			h.audience.away = nil
			h.audience.mu.Unlock()
		}()
		h.untilEnded(time.Minute, id)
		checkExact(t, h, id, want)
	})
}

func TestNothingGoesBeforeSendAt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, 2)
		want := h.devices("app", "news", 100)
		id := h.request(&pushv1.BroadcastRequested{SendAtUs: time.Now().Add(time.Hour).UnixMicro()})
		h.during(time.Hour - time.Millisecond)
		if got := h.sentOf(id); got != 0 {
			t.Errorf("%d sends before their time", got)
		}
		h.untilEnded(time.Minute, id)
		checkExact(t, h, id, want)
	})
}

func TestPauseStopsAndResumeGoesOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, 2)
		want := h.devices("app", "news", 5000)
		id := h.request(&pushv1.BroadcastRequested{Rate: 100})
		h.during(10 * time.Second)
		h.log.append(func(out *schemas.Out) { out.BroadcastPaused(&pushv1.BroadcastPaused{BroadcastId: id[:]}) })
		before := h.sentOf(id)
		h.during(time.Minute)
		if got := h.sentOf(id); got != before {
			t.Errorf("%d sends while paused", got-before)
		}
		h.log.append(func(out *schemas.Out) { out.BroadcastResumed(&pushv1.BroadcastResumed{BroadcastId: id[:]}) })
		h.untilEnded(time.Hour, id)
		checkExact(t, h, id, want)
	})
}

func TestARateAndASpreadAreKept(t *testing.T) {
	t.Parallel()
	for name, e := range map[string]*pushv1.BroadcastRequested{
		"rate":              {Rate: 50},
		"rate, 16 ranges":   {Rate: 50, Ranges: 16},
		"spread":            {SpreadSeconds: 100, AudienceEstimate: 5000},
		"spread, 64 ranges": {SpreadSeconds: 100, AudienceEstimate: 5000, Ranges: 64},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t, 3)
				h.devices("app", "news", 5000)
				id := h.request(e)
				h.during(50 * time.Second)
				if got := h.sentOf(id); got < 2000 || got > 2800 {
					t.Errorf("50 a second for 50 s: want about 2,500 sends, got %d", got)
				}
			})
		})
	}
}

// TestABroadcastWithARateLeavesEvenly: no tenth of a second has twice its part, whatever the ranges, from the first to the last page;
// nor while the first outcomes are awaited, and after a pause.
func TestABroadcastWithARateLeavesEvenly(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		rate   float64
		ranges uint32
		window time.Duration
	}{{4000, 16, 100 * time.Millisecond}, {4000, 1, 100 * time.Millisecond}, {400, 64, time.Second}, {8, 64, 2 * time.Second}} {
		synctest.Test(t, func(t *testing.T) {
			h := newHouse(t, 4)
			h.stateOptions.StartRate = 1000 // its lead is less than the rate at first
			h.devices("app", "news", int(5*c.rate))
			id := h.request(&pushv1.BroadcastRequested{Rate: c.rate, Ranges: c.ranges})
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			var wg sync.WaitGroup
			wg.Go(func() { h.process(ctx) })
			pass(2 * time.Second)
			h.log.append(func(out *schemas.Out) { out.BroadcastPaused(&pushv1.BroadcastPaused{BroadcastId: id[:]}) })
			pass(2 * time.Second)
			h.log.append(func(out *schemas.Out) { out.BroadcastResumed(&pushv1.BroadcastResumed{BroadcastId: id[:]}) })
			pass(20 * time.Second)
			cancel()
			wg.Wait()
			allowed := int64(2*c.rate*c.window.Seconds()) + 4 // a page of each partition, at the least
			if _, most := h.pages(id, c.window, time.Time{}); most > allowed {
				t.Errorf("%v a second in %d ranges: %d within %v", c.rate, c.ranges, most, c.window)
			}
			if got := h.sentOf(id); got != int(5*c.rate) {
				t.Errorf("%v a second in %d ranges: want %v, got %d", c.rate, c.ranges, 5*c.rate, got)
			}
		})
	}
}

// TestALargeBroadcastGivesWay: while small ones come it is expanded at the least rate, where no more CPU is to spare, evenly, and says so;
// and at once again when none has come for a while.
func TestALargeBroadcastGivesWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, 4)
		const least = 1000
		began := time.Now()
		full := func() (used, all time.Duration, err error) { return time.Since(began), time.Since(began), nil }
		h.broadcastsOptions.Headroom = router.NewHeadroom(router.HeadroomOptions{CPU: full, Least: least})
		h.stateOptions.StartRate = 1e6
		want := h.devices("app", "news", 30_000)
		class := h.devices("app", "class", 10)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() { h.process(ctx) })
		pass(time.Second)
		large := h.request(&pushv1.BroadcastRequested{AudienceEstimate: 30_000, Ranges: 16})
		var small []schemas.ID
		for range 10 {
			small = append(small, h.request(&pushv1.BroadcastRequested{Channels: []string{"class"}, AudienceEstimate: 10}))
			pass(time.Second)
		}
		got := h.sentOf(large)
		if slack := 3000; got < 10*least-slack || got > 10*least+slack { // what goes before the first small one is seen, and pages
			t.Errorf("10 s beside small ones: want about %d sends, got %d", 10*least, got)
		}
		if _, most := h.pages(large, 100*time.Millisecond, began.Add(2*time.Second)); most > 2*least/10 {
			t.Errorf("want about %d sends in each tenth of a second, got %d in one", least/10, most)
		}
		pass(20 * time.Second)
		cancel()
		wg.Wait()
		checkExact(t, h, large, want)
		for _, id := range small {
			checkExact(t, h, id, class)
			if gaveWay, _ := h.pages(id, time.Second, began); gaveWay != 0 {
				t.Errorf("%d pages of a small one gave way", gaveWay)
			}
		}
		if gaveWay, _ := h.pages(large, time.Second, began); gaveWay < 50 || h.lastPage(large).GaveWay {
			t.Errorf("want its pages to say that they gave way, and the last one not, got %d, last %v", gaveWay, h.lastPage(large).GaveWay)
		}
	})
}

// pages are how many of a broadcast's pages gave way, and the most sends that went within any window from a time on.
func (h *house) pages(id schemas.ID, window time.Duration, from time.Time) (gaveWay int, most int64) {
	windows := map[int64]int64{}
	for _, e := range h.moves(id) {
		if e.GaveWay {
			gaveWay++
		}
		if e.MovedAtUs >= from.UnixMicro() {
			w := e.MovedAtUs / window.Microseconds()
			windows[w] += e.PageEmitted
			most = max(most, windows[w])
		}
	}
	return gaveWay, most
}

// lastPage is the last page of a broadcast that held anything.
func (h *house) lastPage(id schemas.ID) (last *pushv1.CursorMoved) {
	for _, e := range h.moves(id) {
		if e.PageEmitted > 0 && e.MovedAtUs >= last.GetMovedAtUs() {
			last = e
		}
	}
	return last
}

func (h *house) moves(id schemas.ID) (moves []*pushv1.CursorMoved) {
	for _, r := range h.log.all(schemas.Expansions) {
		e := &pushv1.CursorMoved{}
		if err := r.Into(e); err != nil {
			h.t.Fatal(err)
		}
		if schemas.IDFrom(e.BroadcastId) == id {
			moves = append(moves, e)
		}
	}
	return moves
}

func TestAChangedRateTakesHoldAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, 2)
		want := h.devices("app", "news", 2000)
		id := h.request(&pushv1.BroadcastRequested{Rate: 0.001}) // the second page is due in hours
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() { h.process(ctx) })
		pass(time.Minute)
		h.log.append(func(out *schemas.Out) {
			out.BroadcastRateChanged(&pushv1.BroadcastRateChanged{BroadcastId: id[:]})
		})
		pass(10 * time.Second)
		cancel()
		wg.Wait()
		checkExact(t, h, id, want)
	})
}

func TestWhatHasExpiredIsNotExpanded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, 2)
		h.devices("app", "news", 1000)
		id := h.request(&pushv1.BroadcastRequested{Rate: 10, ExpiresAtUs: time.Now().Add(10 * time.Second).UnixMicro()})
		paused := h.request(&pushv1.BroadcastRequested{ExpiresAtUs: time.Now().Add(10 * time.Second).UnixMicro(), SendAtUs: time.Now().Add(time.Second).UnixMicro()})
		h.log.append(func(out *schemas.Out) { out.BroadcastPaused(&pushv1.BroadcastPaused{BroadcastId: paused[:]}) })
		h.untilEnded(time.Minute, id, paused)
		if got := h.sentOf(id); got == 0 || got > 200 {
			t.Errorf("10 a second for 10 s: want about 100 sends, got %d", got)
		}
		checkEnd(t, h, id, int64(h.sentOf(id)))
		checkEnd(t, h, paused, 0)
	})
}

func TestThePlatformsOfARequestFilterItsAudience(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, 2)
		var want []schemas.Device
		for _, d := range h.devices("app", "news", 1000) {
			if d.Transport == schemas.APNS {
				want = append(want, d)
			}
		}
		id := h.request(&pushv1.BroadcastRequested{Platforms: []string{"ios"}})
		h.untilEnded(time.Minute, id)
		checkExact(t, h, id, want)
	})
}

// TestSendsOfASmallAudienceTravelApart: on their own lane, where none of a large one's stand before them.
func TestSendsOfASmallAudienceTravelApart(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		estimate int64
		lane     schemas.Lane
	}{
		"small":                {1_000, schemas.Express},
		"large":                {1_001, schemas.Bulk},
		"nobody could say":     {0, schemas.Bulk},
		"larger than was said": {10, schemas.Bulk}, // from 2,000 on
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t, 1)
				devices := 500
				if name == "larger than was said" {
					devices = 8_000
				}
				want := h.devices("app", "news", devices)
				id := h.request(&pushv1.BroadcastRequested{AudienceEstimate: c.estimate})
				h.broadcastsOptions.MaxPage = 500
				h.untilEnded(time.Hour, id)
				checkExact(t, h, id, want)
				lanes := map[schemas.Lane]int{}
				for _, transport := range schemas.Transports {
					for _, lane := range broadcastLanes {
						lanes[lane] += len(h.log.all(schemas.SendTopic{Transport: transport, Lane: lane}.Topic()))
					}
				}
				if name == "larger than was said" {
					if n := lanes[schemas.Express]; n < 2_000 || n > 4_000 {
						t.Errorf("want it to lose its place after 2,000 sends and the pages under way, got %d", n)
					}
					lanes[c.lane] += lanes[schemas.Express]
				}
				if lanes[c.lane] != len(want) {
					t.Errorf("want %d sends on the %s lane, got %v", len(want), c.lane.Word(), lanes)
				}
			})
		})
	}
}
