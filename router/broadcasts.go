package router

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// Audience reads devices in pages. Both device stores implement it.
type Audience interface {
	// Page fills page with the next devices of an audience, or returns ErrBehind until the query's watermark is applied.
	Page(ctx context.Context, q schemas.PageQuery, page *schemas.Page) error
}

// BroadcastsOptions of the broadcast router. The zero value works.
type BroadcastsOptions struct {
	Now func() time.Time // nil: time.Now
	// MinPage and MaxPage bound how many devices one transaction holds, where the lead and a broadcast's own rate would have
	// it otherwise; zero: 100 and 10,000. They are kept between 1 and 50,000.
	MinPage, MaxPage int
	// RewindLastPage sets the last cursor of each partition back by its page, once. For an embedded broker that was not
	// stopped cleanly.
	RewindLastPage bool
	// Headroom that large broadcasts leave to others; nil: none.
	Headroom *Headroom
	// Registerer of the stage's metrics; nil: none are kept.
	Registerer prometheus.Registerer
}

// maxTransaction bounds a page: more records in a transaction make nothing faster, and hold readers back.
const maxTransaction = 50_000

func (o BroadcastsOptions) withDefaults() BroadcastsOptions {
	if o.Now == nil {
		o.Now = time.Now
	}
	setDefault(&o.MinPage, 100)
	setDefault(&o.MaxPage, 10_000)
	o.MaxPage = min(max(o.MaxPage, 1), maxTransaction)
	o.MinPage = min(max(o.MinPage, 1), o.MaxPage)
	return o
}

// Broadcasts expands broadcasts into sends. It is a Drive over expansions.
type Broadcasts struct {
	options  BroadcastsOptions
	state    *State
	audience Audience
	log      *slog.Logger
	sends    *prometheus.CounterVec
	pages    *prometheus.CounterVec
}

// NewBroadcasts returns the broadcast router. The state must be followed, and caught up whenever a Drive begins.
func NewBroadcasts(options BroadcastsOptions, state *State, audience Audience, log *slog.Logger) *Broadcasts {
	o := options.withDefaults()
	return &Broadcasts{
		options: o, state: state, audience: audience, log: log,
		sends: counterVec(o.Registerer, "campanile_router_sends_total", "Sends that broadcasts became, by transport.", "transport"),
		pages: counterVec(o.Registerer, "campanile_router_pages_total",
			"Pages read of audiences, by what came of them: sent, behind (the store is not fresh yet) or failed.", "result"),
	}
}

// drive is one ownership of one partition of expansions. One goroutine uses it.
type drive struct {
	*Broadcasts
	partition int32
	commit    schemas.Commit

	owned      map[schemas.ID]*owned
	forgotten  map[schemas.CursorKey]struct{} // tombstoned, and still in the followed state
	lanes      map[laneKey]*laneView
	appTurns   map[string]uint64
	candidates []candidate
	plans      uint64
	turn       uint64
	expressUS  int64 // when a small audience was there last; zero: never
	turnUS     int64 // before which a large one leaves the machine to others
	expansion  expansion
	ahead      ahead
}

