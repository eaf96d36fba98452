package clickhouse_test

import (
	"strconv"
	"testing"

	"github.com/campanile-push/campanile/projections/chdbtest"
	"github.com/campanile-push/campanile/schemas"
)

// BenchmarkHandle inserts deliveries in batches of one size; ns/op is of one row, the engine's own CPU included only where it
// is waited for.
func BenchmarkHandle(b *testing.B) {
	for _, size := range []int{1_000, 10_000, 100_000} {
		b.Run(strconv.Itoa(size), func(b *testing.B) {
			a := open(b, chdbtest.Start(b, b.TempDir()).URL)
			h := newHistory(1, 3*size)
			records := h.records[0]
			b.ResetTimer()
			off := int64(0)
			for rows := 0; rows < b.N; rows += len(records) {
				for i := range records {
					records[i].Offset = off
					off++
				}
				batch := schemas.Batch{Topic: schemas.Deliveries, Records: records[:min(len(records), b.N-rows)]}
				if err := a.Handle(b.Context(), batch, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
