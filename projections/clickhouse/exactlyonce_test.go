package clickhouse_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/campanile-push/campanile/projections/chdbtest"
	"github.com/campanile-push/campanile/projections/clickhouse"
	"github.com/campanile-push/campanile/schemas"
)

// TestEveryCutCountsOnce feeds a history in random cuts, some of them again and from further back, by processes that forget
// what they knew.
func TestEveryCutCountsOnce(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(t *testing.T, url string) {
		t.Helper()
		h := newHistory(7, 6000)
		rng := rand.New(rand.NewPCG(7, 2))
		a := open(t, url)
		for part := range int32(partitions) {
			for at := 0; at < len(h.records[part]); {
				from := max(0, at-rng.IntN(300)*rng.IntN(2))
				to := at + 1 + rng.IntN(500)
				if err := a.Handle(t.Context(), h.batch(part, from, to), nil); err != nil {
					t.Fatal(err)
				}
				at = to
				if rng.IntN(4) == 0 {
					a = open(t, url)
				}
			}
		}
		h.check(t, a)
	})
}

// TestZombieCountsNothingTwice has two owners of one partition, each with cuts of its own, one always behind the other.
func TestZombieCountsNothingTwice(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(t *testing.T, url string) {
		t.Helper()
		h := newHistory(11, 3000)
		var wg sync.WaitGroup
		for _, size := range []int{170, 230} {
			a := open(t, url)
			wg.Go(func() {
				for part := range int32(partitions) {
					for at := 0; at < len(h.records[part]); at += size {
						if err := a.Handle(t.Context(), h.batch(part, at, at+size), nil); err != nil {
							t.Error(err)
							return
						}
					}
				}
			})
		}
		wg.Wait()
		h.check(t, open(t, url))
	})
}

// TestKilledEngineCountsOnce kills the engine with SIGKILL again and again while batches are inserted. A batch whose insert
// failed comes again, sometimes cut elsewhere, until it is taken.
func TestKilledEngineCountsOnce(t *testing.T) {
	t.Parallel()
	const kills = 8
	child := chdbtest.Start(t, t.TempDir())
	h := newHistory(13, 30_000)
	a := open(t, child.URL)
	ctx, done := context.WithCancel(t.Context())
	defer done()
	killed := make(chan int)
	go func() {
		n := 0
		defer func() { killed <- n }()
		rng := rand.New(rand.NewPCG(13, 3))
		for n < kills {
			// Anywhere in the course of a few inserts, of about 10 ms each.
			timer := time.NewTimer(50*time.Millisecond + time.Duration(rng.IntN(60_000))*time.Microsecond)
			select {
			case <-ctx.Done():
				timer.Stop()
				return
			case <-timer.C:
			}
			if child.Ready(ctx) != nil {
				return
			}
			if pid := child.Pid(); pid != 0 && syscall.Kill(pid, syscall.SIGKILL) == nil {
				n++
			}
		}
	}()
	rng := rand.New(rand.NewPCG(13, 4))
	failures := 0
	for part := range int32(partitions) {
		for at := 0; at < len(h.records[part]); {
			to := at + 1 + rng.IntN(400)
			err := a.Handle(ctx, h.batch(part, at, to), nil)
			var away *clickhouse.Error
			switch {
			case err == nil:
				at = to
			case errors.As(err, &away) && away.Temporary():
				failures++
				if err := child.Ready(ctx); err != nil {
					t.Fatal(err)
				}
			default:
				t.Fatal(err)
			}
		}
	}
	done()
	n := <-killed
	if err := child.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("killed %d times, %d batches failed and came again", n, failures)
	if n < 3 || failures == 0 {
		t.Fatalf("killed %d times, %d batches failed: nothing was tried", n, failures)
	}
	until(t, "the engine answers", func() bool { return a.Ready(t.Context()) == nil })
	h.check(t, a)
}

// until polls what nothing tells of.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

func TestEngineAwayIsTemporary(t *testing.T) {
	t.Parallel()
	child := chdbtest.Start(t, t.TempDir())
	a := open(t, child.URL)
	if err := child.Close(); err != nil {
		t.Fatal(err)
	}
	err := a.Handle(t.Context(), newHistory(1, 10).batch(0, 0, 10), nil)
	var temporary interface{ Temporary() bool }
	if !errors.As(err, &temporary) || !temporary.Temporary() {
		t.Errorf("want a temporary error, got %v", err)
	}
	if a.Ready(t.Context()) == nil {
		t.Error("an engine that is away is ready")
	}
	_, err = clickhouse.Open(t.Context(), clickhouse.Options{URL: child.URL})
	if !errors.As(err, &temporary) {
		t.Errorf("open: want a temporary error, got %v", err)
	}
}

func TestGapIsRecordedOnceAndMovesThePosition(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(t *testing.T, url string) {
		t.Helper()
		a := open(t, url)
		h := newHistory(3, 300)
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		must(a.Handle(t.Context(), h.batch(0, 0, 20), nil))
		must(a.Gap(t.Context(), schemas.Deliveries, 0, 10, 40)) // its first half is there
		must(a.Gap(t.Context(), schemas.Deliveries, 0, 10, 40))
		must(a.Handle(t.Context(), h.batch(0, 30, 50), nil))
		must(a.Handle(t.Context(), h.batch(1, 0, 10), nil))
		must(open(t, url).Handle(t.Context(), h.batch(1, 15, 20), nil)) // 10 to 14 are gone from the log
		gaps, err := a.Gaps(t.Context())
		must(err)
		if len(gaps) != 2 || gaps[0].From != 20 || gaps[0].To != 40 || gaps[1].Partition != 1 || gaps[1].From != 10 || gaps[1].To != 15 {
			t.Errorf("want 20 to 40 and 10 to 15, got %+v", gaps)
		}
		next, err := a.Positions(t.Context(), schemas.Deliveries, []int32{0, 1, 2})
		must(err)
		if next[0] != 50 || next[1] != 20 || next[2] != 0 {
			t.Errorf("want positions 50, 20 and 0, got %v", next)
		}
		audit, err := a.Audit(t.Context())
		must(err)
		if !audit.Exact() {
			t.Errorf("%+v", audit)
		}
	})
}