// Drive schedules the cursors of one partition until ctx ends, and returns ctx's error, or that of a commit: then nothing is
// known of the last page, and the next Drive starts from what the log says. For one partition it must not run twice at once.
func (b *Broadcasts) Drive(ctx context.Context, partition int32, commit schemas.Commit) error {
	b.state.measure()
	if b.options.RewindLastPage {
		if again := b.state.Rewind(partition); again > 0 {
			b.log.Warn("the log was not closed cleanly: the last page is sent once more", "partition", partition, "sends", again)
		}
	}
	w := b.state.watch()
	defer b.state.unwatch(w)
	d := &drive{
		Broadcasts: b, partition: partition, commit: commit,
		owned:     map[schemas.ID]*owned{},
		forgotten: map[schemas.CursorKey]struct{}{},
		lanes:     map[laneKey]*laneView{},
		appTurns:  map[string]uint64{},
		expansion: expansion{page: &schemas.Page{}},
		ahead:     ahead{page: &schemas.Page{}},
	}
	for ctx.Err() == nil {
		nowUS := b.options.Now().UnixMicro()
		forget := d.plan(nowUS)
		next := nextStep(d.candidates, nowUS, d.limits(nowUS))
		var err error
		switch {
		case len(forget) > 0:
			err = d.forget(ctx, forget)
		case next.kind == stepClose:
			err = d.close(ctx, d.candidates[next.index].broadcast, nowUS)
		case next.kind == stepPage:
			err = d.expand(ctx, &d.candidates[next.index], next.limit, nowUS)
		default:
			err = d.sleep(ctx, w, next.wakeAt, nowUS)
		}
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (d *drive) limits(nowUS int64) pageLimits {
	limits := pageLimits{d.options.MinPage, d.options.MaxPage, sharesEach * int(d.state.layout.Partitions)}.beside(d.expressUS, nowUS)
	if h := d.options.Headroom; h.limits(nowUS) {
		limits.most = max(min(limits.most, h.page(), besideExpress), limits.least)
	}
	return limits
}

// sleep waits for a change of the state, or until wakeAt.
func (d *drive) sleep(ctx context.Context, w *watcher, wakeAt, nowUS int64) error {
	var clock <-chan time.Time
	if wakeAt != never {
		t := time.NewTimer(time.Duration(wakeAt-nowUS) * time.Microsecond)
		defer t.Stop()
		clock = t.C
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-w.signal:
	case <-clock:
	}
	return nil
}

// expand takes one page and commits its sends and the cursor's new place as one. Meanwhile it reads the page that is likely to be
// next.
func (d *drive) expand(ctx context.Context, c *candidate, limit int, nowUS int64) error {
	o, cur := c.broadcast, c.cursor
	page, err := d.read(ctx, o, cur, limit, nowUS)
	if err != nil {
		return d.unread(ctx, o, err, nowUS)
	}
	o.fresh()
	devices := o.filter.apply(cur.key.transport, page.Devices)
	moved := *cur
	moved.at, moved.done = page.Next, page.Done
	moved.at.Token = strings.Clone(moved.at.Token) // the page is used again
	moved.emitted += int64(len(devices))
	notBefore, gaveWay, lane := c.notBefore, c.gaveWay && nowUS-c.notBefore < promptly.Microseconds(), schemas.Bulk
	if c.express {
		lane = schemas.Express
	}
	var reading sync.WaitGroup
	if next := following(d.candidates, c, d.turn+1, int64(len(devices)), moved.done, nowUS, d.limits(nowUS)); next.kind == stepPage {
		reading.Go(func() { d.readAhead(ctx, next, &moved, c, nowUS) })
	}
	err = d.commit(ctx, func(out *schemas.Out) {
		d.expansion.emit(out, lane, o.request, cur.key.transport, devices)
		e := o.move(cur, &moved, nowUS)
		e.GaveWay = gaveWay
		out.CursorMoved(e)
	})
	reading.Wait()
	if err != nil {
		return fmt.Errorf("commit a page of broadcast %s: %w", o.id, err)
	}
	if c.slice > 0 {
		o.paced.take(len(devices), notBefore, nowUS)
	}
	if h := d.options.Headroom; !c.express && h.limits(nowUS) {
		d.turnUS = h.take(len(devices), nowUS)
	}
	d.turn++
	moved.turn, o.turn, d.appTurns[o.request.App] = d.turn, d.turn, d.turn
	*cur = moved
	d.pages.WithLabelValues("sent").Inc()
	d.sends.WithLabelValues(cur.key.transport.Word()).Add(float64(len(devices)))
	return nil
}

// unread holds a broadcast off whose page could not be read: the others go on.
func (d *drive) unread(ctx context.Context, o *owned, err error, nowUS int64) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	first := o.behindSince == 0
	o.holdOff(nowUS)
	if errors.Is(err, schemas.ErrBehind) {
		d.pages.WithLabelValues("behind").Inc()
		return nil
	}
	d.pages.WithLabelValues("failed").Inc()
	if first {
		d.log.Warn("audience not read: trying again", "broadcast", o.id.String(), "app", o.request.App, "error", err)
	}
	return nil
}

// move is the event of a cursor's step.
func (o *owned) move(from, to *ownedCursor, nowUS int64) *pushv1.CursorMoved {
	return &pushv1.CursorMoved{
		BroadcastId: o.request.BroadcastId, App: o.request.App, Transport: to.key.transport,
		Range: to.key.rng, Ranges: o.request.Ranges, From: from.at.Event(), To: to.at.Event(),
		PageEmitted: to.emitted - from.emitted, Emitted: to.emitted, Done: to.done, MovedAtUs: nowUS,
	}
}

// close ends the cursors of a cancelled or expired broadcast where they stand. The end waits for it: only an owner can say
// that no page will follow.
func (d *drive) close(ctx context.Context, o *owned, nowUS int64) error {
	err := d.commit(ctx, func(out *schemas.Out) {
		for i := range o.cursors {
			if c := &o.cursors[i]; !c.done {
				closed := *c
				closed.done = true
				out.CursorMoved(o.move(c, &closed, nowUS))
			}
		}
	})
	if err != nil {
		return fmt.Errorf("close the cursors of broadcast %s: %w", o.id, err)
	}
	for i := range o.cursors {
		o.cursors[i].done = true
	}
	return nil
}

// forget tombstones cursors of broadcasts that are over, in a transaction of its own: the last page must stay the last
// record of what could be torn.
func (d *drive) forget(ctx context.Context, keys []schemas.CursorKey) error {
	err := d.commit(ctx, func(out *schemas.Out) {
		for _, k := range keys {
			out.ForgetCursor(k)
		}
	})
	if err != nil {
		return fmt.Errorf("forget cursors: %w", err)
	}
	for _, k := range keys {
		d.forgotten[k] = struct{}{}
	}
	return nil
}
