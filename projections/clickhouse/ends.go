package clickhouse

import (
	"context"

	"github.com/google/uuid"

	"github.com/campanile-push/campanile/schemas"
)

// What a proof asks of the rows: see audit.Rows.

// EachGap names the ranges of the log that the tables will never hold.
func (a *Analytics) EachGap(ctx context.Context, each func(topic string, partition int32, from, to int64)) error {
	gaps, err := a.Gaps(ctx)
	for _, g := range gaps {
		each(g.Topic, g.Partition, g.From, g.To)
	}
	return err
}

// endsOf are the ends of one partition whose offsets are in [from, to), that ended at sinceUS or later (Unix microseconds) and were asked for
// in [askedUS, beforeUS).
const endsOf = " FROM deliveries_log FINAL WHERE kind = 'finished' AND part = ? AND off >= ? AND off < ?" +
	" AND at >= fromUnixTimestamp64Micro(?) AND requested_at >= fromUnixTimestamp64Micro(?) AND toUnixTimestamp64Micro(requested_at) < ?"

// EachDigest sums up ends by blocks of offsets, app, transport, outcome and whether they are repeats: how many there are, and the sum modulo
// 2⁶⁴ of xxHash64("<offset>/<send>").
func (a *Analytics) EachDigest(ctx context.Context, partition int32, from, to, block, sinceUS, askedUS, beforeUS int64,
	each func(block int64, app, transport, outcome string, repeat bool, n int64, sum uint64),
) error {
	return a.each(ctx, "sum up the ends", func(r row) error {
		var at, n int64
		var app, transport, outcome string
		var repeat bool
		var sum uint64
		if err := r.Scan(&at, &app, &transport, &outcome, &repeat, &n, &sum); err != nil {
			return err
		}
		each(at, app, transport, outcome, repeat, n, sum)
		return nil
	}, "SELECT intDiv(off, toInt64(?)) AS block, app, transport, outcome, repeat, toInt64(count()), sum(xxHash64(concat(toString(off), '/', toString(send))))"+endsOf+
		" GROUP BY block, app, transport, outcome, repeat",
		block, partition, from, to, sinceUS, askedUS, beforeUS)
}

// EachEnd names the same ends.
func (a *Analytics) EachEnd(ctx context.Context, partition int32, from, to, sinceUS, askedUS, beforeUS int64,
	each func(offset int64, app, transport, outcome string, repeat bool, send schemas.ID),
) error {
	return a.each(ctx, "read the ends", func(r row) error {
		var off int64
		var app, transport, outcome string
		var repeat bool
		var send uuid.UUID
		if err := r.Scan(&off, &app, &transport, &outcome, &repeat, &send); err != nil {
			return err
		}
		each(off, app, transport, outcome, repeat, schemas.ID(send))
		return nil
	}, "SELECT off, app, transport, outcome, repeat, send"+endsOf, partition, from, to, sinceUS, askedUS, beforeUS)
}

// Rollups are the ends in the rows and in the sums by the hour, of the time for which both are whole. They are the same while nothing is
// inserted.
func (a *Analytics) Rollups(ctx context.Context) (rows, sums int64, err error) {
	c, err := a.Audit(ctx)
	return c.Finished, c.RolledUp, err
}
