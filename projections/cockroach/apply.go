package cockroach

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/campanile-push/campanile/projections"
	"github.com/campanile-push/campanile/schemas"
)

// chunk is how many records one transaction folds. Measured: a statement's cost per row is flat from a thousand rows on; and
// CockroachDB wants small transactions, since a retry repeats all of one.
const chunk = 2000

// errMoved says that another projector applied the same partition meanwhile. It is met only where the database does not
// isolate as it promised; the batch comes again.
var errMoved = errors.New("another projector moved the partition's offset")

// Apply folds a batch, in transactions of at most chunk records: each holds its rows and its offset.
func (s *Store) Apply(ctx context.Context, in schemas.Batch) error {
	parts, err := s.parts(in)
	if err != nil {
		return err // before anything was written
	}
	return s.applyParts(ctx, in, parts, activeTables)
}

// parts are the transactions of a batch.
func (s *Store) parts(in schemas.Batch) (parts []*projections.Facts, err error) {
	for at := 0; at < len(in.Records); at += chunk {
		part := in
		part.Records = in.Records[at:min(at+chunk, len(in.Records))]
		facts, err := projections.Read(part)
		if err != nil {
			return nil, err
		}
		parts = append(parts, facts)
	}
	if in.Partition < 0 || in.Partition >= s.layout.Partitions {
		return nil, fmt.Errorf("apply %s[%d]: %w: it has %d", in.Topic, in.Partition, projections.ErrLayout, s.layout.Partitions)
	}
	return parts, nil
}

// applyParts applies to the tables that into finds, in the transaction of the rows.
func (s *Store) applyParts(ctx context.Context, in schemas.Batch, parts []*projections.Facts, into func(context.Context, pgx.Tx) (tables, error)) error {
	for _, facts := range parts {
		err := s.again(ctx, func() error {
			return s.db.RunTx(ctx, writing(), func(tx pgx.Tx) error {
				t, err := into(ctx, tx)
				if err != nil {
					return err
				}
				return t.apply(ctx, tx, in.Partition, facts)
			})
		})
		if err != nil {
			return fmt.Errorf("apply %s[%d] up to %d: %w", in.Topic, in.Partition, facts.Next, judge(err))
		}
	}
	return nil
}

func (t tables) apply(ctx context.Context, tx pgx.Tx, partition int32, facts *projections.Facts) error {
	var from int64
	if err := tx.QueryRow(ctx, t.sql(sqlNext), int64(partition)).Scan(&from); err != nil {
		return fmt.Errorf("read the applied offset: %w", err)
	}
	if facts.Next <= from {
		return nil
	}
	before, err := t.states(ctx, tx, facts.Devices())
	if err != nil {
		return fmt.Errorf("read %d devices: %w", len(facts.Devices()), err)
	}
	var rows changes
	for _, change := range facts.Fold(from, before) {
		rows.add(&change)
	}
	b := &pgx.Batch{}
	b.Queue(t.sql(sqlMoveNext), int64(partition), from, facts.Next).Exec(func(moved pgconn.CommandTag) error {
		if moved.RowsAffected() != 1 {
			return errMoved
		}
		return nil
	})
	rows.queue(t, b)
	if err := tx.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("write the rows: %w", err)
	}
	return nil
}
