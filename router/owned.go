package router

import (
	"time"

	"github.com/campanile-push/campanile/schemas"
)

// owned is a broadcast with cursors in the partition of a Drive. The Drive's places are ahead of the followed state.
type owned struct {
	id      schemas.ID
	request *request
	filter  platformFilter
	cursors []ownedCursor
	paced   paced

	turn        uint64
	notBefore   int64 // Unix microseconds: the store was behind or away
	backoff     time.Duration
	behindSince int64
}

type ownedCursor struct {
	key     cursorKey
	slot    int
	at      schemas.Cursor
	emitted int64
	done    bool

	turn uint64
}

// Back-off of a broadcast whose store is behind: the first question comes as soon as a store could have applied the
// request's own registrations.
const (
	minBackoff = 5 * time.Millisecond
	maxBackoff = 500 * time.Millisecond
)

func (o *owned) holdOff(nowUS int64) {
	o.backoff = min(max(2*o.backoff, minBackoff), maxBackoff)
	o.notBefore = nowUS + o.backoff.Microseconds()
	if o.behindSince == 0 {
		o.behindSince = nowUS
	}
}

func (o *owned) fresh() { o.notBefore, o.backoff, o.behindSince = 0, 0, 0 }

// own lists the cursors of b in the Drive's partition, at the places where the state has them.
func (d *drive) own(b *broadcast) *owned {
	r := b.request()
	o := &owned{id: b.id, request: r, filter: newPlatformFilter(r.Platforms)}
	for i, t := range schemas.Transports {
		for rng := range r.Ranges {
			if d.state.layout.OfCursor(b.id, t, rng) != d.partition {
				continue
			}
			c := ownedCursor{key: cursorKey{t, rng}, slot: i}
			if _, gone := d.forgotten[schemas.CursorKey{Broadcast: b.id, Transport: t, Range: rng}]; !gone {
				at := b.cursors[c.key]
				c.at, c.emitted, c.done = at.at, at.emitted, at.done
			}
			o.cursors = append(o.cursors, c)
		}
	}
	return o
}

// left is how many cursors of this partition are not done.
func (o *owned) left() (n int) {
	for i := range o.cursors {
		if !o.cursors[i].done {
			n++
		}
	}
	return n
}
