package cockroach

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/campanile-push/campanile/projections"
	"github.com/campanile-push/campanile/schemas"
)

// Options of Open.
type Options struct {
	// URL of the database, as PostgreSQL writes it: postgres://user:password@host:port/database?sslmode=… and pgx's pool_…
	// settings.
	URL string
	// Layout of the topics; a store is built for one.
	Layout schemas.Layout
	// Logger gets what migrations say; nil drops it.
	Logger *slog.Logger
	// Lease is how long a rebuild that was killed keeps others from beginning; zero: 30 s.
	Lease time.Duration
}

// Store is a projections.DeviceStore. Several processes may use one database.
type Store struct {
	pool   *pgxpool.Pool
	db     Transactor
	layout schemas.Layout
	lease  time.Duration
	runs   sync.Pool // of *runs: memory of pages
}

var _ projections.Epochs = (*Store)(nil)

// Open connects, migrates and checks the layout. The caller closes the store.
func Open(ctx context.Context, o Options) (*Store, error) {
	if err := o.Layout.Check(); err != nil {
		return nil, fmt.Errorf("open device store: %w", err)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	pool, err := pgxpool.New(ctx, o.URL)
	if err != nil {
		return nil, fmt.Errorf("open device store: %w", err) // pgx masks the password
	}
	s := &Store{pool: pool, layout: o.Layout, lease: o.Lease}
	if s.lease <= 0 {
		s.lease = defaultLease
	}
	if err := s.prepare(ctx, o.Logger); err != nil {
		pool.Close()
		return nil, fmt.Errorf("open device store: %w", err)
	}
	return s, nil
}

func (s *Store) prepare(ctx context.Context, log *slog.Logger) error {
	var version string
	if err := s.pool.QueryRow(ctx, sqlVersion).Scan(&version); err != nil {
		return fmt.Errorf("ask for the database's version: %w", err)
	}
	s.db = Transactor{Conn: s.pool, Dialect: DialectOf(version)}
	db := stdlib.OpenDBFromPool(s.pool)
	if err := errors.Join(migrate(ctx, db, log), db.Close()); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return s.db.RunTx(ctx, writing(), func(tx pgx.Tx) error { return s.checkLayout(ctx, tx) })
}

// checkLayout writes the layout at the first start and refuses another one later.
func (s *Store) checkLayout(ctx context.Context, tx pgx.Tx) error {
	first, err := tx.Exec(ctx, sqlPutLayout, int64(s.layout.Partitions))
	if err != nil {
		return fmt.Errorf("write the layout: %w", err)
	}
	if first.RowsAffected() == 1 {
		if err := s.cover(ctx, tx, tables{}); err != nil {
			return err
		}
	}
	var partitions int64
	if err := tx.QueryRow(ctx, sqlLayout).Scan(&partitions); err != nil {
		return fmt.Errorf("read the layout: %w", err)
	}
	if partitions != int64(s.layout.Partitions) {
		return fmt.Errorf("%w: built for %d, the log has %d; drop the database to rebuild it", projections.ErrLayout, partitions, s.layout.Partitions)
	}
	for _, sql := range []string{sqlPutEpoch, sqlPutEpochBuild} {
		if _, err := tx.Exec(ctx, sql); err != nil {
			return fmt.Errorf("write the epoch: %w", err)
		}
	}
	active, _, err := epochOf(ctx, tx)
	if err != nil {
		return err
	}
	return s.putApplied(ctx, tx, active)
}

func (s *Store) putApplied(ctx context.Context, tx pgx.Tx, t tables) error {
	parts := make([]int64, s.layout.Partitions)
	for p := range parts {
		parts[p] = int64(p)
	}
	if _, err := tx.Exec(ctx, t.sql(sqlPutApplied), parts); err != nil {
		return fmt.Errorf("write the applied offsets: %w", err)
	}
	return nil
}

// Dialect is which database answers.
func (s *Store) Dialect() Dialect { return s.db.Dialect }

// Close ends the connections.
func (s *Store) Close() error {
	s.pool.Close()
	return nil
}

// read runs fn in one snapshot, with the tables that are active in it.
func (s *Store) read(ctx context.Context, fn func(tx pgx.Tx, t tables) error) error {
	return s.again(ctx, func() error {
		return s.db.RunTx(ctx, s.db.Dialect.reading(), func(tx pgx.Tx) error {
			t, _, err := epochOf(ctx, tx)
			if err != nil {
				return err
			}
			return fn(tx, t)
		})
	})
}

// Applied is where each partition stands.
func (s *Store) Applied(ctx context.Context) (offsets []int64, err error) {
	err = s.read(ctx, func(tx pgx.Tx, t tables) error {
		offsets, err = s.applied(ctx, tx, t)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read applied offsets: %w", err)
	}
	return offsets, nil
}

func (s *Store) applied(ctx context.Context, tx pgx.Tx, t tables) ([]int64, error) {
	rows, err := tx.Query(ctx, t.sql(sqlApplied))
	if err != nil {
		return nil, err
	}
	offsets := make([]int64, s.layout.Partitions)
	var part, next int64
	_, err = pgx.ForEachRow(rows, []any{&part, &next}, func() error {
		if part < 0 || part >= int64(len(offsets)) {
			return fmt.Errorf("partition %d: %w", part, projections.ErrLayout)
		}
		offsets[part] = next
		return nil
	})
	return offsets, err
}
