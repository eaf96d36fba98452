package clickhouse

import (
	"context"
	"strconv"
	"strings"
	"time"
)

// refreshEvery is how often Run brings the rollups up to date.
const refreshEvery = time.Minute

// Run refreshes the rollups once a minute until ctx ends, and returns ctx's error. A refresh that fails is tried again a minute
// later: the rollups are behind then, never wrong.
func (a *Analytics) Run(ctx context.Context) error {
	tick := time.NewTicker(refreshEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			if err := a.Refresh(ctx); err != nil && ctx.Err() == nil {
				a.log.Warn("rollups are behind", "error", err)
			}
		}
	}
}

// rollup is a table that is written anew, in whole buckets of time, from what it sums up.
type rollup struct {
	name, columns string
	// from is the source, bucket the expression in it of the bucket that a row belongs to, and since when its rows are new.
	from, bucket, since string
	query               string // {from} and {when} are filled in
}

// overlap is how far behind the mark rows are looked for again: an insert's time is that of its beginning, and a refresh can
// have looked before its end.
const overlap = 10 * time.Minute

// rawKept is shorter than the TTL of deliveries_log by a day: an hour is written anew only while every one of its rows is there.
const rawKept = "INTERVAL 29 DAY"

const raw, newRaw = "deliveries_log", "inserted_at >= {mark} AND at >= now() - " + rawKept

// rollups in the order of a refresh. The last is the mark of all: its newest row says up to when the others have been
// refreshed too.
//
//nolint:gochecknoglobals // a table
var rollups = []rollup{
	{"latencies_hour_log", "app, transport, lane, hour, n, answer, total, refreshed_at", raw, "toStartOfHour(at)", newRaw, `
SELECT app, transport, lane, toStartOfHour(at) AS hour, count() AS n,
    quantilesTDigestState(0.5, 0.95, 0.99)(latency_us) AS answer,
    quantilesTDigestState(0.5, 0.95, 0.99)(greatest(toUnixTimestamp64Micro(at) - toUnixTimestamp64Micro(requested_at), 0)) AS total,
    now64(6) AS refreshed_at
FROM {from} FINAL WHERE {when} AND kind = 'finished' AND NOT repeat AND outcome = 'accepted'
GROUP BY app, transport, lane, hour`},
	{"broadcasts_hour_log", "app, broadcast, transport, outcome, repeat, hour, n, first_at, last_at, refreshed_at", raw, "toStartOfHour(at)", newRaw, `
SELECT app, broadcast, transport, outcome, repeat, toStartOfHour(at) AS hour, count() AS n, min(at) AS first_at, max(at) AS last_at,
    now64(6) AS refreshed_at
FROM {from} FINAL WHERE {when} AND kind = 'finished' AND broadcast != toUUID('00000000-0000-0000-0000-000000000000')
GROUP BY app, broadcast, transport, outcome, repeat, hour`},
	{"outcomes_hour_log", "app, transport, lane, kind, outcome, reason, repeat, hour, n, refreshed_at", raw, "toStartOfHour(at)", newRaw, `
SELECT app, transport, lane, kind, outcome, reason, repeat, toStartOfHour(at) AS hour, count() AS n, now64(6) AS refreshed_at
FROM {from} FINAL WHERE {when}
GROUP BY app, transport, lane, kind, outcome, reason, repeat, hour`},
	{
		"outcomes_day_log", "app, transport, outcome, repeat, day, n, refreshed_at", "outcomes_hour_log", "toDate(hour)",
		"refreshed_at >= {mark}", `
SELECT app, transport, outcome, repeat, toDate(hour) AS day, sum(n) AS n, now64(6) AS refreshed_at
FROM {from} FINAL WHERE {when} AND kind = 'finished'
GROUP BY app, transport, outcome, repeat, day`,
	},
}

// statement writes the buckets anew that have rows newer than mark. The buckets are found without FINAL, which would read
// everything, and bound what FINAL reads.
func (r rollup) statement(mark time.Time) string {
	when := r.bucket + " IN (SELECT DISTINCT " + r.bucket + " FROM " + r.from + " WHERE " + r.since + ")"
	return r.write(strings.ReplaceAll(when, "{mark}", "toDateTime("+strconv.FormatInt(max(mark.Add(-overlap).Unix(), 0), 10)+", 'UTC')"))
}

// write writes the buckets anew that a condition of the source names; it must name whole ones.
func (r rollup) write(when string) string {
	return "INSERT INTO " + r.name + " (" + r.columns + ")" + strings.NewReplacer(
		"{from}", r.from,
		"{when}", when,
	).Replace(r.query) + "\nSETTINGS do_not_merge_across_partitions_select_final = 1"
}

// Refresh writes the hours and days anew that rows were inserted into since the last refresh, whoever made it. What it writes
// replaces what was there, so that a refresh can be repeated, broken off, or run by several processes at once.
func (a *Analytics) Refresh(ctx context.Context) error {
	a.refreshing.Lock()
	defer a.refreshing.Unlock()
	// The mark is read once: the last rollup moves it.
	var mark time.Time
	err := a.each(ctx, "read the mark of the rollups", func(r row) error { return r.Scan(&mark) },
		"SELECT max(refreshed_at) FROM outcomes_day_log")
	if err != nil {
		return err
	}
	for _, r := range rollups {
		if err := a.exec(ctx, "refresh "+r.name, r.statement(mark)); err != nil {
			return err
		}
	}
	return nil
}
