package migrate_test

import (
	"context"
	"testing"

	"github.com/campanile-push/campanile/migrate"
	"github.com/campanile-push/campanile/migrate/migratetest"
	"github.com/campanile-push/campanile/schemas"
)

// nowhere takes every append and keeps none: what is measured is reading, folding and encoding.
type nowhere struct{ layout schemas.Layout }

func (n nowhere) Append(_ context.Context, say func(*schemas.Out)) error {
	say(schemas.NewOut(n.layout))
	return nil
}

// BenchmarkAirNotifier imports 100,000 records of tokens for each operation, with all their dirt.
func BenchmarkAirNotifier(b *testing.B) {
	dir := b.TempDir()
	if _, err := migratetest.Write(dir, migratetest.Export{Tokens: 100_000, Sites: 100}); err != nil {
		b.Fatal(err)
	}
	files, _, err := migrate.Find(dir)
	if err != nil {
		b.Fatal(err)
	}
	o := options(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := migrate.AirNotifier(b.Context(), nowhere{schemas.Layout{Partitions: 4}}, migrate.NewState(), files, o); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/100_000, "us/token")
}
