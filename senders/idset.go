package senders

import (
	"encoding/binary"
	"math/bits"

	"github.com/campanile-push/campanile/schemas"
)

// idSet is a set of ids by open addressing with linear probing: 8 bytes a place and no pointers, so that a million of them cost the
// garbage collector nothing. It keeps a fingerprint of 64 bits of each id, and the place where that stands is drawn from other bits. So
// an id that is not there is taken for one that is only if one of the few fingerprints that a search meets is its own by chance. Ids of
// sends are SHA-1's, 122 bits of chance: a search meets 30 at most on average, which is one mistake in 6e17 sends. At 200,000 a second
// that is one in a hundred thousand years; the one send would be dropped as a repeat.
//
// A set grows by another table, four times as large: what is there cannot move, since its place is not to be had from a fingerprint. The
// zero id is in no set. The zero value is empty.
type idSet struct {
	tables []idTable // ids are added to the last
	first  int       // slots of the first table; 0: leastSlots
	most   int       // ids that will be added, so that no table is larger than it need be; 0: not known
	n      int       // ids that were added, those that were removed among them
}

type idTable struct {
	slots []uint64 // a power of two
	taken int      // slots that are not free
}

const (
	leastSlots = 1 << 10
	slotGrowth = 4
	mostLoad   = 3 // of four places, so many are taken at most

	// What is in a slot that holds no fingerprint.
	freeSlot    = 0
	removedSlot = 1 // what stands behind it is still to be found
)

// fingerprint is what is kept of an id, and the number from which its place is drawn.
func fingerprint(id *schemas.ID) (mark, place uint64) {
	const (
		odd   = 0x9e3779b97f4a7c15 // 2^64 over the golden ratio
		other = 0xc2b2ae3d27d4eb4f // a prime of xxHash
	)
	hi, lo := binary.BigEndian.Uint64(id[:8]), binary.BigEndian.Uint64(id[8:])
	mark = hi*other ^ bits.RotateLeft64(lo*odd, 32) // for every lo, another mark for another hi
	mark = (mark ^ mark>>29) * odd
	mark ^= mark >> 32
	if mark <= removedSlot {
		mark += removedSlot + 1
	}
	return mark, lo * odd >> 32
}

// find returns the place of a mark, or the free one where it would go.
func (t *idTable) find(mark, place uint64) (at int, found bool) {
	mask := len(t.slots) - 1
	for at = int(place) & mask; ; at = (at + 1) & mask {
		switch t.slots[at] {
		case mark:
			return at, true
		case freeSlot:
			return at, false
		}
	}
}

// touch reads where ids would stand, so that the processor can wait for many places at a time. The sum says nothing.
func (s *idSet) touch(ids []schemas.ID) (sum uint64) {
	for i := range s.tables {
		slots := s.tables[i].slots
		for j := range ids {
			_, place := fingerprint(&ids[j])
			sum += slots[int(place)&(len(slots)-1)]
		}
	}
	return sum
}

func (s *idSet) has(id schemas.ID) bool {
	if s.n == 0 || id.IsZero() {
		return false
	}
	mark, place := fingerprint(&id)
	return s.hasMark(mark, place)
}

func (s *idSet) hasMark(mark, place uint64) bool {
	for i := range s.tables {
		if _, found := s.tables[i].find(mark, place); found {
			return true
		}
	}
	return false
}

// add reports whether id was not there.
func (s *idSet) add(id schemas.ID) bool {
	if id.IsZero() {
		return true
	}
	mark, place := fingerprint(&id)
	return s.addMark(mark, place)
}

func (s *idSet) addMark(mark, place uint64) bool {
	last := len(s.tables) - 1
	for i := range last {
		if _, found := s.tables[i].find(mark, place); found {
			return false
		}
	}
	if last >= 0 {
		t := &s.tables[last]
		at, found := t.find(mark, place)
		if found {
			return false
		}
		if 4*t.taken < mostLoad*len(t.slots) {
			t.slots[at] = mark
			t.taken++
			s.n++
			return true
		}
	}
	s.grow()
	t := &s.tables[len(s.tables)-1]
	at, _ := t.find(mark, place)
	t.slots[at] = mark
	t.taken++
	s.n++
	return true
}

func (s *idSet) grow() {
	size := max(s.first, leastSlots)
	if n := len(s.tables); n > 0 {
		size = slotGrowth * len(s.tables[n-1].slots)
	}
	if s.most > s.n {
		size = min(size, slotsFor(s.most-s.n))
	}
	s.tables = append(s.tables, idTable{slots: make([]uint64, size)})
}

// remove takes id out. Its slot is not used again.
func (s *idSet) remove(id schemas.ID) {
	if s.n == 0 || id.IsZero() {
		return
	}
	mark, place := fingerprint(&id)
	for i := range s.tables {
		if at, found := s.tables[i].find(mark, place); found {
			s.tables[i].slots[at] = removedSlot
			return
		}
	}
}

// begin empties the set and makes it ready for about n ids, in the memory that it has where that fits.
func (s *idSet) begin(n int) {
	s.first, s.n = slotsFor(n), 0
	last := len(s.tables) - 1
	if last < 0 || len(s.tables[last].slots) != s.first {
		s.tables = nil
		return
	}
	kept := s.tables[last].slots
	clear(kept)
	s.tables = []idTable{{slots: kept}}
}

// slotsFor is how large a table for n ids must be.
func slotsFor(n int) int {
	size := leastSlots
	for mostLoad*size < 4*n {
		size *= 2
	}
	return size
}
