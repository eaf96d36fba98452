package maxprocs

import (
	"runtime/metrics"
	"time"
)

// load is what a process did between two looks.
type load struct {
	cores  float64       // CPU time, user and system, by time
	waited time.Duration // of goroutines that could run, until they did: the 90th percentile
}

// meter remembers what was read at the last look. It is for one goroutine.
type meter struct {
	at     time.Time
	cpu    time.Duration
	waits  metrics.Float64Histogram
	sample []metrics.Sample
}

func newMeter() *meter {
	m := &meter{sample: []metrics.Sample{{Name: "/sched/latencies:seconds"}}}
	m.look() // where it fails, the next one does
	return m
}

// look is the load since the last one; false where it cannot be read.
func (m *meter) look() (load, bool) {
	cpu, err := CPUTime()
	if err != nil {
		return load{}, false
	}
	metrics.Read(m.sample)
	if m.sample[0].Value.Kind() != metrics.KindFloat64Histogram {
		return load{}, false
	}
	now, waits := time.Now(), m.sample[0].Value.Float64Histogram()
	seen := load{waited: ninetieth(m.waits, *waits)}
	if elapsed := now.Sub(m.at); elapsed > 0 {
		seen.cores = float64(cpu-m.cpu) / float64(elapsed)
	}
	m.at, m.cpu, m.waits.Buckets = now, cpu, waits.Buckets
	m.waits.Counts = append(m.waits.Counts[:0], waits.Counts...) // the next read overwrites them
	return seen, true
}

// ninetieth is the 90th percentile of what a cumulative histogram of seconds counts in now and not yet in before, which may be empty: the
// lower edge of its bucket, so that it is told short by a fifth at most in the runtime's. Zero: nothing was counted.
func ninetieth(before, now metrics.Float64Histogram) time.Duration {
	since := func(i int) uint64 {
		if i < len(before.Counts) {
			return now.Counts[i] - before.Counts[i]
		}
		return now.Counts[i]
	}
	var total, sum uint64
	for i := range now.Counts {
		total += since(i)
	}
	if total == 0 {
		return 0
	}
	for i := range now.Counts {
		if sum += since(i); 10*sum >= 9*total {
			return time.Duration(max(now.Buckets[i], 0) * float64(time.Second)) // the first edge may be -Inf
		}
	}
	return 0
}
