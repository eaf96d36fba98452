package senders

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/campanile-push/campanile/schemas"
)

// TestAnIDSetIsAMap does the same to a set and to a map, with ids of which many want the same place.
func TestAnIDSetIsAMap(t *testing.T) {
	t.Parallel()
	var s idSet
	want := map[schemas.ID]bool{}
	random := rand.New(rand.NewPCG(1, 2))
	for step := range 200_000 {
		var k schemas.ID
		binary.LittleEndian.PutUint64(k[:], random.Uint64N(50)+1)
		binary.LittleEndian.PutUint64(k[8:], random.Uint64N(60))
		switch n := random.IntN(10); {
		case n < 5:
			if got := s.add(k); got == want[k] {
				t.Fatalf("step %d: added %v: want new=%v", step, k, !want[k])
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
		if s.n != len(want) {
			t.Fatalf("step %d: want %d, got %d", step, len(want), s.n)
		}
	}
	for k := range want {
		if !s.has(k) {
			t.Errorf("want %v", k)
		}
	}
	s.clear()
	if s.has(schemas.ID{1}) || s.n != 0 {
		t.Error("want nothing after clear")
	}
}
