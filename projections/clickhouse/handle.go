package clickhouse

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/campanile-push/campanile/schemas"
)

// partition is what this process knows of one partition's place in the tables.
type partition struct {
	mu     sync.Mutex
	known  bool // the fields below stand as the tables have them
	stored bool // the tables have a position at all
	epoch  uint64
	next   int64
	owners owners
	last   time.Time // of the last insert, for Linger
}

// maxBlock is the number of rows of one insert: below ClickHouse's max_insert_block_size (1,048,449), so that a batch is one
// block.
const maxBlock = 500_000

// Handle inserts a batch of deliveries or devices, cut anywhere. When it returns nil the rows and the position after them are in
// the tables. A batch that the tables hold already, whole or in part, may come again at any time and from any process. An error
// that decodes as schemas.ErrMalformed or ErrUnknownType is of one record; every other is an *Error, and temporary. It says
// nothing to out.
func (a *Analytics) Handle(ctx context.Context, in schemas.Batch, _ *schemas.Out) error {
	if len(in.Records) == 0 {
		return nil
	}
	p := a.partition(place{in.Topic, in.Partition})
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := a.wait(ctx, p, len(in.Records)); err != nil {
		return err
	}
	for len(in.Records) > 0 {
		part := in
		part.Records = in.Records[:min(len(in.Records), maxBlock)]
		in.Records = in.Records[len(part.Records):]
		if err := a.handle(ctx, p, part); err != nil {
			p.known = false // the tables know how much of it is there
			return err
		}
	}
	p.last = time.Now()
	return nil
}

// wait lets a small batch that follows another closely stand for a moment: what is read meanwhile makes the next one larger.
func (a *Analytics) wait(ctx context.Context, p *partition, records int) error {
	left := a.linger - time.Since(p.last)
	if records >= largeBatch || left <= 0 {
		return nil
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for more rows: %w", ctx.Err())
	}
}

func (a *Analytics) partition(at place) *partition {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.partitions[at]
	if p == nil {
		p = &partition{}
		a.partitions[at] = p
	}
	return p
}

func (a *Analytics) handle(ctx context.Context, p *partition, in schemas.Batch) error {
	first := in.Records[0].Offset
	number, err := a.openEpoch(ctx, in.Topic)
	if err != nil {
		return err
	}
	// A batch that does not begin where the last one ended is the first of an assignment, or of an epoch: another process may have been here.
	if !p.known || first != p.next || p.epoch != number {
		at := place{in.Topic, in.Partition}
		if err := a.load(ctx, p, at, number); err != nil {
			return err
		}
		if lost(in.Topic, p, first) {
			if err := a.reread(ctx, p, at, first); err != nil {
				return err
			}
		}
	}
	return a.insertBatch(ctx, p, in)
}

// insertBatch inserts what the tables lack of a batch, and moves the place.
func (a *Analytics) insertBatch(ctx context.Context, p *partition, in schemas.Batch) error {
	if first := in.Records[0].Offset; lost(in.Topic, p, first) {
		if err := a.insertGap(ctx, in.Topic, in.Partition, p.next, first); err != nil {
			return err
		}
		a.log.Error("events are missing from the log", "topic", in.Topic, "partition", in.Partition, "from", p.next, "to", first)
	}
	if in.Next() <= p.next {
		return nil
	}
	now := p.owners
	switch in.Topic {
	case schemas.Deliveries:
		rows, after, err := foldDeliveries(in, p.next, p.owners)
		if err != nil {
			return err
		}
		if rows.len() > 0 {
			if err := a.insert(ctx, "deliveries_log", rows.columns()); err != nil {
				return err
			}
		}
		now = after
	case schemas.Devices:
		rows, err := foldDevices(in, p.next, a.hash)
		if err != nil {
			return err
		}
		if rows.len() > 0 {
			if err := a.insert(ctx, "devices_log", rows.columns()); err != nil {
				return err
			}
		}
	default:
		return fmt.Errorf("analytics take no topic %s", in.Topic)
	}
	// Only now: a position says that every row below it is there.
	if err := a.advance(ctx, p.epoch, in.Topic, in.Partition, in.Next(), now); err != nil {
		return err
	}
	p.stored, p.next, p.owners = true, in.Next(), now
	return nil
}

