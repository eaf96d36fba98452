package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/campanile-push/campanile/schemas"
)

// ErrOtherRebuild says that another rebuild replaces days right now.
var ErrOtherRebuild = errors.New("another rebuild of the analytics replaces days: try again when it has ended")

// Rebuild builds deliveries_log anew beside the live one, and replaces the days that the log still covers whole. Make it with BeginRebuild.
type Rebuild struct {
	a     *Analytics
	epoch uint64
	table string
	parts []*partition // of deliveries: where the build is
	start []int64      // of the log
	// firstUS are the broker's times of the first records that are left where the log's beginning is gone, Unix microseconds.
	firstUS []int64
}

// buildPrefix is what the names of tables begin with that a rebuild makes.
const buildPrefix = "deliveries_build_"

// BeginRebuild makes an empty table for what is built, and drops those that earlier rebuilds left. starts are the offsets of the first records
// of deliveries that the log still holds.
func (a *Analytics) BeginRebuild(ctx context.Context, starts []int64) (*Rebuild, error) {
	now, err := a.epochOf(ctx, schemas.Deliveries)
	if err != nil {
		return nil, err
	}
	if now.step != open {
		if time.Since(now.since) < a.orphaned {
			return nil, ErrOtherRebuild
		}
		if err := a.finish(ctx, now); err != nil {
			return nil, err
		}
	}
	number := max(now.number+1, uint64(time.Now().UnixMicro()))
	r := &Rebuild{a: a, epoch: number, table: buildPrefix + strconv.FormatUint(number, 10), start: starts, firstUS: make([]int64, len(starts))}
	if err := a.dropBuilds(ctx); err != nil {
		return nil, err
	}
	if err := a.exec(ctx, "make the table of a rebuild", "CREATE TABLE "+r.table+" AS deliveries_log"); err != nil {
		return nil, err
	}
	for p, start := range starts {
		at := &partition{next: start, owners: owners{}}
		if start > 0 {
			if at.owners, err = a.ownersBefore(ctx, int32(p), start); err != nil {
				return nil, err
			}
		}
		r.parts = append(r.parts, at)
	}
	return r, nil
}

// dropBuilds drops the tables of rebuilds that did not come to their end: those that were not touched for ten minutes.
func (a *Analytics) dropBuilds(ctx context.Context) error {
	var left []string
	err := a.each(ctx, "look for tables of earlier rebuilds", func(r row) error {
		var name string
		if err := r.Scan(&name); err != nil {
			return err
		}
		left = append(left, name)
		return nil
	}, "SELECT name FROM system.tables WHERE database = currentDatabase() AND startsWith(name, ?) AND metadata_modification_time < now() - INTERVAL 10 MINUTE"+
		" AND name NOT IN (SELECT table FROM system.parts WHERE database = currentDatabase() AND active AND modification_time > now() - INTERVAL 10 MINUTE)", buildPrefix)
	for _, name := range left {
		if err == nil {
			err = a.exec(ctx, "drop "+name, "DROP TABLE IF EXISTS "+name)
		}
	}
	return err
}

// ownersBefore are the owners as the rows below an offset show them: whoever finished something there and was no repeat. It is for the beginning
// of a log that has lost what came before.
func (a *Analytics) ownersBefore(ctx context.Context, part int32, off int64) (owners, error) {
	known := owners{}
	err := a.each(ctx, "read the owners before the log begins", func(r row) error {
		var transport, lane string
		var tier uint8
		var generation int64
		if err := r.Scan(&transport, &lane, &tier, &generation); err != nil {
			return err
		}
		t, err := schemas.ParseTransport(transport)
		if err != nil {
			return nil //nolint:nilerr // of a newer version
		}
		for _, l := range schemas.Lanes {
			if l.Word() == lane {
				known[string(schemas.SendTopic{Transport: t, Lane: l, Tier: uint32(tier)}.Topic())] = generation
			}
		}
		return nil
	}, "SELECT transport, lane, tier, max(generation) FROM deliveries_log WHERE part = ? AND off < ? AND NOT repeat GROUP BY transport, lane, tier", part, off)
	return known, err
}

// Next is where the build is, by partition.
func (r *Rebuild) Next() []int64 {
	next := make([]int64, len(r.parts))
	for p, at := range r.parts {
		next[p] = at.next
	}
	return next
}

// Handle adds the next records of a partition to the build.
func (r *Rebuild) Handle(ctx context.Context, in schemas.Batch) error {
	if len(in.Records) == 0 {
		return nil
	}
	at := r.parts[in.Partition]
	if r.start[in.Partition] > 0 && r.firstUS[in.Partition] == 0 {
		r.firstUS[in.Partition] = in.Records[0].TimeUS
	}
	rows, now, err := foldDeliveries(in, at.next, at.owners)
	if err != nil {
		return err
	}
	if rows.len() > 0 {
		if err := r.a.insert(ctx, r.table, rows.columns()); err != nil {
			return err
		}
	}
	at.next, at.owners = in.Next(), now
	return nil
}

