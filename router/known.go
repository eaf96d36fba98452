package router

import (
	"encoding/binary"
	"slices"
	"sync/atomic"
	"time"

	"github.com/campanile-push/campanile/schemas"
)

// known is what is remembered of one request: 16 bytes.
type known struct {
	print  uint64 // of its id; never zero
	offset uint32 // in notifications, from its table's base
	body   uint32 // the first bytes of its body's hash; zero where nobody said
}

// requestSet remembers for a while where requests stand in a partition of notifications that may come again. It is
// a row of open-addressed tables, one for each span of time: the oldest goes as a whole, so that nothing is ever looked for in
// order to be forgotten. Two ids share a print once in 2^64 pairs.
// But for n it belongs to one goroutine.
type requestSet struct {
	keepUS, spanUS int64
	tables         []*requestTable // oldest first
	n              atomic.Int64    // requests; may be read from any goroutine
}

// spans is into how many tables the time of a requestSet is cut: what is over its time stays for one of them more.
const spans = 12

func newRequestSet(keep time.Duration) *requestSet {
	return &requestSet{keepUS: keep.Microseconds(), spanUS: max(1, keep.Microseconds()/spans)}
}

type requestTable struct {
	base            int64 // offset that the entries count from
	firstUS, lastUS int64 // log time of the entries
	entries         []known
	times           []uint32 // by entry: milliseconds after firstUS
	n               int
}

const minTable = 64 // entries; a power of two, as all sizes are

// fingerprint is 8 bytes of an id in which no version and no time stands.
func fingerprint(id schemas.ID) uint64 {
	p := binary.BigEndian.Uint64(id[:8])&^0xf000 | uint64(id[15]&0xf)<<12 // in place of the version's four bits
	if p == 0 {
		return 1
	}
	return p
}

// find returns where a request came last before an offset, and when by the log's time, to the millisecond; ok is false for one
// that is not known. there: what stands at that offset is known too. A new owner's state may hold what its batch will only say
// again: that must not hide what came before.
func (s *requestSet) find(id schemas.ID, before int64) (offset, atUS int64, body uint32, ok, there bool) {
	p := fingerprint(id)
	for _, t := range slices.Backward(s.tables) { // repeats come soon
		mask := uint64(len(t.entries) - 1)
		for i := start(p, mask); t.entries[i].print != 0; i = (i + 1) & mask {
			k := &t.entries[i]
			if k.print != p {
				continue
			}
			switch at := t.base + int64(k.offset); {
			case at == before:
				there = true
			case at < before && (!ok || at > offset):
				offset, atUS, body, ok = at, t.firstUS+int64(t.times[i])*1e3, k.body, true
			}
		}
		if ok {
			break
		}
	}
	return offset, atUS, body, ok, there
}

// put remembers a request that is not there.
func (s *requestSet) put(id schemas.ID, offset, atUS int64, body uint32) {
	t := s.newest(offset, atUS)
	if 4*(t.n+1) > 3*len(t.entries) {
		t.grow()
	}
	t.put(known{fingerprint(id), uint32(offset - t.base), body}, uint32(max(0, atUS-t.firstUS)/1e3))
	t.lastUS = max(t.lastUS, atUS)
	s.n.Add(1)
}

// newest is the table that takes a request at that place.
func (s *requestSet) newest(offset, atUS int64) *requestTable {
	if n := len(s.tables); n > 0 {
		t := s.tables[n-1]
		if atUS < t.firstUS+s.spanUS && offset >= t.base && offset-t.base < 1<<32 {
			return t
		}
	}
	t := &requestTable{base: offset, firstUS: atUS, lastUS: atUS, entries: make([]known, minTable), times: make([]uint32, minTable)}
	s.tables = append(s.tables, t)
	return t
}

// expire drops the tables in which nothing is young enough for a record of that time, or a later one.
func (s *requestSet) expire(nowUS int64) {
	for len(s.tables) > 0 && s.tables[0].lastUS < nowUS-s.keepUS {
		s.drop()
	}
}

// drop forgets the oldest table, and returns how many requests it held.
func (s *requestSet) drop() int {
	if len(s.tables) == 0 {
		return 0
	}
	n := s.tables[0].n
	s.n.Add(-int64(n))
	s.tables[0] = nil
	s.tables = s.tables[1:]
	return n
}

// start is where the search for a print begins.
func start(p, mask uint64) uint64 { return (p ^ p>>32) & mask }

func (t *requestTable) put(k known, ms uint32) {
	mask := uint64(len(t.entries) - 1)
	i := start(k.print, mask)
	for t.entries[i].print != 0 {
		i = (i + 1) & mask
	}
	t.entries[i], t.times[i] = k, ms
	t.n++
}

func (t *requestTable) grow() {
	entries, times := t.entries, t.times
	t.entries, t.times, t.n = make([]known, 2*len(entries)), make([]uint32, 2*len(entries)), 0
	for i, k := range entries {
		if k.print != 0 {
			t.put(k, times[i])
		}
	}
}