// lost reports whether records between the position and first are gone. Only in deliveries does it mean anything: nothing
// compacts that topic and no transaction leaves marks in it, so that a hole is retention that was faster than the analytics.
func lost(topic schemas.Topic, p *partition, first int64) bool {
	return topic == schemas.Deliveries && p.stored && first > p.next
}

// load reads a partition's position.
func (a *Analytics) load(ctx context.Context, p *partition, at place, number uint64) error {
	p.known, p.stored, p.epoch, p.next, p.owners = false, false, number, 0, owners{}
	err := a.each(ctx, "read the position", func(r row) error {
		p.stored = true
		var stored map[string]int64
		if err := r.Scan(&p.next, &stored); err != nil {
			return err
		}
		p.owners = stored
		return nil
	}, "SELECT next_off, owners FROM places WHERE topic = ? AND part = ? AND epoch = ? ORDER BY next_off DESC LIMIT 1", string(at.topic), at.part, number)
	p.known = err == nil
	return err
}

// advance writes a position. The largest counts; positions that a process which lost the partition writes late are true as
// well.
func (a *Analytics) advance(ctx context.Context, number uint64, topic schemas.Topic, part int32, next int64, now owners) error {
	return a.insert(ctx, "places", []column{
		{"topic", "String", []string{string(topic)}},
		{"part", "UInt16", []uint16{uint16(part)}},
		{"epoch", "UInt64", []uint64{number}},
		{"next_off", "Int64", []int64{next}},
		{"owners", "Map(String, Int64)", []map[string]int64{now}},
	})
}

// Positions are the offsets after the last record that the tables hold, by partition of a topic: where to read on. Where the
// tables hold nothing it is 0, so that tables that were dropped are filled again from the log's beginning.
func (a *Analytics) Positions(ctx context.Context, topic schemas.Topic, partitions []int32) (map[int32]int64, error) {
	next := make(map[int32]int64, len(partitions))
	for _, part := range partitions {
		next[part] = 0
	}
	number, err := a.openEpoch(ctx, topic)
	if err != nil {
		return nil, err
	}
	err = a.each(ctx, "read the positions", func(r row) error {
		var part uint16
		var off int64
		if err := r.Scan(&part, &off); err != nil {
			return err
		}
		if _, asked := next[int32(part)]; asked {
			next[int32(part)] = off
		}
		return nil
	}, "SELECT part, max(next_off) FROM places WHERE topic = ? AND epoch = ? GROUP BY part", string(topic), number)
	if err != nil {
		return nil, err
	}
	return next, nil
}

// Gap records that the records from (inclusive) to to (exclusive) are given up, and moves the position behind them. What the
// tables hold of the range already is not in the gap. The owners that changed in the range stay unknown until they change
// again: repeats right after a gap may count as first finishes.
func (a *Analytics) Gap(ctx context.Context, topic schemas.Topic, part int32, from, to int64) error {
	p := a.partition(place{topic, part})
	p.mu.Lock()
	defer p.mu.Unlock()
	number, err := a.openEpoch(ctx, topic)
	if err != nil {
		return err
	}
	if err := a.load(ctx, p, place{topic, part}, number); err != nil {
		return err
	}
	from = max(from, p.next)
	if from >= to {
		return nil
	}
	if err := a.insertGap(ctx, topic, part, from, to); err != nil {
		return err
	}
	if err := a.advance(ctx, number, topic, part, to, p.owners); err != nil {
		p.known = false
		return err
	}
	p.stored, p.next = true, to
	return nil
}

func (a *Analytics) insertGap(ctx context.Context, topic schemas.Topic, part int32, from, to int64) error {
	return a.insert(ctx, "gaps_log", []column{
		{"topic", "String", []string{string(topic)}},
		{"part", "UInt16", []uint16{uint16(part)}},
		{"from_off", "Int64", []int64{from}},
		{"to_off", "Int64", []int64{to}},
	})
}
