package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/campanile-push/campanile/schemas"
)

// DeviceRows are rows that are built from the topic devices: an epoch of the device store.
type DeviceRows interface {
	// Applied is, by partition, the offset after the last record that the rows contain.
	Applied(ctx context.Context) ([]int64, error)
	// Apply folds a batch. schemas.ErrMalformed says that one of its records is no event, and that nothing happened.
	Apply(ctx context.Context, in schemas.Batch) error
}

// Building is how far a rebuild is.
type Building struct {
	Done, Total int64 // offsets, so that the records of a compacted topic are fewer
	// Skipped are records that are no events; they are in the dead letters of the projector too.
	Skipped int64
}

const (
	buildBatch = 5000
	// caughtUp is how many offsets may be left to the moment of the swap.
	caughtUp = 5000
)

// ErrShort says that rows stand where the log has nothing.
var ErrShort = errors.New("the device store is ahead of the log, which has lost records")

// BuildDevices applies the log to rows until they have nearly caught up with its end. An event of a newer version ends it, as it stops a
// projector: it returns schemas.ErrUnknownType. report is called after each batch.
func BuildDevices(ctx context.Context, log Log, rows DeviceRows, report func(Building)) (Building, error) {
	var b Building
	for {
		from, err := rows.Applied(ctx)
		if err != nil {
			return b, err
		}
		to, err := log.Ends(ctx, schemas.Devices)
		if err != nil {
			return b, err
		}
		starts, err := log.Starts(ctx, schemas.Devices)
		if err != nil {
			return b, err
		}
		if len(from) != len(to) || len(starts) != len(to) {
			return b, fmt.Errorf("the rows have %d partitions, %s has %d", len(from), schemas.Devices, len(to))
		}
		b.Done, b.Total = 0, 0
		left := int64(0)
		for p := range to {
			b.Total += to[p]
			b.Done += min(from[p], to[p])
			left += to[p] - max(from[p], starts[p])
		}
		// The first round is made in any case, and so is one after an error that only a look at the ends can tell.
		last := left <= caughtUp
		f := &filler{rows: rows, b: &b, report: report, pending: make([][]schemas.Record, len(to)), at: from}
		err = log.Scan(ctx, schemas.Devices, from, to, func(r schemas.Record) error { return f.add(ctx, r) })
		if err == nil {
			err = f.flush(ctx)
		}
		if err != nil {
			return b, fmt.Errorf("build the devices: %w", err)
		}
		if last {
			b.Done = b.Total
			report(b)
			return b, nil
		}
	}
}

// filler gathers the records of each partition into batches.
type filler struct {
	rows    DeviceRows
	b       *Building
	report  func(Building)
	pending [][]schemas.Record
	at      []int64
}

func (f *filler) add(ctx context.Context, r schemas.Record) error {
	r.Key, r.Value = bytes.Clone(r.Key), bytes.Clone(r.Value) // the log's until the next one
	f.pending[r.Partition] = append(f.pending[r.Partition], r)
	if len(f.pending[r.Partition]) < buildBatch {
		return nil
	}
	return f.apply(ctx, r.Partition)
}

func (f *filler) flush(ctx context.Context) error {
	for p := range f.pending {
		if err := f.apply(ctx, int32(p)); err != nil {
			return err
		}
	}
	return nil
}

func (f *filler) apply(ctx context.Context, p int32) error {
	in := schemas.Batch{Topic: schemas.Devices, Partition: p, Records: f.pending[p]}
	if len(in.Records) == 0 {
		return nil
	}
	skipped, err := applyReadable(ctx, f.rows.Apply, in, func(err error) bool { return errors.Is(err, schemas.ErrMalformed) })
	if err != nil {
		return err
	}
	f.b.Skipped += skipped
	f.b.Done += in.Next() - f.at[p]
	f.at[p] = in.Next()
	f.pending[p] = f.pending[p][:0]
	f.report(*f.b)
	return nil
}

