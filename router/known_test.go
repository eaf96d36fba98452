package router

import (
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/campanile-push/campanile/schemas"
)

// TestRequestSetIsAMapThatForgets compares with a map.
func TestRequestSetIsAMapThatForgets(t *testing.T) {
	t.Parallel()
	type place struct{ offset, atUS int64 }
	s, want := newRequestSet(time.Hour), map[schemas.ID]place{}
	nowUS := int64(1_780_000_000_000_000)
	ids := make([]schemas.ID, 3000)
	for i := range ids {
		ids[i] = schemas.RequestID("app", "k", string(rune(i)))
	}
	for offset := range int64(50_000) {
		nowUS += rand.Int64N(1_000_000)
		id := ids[rand.IntN(len(ids))]
		s.expire(nowUS)
		got, atUS, _, ok, _ := s.find(id, offset)
		switch w, there := want[id]; {
		case there && nowUS-w.atUS < time.Hour.Microseconds() && (!ok || got != w.offset || max(atUS, w.atUS)-min(atUS, w.atUS) > 1e6):
			t.Fatalf("want %v, got %d at %d, %v", w, got, atUS, ok)
		case ok && (!there || got != w.offset):
			t.Fatalf("found at %d what stands at %v", got, w)
		}
		if rand.IntN(2) == 0 {
			s.put(id, offset, nowUS, 7)
			want[id] = place{offset, nowUS}
		}
	}
	if s.n.Load() > 10_000 || len(s.tables) > spans+2 {
		t.Errorf("%d requests in %d tables: nothing is forgotten", s.n.Load(), len(s.tables))
	}
}

// BenchmarkKnownMillion fills a set with the requests of a day, a million, and looks each of them up. B/id is memory that stays.
func BenchmarkKnownMillion(b *testing.B) {
	const n = 1_000_000
	ids := make([]schemas.ID, n)
	for i := range ids {
		ids[i] = schemas.NewID()
		ids[i] = schemas.RequestID("app", string(ids[i][:8]), string(ids[i][8:]))
	}
	step := schemas.RememberRequests.Microseconds() / n
	var before, after runtime.MemStats
	for b.Loop() {
		runtime.GC()
		runtime.ReadMemStats(&before)
		s := newRequestSet(schemas.RememberRequests)
		for i, id := range ids {
			s.put(id, int64(i), int64(i)*step, 1)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		for i, id := range ids {
			if offset, _, _, ok, _ := s.find(id, n); !ok || offset != int64(i) {
				b.Fatalf("id %d: %d, %v", i, offset, ok)
			}
		}
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n, "B/id")
	}
	b.ReportMetric(b.Elapsed().Seconds()*1e9/float64(b.N)/(2*n), "ns/lookup")
}
