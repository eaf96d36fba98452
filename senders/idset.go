package senders

import (
	"encoding/binary"

	"github.com/campanile-push/campanile/schemas"
)

// idSet is a set of ids by open addressing with linear probing: 16 bytes a place and no pointers, so that a million of them cost the
// garbage collector nothing, and a third of a map's time. The zero id is in no set. The zero value is empty; clear keeps the memory.
type idSet struct {
	slots []schemas.ID // a power of two; the zero id is a free place
	n     int
}

const (
	leastSlots = 1 << 10
	mostLoad   = 3 // of four places, so many are taken at most
)

// home is where an id is looked for first. Ids are random in their last bits.
func (s *idSet) home(id *schemas.ID) int {
	const odd = 0x9e3779b97f4a7c15 // 2^64 over the golden ratio
	return int((binary.LittleEndian.Uint64(id[8:])*odd)>>32) & (len(s.slots) - 1)
}

// find returns the place of an id, or the free one where it would go.
func (s *idSet) find(id *schemas.ID) (at int, found bool) {
	for at = s.home(id); ; at = (at + 1) & (len(s.slots) - 1) {
		if s.slots[at] == *id {
			return at, true
		}
		if s.slots[at].IsZero() {
			return at, false
		}
	}
}

func (s *idSet) has(id schemas.ID) bool {
	if s.n == 0 || id.IsZero() {
		return false
	}
	_, found := s.find(&id)
	return found
}

// add reports whether id was not there.
func (s *idSet) add(id schemas.ID) bool {
	if id.IsZero() {
		return true
	}
	if 4*s.n >= mostLoad*len(s.slots) {
		s.grow()
	}
	at, found := s.find(&id)
	if !found {
		s.slots[at] = id
		s.n++
	}
	return !found
}

func (s *idSet) grow() {
	old := s.slots
	s.slots = make([]schemas.ID, max(2*len(old), leastSlots))
	for i := range old {
		if !old[i].IsZero() {
			at, _ := s.find(&old[i])
			s.slots[at] = old[i]
		}
	}
}

// remove takes id out, and moves those behind it that would not be found over the gap.
func (s *idSet) remove(id schemas.ID) {
	if s.n == 0 || id.IsZero() {
		return
	}
	gap, found := s.find(&id)
	if !found {
		return
	}
	s.n--
	mask := len(s.slots) - 1
	for at := (gap + 1) & mask; !s.slots[at].IsZero(); at = (at + 1) & mask {
		if home := s.home(&s.slots[at]); (at-home)&mask >= (at-gap)&mask { // its home is at the gap or before it
			s.slots[gap] = s.slots[at]
			gap = at
		}
	}
	s.slots[gap] = schemas.ID{}
}

func (s *idSet) clear() {
	clear(s.slots)
	s.n = 0
}
