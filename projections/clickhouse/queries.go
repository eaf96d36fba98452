package clickhouse

import (
	"context"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/campanile-push/campanile/schemas"
)

// Filter says which deliveries a question is about. The zero Filter is about all of them.
type Filter struct {
	App       string            // empty: every app
	Transport schemas.Transport // zero: every transport
	Lane      schemas.Lane      // zero: every lane
	// From (inclusive) and To (exclusive) bound the time at which sends ended; zero is no bound.
	From, To time.Time
}

// where is the condition of a filter on a column of time, and its arguments.
func (f Filter) where(column string) (string, []any) {
	conditions, args := []string{"1"}, []any{}
	add := func(condition string, arg any) {
		conditions = append(conditions, condition)
		args = append(args, arg)
	}
	if f.App != "" {
		add("app = ?", f.App)
	}
	if f.Transport != 0 {
		add("transport = ?", f.Transport.Word())
	}
	if f.Lane != 0 {
		add("lane = ?", f.Lane.Word())
	}
	if !f.From.IsZero() {
		add(column+" >= fromUnixTimestamp64Micro(?)", f.From.UnixMicro())
	}
	if !f.To.IsZero() {
		add(column+" < fromUnixTimestamp64Micro(?)", f.To.UnixMicro())
	}
	return strings.Join(conditions, " AND "), args
}

// hours reports whether the filter's bounds are whole hours, so that the rollups can answer.
func (f Filter) hours() bool {
	whole := func(t time.Time) bool { return t.IsZero() || t.Truncate(time.Hour).Equal(t) }
	return whole(f.From) && whole(f.To)
}

// Total is how many sends ended in one way.
type Total struct {
	App       string
	Transport string // apns, fcm
	Outcome   string // accepted, token_invalid, rejected, expired, cancelled
	Reason    string // the provider's word, or Campanile's own
	Repeat    bool   // finished again by a sender that had lost the partition: no send more
	N         int64
}

// Totals counts the ended sends by app, transport, outcome and reason, in that order. They are exact up to the positions. Bounds
// that are whole hours, or none, are answered from the rollups, thirteen months back; others from the rows of the last 30 days.
func (a *Analytics) Totals(ctx context.Context, f Filter) ([]Total, error) {
	source, column, count := "deliveries_log FINAL", "at", "count()"
	if f.hours() {
		if err := a.Refresh(ctx); err != nil {
			return nil, err
		}
		source, column, count = "outcomes_hour_log FINAL", "hour", "sum(n)"
	}
	where, args := f.where(column)
	var totals []Total
	err := a.each(ctx, "count the outcomes", func(r row) error {
		var t Total
		if err := r.Scan(&t.App, &t.Transport, &t.Outcome, &t.Reason, &t.Repeat, &t.N); err != nil {
			return err
		}
		totals = append(totals, t)
		return nil
	}, "SELECT app, transport, outcome, reason, repeat, toInt64("+count+") FROM "+source+" WHERE "+where+
		" AND kind = 'finished' GROUP BY app, transport, outcome, reason, repeat ORDER BY app, transport, outcome, reason, repeat", args...)
	return totals, err
}

// Quantiles are the median, p95 and p99 of a time.
type Quantiles struct{ P50, P95, P99 time.Duration }

// Latency is how long the accepted sends of an app on a transport and lane took.
type Latency struct {
	App, Transport, Lane string
	N                    int64
	Answer               Quantiles // of the provider, to the last attempt
	Total                Quantiles // from the request to the end
}

// Latencies are of the last 30 days at most, from the rows themselves: t-digests, whose p99 is right within a percent or so.
func (a *Analytics) Latencies(ctx context.Context, f Filter) ([]Latency, error) {
	where, args := f.where("at")
	var all []Latency
	err := a.each(ctx, "measure the latencies", func(r row) error {
		var l Latency
		var answer, total []float32
		if err := r.Scan(&l.App, &l.Transport, &l.Lane, &l.N, &answer, &total); err != nil {
			return err
		}
		l.Answer, l.Total = quantiles(answer), quantiles(total)
		all = append(all, l)
		return nil
	}, "SELECT app, transport, lane, toInt64(count()), quantilesTDigest(0.5, 0.95, 0.99)(latency_us),"+
		" quantilesTDigest(0.5, 0.95, 0.99)(greatest(toUnixTimestamp64Micro(at) - toUnixTimestamp64Micro(requested_at), 0))"+
		" FROM deliveries_log FINAL WHERE "+where+" AND kind = 'finished' AND NOT repeat AND outcome = 'accepted'"+
		" GROUP BY app, transport, lane ORDER BY app, transport, lane", args...)
	return all, err
}

