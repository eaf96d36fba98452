package pebble

import (
	"context"
	"fmt"
	"iter"

	"github.com/cockroachdb/pebble/v2"

	"github.com/campanile-push/campanile/projections"
)

// fillBatch is how many devices Fill commits at once: some megabytes of rows.
const fillBatch = 10_000

var _ projections.Filler = (*Store)(nil)

// Fill is a projections.Filler. It ends with all rows in tables and compacted, as a store is that has been up for a while.
func (s *Store) Fill(ctx context.Context, rows iter.Seq[projections.Filled]) error {
	if err := projections.CheckEmpty(ctx, s); err != nil {
		return err
	}
	e, done := s.use()
	defer done()
	if err := s.fill(ctx, e.db, rows); err != nil {
		return fmt.Errorf("fill the device store: %w", err)
	}
	if err := e.db.Flush(); err != nil {
		return fmt.Errorf("flush the device store: %w", err)
	}
	if err := e.db.Compact(ctx, []byte{0}, []byte{0xff}, true); err != nil {
		return fmt.Errorf("compact the device store: %w", err)
	}
	return nil
}

func (s *Store) fill(ctx context.Context, db *pebble.DB, rows iter.Seq[projections.Filled]) error {
	b := db.NewBatch()
	defer func() { _ = b.Close() }() // after Commit it has nothing to say
	w := writer{batch: b}
	n := 0
	for row := range rows {
		if err := w.change(&projections.Change{Device: row.Device, After: row.State}); err != nil {
			return err
		}
		if n++; n%fillBatch != 0 {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.checkDisk(); err != nil {
			return err
		}
		if err := b.Commit(pebble.NoSync); err != nil {
			return err
		}
		b.Reset()
	}
	return b.Commit(pebble.NoSync)
}