// Abandon drops the build.
func (r *Rebuild) Abandon(ctx context.Context) error {
	return r.a.exec(context.WithoutCancel(ctx), "drop the build", "DROP TABLE IF EXISTS "+r.table)
}

// Day is what a rebuild did to one day.
type Day struct {
	Day time.Time // its begin, UTC
	// Refused says why the day stays as it was; empty where it was replaced.
	Refused string
	// Rows and sums of the day before and after, of the offsets that the build covers.
	OldRows, Rows int64
	OldSum, Sum   uint64
}

// Same reports whether the day held the same before.
func (d Day) Same() bool { return d.Refused == "" && d.OldRows == d.Rows && d.OldSum == d.Sum }

// Swap replaces the days. It begins a new epoch of places at the end of the build: inserts wait until it is open, and go on from there. Whoever
// is killed in between leaves what the next one finishes (openEpoch): replaced days stay replaced, and nothing is counted twice or lost.
func (r *Rebuild) Swap(ctx context.Context) ([]Day, error) {
	days, err := r.plan(ctx)
	if err != nil {
		return nil, err
	}
	e := epoch{number: r.epoch, step: swapping, build: r.table}
	for _, d := range days {
		if d.Refused == "" {
			e.days = append(e.days, partitionOf(d.Day))
		}
	}
	if len(e.days) == 0 {
		return days, nil
	}
	for p, at := range r.parts { // they count as soon as the epoch does
		if err := r.a.advance(ctx, r.epoch, schemas.Deliveries, int32(p), at.next, at.owners); err != nil {
			return nil, err
		}
	}
	if err := r.a.step("placed"); err != nil {
		return nil, err
	}
	if err := r.a.putEpoch(ctx, e); err != nil {
		return nil, err
	}
	if err := r.a.step("begun"); err != nil {
		return nil, err
	}
	// Two that write at once see each other.
	others := uint64(0)
	err = r.a.each(ctx, "look for other rebuilds", func(row row) error { return row.Scan(&others) },
		"SELECT count() FROM (SELECT epoch, max(step) AS s FROM epochs_log WHERE topic = ? GROUP BY epoch) WHERE s = 1 AND epoch != ?", string(schemas.Deliveries), r.epoch)
	if err == nil && others > 0 {
		err = ErrOtherRebuild
	}
	if err != nil {
		e.step = withdrawn
		return nil, errors.Join(err, r.a.putEpoch(context.WithoutCancel(ctx), e))
	}
	return days, r.a.finish(ctx, e)
}

func (a *Analytics) putEpoch(ctx context.Context, e epoch) error {
	return a.insert(ctx, "epochs_log", []column{
		{"topic", "String", []string{string(schemas.Deliveries)}},
		{"epoch", "UInt64", []uint64{e.number}},
		{"step", "UInt8", []uint8{e.step}},
		{"build", "String", []string{e.build}},
		{"days", "Array(UInt32)", [][]uint32{e.days}},
	})
}

// finish replaces the days of an epoch and opens it. Every step can be made again; the build's new name is the fence: from then on nobody
// replaces anything, and only then does the epoch open and do inserts go on.
func (a *Analytics) finish(ctx context.Context, e epoch) error {
	if len(e.build) < len(buildPrefix) || !strings.HasPrefix(e.build, buildPrefix) {
		return fmt.Errorf("epoch %d was built in a table %q, which is none of a rebuild's", e.number, e.build)
	}
	done := e.build + "_done"
	there, err := a.exists(ctx, e.build)
	if err != nil {
		return err
	}
	if there {
		for _, day := range e.days {
			if err := a.exec(ctx, "replace a day", fmt.Sprintf("ALTER TABLE deliveries_log REPLACE PARTITION %d FROM %s", day, e.build)); err != nil {
				return err
			}
		}
		if err := a.step("replaced"); err != nil {
			return err
		}
		if err := a.exec(ctx, "close the build", "RENAME TABLE "+e.build+" TO "+done); err != nil {
			return err
		}
	}
	if err := a.step("closed"); err != nil {
		return err
	}
	if err := a.rollUp(ctx, e.days); err != nil {
		return err
	}
	if err := a.step("summed"); err != nil {
		return err
	}
	e.step = open
	if err := a.putEpoch(ctx, e); err != nil {
		return err
	}
	return a.exec(ctx, "drop the build", "DROP TABLE IF EXISTS "+done)
}

