package audit

import (
	"encoding/binary"
	"math/bits"

	"github.com/campanile-push/campanile/schemas"
)

// table keeps 32 bits for each id in 12 bytes a slot: an id is known by 64 bits of its hash. Of five million ids, two have the same with
// a probability of less than one in a million. The zero value is empty.
//
// It is cut into shards that grow one at a time and by a quarter, so that it never holds much more than it needs: 14 to 18 bytes for each id
// (measured: table_test.go).
type table struct {
	shards [1 << shardBits]shard
	n      int
}

const (
	shardBits = 8
	firstCap  = 16
)

type shard struct {
	keys   []uint64 // 0: free
	values []uint32
	n      int
}

// hashOf mixes all of an id: UUIDs of version 7 begin with the time.
func hashOf(id schemas.ID) uint64 {
	h := binary.LittleEndian.Uint64(id[:8])*0x9e3779b97f4a7c15 ^ binary.LittleEndian.Uint64(id[8:])
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9 // the finalizer of splitmix64
	h = (h ^ h>>27) * 0x94d049bb133111eb
	h ^= h >> 31
	return max(h, 1)
}

// at is the value of an id, which is zero where the id is new. The pointer is good until the next call.
func (t *table) at(id schemas.ID) *uint32 {
	h := hashOf(id)
	s := &t.shards[h>>(64-shardBits)]
	if s.n*20 >= len(s.keys)*17 { // 85 % full
		s.grow()
	}
	i := s.find(h)
	if s.keys[i] == 0 {
		s.keys[i] = h
		s.n++
		t.n++
	}
	return &s.values[i]
}

// get is the value of an id, zero for one that is not there.
func (t *table) get(id schemas.ID) uint32 {
	h := hashOf(id)
	s := &t.shards[h>>(64-shardBits)]
	if len(s.keys) == 0 {
		return 0
	}
	return s.values[s.find(h)]
}

// each calls f with every value.
func (t *table) each(f func(value uint32)) {
	for i := range t.shards {
		s := &t.shards[i]
		for j, h := range s.keys {
			if h != 0 {
				f(s.values[j])
			}
		}
	}
}

// find is the place of a hash, or the free one where it belongs. The shard is never full.
func (s *shard) find(h uint64) int {
	place, _ := bits.Mul64(h<<shardBits, uint64(len(s.keys)))
	i := int(place)
	for s.keys[i] != h && s.keys[i] != 0 {
		if i++; i == len(s.keys) {
			i = 0
		}
	}
	return i
}

func (s *shard) grow() {
	old := *s
	size := max(firstCap, len(old.keys)+len(old.keys)/4)
	s.keys, s.values = make([]uint64, size), make([]uint32, size)
	for j, h := range old.keys {
		if h != 0 {
			i := s.find(h)
			s.keys[i], s.values[i] = h, old.values[j]
		}
	}
}
