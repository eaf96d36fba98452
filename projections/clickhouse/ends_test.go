package clickhouse_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// TestDigestsAreThoseOfTheLog sums up what a history ended, as the proof does with the log, and finds a row that was changed.
func TestDigestsAreThoseOfTheLog(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(t *testing.T, url string) {
		t.Helper()
		h := newHistory(51, 2000)
		a := open(t, url)
		h.feed(t, handler(a), 0, 1)
		const part, block, from, to = 1, 64, 10, 500
		type group struct {
			block        int64
			app, outcome string
		}
		type digest struct {
			n   int64
			sum uint64
		}
		want := map[group]digest{}
		sends := map[int64]schemas.ID{}
		for _, r := range h.records[part][from:to] {
			var e pushv1.DeliveryFinished
			if r.Into(&e) != nil {
				continue
			}
			g, id := group{r.Offset / block, e.App, e.Outcome.Word()}, schemas.IDFrom(e.SendId)
			want[group{g.block, string([]byte(e.App)), g.outcome}] = digest{want[g].n + 1, want[g].sum + xxhash.Sum64String(fmt.Sprintf("%d/%s", r.Offset, id))}
			sends[r.Offset] = id
		}
		differ := func() (blocks map[int64]bool) {
			t.Helper()
			got := map[group]digest{}
			err := a.EachDigest(t.Context(), part, from, to, block, 0, 0, math.MaxInt64, func(at int64, app, _, outcome string, _ bool, n int64, sum uint64) {
				g := group{at, app, outcome}
				got[g] = digest{got[g].n + n, got[g].sum + sum}
			})
			if err != nil {
				t.Fatal(err)
			}
			blocks = map[int64]bool{}
			for g, d := range want {
				if got[g] != d {
					blocks[g.block] = true
				}
			}
			if len(got) != len(want) {
				t.Errorf("%d groups for %d", len(got), len(want))
			}
			return blocks
		}
		if blocks := differ(); len(blocks) > 0 {
			t.Errorf("blocks that differ: %v", blocks)
		}
		ends := 0
		err := a.EachEnd(t.Context(), part, from, to, 0, 0, math.MaxInt64, func(offset int64, _, _, _ string, _ bool, send schemas.ID) {
			if ends++; sends[offset] != send {
				t.Errorf("offset %d: want send %s, got %s", offset, sends[offset], send)
			}
		})
		if err != nil || ends != len(sends) {
			t.Errorf("%d ends for %d: %v", ends, len(sends), err)
		}
		none := 0
		if err := a.EachEnd(t.Context(), part, from, to, 0, 0, 1, func(int64, string, string, string, bool, schemas.ID) { none++ }); err != nil || none > 0 {
			t.Errorf("asked for before 1970: %d ends, %v", none, err)
		}
		var at int64
		for at = range sends {
			break
		}
		if err := a.Exec(t.Context(), fmt.Sprintf("INSERT INTO deliveries_log SELECT * REPLACE (generateUUIDv4() AS send) FROM deliveries_log FINAL WHERE part = %d AND off = %d", part, at)); err != nil {
			t.Fatal(err)
		}
		if blocks := differ(); len(blocks) != 1 || !blocks[at/block] {
			t.Errorf("a changed send at %d shows in %v", at, blocks)
		}
	})
}
