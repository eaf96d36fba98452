package simulator

import "math/bits"

// countTable maps 64-bit hashes to small counts by open addressing: 12 bytes a slot, 15 to 19 bytes a key in a large table. It
// never forgets a key. The zero value is empty. For one goroutine.
//
// It is cut into shards by the top bits of the hash, so that growing one stalls nobody for long.
type countTable struct {
	shards [countShards]countShard
	counts bool // whether counts are kept; without, it is a set of 8 bytes a slot
	n      int
}

type countShard struct {
	keys   []uint64
	counts []uint32
	n      int
}

const (
	countShards     = 256
	countShardShift = 64 - 8
	firstSlots      = 16
)

// add counts key once more and returns how often it had been there.
func (t *countTable) add(key uint64) (before uint32) {
	key = nonZero(key)
	s := &t.shards[key>>countShardShift]
	if s.n*5 >= len(s.keys)*4 {
		s.grow(t.counts)
	}
	i := s.slot(key)
	if s.keys[i] == 0 {
		s.keys[i] = key
		s.n++
		t.n++
	} else {
		before = 1
	}
	if t.counts {
		before = s.counts[i]
		s.counts[i]++
	}
	return before
}

// count is how often key was added; 0 or 1 in a set.
func (t *countTable) count(key uint64) uint32 {
	key = nonZero(key)
	s := &t.shards[key>>countShardShift]
	if s.n == 0 {
		return 0
	}
	i := s.slot(key)
	switch {
	case s.keys[i] == 0:
		return 0
	case t.counts:
		return s.counts[i]
	}
	return 1
}

// bytes is the memory that the table holds.
func (t *countTable) bytes() (n int) {
	for i := range t.shards {
		n += 8*cap(t.shards[i].keys) + 4*cap(t.shards[i].counts)
	}
	return n
}

// nonZero moves the one key that marks an empty slot.
func nonZero(key uint64) uint64 {
	if key == 0 {
		return 1
	}
	return key
}

// peek reads the slot where key is first looked for.
func (t *countTable) peek(key uint64) uint64 {
	s := &t.shards[key>>countShardShift]
	if len(s.keys) == 0 {
		return 0
	}
	return s.keys[s.home(key)]
}

// home is where key is first looked for: its bits below the shard's, scaled to the number of slots (Lemire, 2016), which
// therefore need be no power of two.
func (s *countShard) home(key uint64) int {
	at, _ := bits.Mul64(key<<(64-countShardShift), uint64(len(s.keys)))
	return int(at)
}

// slot is where key is, or would be. The shard has a free slot.
func (s *countShard) slot(key uint64) int {
	i := s.home(key)
	for s.keys[i] != 0 && s.keys[i] != key {
		if i++; i == len(s.keys) {
			i = 0
		}
	}
	return i
}

// grow adds a quarter: a table is never less than 64 % full, which bounds the bytes for each key.
func (s *countShard) grow(counts bool) {
	old := *s
	size := max(firstSlots, len(old.keys)+len(old.keys)/4)
	s.keys = make([]uint64, size)
	if counts {
		s.counts = make([]uint32, size)
	}
	for i, key := range old.keys {
		if key == 0 {
			continue
		}
		at := s.slot(key)
		s.keys[at] = key
		if counts {
			s.counts[at] = old.counts[i]
		}
	}
}
