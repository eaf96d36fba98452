package router

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// broadcast is what the log says of one broadcast. The State's lock guards it.
type broadcast struct {
	id        schemas.ID
	partition int32  // of the topic broadcasts
	app       string // of the request, once known

	contents []content // requests under this id that the log still holds, in log order: the first counts, the others lost
	run      bool      // whether the log holds a record of that kind; so the next three
	rate     bool
	cancel   bool
	end      bool

	paused      bool
	resumedAtUS int64   // zero: it never was
	ownRate     float64 // of the last BroadcastRateChanged
	endedAtUS   int64

	cursors map[cursorKey]cursor
	done    [slots]int
	emitted [slots]int64

	parts map[int32]*[slots]counts // by partition of progress; nil values once the broadcast has ended
	sums  [slots]counts            // of parts, or of BroadcastEnded

	outstanding [slots]int64 // what it adds to its lanes
	expressed   [slots]int64 // of it, what it adds while it is small
}

type content struct {
	record  schemas.ID
	body    uint64   // the first bytes of its body's hash; zero where nobody said
	request *request // nil where the broadcast has ended since
}

type cursorKey struct {
	transport schemas.Transport
	rng       uint32
}

// cursor is a place in one range of an audience. The zero cursor is at the beginning.
type cursor struct {
	at      schemas.Cursor
	emitted int64
	done    bool
	offset  int64 // of its last CursorMoved
}

// request is what counts of a live broadcast, nil for any other.
func (b *broadcast) request() *request {
	if b.end || len(b.contents) == 0 {
		return nil
	}
	return b.contents[0].request
}

func (b *broadcast) live() bool { return b.request() != nil }

func (b *broadcast) cursorCount() int { return int(b.request().GetRanges()) * slots }

func (b *broadcast) cursorsDone() int {
	n := 0
	for _, d := range b.done {
		n += d
	}
	return n
}

// empty: nothing in the log is about it.
func (b *broadcast) empty() bool {
	return len(b.contents) == 0 && !b.run && !b.rate && !b.cancel && !b.end &&
		len(b.cursors) == 0 && len(b.parts) == 0
}

func (s *State) applyBroadcasts(r *schemas.Record) error {
	key, ok := schemas.ParseBroadcastKey(r.Key)
	var e schemas.Event
	if !r.Tombstone() {
		var err error
		if e, err = r.Event(); err != nil { // before the key: a newer version may have new keys too
			return err
		}
	}
	if !ok {
		return fmt.Errorf("%s[%d]@%d: key: %w", r.Topic, r.Partition, r.Offset, schemas.ErrMalformed)
	}
	s.seen[r.Partition]++
	b := s.get(key.Broadcast)
	defer s.settle(b)
	if e == nil {
		b.forget(key)
		return nil
	}
	if !b.fold(key, e) {
		return fmt.Errorf("%s[%d]@%d: %T under a key of %s: %w", r.Topic, r.Partition, r.Offset, e, key.Kind, schemas.ErrMalformed)
	}
	return nil
}

// fold reports whether e may stand under key.
func (b *broadcast) fold(key schemas.BroadcastKey, e schemas.Event) bool {
	switch e := e.(type) {
	case *pushv1.BroadcastRequested:
		return key.Kind == schemas.BroadcastContent && b.addContent(key.Record, e)
	case *pushv1.BroadcastPaused:
		if key.Kind != schemas.BroadcastRun {
			return false
		}
		b.run, b.paused, b.resumedAtUS = true, true, 0
	case *pushv1.BroadcastResumed:
		if key.Kind != schemas.BroadcastRun {
			return false
		}
		b.run, b.paused, b.resumedAtUS = true, false, e.ResumedAtUs
	case *pushv1.BroadcastRateChanged:
		if key.Kind != schemas.BroadcastRate {
			return false
		}
		b.rate, b.ownRate = true, e.Rate
	case *pushv1.BroadcastCancelled:
		if key.Kind != schemas.BroadcastCancel {
			return false
		}
		b.cancel = true
	case *pushv1.BroadcastEnded:
		if key.Kind != schemas.BroadcastState {
			return false
		}
		b.ended(e)
	default:
		return false
	}
	return true
}

// addContent keeps the first request in log order, for ever: the others lost.
func (b *broadcast) addContent(record schemas.ID, e *pushv1.BroadcastRequested) bool {
	if e.Ranges == 0 {
		e.Ranges = 1
	}
	if e.Ranges > schemas.Shards || e.Ranges&(e.Ranges-1) != 0 || len(e.Channels) == 0 || e.App == "" {
		return false
	}
	b.contents = slices.DeleteFunc(b.contents, func(c content) bool { return c.record == record })
	c := content{record: record, request: e}
	if len(e.BodyHash) >= 8 {
		c.body = binary.BigEndian.Uint64(e.BodyHash)
	}
	e.Content, e.BodyHash = nil, nil
	b.contents = append(b.contents, c)
	b.app = b.contents[0].request.GetApp()
	return true
}

// ended keeps of an ended broadcast what its tombstones will need, and the final counts.
func (b *broadcast) ended(e *pushv1.BroadcastEnded) {
	b.end, b.endedAtUS = true, e.EndedAtUs
	b.sums, b.emitted = byTransport(e.Counts), [slots]int64{}
	for _, c := range e.Counts {
		if i, ok := slot(c.GetTransport()); ok {
			b.emitted[i] = c.GetEmitted()
		}
	}
	for i := range b.contents {
		b.contents[i].request = nil
	}
	b.done = [slots]int{}
	for k := range b.cursors {
		b.cursors[k] = cursor{done: true}
		if i, ok := slot(k.transport); ok {
			b.done[i]++
		}
	}
	for p := range b.parts {
		b.parts[p] = nil
	}
}

func (b *broadcast) forget(key schemas.BroadcastKey) {
	switch key.Kind {
	case schemas.BroadcastContent:
		b.contents = slices.DeleteFunc(b.contents, func(c content) bool { return c.record == key.Record })
	case schemas.BroadcastRun:
		b.run, b.paused, b.resumedAtUS = false, false, 0
	case schemas.BroadcastRate:
		b.rate, b.ownRate = false, 0
	case schemas.BroadcastCancel:
		b.cancel = false
	case schemas.BroadcastState:
		if b.end { // the counts were the end's
			b.emitted, b.sums = [slots]int64{}, [slots]counts{}
		}
		b.end, b.endedAtUS = false, 0
	}
}
