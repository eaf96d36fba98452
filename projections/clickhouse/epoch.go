package clickhouse

import (
	"context"
	"errors"
	"time"

	"github.com/campanile-push/campanile/schemas"
)

// Steps of an epoch.
const (
	swapping  = 1
	open      = 2
	withdrawn = 3
)

// epoch is the one that counts for a topic.
type epoch struct {
	number uint64
	step   uint8
	build  string
	days   []uint32 // partitions of deliveries_log, such as 20261123
	since  time.Time
}

// errSwapping makes a batch wait.
var errSwapping = errors.New("a rebuild is replacing days")

// orphaned is how long days stay half replaced until somebody else goes on: longer than a rebuild that lives needs.
const orphaned = time.Minute

// epochOf reads a topic's epoch. Only deliveries have epochs but 0.
func (a *Analytics) epochOf(ctx context.Context, topic schemas.Topic) (e epoch, err error) {
	e.step = open
	if topic != schemas.Deliveries {
		return e, nil
	}
	err = a.each(ctx, "read the epoch", func(r row) error { return r.Scan(&e.number, &e.step, &e.build, &e.days, &e.since) },
		"SELECT epoch, max(step) AS s, any(build), any(days), max(at) FROM epochs_log WHERE topic = ? GROUP BY epoch HAVING s < 3 ORDER BY epoch DESC LIMIT 1",
		string(topic))
	return e, err
}

// openEpoch is the number of an epoch that may be inserted into. While days are replaced the error is temporary; a rebuild that died then is
// brought to its end.
func (a *Analytics) openEpoch(ctx context.Context, topic schemas.Topic) (uint64, error) {
	e, err := a.epochOf(ctx, topic)
	if err != nil || e.step == open {
		return e.number, err
	}
	if time.Since(e.since) < a.orphaned {
		return 0, &Error{"insert", errSwapping}
	}
	a.log.Warn("a rebuild of the analytics died while it replaced days: it is finished here", "epoch", e.number)
	return e.number, a.finish(ctx, e)
}

// step lets tests end here.
func (a *Analytics) step(name string) error {
	if a.at == nil {
		return nil
	}
	return a.at(name)
}

// reread inserts what the log still holds between a partition's place and the first record of a batch: a rebuild has set the place back.
func (a *Analytics) reread(ctx context.Context, p *partition, at place, to int64) error {
	if a.read == nil {
		return nil
	}
	return a.read(ctx, at.part, p.next, to, func(in schemas.Batch) error { return a.insertBatch(ctx, p, in) })
}