// applyReadable applies a batch without the bad records: a stage has made dead letters of them. Their offsets are passed.
func applyReadable(ctx context.Context, apply func(context.Context, schemas.Batch) error, in schemas.Batch, bad func(error) bool) (skipped int64, err error) {
	if err = apply(ctx, in); !bad(err) {
		return 0, err
	}
	for _, r := range in.Records {
		one := schemas.Batch{Topic: in.Topic, Partition: in.Partition, Records: []schemas.Record{r}}
		err := apply(ctx, one)
		if bad(err) {
			skipped++
			one.Records[0].Value = nil
			err = apply(ctx, one)
		}
		if err != nil {
			return skipped, err
		}
	}
	return skipped, nil
}

// ReadDevices reads the records of a partition of devices in [from, to) and hands them on in batches. ErrShort where the log ends before.
func ReadDevices(log Log) func(ctx context.Context, partition int32, from, to int64, apply func(schemas.Batch) error) error {
	return readPartition(log, schemas.Devices, func(err error) bool { return errors.Is(err, schemas.ErrMalformed) })
}

// ReadDeliveries is the same of deliveries. Records of newer versions are passed over too: the analytics make dead letters of them.
func ReadDeliveries(log Log) func(ctx context.Context, partition int32, from, to int64, apply func(schemas.Batch) error) error {
	return readPartition(log, schemas.Deliveries, unreadable)
}

func readPartition(log Log, topic schemas.Topic, bad func(error) bool) func(ctx context.Context, partition int32, from, to int64, apply func(schemas.Batch) error) error {
	return func(ctx context.Context, partition int32, from, to int64, apply func(schemas.Batch) error) error {
		ends, err := log.Ends(ctx, topic)
		if err != nil {
			return err
		}
		if int(partition) >= len(ends) || to > ends[partition] {
			return fmt.Errorf("%s[%d]@%d: %w", topic, partition, to, ErrShort)
		}
		starts, stops := make([]int64, len(ends)), make([]int64, len(ends)) // [0, 0) of the others
		starts[partition], stops[partition] = from, to
		in := schemas.Batch{Topic: topic, Partition: partition}
		flush := func() error {
			if len(in.Records) == 0 {
				return nil
			}
			_, err := applyReadable(ctx, func(_ context.Context, in schemas.Batch) error { return apply(in) }, in, bad)
			in.Records = in.Records[:0]
			return err
		}
		err = log.Scan(ctx, topic, starts, stops, func(r schemas.Record) error {
			r.Key, r.Value = bytes.Clone(r.Key), bytes.Clone(r.Value)
			if in.Records = append(in.Records, r); len(in.Records) < buildBatch {
				return nil
			}
			return flush()
		})
		if err != nil {
			return err
		}
		return flush()
	}
}

// DeliveryRows are rows that are built from the topic deliveries.
type DeliveryRows interface {
	// Next is, by partition, the offset after the last record that the rows contain.
	Next() []int64
	Handle(ctx context.Context, in schemas.Batch) error
}

// BuildDeliveries adds the log, as it stands now, to rows. report is called after each batch.
func BuildDeliveries(ctx context.Context, log Log, rows DeliveryRows, report func(Building)) (Building, error) {
	var b Building
	to, err := log.Ends(ctx, schemas.Deliveries)
	if err != nil {
		return b, err
	}
	from := rows.Next()
	if len(from) != len(to) {
		return b, fmt.Errorf("the rows have %d partitions, %s has %d", len(from), schemas.Deliveries, len(to))
	}
	for p := range to {
		b.Total += to[p] - from[p]
	}
	read := ReadDeliveries(log)
	for p := range to {
		err := read(ctx, int32(p), from[p], to[p], func(in schemas.Batch) error {
			if err := rows.Handle(ctx, in); err != nil {
				return err
			}
			b.Done += in.Next() - from[p]
			from[p] = in.Next()
			report(b)
			return nil
		})
		if err != nil {
			return b, fmt.Errorf("build the deliveries: %w", err)
		}
	}
	return b, nil
}
