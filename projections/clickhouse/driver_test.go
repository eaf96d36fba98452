package clickhouse_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	driver "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/google/uuid"

	"github.com/campanile-push/campanile/projections/chdbtest"
)

// TestDriverSpeaksWithTheEmbeddedEngine: whatever clickhouse-go does over HTTP, under each compression.
func TestDriverSpeaksWithTheEmbeddedEngine(t *testing.T) {
	t.Parallel()
	url := chdbtest.Start(t, t.TempDir()).URL
	for name, method := range map[string]driver.CompressionMethod{
		"none": driver.CompressionNone, "lz4": driver.CompressionLZ4, "zstd": driver.CompressionZSTD, "gzip": driver.CompressionGZIP,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conf, err := driver.ParseDSN(url)
			if err != nil {
				t.Fatal(err)
			}
			conf.Auth.Database = "default"
			conf.Compression = &driver.Compression{Method: method}
			conn, err := driver.Open(conf)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			ctx := t.Context()
			must(conn.Exec(ctx, "CREATE DATABASE "+name+" ENGINE = Atomic"))
			must(conn.Exec(ctx, "CREATE TABLE "+name+".t (id UUID, n UInt64, s LowCardinality(String), at DateTime64(6, 'UTC'), m Map(String, Int64)) ENGINE = MergeTree ORDER BY n"))
			batch, err := conn.PrepareBatch(ctx, "INSERT INTO "+name+".t")
			must(err)
			at := time.UnixMicro(1_790_000_000_123_456).UTC()
			const rows = 200_000
			for i := range uint64(rows) {
				must(batch.Append(uuid.UUID{15: byte(i)}, i, "s", at, map[string]int64{"k": 1}))
			}
			must(batch.Send())
			var n, sum uint64
			must(conn.QueryRow(ctx, "SELECT count(), sum(n) FROM "+name+".t WHERE s = {s:String}", driver.Named("s", "s")).Scan(&n, &sum))
			if n != rows || sum != rows*(rows-1)/2 {
				t.Errorf("%d rows, sum %d", n, sum)
			}
			var all []uint64
			got, err := conn.Query(ctx, "SELECT n, m FROM "+name+".t ORDER BY n")
			must(err)
			for got.Next() {
				var m map[string]int64
				var v uint64
				must(got.Scan(&v, &m))
				all = append(all, v)
			}
			must(got.Err())
			if len(all) != rows || !slices.IsSorted(all) {
				t.Errorf("%d rows read", len(all))
			}
			var exception *driver.Exception
			if err := conn.Exec(ctx, "SELECT * FROM "+name+".nowhere"); !errors.As(err, &exception) || exception.Code != 60 {
				t.Errorf("want UNKNOWN_TABLE, got %v", err)
			}
			// Fails after rows are out.
			got, err = conn.Query(ctx, "SELECT throwIf(number = 3000000, 'late') FROM numbers(5000000) SETTINGS max_threads = 1, max_block_size = 10000")
			for err == nil && got.Next() {
				continue
			}
			if err == nil {
				err = got.Err()
			}
			if !errors.As(err, &exception) || exception.Code != 395 {
				t.Errorf("want FUNCTION_THROW_IF_VALUE_IS_NON_ZERO, got %v", err)
			}
			short, cancel := context.WithTimeout(driver.Context(ctx, driver.WithSettings(driver.Settings{"max_block_size": 1000})), 300*time.Millisecond)
			defer cancel()
			if err := conn.Exec(short, "SELECT count() FROM numbers(1000000000000) WHERE NOT ignore(sipHash64(number)) FORMAT Null"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("want the deadline, got %v", err)
			}
			var after uint8
			must(conn.QueryRow(ctx, "SELECT toUInt8(getSetting('max_block_size') != 1000)").Scan(&after))
			if after != 1 {
				t.Error("a request's setting outlived it")
			}
		})
	}
}
