package maxprocs

import (
	"math"
	"runtime/metrics"
	"testing"
	"time"
)

func TestNinetiethOfWhatIsNew(t *testing.T) {
	t.Parallel()
	edges := []float64{math.Inf(-1), 0, 0.001, 0.002, 0.004, math.Inf(1)}
	for _, c := range []struct {
		name        string
		before, now []uint64
		want        time.Duration
	}{
		{"nothing at all", []uint64{0, 0, 0, 0, 0}, []uint64{0, 0, 0, 0, 0}, 0},
		{"nothing new", []uint64{1, 2, 3, 4, 5}, []uint64{1, 2, 3, 4, 5}, 0},
		{"nothing before", nil, []uint64{0, 0, 0, 7, 0}, 2 * time.Millisecond},
		{"no buckets", nil, nil, 0},
		{"one", []uint64{0, 9, 0, 0, 0}, []uint64{0, 9, 1, 0, 0}, time.Millisecond},
		{"a tenth is beyond", []uint64{0, 50, 0, 0, 3}, []uint64{0, 59, 0, 0, 4}, 0},
		{"more than a tenth is", []uint64{0, 50, 0, 0, 3}, []uint64{0, 58, 0, 1, 4}, 2 * time.Millisecond},
		{"what was before does not count", []uint64{0, 9, 0, 0, 1e15}, []uint64{0, 9, 10, 0, 1e15}, time.Millisecond},
		{"below every edge", []uint64{0, 0, 0, 0, 0}, []uint64{5, 0, 0, 0, 0}, 0},
		{"above every edge", []uint64{0, 0, 0, 0, 0}, []uint64{0, 0, 0, 0, 5}, 4 * time.Millisecond},
	} {
		before, now := metrics.Float64Histogram{Counts: c.before, Buckets: edges}, metrics.Float64Histogram{Counts: c.now, Buckets: edges}
		if got := ninetieth(before, now); got != c.want {
			t.Errorf("%s: want %v, got %v", c.name, c.want, got)
		}
	}
}