func (a *Analytics) exists(ctx context.Context, table string) (bool, error) {
	var n uint64
	err := a.each(ctx, "look for "+table, func(r row) error { return r.Scan(&n) },
		"SELECT count() FROM system.tables WHERE database = currentDatabase() AND name = ?", table)
	return n > 0, err
}

// rollUp writes the sums of some days anew, and drops those of what is there no longer: they are older than what was just written.
func (a *Analytics) rollUp(ctx context.Context, days []uint32) error {
	a.refreshing.Lock()
	defer a.refreshing.Unlock()
	var begin time.Time
	if err := a.each(ctx, "read the engine's clock", func(r row) error { return r.Scan(&begin) }, "SELECT now64(6)"); err != nil {
		return err
	}
	list := make([]string, len(days))
	for i, d := range days {
		list[i] = strconv.FormatUint(uint64(d), 10)
	}
	in := " IN (" + strings.Join(list, ", ") + ")"
	for _, r := range rollups {
		column, bucket := "hour", r.bucket
		if r.name == "outcomes_day_log" {
			column = "day"
		}
		when := "toYYYYMMDD(" + bucket + ")" + in
		if err := a.exec(ctx, "sum up in "+r.name, r.write(when)); err != nil {
			return err
		}
		err := a.exec(ctx, "drop old sums of "+r.name, "DELETE FROM "+r.name+" WHERE toYYYYMMDD("+column+")"+in+
			" AND refreshed_at < fromUnixTimestamp64Micro("+strconv.FormatInt(begin.UnixMicro(), 10)+")")
		if err != nil {
			return err
		}
	}
	return nil
}

// partitionOf is a day as deliveries_log is partitioned.
func partitionOf(day time.Time) uint32 {
	y, m, d := day.UTC().Date()
	return uint32(y*10000 + int(m)*100 + d)
}

func dayOf(partition uint32) time.Time {
	return time.Date(int(partition/10000), time.Month(partition/100%100), int(partition%100), 0, 0, 0, 0, time.UTC)
}

// sumOf is a row in figures that a sum of rows shows.
const sumOf = "cityHash64(app, transport, at, part, off, kind, lane, tier, source_off, generation, repeat, first, outcome, reason, attempt, requested_at, latency_us, token, send, broadcast, request)"

// plan decides which days are replaced. A day is whole in the log if it begins after everything that the log has lost: the rows of deleted
// records say when that was, and so does the first record that is left.
func (r *Rebuild) plan(ctx context.Context) ([]Day, error) {
	var since time.Time
	for p, start := range r.start {
		if start == 0 {
			continue
		}
		if r.firstUS[p] > 0 {
			since = later(since, time.UnixMicro(r.firstUS[p]))
		}
		var last time.Time
		err := r.a.each(ctx, "look for the last row that the log has lost", func(row row) error { return row.Scan(&last) },
			"SELECT max(at) FROM deliveries_log WHERE part = ? AND off < ?", p, start)
		if err != nil {
			return nil, err
		}
		since = later(since, last)
	}
	days := map[uint32]*Day{}
	ends := make([]string, len(r.parts))
	for p, at := range r.parts {
		ends[p] = strconv.FormatInt(at.next, 10)
	}
	covered := "off < arrayElement([" + strings.Join(ends, ", ") + "], part + 1)"
	for _, from := range []string{"deliveries_log", r.table} {
		err := r.a.each(ctx, "count the days", func(row row) error {
			var day uint32
			var n int64
			var sum uint64
			if err := row.Scan(&day, &n, &sum); err != nil {
				return err
			}
			if days[day] == nil {
				days[day] = &Day{Day: dayOf(day)}
			}
			if from == r.table {
				days[day].Rows, days[day].Sum = n, sum
			} else {
				days[day].OldRows, days[day].OldSum = n, sum
			}
			return nil
		}, "SELECT toYYYYMMDD(at) AS day, toInt64(count()), sum("+sumOf+") FROM "+from+" FINAL WHERE "+covered+" GROUP BY day")
		if err != nil {
			return nil, err
		}
	}
	kept := time.Now().Add(-29 * 24 * time.Hour) // the tables forget whole days after 30
	all := make([]Day, 0, len(days))
	for _, d := range days {
		switch {
		case !d.Day.After(since):
			d.Refused = "the log no longer holds all of it: it is whole since " + since.UTC().Format(time.RFC3339)
		case d.Day.Before(kept):
			d.Refused = "the tables are about to forget it: they keep 30 days"
		}
		all = append(all, *d)
	}
	slices.SortFunc(all, func(a, b Day) int { return a.Day.Compare(b.Day) })
	return all, nil
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
