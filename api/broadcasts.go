package api

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// Broadcasts is what the log says of broadcasts, for people to read. Its memory grows with broadcasts and their cursors, never with
// an audience. All methods may be called from any goroutine.
type Broadcasts struct {
	now func() time.Time

	mu        sync.Mutex
	all       map[schemas.ID]*entry
	measuring bool
}

// Topics are those that Apply folds.
func Topics() []schemas.Topic {
	return []schemas.Topic{schemas.Broadcasts, schemas.Expansions, schemas.Progress}
}

// NewBroadcasts returns an empty view; a nil clock is time.Now. Hand Apply to a follower of Topics.
func NewBroadcasts(now func() time.Time) *Broadcasts {
	if now == nil {
		now = time.Now
	}
	return &Broadcasts{now: now, all: map[schemas.ID]*entry{}}
}

// entry is one broadcast. What it holds is a function of the last record of each key, so that compaction changes nothing.
type entry struct {
	contents []content // in log order: the first counts
	run      *run
	rate     *float64
	cancel   *Act
	end      *pushv1.BroadcastEnded
	cursors  map[schemas.CursorKey]*pushv1.CursorMoved
	parts    map[int32][]*pushv1.TransportCounts // by partition of progress
	speed    speed
}

type content struct {
	record  schemas.ID
	request *pushv1.BroadcastRequested // without its content, which nobody reads here
}

type run struct {
	act    Act
	paused bool
}

