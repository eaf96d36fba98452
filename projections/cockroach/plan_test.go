package cockroach_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/campanile-push/campanile/projections"
	"github.com/campanile-push/campanile/projections/cockroach"
	"github.com/campanile-push/campanile/schemas"
)

// plan is a node of what EXPLAIN says of a statement that it has executed.
type plan struct {
	Node    string `json:"Node Type"`
	Index   string `json:"Index Name"`
	Rows    int    `json:"Actual Rows"`
	Removed int    `json:"Rows Removed by Filter"`
	Fetches int    `json:"Heap Fetches"`
	Plans   []plan
}

const executed = "ANALYZE" //nolint:misspell // the server's word

// TestPagesAreRangeScans: whatever the channel and the place in it, a page is read from the key's index in order, and no row but its own.
// `make explain` prints the plans.
func TestPagesAreRangeScans(t *testing.T) {
	t.Parallel()
	const n = 30_000
	at := newDatabase(t)
	store := openAt(t, at)
	if store.Dialect() != cockroach.PostgreSQL {
		t.Skip("the plans of PostgreSQL are read")
	}
	rows := make([]projections.Filled, n)
	for i := range rows {
		channels := []string{"all"}
		if i%2 == 0 {
			channels = append(channels, "half")
		}
		if i%1000 == 0 {
			channels = append(channels, "some")
		}
		rows[i] = projections.Filled{Device: benchDevice(i), State: projections.State{
			Known: true, Registration: projections.Registration{AtUS: 1, Platform: "Android-fcm"}, Channels: channels,
		}}
	}
	if err := store.Fill(t.Context(), slices.Values(rows)); err != nil {
		t.Fatal(err)
	}
	conn := connect(t, at)
	explain := func(format, mode, channel string, shard, limit int) (text string) {
		t.Helper()
		execIn(t, conn, "ROLLBACK; BEGIN; SET LOCAL plan_cache_mode = "+mode+"; "+cockroach.SQLInOrder)
		name := fmt.Sprintf("page_%s_%s", mode, format)
		execIn(t, conn, "DEALLOCATE ALL; PREPARE "+name+" (TEXT, TEXT, INT8, INT8, BYTEA, INT8, INT8, INT8) AS "+cockroach.SQLPage)
		sql := fmt.Sprintf("EXPLAIN (%s, BUFFERS, FORMAT %s) EXECUTE %s ('moodle', '%s', %d, %d, '', 0, %d, %d)", executed, format, name, channel, schemas.FCM, shard, schemas.Shards, limit+1)
		answer, err := conn.Query(t.Context(), sql, pgx.QueryExecModeSimpleProtocol)
		if err != nil {
			t.Fatal(err)
		}
		lines, err := pgx.CollectRows(answer, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(lines, "\n")
	}
	for _, mode := range []string{"force_generic_plan", "force_custom_plan"} { // a prepared statement's from the sixth time on, and before
		for channel, size := range map[string]int{"all": n, "half": n / 2, "some": n / 1000, "nobody": 0} {
			for _, shard := range []int{0, 128} {
				for _, limit := range []int{100, 10_000} {
					var said []struct{ Plan plan }
					if err := json.Unmarshal([]byte(explain("JSON", mode, channel, shard, limit)), &said); err != nil || len(said) != 1 {
						t.Fatalf("read the plan: %v", err)
					}
					top := said[0].Plan
					if top.Node != "Limit" || len(top.Plans) != 1 || top.Rows > limit+1 {
						t.Errorf("%s, %s from shard %d: want a limit over one scan, got %+v", mode, channel, shard, top)
						continue
					}
					scan := top.Plans[0]
					if scan.Node != "Index Only Scan" || scan.Index != "audience_pkey" || len(scan.Plans) != 0 {
						t.Errorf("%s, %s from shard %d: want a scan of the key alone, got %+v", mode, channel, shard, scan)
					}
					if scan.Removed != 0 || scan.Fetches != 0 || scan.Rows != top.Rows {
						t.Errorf("%s, %s from shard %d: rows are read that are not of the page: %+v", mode, channel, shard, scan)
					}
					if shard == 0 && top.Rows != min(limit+1, size) {
						t.Errorf("%s, %s: want %d rows, got %d", mode, channel, min(limit+1, size), top.Rows)
					}
				}
			}
		}
		t.Logf("%s:\n%s", mode, explain("TEXT", mode, "all", 100, 10_000))
	}
}

// connect is one connection, which is closed when t ends.
func connect(t *testing.T, at string) *pgx.Conn {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), at) // the URL is one of a pool
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		pool.Close()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Release()
		pool.Close()
	})
	return conn.Conn()
}

func execIn(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
}

// TestARebuiltAudienceHasTheKeyOfANewOne: a rebuild is how a store of an older version gets it.
func TestARebuiltAudienceHasTheKeyOfANewOne(t *testing.T) {
	t.Parallel()
	at := newDatabase(t)
	store := openAt(t, at)
	if store.Dialect() != cockroach.PostgreSQL {
		t.Skip("CockroachDB has it by itself")
	}
	e, err := store.BeginEpoch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	read := func(_ context.Context, _ int32, _, _ int64, _ func(schemas.Batch) error) error { return nil }
	if _, err := e.Swap(t.Context(), projections.SwapOptions{Keep: true}, read); err != nil {
		t.Fatal(err)
	}
	conn := connect(t, at)
	answer, err := conn.Query(t.Context(), "SELECT indexdef FROM pg_indexes WHERE tablename LIKE 'audience%' ORDER BY tablename")
	if err != nil {
		t.Fatal(err)
	}
	keys, err := pgx.CollectRows(answer, pgx.RowTo[string])
	if err != nil || len(keys) != 2 {
		t.Fatalf("want a key of each of two epochs, got %v, %v", keys, err)
	}
	for _, key := range keys {
		if !strings.Contains(key, "INCLUDE (registered_at_us, platform)") {
			t.Errorf("a page reads more than this: %s", key)
		}
	}
}
