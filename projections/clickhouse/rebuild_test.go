package clickhouse_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/campanile-push/campanile/projections/clickhouse"
	"github.com/campanile-push/campanile/schemas"
)

// reader opens analytics that can read the history again.
func (h *history) reader(t *testing.T, url string) *clickhouse.Analytics {
	t.Helper()
	a, err := clickhouse.Open(t.Context(), clickhouse.Options{
		URL: url, Hasher: hasher(t), Linger: -1,
		Read: func(_ context.Context, part int32, from, to int64, handle func(schemas.Batch) error) error {
			return handle(h.batch(part, int(from), int(to)))
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	return a
}

// feed gives every partition from the share from to the share to of the history.
func (h *history) feed(t *testing.T, handle func(context.Context, schemas.Batch) error, from, to float64) {
	t.Helper()
	for part := range int32(partitions) {
		n := float64(len(h.records[part]))
		if err := handle(t.Context(), h.batch(part, int(from*n), int(to*n))); err != nil {
			t.Fatal(err)
		}
	}
}

func handler(a *clickhouse.Analytics) func(context.Context, schemas.Batch) error {
	return func(ctx context.Context, in schemas.Batch) error { return a.Handle(ctx, in, nil) }
}

// damage loses rows, counts some under another outcome, and makes some up.
func damage(t *testing.T, a *clickhouse.Analytics) {
	t.Helper()
	for _, statement := range []string{
		"INSERT INTO deliveries_log SELECT * REPLACE (off + 1000000 AS off, 'bogus' AS outcome) FROM deliveries_log WHERE off % 5 = 0",
		"DELETE FROM deliveries_log WHERE off % 7 = 0 AND off < 1000000",
	} {
		if err := a.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func begunRebuild(t *testing.T, a *clickhouse.Analytics, starts ...int64) *clickhouse.Rebuild {
	t.Helper()
	if starts == nil {
		starts = make([]int64, partitions)
	}
	r, err := a.BeginRebuild(t.Context(), starts)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestRebuildReplacesDays damages the tables, builds them anew while a consumer goes on, and finds what the history says.
func TestRebuildReplacesDays(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(t *testing.T, url string) {
		t.Helper()
		h := newHistory(31, 5000)
		consumer := h.reader(t, url)
		h.feed(t, handler(consumer), 0, 0.6)
		damage(t, consumer)
		a := open(t, url)
		r := begunRebuild(t, a)
		h.feed(t, r.Handle, 0, 0.5)
		h.feed(t, handler(consumer), 0.6, 0.8) // past the build
		days, err := r.Swap(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(days) < 3 {
			t.Errorf("the history spans more than %d days", len(days))
		}
		for _, d := range days {
			if d.Refused != "" || d.Same() || d.Rows == 0 {
				t.Errorf("the day was damaged, and is whole in the log: %+v", d)
			}
		}
		h.feed(t, handler(consumer), 0.8, 1)
		h.check(t, consumer)
		next, err := consumer.Positions(t.Context(), schemas.Deliveries, []int32{0, 1, 2})
		if err != nil || next[1] != int64(len(h.records[1])) {
			t.Errorf("positions %v: %v", next, err)
		}

		again := begunRebuild(t, a) // of what is right
		h.feed(t, again.Handle, 0, 1)
		if days, err = again.Swap(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, d := range days {
			if !d.Same() {
				t.Errorf("nothing was wrong: %+v", d)
			}
		}
		h.check(t, a)
	})
}

// TestRebuildKilledAnywhereCountsOnce ends a rebuild at each of its steps. The consumer goes on, finishes what was begun, and every row is there
// once.
func TestRebuildKilledAnywhereCountsOnce(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(t *testing.T, url string) {
		t.Helper()
		h := newHistory(37, 4000)
		steps := []string{"placed", "begun", "replaced", "closed", "summed"}
		consumer := h.reader(t, url)
		consumer.Orphan()
		h.feed(t, handler(consumer), 0, 0.3)
		for i, step := range steps {
			a := open(t, url)
			killed := errors.New("killed")
			a.BreakOff(func(at string) error {
				if at == step {
					return killed
				}
				return nil
			})
			r := begunRebuild(t, a)
			at := 0.3 + 0.1*float64(i)
			h.feed(t, r.Handle, 0, at-0.05)
			if _, err := r.Swap(t.Context()); !errors.Is(err, killed) {
				t.Fatalf("%s: want the planted end, got %v", step, err)
			}
			if step != "placed" { // others wait for a while: it may live
				err := open(t, url).Handle(t.Context(), h.batch(0, 0, 10), nil)
				var waits interface{ Temporary() bool }
				if !errors.As(err, &waits) || !waits.Temporary() {
					t.Errorf("%s: an insert into days that are being replaced: %v", step, err)
				}
			}
			h.feed(t, handler(consumer), at, at+0.1)
		}
		h.feed(t, handler(consumer), 0.3+0.1*float64(len(steps)), 1)
		h.check(t, consumer)
	})
}

// TestRebuildRefusesWhatTheLogHasLost takes the beginning of the log away.
func TestRebuildRefusesWhatTheLogHasLost(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(t *testing.T, url string) {
		t.Helper()
		h := newHistory(41, 3000)
		a := h.reader(t, url)
		h.feed(t, handler(a), 0, 1)
		r := begunRebuild(t, a, 0, 100, 0) // rows of three days were among them: none is whole
		for part := range int32(partitions) {
			from := map[bool]int{true: 100}[part == 1]
			if err := r.Handle(t.Context(), h.batch(part, from, len(h.records[part]))); err != nil {
				t.Fatal(err)
			}
		}
		days, err := r.Swap(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		refused := 0
		for _, d := range days {
			if strings.Contains(d.Refused, "the log no longer holds all of it") {
				refused++
			} else if !d.Same() || d.Day.Before(time.Now().Add(-48*time.Hour)) {
				t.Errorf("%+v", d)
			}
		}
		if refused < len(days)-1 {
			t.Errorf("refused %d of %d days", refused, len(days))
		}
		h.check(t, a) // nothing was touched that could not be built
	})
}
