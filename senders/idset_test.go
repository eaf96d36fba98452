package senders

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/campanile-push/campanile/schemas"
)

// TestAnIDSetIsAMap does the same to a set and to a map, with ids of which many want the same place.
func TestAnIDSetIsAMap(t *testing.T) {
	t.Parallel()
	for _, most := range []int{0, 200_000} {
		s := idSet{most: most}
		want := map[schemas.ID]bool{}
		added := 0
		random := rand.New(rand.NewPCG(1, 2))
		for step := range 200_000 {
			var k schemas.ID
			binary.LittleEndian.PutUint64(k[:], random.Uint64N(300)+1)
			binary.LittleEndian.PutUint64(k[8:], random.Uint64N(60))
			switch n := random.IntN(10); {
			case n < 5:
				if got := s.add(k); got == want[k] {
					t.Fatalf("step %d: added %v: want new=%v", step, k, !want[k])
				}
				if !want[k] {
					added++
				}
				want[k] = true
			case n < 9:
				s.remove(k)
				delete(want, k)
			default:
				if got := s.has(k); got != want[k] {
					t.Fatalf("step %d: want %v for %v", step, want[k], k)
				}
			}
		}
		if s.n != added || len(s.tables) < 2 {
			t.Errorf("want %d added over several tables, got %d over %d", added, s.n, len(s.tables))
		}
		for k := range want {
			if !s.has(k) {
				t.Errorf("want %v", k)
			}
		}
		s.begin(added)
		for k := range want {
			if s.has(k) {
				t.Fatalf("want nothing after begin, got %v", k)
			}
		}
	}
}

// TestMarksDoNotFollowFromPlaces: a place that many ids want is no reason to take one for another.
func TestMarksDoNotFollowFromPlaces(t *testing.T) {
	t.Parallel()
	seen := map[uint64]schemas.ID{}
	note := func(k schemas.ID) {
		mark, _ := fingerprint(&k)
		if mark <= removedSlot {
			t.Fatalf("%v: want no mark that says something else, got %d", k, mark)
		}
		if other, ok := seen[mark]; ok && other != k {
			t.Fatalf("want different marks of %v and %v", k, other)
		}
		seen[mark] = k
	}
	random := rand.New(rand.NewPCG(3, 4))
	var k schemas.ID
	for n := range uint64(50_000) {
		binary.BigEndian.PutUint64(k[8:], 7)
		binary.BigEndian.PutUint64(k[:8], n)
		note(k)
		_, place := fingerprint(&k)
		if _, first := fingerprint(&schemas.ID{15: 7}); place != first {
			t.Fatal("want the place to follow from the last eight bytes alone")
		}
		binary.BigEndian.PutUint64(k[:8], random.Uint64())
		binary.BigEndian.PutUint64(k[8:], random.Uint64())
		note(k)
	}
}

// TestAMemoryKeepsWhatItPromises adds sends in bursts and pauses, and drops some: of the last sends, as many as a generation holds and
// within the time of one, it forgets none, takes none for another, and its memory stays within two generations'.
func TestAMemoryKeepsWhatItPromises(t *testing.T) {
	t.Parallel()
	const size = 30_000
	m := newMemory(size)
	random := rand.New(rand.NewPCG(5, 6))
	type entry struct {
		id schemas.ID
		at int64
	}
	var sent []entry
	now := int64(time.Hour / time.Microsecond)
	most := 0
	for step := range 40 * size {
		if step%(3*size) == 0 {
			now += int64(random.IntN(6)) * memoryTurn.Microseconds()
		}
		now += int64(random.IntN(2000))
		var k schemas.ID
		binary.BigEndian.PutUint64(k[:8], random.Uint64())
		binary.BigEndian.PutUint64(k[8:], random.Uint64())
		if !m.add(k, now) {
			t.Fatalf("step %d: want %v new", step, k)
		}
		if random.IntN(100) == 0 {
			m.forget(k)
			if m.has(k) {
				t.Fatalf("step %d: want %v forgotten", step, k)
			}
		} else {
			sent = append(sent, entry{k, now})
		}
		back := random.IntN(min(size*9/10, len(sent))) // those that were dropped count too
		if e := sent[len(sent)-1-back]; now-e.at < memoryTurn.Microseconds() {
			if m.add(e.id, now) {
				t.Fatalf("step %d: want %v known, %d sends and %d µs later", step, e.id, back, now-e.at)
			}
		}
		slots := 0
		for _, set := range []*idSet{&m.young, &m.old} {
			for _, table := range set.tables {
				slots += len(table.slots)
			}
		}
		most = max(most, slots)
	}
	if limit := 2 * slotsFor(size) * 4 / 3; most > limit {
		t.Errorf("want at most %d slots at a time, got %d", limit, most)
	}
}

func TestAMemoryOfLittleTrafficIsSmall(t *testing.T) {
	t.Parallel()
	m := newMemory(memorySize)
	now := int64(time.Hour / time.Microsecond)
	fill := func(n int) {
		for range n {
			m.add(schemas.NewID(), now)
		}
	}
	fill(300_000)
	for range 3 {
		now += 2 * memoryTurn.Microseconds()
		fill(10)
	}
	for _, set := range []*idSet{&m.young, &m.old} {
		for _, table := range set.tables {
			if len(table.slots) > leastSlots {
				t.Errorf("want the memory of busier times given back, got a table of %d slots", len(table.slots))
			}
		}
	}
}

func BenchmarkMemoryAdd(b *testing.B) {
	m := newMemory(memorySize)
	ids := make([]schemas.ID, 1<<16)
	for i := range ids {
		ids[i] = schemas.BulkSendID(schemas.ID{1}, schemas.Device{Token: string(rune(i)) + "token"})
	}
	n := int64(0)
	for b.Loop() {
		n++
		m.add(hop(ids[n&(1<<16-1)], n>>16, nil), n)
	}
}
