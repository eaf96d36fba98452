package cockroach

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/campanile-push/campanile/projections"
	"github.com/campanile-push/campanile/schemas"
)

// fillBatch is how many devices the three copies are handed at once.
const fillBatch = 1000

var _ projections.Filler = (*Store)(nil)

// Fill is a projections.Filler: a COPY into each of the three tables, on connections of their own. Afterwards PostgreSQL's statistics and
// visibility map are those of a database that autovacuum has seen.
func (s *Store) Fill(ctx context.Context, rows iter.Seq[projections.Filled]) error {
	if err := projections.CheckEmpty(ctx, s); err != nil {
		return err
	}
	var t tables
	err := s.read(ctx, func(_ pgx.Tx, active tables) error {
		t = active
		return nil
	})
	if err != nil {
		return fmt.Errorf("fill the device store: %w", err)
	}
	if err := s.fillTables(ctx, t, rows); err != nil {
		return fmt.Errorf("fill the device store: %w", err)
	}
	return nil
}

func (s *Store) fillTables(ctx context.Context, t tables, rows iter.Seq[projections.Filled]) error {
	if s.db.Dialect != PostgreSQL {
		return s.copyAll(ctx, t, rows)
	}
	if err := s.atOnce(ctx, t.sql(sqlBare)); err != nil {
		return err
	}
	if err := s.copyAll(ctx, t, rows); err != nil {
		return err
	}
	if err := s.atOnce(ctx, t.sql(sqlKeys)); err != nil {
		return err
	}
	return s.vacuum(ctx, t)
}

// atOnce executes statements in a transaction, which is not tried again.
func (s *Store) atOnce(ctx context.Context, statements string) error {
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, statements)
		return err
	})
}

// copyAll copies into the three tables at the same time.
func (s *Store) copyAll(ctx context.Context, t tables, rows iter.Seq[projections.Filled]) error {
	group, filling := errgroup.WithContext(ctx)
	inputs := make([]chan []projections.Filled, len(copies))
	for i, c := range copies {
		inputs[i] = make(chan []projections.Filled, 4)
		group.Go(func() error {
			if err := s.copyInto(filling, t, c, inputs[i]); err != nil {
				return fmt.Errorf("copy into %s: %w", c.table, judge(err))
			}
			return nil
		})
	}
	group.Go(func() error { return deal(filling, rows, inputs) })
	return group.Wait()
}

// vacuum does what autovacuum would in time. Who has an older snapshot, as autovacuum itself may, keeps it from being done; soon he is gone.
func (s *Store) vacuum(ctx context.Context, t tables) error {
	for tries := 0; ; tries++ {
		if _, err := s.pool.Exec(ctx, t.sql(sqlVacuum)); err != nil {
			return err
		}
		var hidden int64
		if err := s.pool.QueryRow(ctx, t.sql(sqlHidden)).Scan(&hidden); err != nil {
			return err
		}
		if hidden == 0 {
			return nil
		}
		if tries == vacuums {
			return fmt.Errorf("%d pages of the audience are not visible to all", hidden)
		}
		if err := wait(ctx, vacuumEvery); err != nil {
			return err
		}
	}
}

// How often, and after how long, a vacuum is tried again: a minute in all.
const (
	vacuums     = 60
	vacuumEvery = time.Second
)

// copyInto copies a table's rows in one transaction, which is not tried again.
func (s *Store) copyInto(ctx context.Context, t tables, c copied, in <-chan []projections.Filled) error {
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if s.db.Dialect == PostgreSQL {
			if _, err := tx.Exec(ctx, sqlFlushed); err != nil {
				return err
			}
		}
		_, err := tx.CopyFrom(ctx, pgx.Identifier{t.sql(c.table)}, c.columns, &copySource{in: in, values: c.values})
		return err
	})
}

// deal hands every batch of rows to every input, and closes them: of an error too, since a copy waits for no context.
func deal(ctx context.Context, rows iter.Seq[projections.Filled], inputs []chan []projections.Filled) error {
	defer func() {
		for _, in := range inputs {
			close(in)
		}
	}()
	give := func(batch []projections.Filled) error {
		for _, in := range inputs {
			select {
			case in <- batch:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	}
	batch := make([]projections.Filled, 0, fillBatch)
	for row := range rows {
		if batch = append(batch, row); len(batch) < fillBatch {
			continue
		}
		if err := give(batch); err != nil {
			return err
		}
		batch = make([]projections.Filled, 0, fillBatch) // the copies have the other
	}
	return give(batch)
}

// copied is a table as COPY fills it. values appends a device's rows.
type copied struct {
	table   string
	columns []string
	values  func(rows [][]any, f *projections.Filled) [][]any
}

//nolint:gochecknoglobals // a table that never changes
var copies = []copied{
	{
		"devices",
		[]string{
			"app", "transport", "environment", "token", "known", "registered_at_us", "platform", "app_version", "locale", "time_zone", "user_id", "key_id",
			"invalidated", "as_of_us",
		},
		func(rows [][]any, f *projections.Filled) [][]any {
			if f.State.Empty() {
				return rows
			}
			s, r := &f.State, &f.State.Registration
			return append(rows, append(keyValues(f.Device), s.Known, r.AtUS, r.Platform, r.AppVersion, r.Locale, r.TimeZone, r.UserID, r.KeyID, s.Invalidated, s.AsOfUS))
		},
	},
	{
		"subscriptions",
		[]string{"app", "transport", "environment", "token", "channel"},
		func(rows [][]any, f *projections.Filled) [][]any {
			for _, channel := range f.State.Channels {
				rows = append(rows, append(keyValues(f.Device), channel))
			}
			return rows
		},
	},
	{
		"audience",
		[]string{"app", "transport", "environment", "token", "channel", "shard", "registered_at_us", "platform"},
		func(rows [][]any, f *projections.Filled) [][]any {
			row, channels := f.State.Audience()
			for _, channel := range channels {
				rows = append(rows, append(keyValues(f.Device), channel, int64(schemas.ShardString(f.Device.Token)), row.RegisteredAtUS, row.Platform))
			}
			return rows
		},
	},
}

func keyValues(d schemas.Device) []any {
	return append(make([]any, 0, 14), d.App, int64(d.Transport), int64(d.Environment), []byte(d.Token))
}

// copySource is a pgx.CopyFromSource over batches, until their channel is closed.
type copySource struct {
	in     <-chan []projections.Filled
	values func(rows [][]any, f *projections.Filled) [][]any
	rows   [][]any // of the batch that is being copied
	next   int
}

// Next waits for a row.
func (s *copySource) Next() bool {
	for s.next++; s.next >= len(s.rows); {
		batch, more := <-s.in
		if !more {
			return false
		}
		s.rows, s.next = s.rows[:0], 0
		for i := range batch {
			s.rows = s.values(s.rows, &batch[i])
		}
	}
	return true
}

// Values are those of the row.
func (s *copySource) Values() ([]any, error) { return s.rows[s.next], nil }

// Err is nil: what goes wrong ends the copies' context.
func (s *copySource) Err() error { return nil }