// Apply folds one record of Topics. Errors are schemas.ErrUnknownType and ErrMalformed, wrapped; the record is then as if it were
// not there.
func (b *Broadcasts) Apply(r schemas.Record) error {
	var e schemas.Event
	if !r.Tombstone() {
		var err error
		if e, err = r.Event(); err != nil {
			return err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	ok := false
	switch r.Topic {
	case schemas.Broadcasts:
		ok = b.broadcast(r.Key, e)
	case schemas.Expansions:
		ok = b.cursor(r.Key, e)
	case schemas.Progress:
		ok = b.progress(r.Key, e)
	default:
	}
	if !ok {
		return fmt.Errorf("%s[%d]@%d: %T under that key: %w", r.Topic, r.Partition, r.Offset, e, schemas.ErrMalformed)
	}
	return nil
}

// Measure starts the measuring of speed: once the follower has caught up. Before, outcomes come in as fast as the log can be read.
func (b *Broadcasts) Measure() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.measuring = true
}

func (b *Broadcasts) entry(id schemas.ID) *entry {
	e := b.all[id]
	if e == nil {
		e = &entry{}
		b.all[id] = e
	}
	return e
}

// settle drops what the log says nothing of any more.
func (b *Broadcasts) settle(id schemas.ID, e *entry) {
	if len(e.contents) == 0 && e.run == nil && e.rate == nil && e.cancel == nil && e.end == nil && len(e.cursors) == 0 && len(e.parts) == 0 {
		delete(b.all, id)
	}
}

// broadcast folds a record of broadcasts, and reports whether the event may stand under its key.
func (b *Broadcasts) broadcast(key []byte, event schemas.Event) bool {
	k, ok := schemas.ParseBroadcastKey(key)
	if !ok {
		return false
	}
	e := b.entry(k.Broadcast)
	defer b.settle(k.Broadcast, e)
	if event == nil {
		e.forget(k)
		return true
	}
	if kindOf(event) != k.Kind {
		return false
	}
	switch v := event.(type) {
	case *pushv1.BroadcastRequested:
		v.Content, v.Watermark = nil, nil
		e.contents = slices.DeleteFunc(e.contents, func(c content) bool { return c.record == k.Record })
		e.contents = append(e.contents, content{k.Record, v})
	case *pushv1.BroadcastPaused:
		e.run = &run{Act{moment(v.PausedAtUs), v.PausedBy, v.Reason}, true}
	case *pushv1.BroadcastResumed:
		e.run = &run{Act{moment(v.ResumedAtUs), v.ResumedBy, ""}, false}
	case *pushv1.BroadcastRateChanged:
		e.rate = &v.Rate
	case *pushv1.BroadcastCancelled:
		e.cancel = &Act{moment(v.CancelledAtUs), v.CancelledBy, v.Reason}
	case *pushv1.BroadcastEnded:
		e.end, e.cursors, e.parts = v, nil, nil // it has the counts
	}
	return true
}

// kindOf is the kind of the key under which an event stands; empty for an event of another topic.
func kindOf(event schemas.Event) schemas.BroadcastKind {
	switch event.(type) {
	case *pushv1.BroadcastRequested:
		return schemas.BroadcastContent
	case *pushv1.BroadcastPaused, *pushv1.BroadcastResumed:
		return schemas.BroadcastRun
	case *pushv1.BroadcastRateChanged:
		return schemas.BroadcastRate
	case *pushv1.BroadcastCancelled:
		return schemas.BroadcastCancel
	case *pushv1.BroadcastEnded:
		return schemas.BroadcastState
	}
	return ""
}

func (e *entry) forget(k schemas.BroadcastKey) {
	switch k.Kind {
	case schemas.BroadcastContent:
		e.contents = slices.DeleteFunc(e.contents, func(c content) bool { return c.record == k.Record })
	case schemas.BroadcastRun:
		e.run = nil
	case schemas.BroadcastRate:
		e.rate = nil
	case schemas.BroadcastCancel:
		e.cancel = nil
	case schemas.BroadcastState:
		e.end = nil
	}
}

func (b *Broadcasts) cursor(key []byte, event schemas.Event) bool {
	k, ok := schemas.ParseCursorKey(key)
	moved, isMove := event.(*pushv1.CursorMoved)
	if !ok || event != nil && !isMove {
		return false
	}
	e := b.entry(k.Broadcast)
	defer b.settle(k.Broadcast, e)
	switch {
	case event == nil:
		delete(e.cursors, k)
	case e.end == nil:
		if e.cursors == nil {
			e.cursors = map[schemas.CursorKey]*pushv1.CursorMoved{}
		}
		moved.From, moved.To = nil, nil // a cursor holds a token
		e.cursors[k] = moved
	}
	return true
}

func (b *Broadcasts) progress(key []byte, event schemas.Event) bool {
	k, ok := schemas.ParseProgressKey(key)
	if !ok {
		return false
	}
	if k.Broadcast.IsZero() {
		return true // what tally itself remembers
	}
	counted, isCount := event.(*pushv1.ProgressCounted)
	if event != nil && !isCount {
		return false
	}
	e := b.entry(k.Broadcast)
	defer b.settle(k.Broadcast, e)
	switch {
	case event == nil:
		delete(e.parts, k.Partition)
	case e.end == nil:
		if e.parts == nil {
			e.parts = map[int32][]*pushv1.TransportCounts{}
		}
		e.parts[k.Partition] = counted.Counts
		if b.measuring {
			e.speed.sample(b.now(), e.finished())
		}
	}
	return true
}

// Get is one broadcast; ok is false for one that the log does not hold, or not yet.
func (b *Broadcasts) Get(id schemas.ID) (found Broadcast, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.all[id]
	if e == nil || !e.visible() {
		return Broadcast{}, false
	}
	return e.view(id, b.now()), true
}

// Query chooses broadcasts.
type Query struct {
	App  string                  // empty: of every app
	Mine func(keyID string) bool // nil: whoever asked for them
	// State is one of the words of Broadcast.State; empty: any, and "live": all that have not ended.
	State string
	// Before is where the last page ended: its last id; zero: from the newest.
	Before schemas.ID
	Limit  int // at least 1
}

// List is a page of broadcasts, the newest first, and whether there are more.
func (b *Broadcasts) List(q Query) (page []Broadcast, more bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	type place struct {
		at int64
		id schemas.ID
	}
	var found []place
	for id, e := range b.all {
		if !e.visible() || q.App != "" && e.app() != q.App || q.Mine != nil && !q.Mine(e.request().GetKeyId()) {
			continue
		}
		if state := e.state(now); q.State != "" && q.State != state && (q.State != stateLive || e.end != nil) {
			continue
		}
		found = append(found, place{e.requestedAtUS(), id})
	}
	newest := func(x, y place) int {
		return cmp.Or(cmp.Compare(y.at, x.at), strings.Compare(string(y.id[:]), string(x.id[:])))
	}
	slices.SortFunc(found, newest)
	if last := b.all[q.Before]; last != nil {
		from := place{last.requestedAtUS(), q.Before}
		found = slices.DeleteFunc(found, func(p place) bool { return newest(p, from) <= 0 })
	}
	for _, p := range found {
		if len(page) == q.Limit {
			return page, true
		}
		page = append(page, b.all[p.id].view(p.id, now))
	}
	return page, false
}
