package router

import (
	"context"
	"errors"
	"time"

	"github.com/campanile-push/campanile/schemas"
)

// aheadFor is how long a page that was read ahead may be used: meanwhile phones come and go.
const aheadFor = time.Second

// ahead is the page that is read while the one before it is being written, and whose it is.
type ahead struct {
	page   *schemas.Page
	cursor *ownedCursor // nil: nothing was read
	after  schemas.Cursor
	limit  int
	readUS int64
}

// fits reports whether the page is the one that a cursor wants now.
func (a *ahead) fits(c *ownedCursor, limit int, nowUS int64) bool {
	return a.cursor == c && a.after == c.at && a.limit <= limit && nowUS-a.readUS < aheadFor.Microseconds()
}

// read gives a cursor's next page: the one that was read ahead, or one read now.
func (d *drive) read(ctx context.Context, o *owned, cur *ownedCursor, limit int, nowUS int64) (*schemas.Page, error) {
	fits := d.ahead.fits(cur, limit, nowUS)
	d.ahead.cursor = nil
	if fits {
		d.expansion.page, d.ahead.page = d.ahead.page, d.expansion.page
		return d.expansion.page, nil
	}
	return d.expansion.page, d.fill(ctx, d.expansion.page, o, cur.key, cur.at, limit)
}

// fill reads one page.
func (d *drive) fill(ctx context.Context, page *schemas.Page, o *owned, key cursorKey, after schemas.Cursor, limit int) error {
	from, to := schemas.ShardRange(key.rng, o.request.Ranges)
	page.Reset()
	err := d.audience.Page(ctx, schemas.PageQuery{
		App: o.request.App, Channels: o.request.Channels, Transport: key.transport, ShardFrom: from, ShardTo: to,
		After: after, Limit: limit, Watermark: o.request.Watermark.GetEnds(),
	}, page)
	if err == nil && len(page.Devices) == 0 && !page.Done {
		err = errors.New("the store gave an empty page before the end of its range")
	}
	return err
}

// readAhead reads the page that will most likely be next, once moved has taken the place of c's cursor. What goes wrong is met again,
// and then told, when the page's turn has come.
func (d *drive) readAhead(ctx context.Context, next step, moved *ownedCursor, c *candidate, nowUS int64) {
	n := &d.candidates[next.index]
	at := n.cursor.at
	if n.cursor == c.cursor {
		at = moved.at
	}
	if d.fill(ctx, d.ahead.page, n.broadcast, n.cursor.key, at, next.limit) == nil {
		d.ahead.cursor, d.ahead.after, d.ahead.limit, d.ahead.readUS = n.cursor, at, next.limit, nowUS
	}
}

// following is the step after a page of c that emits so many, if nothing else changes: what the schedule will say then. It spoils
// candidates, which are gathered anew before each step.
func following(candidates []candidate, c *candidate, turn uint64, emitted int64, done bool, nowUS int64, limits pageLimits) step {
	for i := range candidates {
		o := &candidates[i]
		if o.broadcast.request.App == c.broadcast.request.App {
			o.turns[0] = turn
		}
		if o.broadcast == c.broadcast {
			o.turns[1] = turn
			o.paused = o.paused || o.slice > 0 // the rate holds it back
		}
	}
	c.turns[2] = turn
	c.lane.add(emitted, c.express)
	c.paused = c.paused || done
	return nextStep(candidates, nowUS, limits)
}
