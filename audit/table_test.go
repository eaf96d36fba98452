package audit

import (
	"encoding/binary"
	"runtime"
	"testing"

	"github.com/campanile-push/campanile/schemas"
)

// sequenced are ids as hard as they come: all the same but for a few bits.
func sequenced(n int) (id schemas.ID) {
	binary.BigEndian.PutUint64(id[8:], uint64(n))
	return id
}

func TestTableKeepsAValueForEachID(t *testing.T) {
	t.Parallel()
	const n = 200_000
	var all table
	for i := range n {
		*all.at(sequenced(i)) += uint32(i)
		*all.at(schemas.DirectSendID(sequenced(i)))++
	}
	if all.n != 2*n {
		t.Fatalf("want %d ids, got %d", 2*n, all.n)
	}
	for i := range n {
		if v := all.get(sequenced(i)); v != uint32(i) {
			t.Fatalf("id %d: want its number, got %d", i, v)
		}
	}
	if v := all.get(sequenced(n)); v != 0 {
		t.Errorf("an id that is not there: %d", v)
	}
	var sum, ones uint64
	all.each(func(v uint32) { sum += uint64(v); ones++ })
	if want := uint64(n)*(n-1)/2 + n; sum != want || ones != 2*n {
		t.Errorf("want %d values with the sum %d, got %d with %d", 2*n, want, ones, sum)
	}
	var none table
	if none.get(sequenced(1)) != 0 {
		t.Error("an empty table has a value")
	}
}

// BenchmarkTableMemory prints bytes an id: go test ./audit -bench TableMemory -benchtime 1x.
func BenchmarkTableMemory(b *testing.B) {
	for _, n := range []int{1_000_000, 5_000_000} {
		b.Run(map[bool]string{true: "1M", false: "5M"}[n == 1_000_000], func(b *testing.B) {
			for b.Loop() {
				var before, after runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&before)
				all := &table{}
				for i := range n {
					*all.at(schemas.DirectSendID(sequenced(i))) = 1
				}
				runtime.GC()
				runtime.ReadMemStats(&after)
				b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(n), "B/id")
				b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1e6, "MB")
				runtime.KeepAlive(all)
			}
		})
	}
}
