package ingest

import (
	"net/netip"
	"sync"
	"time"
)

// maxBuckets bounds a limiter's memory. Past it the fullest buckets are forgotten, and past that everybody new shares one.
const maxBuckets = 1 << 16

// limiter gives each name so many goes at once, and one more each interval.
type limiter struct {
	burst    float64
	interval time.Duration

	mu      sync.Mutex
	buckets map[string]bucket
}

type bucket struct {
	level float64 // goes left
	at    time.Time
}

func newLimiter(burst int, interval time.Duration) *limiter {
	return &limiter{burst: float64(burst), interval: interval, buckets: make(map[string]bucket)}
}

// take reports whether name may go now.
func (l *limiter) take(name string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, there := l.buckets[name]
	if !there {
		if len(l.buckets) >= maxBuckets {
			l.sweep(now)
		}
		if len(l.buckets) >= maxBuckets {
			name = ""
			b, there = l.buckets[name]
		}
		if !there {
			b = bucket{l.burst, now}
		}
	}
	b = l.refilled(b, now)
	ok := b.level >= 1
	if ok {
		b.level--
	}
	l.buckets[name] = b
	return ok
}

func (l *limiter) refilled(b bucket, now time.Time) bucket {
	if passed := now.Sub(b.at); passed > 0 {
		b.level = min(l.burst, b.level+float64(passed)/float64(l.interval))
		b.at = now
	}
	return b
}

// sweep forgets the buckets that are full again.
func (l *limiter) sweep(now time.Time) {
	for name, b := range l.buckets {
		if l.refilled(b, now).level >= l.burst {
			delete(l.buckets, name)
		}
	}
}

// upkeep is sweep for those outside.
func (l *limiter) upkeep(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sweep(now)
}

// addressName is the name under which an address is limited: one customer of a network gets at least an IPv6 /64.
func addressName(address string) string {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return address
	}
	a = a.Unmap().WithZone("")
	if a.Is4() {
		return a.String()
	}
	p, err := a.Prefix(64)
	if err != nil {
		return a.String()
	}
	return p.String()
}
