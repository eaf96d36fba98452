package simulator

import (
	"sync"
	"time"
)

// deviceLimit counts the pushes of each token in a minute. The zero value is empty. Safe for concurrent use.
type deviceLimit struct {
	mu     sync.Mutex
	minute time.Time // when the count began
	counts countTable
}

// within counts a push and reports whether it is among the first limit of its token's minute.
func (d *deviceLimit) within(key uint64, limit int, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if since := now.Sub(d.minute); since < 0 || since >= time.Minute {
		d.minute, d.counts = now, countTable{counts: true}
	}
	return int(d.counts.add(key)) < limit
}
