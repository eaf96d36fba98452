package router

import (
	"fmt"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

func (s *State) applyExpansions(r *schemas.Record) error {
	named, ok := schemas.ParseCursorKey(r.Key)
	var e *pushv1.CursorMoved
	if !r.Tombstone() {
		event, err := r.Event()
		if err != nil {
			return err
		}
		if e, _ = event.(*pushv1.CursorMoved); e == nil {
			ok = false
		}
	}
	i, known := slot(named.Transport)
	if !ok || !known {
		return fmt.Errorf("%s[%d]@%d: not a cursor under its key: %w", r.Topic, r.Partition, r.Offset, schemas.ErrMalformed)
	}
	key := cursorKey{named.Transport, named.Range}
	move := lastMove{offset: r.Offset, key: key, broadcast: named.Broadcast, tombstone: e == nil}
	b := s.get(named.Broadcast)
	if e == nil {
		b.dropCursor(key, i)
	} else {
		move.from, move.pageEmitted = schemas.CursorFrom(e.From), e.PageEmitted
		b.setCursor(key, i, cursor{at: schemas.CursorFrom(e.To), emitted: e.Emitted, done: e.Done, offset: r.Offset})
	}
	s.last[r.Partition] = move
	s.settle(b)
	return nil
}

// setCursor moves a cursor. Of an ended broadcast only its being there matters: it has its counts from its end.
func (b *broadcast) setCursor(key cursorKey, slot int, c cursor) {
	if b.cursors == nil {
		b.cursors = map[cursorKey]cursor{}
	}
	old := b.cursors[key]
	if b.end {
		b.cursors[key] = cursor{done: true}
		b.countDone(slot, old.done, true)
		return
	}
	b.cursors[key] = c
	b.countDone(slot, old.done, c.done)
	b.emitted[slot] += c.emitted - old.emitted
}

func (b *broadcast) dropCursor(key cursorKey, slot int) {
	old, there := b.cursors[key]
	if !there {
		return
	}
	delete(b.cursors, key)
	b.countDone(slot, old.done, false)
	if !b.end {
		b.emitted[slot] -= old.emitted
	}
}

func (b *broadcast) countDone(slot int, before, after bool) {
	switch {
	case after && !before:
		b.done[slot]++
	case before && !after:
		b.done[slot]--
	}
}

// Rewind sets back by its last page the cursor whose move is the newest record of a partition of expansions, and returns
// what is emitted once more. It does so once in a process: an embedded broker that was not stopped cleanly may have torn the
// newest transaction, and only that one, so that the move is there but not all of its sends.
func (s *State) Rewind(partition int32) (again int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rewound[partition] {
		return 0
	}
	s.rewound[partition] = true
	move, ok := s.last[partition]
	b := s.broadcasts[move.broadcast]
	if !ok || move.tombstone || b == nil || !b.live() {
		return 0
	}
	i, ok := slot(move.key.transport)
	c, there := b.cursors[move.key]
	if !ok || !there || c.offset != move.offset {
		return 0
	}
	b.setCursor(move.key, i, cursor{at: move.from, emitted: c.emitted - move.pageEmitted, offset: c.offset})
	s.settle(b)
	return move.pageEmitted
}

func (s *State) applyProgress(r *schemas.Record) error {
	key, ok := schemas.ParseProgressKey(r.Key)
	if !ok {
		return fmt.Errorf("%s[%d]@%d: key: %w", r.Topic, r.Partition, r.Offset, schemas.ErrMalformed)
	}
	if key.Broadcast.IsZero() {
		return nil // what tally itself remembers
	}
	if r.Tombstone() {
		b := s.get(key.Broadcast)
		b.dropPart(key.Partition)
		s.settle(b)
		return nil
	}
	event, err := r.Event()
	if err != nil {
		return err
	}
	e, ok := event.(*pushv1.ProgressCounted)
	if !ok {
		return fmt.Errorf("%s[%d]@%d: %T: %w", r.Topic, r.Partition, r.Offset, event, schemas.ErrMalformed)
	}
	b := s.get(key.Broadcast)
	grown := b.setPart(key.Partition, byTransport(e.Counts))
	s.meter(b, grown)
	s.settle(b)
	return nil
}

// setPart takes one partition's counts over and returns by how much the first outcomes grew.
func (b *broadcast) setPart(partition int32, now [slots]counts) (grown [slots]int64) {
	if b.parts == nil {
		b.parts = map[int32]*[slots]counts{}
	}
	if b.end {
		b.parts[partition] = nil
		return grown
	}
	part := b.parts[partition]
	if part == nil {
		part = &[slots]counts{}
		b.parts[partition] = part
	}
	for i := range slots {
		grown[i] = now[i].first - part[i].first
		b.sums[i].add(&part[i], -1)
		b.sums[i].add(&now[i], 1)
	}
	*part = now
	return grown
}

func (b *broadcast) dropPart(partition int32) {
	if part := b.parts[partition]; part != nil && !b.end {
		for i := range slots {
			b.sums[i].add(&part[i], -1)
		}
	}
	delete(b.parts, partition)
}

// meter counts first outcomes as they come in.
func (s *State) meter(b *broadcast, grown [slots]int64) {
	if !s.measuring || !b.live() {
		return
	}
	nowUS := s.options.Now().UnixMicro()
	for i, n := range grown {
		if n > 0 {
			l := s.lane(laneKey{b.app, i})
			l.meter.count(n, nowUS, l.outstanding >= s.lead(l)/2)
		}
	}
}