// quantiles reads microseconds.
func quantiles(us []float32) (q Quantiles) {
	at := func(i int) time.Duration {
		if i >= len(us) {
			return 0
		}
		return time.Duration(float64(us[i]) * float64(time.Microsecond))
	}
	return Quantiles{at(0), at(1), at(2)}
}

// Gap is a range of the log that the analytics will never hold.
type Gap struct {
	Topic     string
	Partition int32
	From, To  int64 // offsets, half-open; To-From is the most events that it can have held
	At        time.Time
}

// Gaps are all gaps, by topic, partition and offset.
func (a *Analytics) Gaps(ctx context.Context) ([]Gap, error) {
	var gaps []Gap
	err := a.each(ctx, "read the gaps", func(r row) error {
		var g Gap
		var part uint16
		if err := r.Scan(&g.Topic, &part, &g.From, &g.To, &g.At); err != nil {
			return err
		}
		g.Partition = int32(part)
		gaps = append(gaps, g)
		return nil
	}, "SELECT topic, part, from_off, to_off, at FROM gaps_log FINAL ORDER BY topic, part, from_off")
	return gaps, err
}

// BroadcastTotal is how many sends of a broadcast ended in one way on one transport.
type BroadcastTotal struct {
	Transport   string
	Outcome     string
	Repeat      bool
	N           int64
	First, Last time.Time // when the first and the last of them ended
}

// Broadcast counts the ended sends of a broadcast by transport and outcome.
func (a *Analytics) Broadcast(ctx context.Context, broadcast schemas.ID) ([]BroadcastTotal, error) {
	if err := a.Refresh(ctx); err != nil {
		return nil, err
	}
	var totals []BroadcastTotal
	err := a.each(ctx, "count a broadcast", func(r row) error {
		var t BroadcastTotal
		if err := r.Scan(&t.Transport, &t.Outcome, &t.Repeat, &t.N, &t.First, &t.Last); err != nil {
			return err
		}
		totals = append(totals, t)
		return nil
	}, "SELECT transport, outcome, repeat, toInt64(sum(n)), min(first_at), max(last_at) FROM broadcasts_hour_log FINAL"+
		" WHERE broadcast = ? GROUP BY transport, outcome, repeat ORDER BY transport, outcome, repeat", uuid.UUID(broadcast))
	return totals, err
}

// Audit compares what must agree: rows with distinct places in the log, and the rollups with the rows.
type Audit struct {
	Rows, Places          int64 // of deliveries: as counted, and distinct (partition, offset)
	Finished, RolledUp    int64 // ended sends in the rows of the last 29 days, and in the rollups of the same time
	Devices, DevicePlaces int64
}

// Exact reports whether nothing is counted twice and the rollups are what the rows say.
func (c Audit) Exact() bool {
	return c.Rows == c.Places && c.Finished == c.RolledUp && c.Devices == c.DevicePlaces
}

// Audit counts everything: seconds on a large database. The comparison of the rollups is exact while nothing is inserted.
func (a *Analytics) Audit(ctx context.Context) (c Audit, err error) {
	if err := a.Refresh(ctx); err != nil {
		return c, err
	}
	const since = "toStartOfHour(now() - " + rawKept + ")"
	err = a.each(ctx, "audit the analytics", func(r row) error {
		return r.Scan(&c.Rows, &c.Places, &c.Devices, &c.DevicePlaces, &c.Finished, &c.RolledUp)
	}, "SELECT (SELECT toInt64(count()) FROM deliveries_log FINAL), (SELECT toInt64(uniqExact(part, off)) FROM deliveries_log),"+
		" (SELECT toInt64(count()) FROM devices_log FINAL), (SELECT toInt64(uniqExact(part, off)) FROM devices_log),"+
		" (SELECT toInt64(count()) FROM deliveries_log FINAL WHERE kind = 'finished' AND at >= "+since+" + INTERVAL 1 HOUR),"+
		" (SELECT toInt64(sum(n)) FROM outcomes_hour_log FINAL WHERE kind = 'finished' AND hour >= "+since+" + INTERVAL 1 HOUR)")
	return c, err
}
