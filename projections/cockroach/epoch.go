package cockroach

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/campanile-push/campanile/projections"
	"github.com/campanile-push/campanile/schemas"
)

const (
	defaultLease = 30 * time.Second
	// holdFor bounds how long appliers wait for a swap whose process died.
	holdFor = 15 * time.Second
)

// epochOf finds the active tables in the snapshot of tx, and whether a rebuild holds the appliers back.
func epochOf(ctx context.Context, tx pgx.Tx) (t tables, held bool, err error) {
	if err := tx.QueryRow(ctx, sqlEpoch).Scan(&t.epoch, &held); err != nil {
		return t, false, fmt.Errorf("read the epoch: %w", err)
	}
	return t, held, nil
}

// activeTables are where appliers write.
func activeTables(ctx context.Context, tx pgx.Tx) (tables, error) {
	t, held, err := epochOf(ctx, tx)
	if err == nil && held {
		err = projections.ErrHeld
	}
	return t, err
}

const undefinedTable = "42P01"

// again runs do again where the tables were dropped after their epoch was read: the next snapshot knows the one that took their place.
func (s *Store) again(ctx context.Context, do func() error) error {
	var refused *pgconn.PgError
	for tries := 0; ; tries++ {
		err := do()
		if tries == 10 || !errors.As(err, &refused) || refused.Code != undefinedTable || ctx.Err() != nil {
			return err
		}
	}
}

// building is a projections.Epoch.
type building struct {
	s       *Store
	t       tables
	builder string
	renewed time.Time
	sums    *[2]uint64 // of the serving epoch and of this one; nil: not compared yet
	ended   bool
	at      func(step string) error // tests break off here; nil elsewhere
}

// BeginEpoch makes the tables of a new epoch.
func (s *Store) BeginEpoch(ctx context.Context) (projections.Epoch, error) {
	return s.beginEpoch(ctx)
}

func (s *Store) beginEpoch(ctx context.Context) (*building, error) {
	b := &building{s: s, builder: schemas.NewID().String(), renewed: time.Now()}
	err := s.db.RunTx(ctx, writing(), func(tx pgx.Tx) error {
		var last int64
		var builder string
		var leased bool
		if err := tx.QueryRow(ctx, sqlBuilder).Scan(&last, &builder, &leased); err != nil {
			return err
		}
		if builder != "" && leased {
			return projections.ErrRebuilding
		}
		b.t.epoch = last + 1
		if _, err := tx.Exec(ctx, sqlBuild, b.t.epoch, b.builder, s.lease.Seconds()); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, sqlPutState, b.t.epoch, "building")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("begin an epoch: %w", err)
	}
	if err := b.create(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("begin epoch %d: %w", b.t.epoch, err), b.Abandon(ctx))
	}
	return b, nil
}

// create drops what earlier builders left, and makes the tables, each by a statement of its own: CockroachDB changes schemas outside of
// transactions.
func (b *building) create(ctx context.Context) error {
	if err := b.s.dropLeftovers(ctx, b.t.epoch); err != nil {
		return err
	}
	for _, sql := range []string{sqlCreateApplied, sqlCreateDevices, sqlCreateSubscriptions, sqlCreateAudience} {
		if _, err := b.s.pool.Exec(ctx, b.t.sql(sql)); err != nil {
			return err
		}
	}
	return b.s.db.RunTx(ctx, writing(), func(tx pgx.Tx) error {
		if err := b.s.cover(ctx, tx, b.t); err != nil {
			return err
		}
		return b.s.putApplied(ctx, tx, b.t)
	})
}

// cover gives an audience without rows, on PostgreSQL, a key that pages are read from alone. A store of an older version gets it with its
// next rebuild: on tables with rows it would hold everybody up.
func (s *Store) cover(ctx context.Context, tx pgx.Tx, t tables) error {
	if s.db.Dialect != PostgreSQL {
		return nil
	}
	if _, err := tx.Exec(ctx, t.sql(sqlCover)); err != nil {
		return fmt.Errorf("cover the audience: %w", err)
	}
	return nil
}

// dropLeftovers drops every epoch that is neither active, kept, nor this one.
func (s *Store) dropLeftovers(ctx context.Context, but int64) error {
	rows, err := s.pool.Query(ctx, sqlLeftovers, but)
	if err != nil {
		return err
	}
	left, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return err
	}
	for _, epoch := range left {
		if err := s.drop(ctx, tables{epoch}); err != nil {
			return fmt.Errorf("drop epoch %d: %w", epoch, err)
		}
	}
	return nil
}

// drop drops an epoch's tables, and then what says that they are there.
func (s *Store) drop(ctx context.Context, t tables) error {
	// Whoever found the epoch active in an older snapshot may be reading it, and the two can wait for each other.
	for bound := firstWait; ; bound = min(2*bound, lastWait) {
		_, err := s.pool.Exec(ctx, t.sql(sqlDropTables))
		if err == nil {
			break
		}
		if !conflict(err) {
			return err
		}
		if ended := wait(ctx, bound); ended != nil {
			return fmt.Errorf("%w while retrying: %w", ended, err)
		}
	}
	_, err := s.pool.Exec(ctx, sqlDropState, t.epoch)
	return err
}

// Number is the epoch's.
func (b *building) Number() int64 { return b.t.epoch }

// Applied is where the epoch stands.
func (b *building) Applied(ctx context.Context) (offsets []int64, err error) {
	return b.s.appliedOf(ctx, b.t)
}

func (s *Store) appliedOf(ctx context.Context, t tables) (offsets []int64, err error) {
	err = s.db.RunTx(ctx, writing(), func(tx pgx.Tx) error { // serializable: Swap rests on it
		offsets, err = s.applied(ctx, tx, t)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the applied offsets of epoch %d: %w", t.epoch, err)
	}
	return offsets, nil
}

// Apply folds a batch into the epoch.
func (b *building) Apply(ctx context.Context, in schemas.Batch) error {
	if err := b.renew(ctx); err != nil {
		return err
	}
	return b.s.applyTo(ctx, b.t, in)
}

func (s *Store) applyTo(ctx context.Context, t tables, in schemas.Batch) error {
	parts, err := s.parts(in)
	if err != nil {
		return err
	}
	return s.applyParts(ctx, in, parts, func(context.Context, pgx.Tx) (tables, error) { return t, nil })
}

// renew keeps the lease; it is not in the transaction of the rows, which would meet others at its row.
func (b *building) renew(ctx context.Context) error {
	if time.Since(b.renewed) < b.s.lease/4 {
		return nil
	}
	renewed, err := b.s.pool.Exec(ctx, sqlRenew, b.builder, b.s.lease.Seconds())
	if err != nil {
		return fmt.Errorf("renew the lease of epoch %d: %w", b.t.epoch, err)
	}
	if renewed.RowsAffected() == 0 {
		return fmt.Errorf("epoch %d: %w", b.t.epoch, projections.ErrReplaced)
	}
	b.renewed = time.Now()
	return nil
}

// Abandon drops the epoch.
func (b *building) Abandon(ctx context.Context) error {
	if b.ended {
		return nil
	}
	b.ended = true
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second) // also when ctx has ended: that is why it is abandoned
	defer cancel()
	if err := b.s.drop(ctx, b.t); err != nil {
		return fmt.Errorf("drop epoch %d: %w", b.t.epoch, err)
	}
	_, err := b.s.pool.Exec(ctx, sqlEnd, b.builder)
	return err
}

// step lets tests end here.
func (b *building) step(name string) error {
	if b.at == nil {
		return nil
	}
	return b.at(name)
}

// Swap makes the epoch active.
//
// What makes it safe is that every Apply reads the active epoch and writes the offsets, and that the swap reads the offsets of both epochs and
// writes the active one, all in serializable transactions: an Apply and a swap that did not see each other cannot both commit. Holding the
// appliers back only lets it come about.
func (b *building) Swap(ctx context.Context, o projections.SwapOptions,
	read func(ctx context.Context, partition int32, from, to int64, apply func(schemas.Batch) error) error,
) (done projections.Swapped, err error) {
	done.Kept = true
	if b.sums == nil { // else it is another try, after ErrMoved
		if err := b.compare(ctx, read); err != nil {
			return done, err
		}
	}
	done.Compared, done.Old, done.New = true, b.sums[0], b.sums[1]
	if !done.Same() && !o.Force {
		return done, projections.ErrOther
	}
	keep := o.Keep || !done.Same()
	old, err := b.whileHeld(ctx, func(old tables) error { return b.swap(ctx, old, keep, read) })
	if err != nil {
		return done, fmt.Errorf("swap epoch %d for %d: %w", old.epoch, b.t.epoch, err)
	}
	done.Swapped, b.ended = true, true
	return done, b.retire(ctx, old, keep, &done)
}

// whileHeld runs do while appliers are held back, and lets them go if it fails: a swap has let them go itself.
func (b *building) whileHeld(ctx context.Context, do func(old tables) error) (old tables, err error) {
	if err := b.renew(ctx); err != nil {
		return old, err
	}
	if old, err = b.hold(ctx); err != nil {
		return old, fmt.Errorf("hold the appliers: %w", err)
	}
	if err := do(old); err != nil {
		b.release(ctx)
		return old, err
	}
	return old, nil
}

// release lets the appliers go on; where it cannot, the hold runs out.
func (b *building) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	_, _ = b.s.pool.Exec(ctx, sqlHold, 0.0)
}

// compare sums up both epochs at the same offsets. While it reads them, everybody goes on.
func (b *building) compare(ctx context.Context,
	read func(ctx context.Context, partition int32, from, to int64, apply func(schemas.Batch) error) error,
) error {
	var snapshot pgx.Tx
	old, err := b.whileHeld(ctx, func(old tables) (err error) {
		snapshot, err = b.snapshot(ctx, old, read)
		return err
	})
	if err != nil {
		return fmt.Errorf("compare epoch %d with %d: %w", old.epoch, b.t.epoch, err)
	}
	b.release(ctx)
	sums, err := b.sumUp(ctx, snapshot, old)
	_ = snapshot.Rollback(context.WithoutCancel(ctx)) // it only read
	if err != nil {
		return fmt.Errorf("compare epoch %d with %d: %w", old.epoch, b.t.epoch, err)
	}
	b.sums = &sums
	return b.step("compared")
}

// snapshot levels both epochs, and opens a snapshot of them at the same offsets.
func (b *building) snapshot(ctx context.Context, old tables,
	read func(ctx context.Context, partition int32, from, to int64, apply func(schemas.Batch) error) error,
) (pgx.Tx, error) {
	if err := b.level(ctx, old, read); err != nil {
		return nil, err
	}
	tx, err := b.s.pool.BeginTx(ctx, b.s.db.Dialect.reading())
	if err != nil {
		return nil, err
	}
	if err := b.s.level(ctx, tx, old, b.t); err != nil {
		_ = tx.Rollback(context.WithoutCancel(ctx)) // it only read
		return nil, err
	}
	return tx, nil
}

// sumUp reads both epochs, which may take longer than the lease.
func (b *building) sumUp(ctx context.Context, snapshot pgx.Tx, old tables) (sums [2]uint64, err error) {
	reading, stop := context.WithCancel(ctx)
	defer stop()
	renewed := make(chan error, 1)
	go func() {
		tick := time.NewTicker(b.s.lease / 8)
		defer tick.Stop()
		for {
			select {
			case <-reading.Done():
				renewed <- nil
				return
			case <-tick.C:
			}
			if err := b.renew(reading); err != nil && reading.Err() == nil {
				renewed <- err
				stop()
				return
			}
		}
	}()
	if sums[0], err = old.checksum(reading, snapshot); err == nil {
		sums[1], err = b.t.checksum(reading, snapshot)
	}
	stop()
	if lost := <-renewed; lost != nil {
		return sums, lost
	}
	return sums, err
}

// retire drops the old epoch, or marks it as kept.
func (b *building) retire(ctx context.Context, old tables, keep bool, done *projections.Swapped) error {
	if keep {
		if _, err := b.s.pool.Exec(ctx, sqlPutState, old.epoch, "kept"); err != nil {
			return fmt.Errorf("keep epoch %d: %w", old.epoch, err)
		}
		return nil
	}
	if err := b.s.drop(ctx, old); err != nil {
		return fmt.Errorf("drop epoch %d: %w", old.epoch, err)
	}
	done.Kept = false
	return nil
}

// hold stops the appliers for a while, and returns the active epoch.
func (b *building) hold(ctx context.Context) (old tables, err error) {
	err = b.s.db.RunTx(ctx, writing(), func(tx pgx.Tx) error {
		if err := b.mine(ctx, tx); err != nil {
			return err
		}
		if old, _, err = epochOf(ctx, tx); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, sqlHold, holdFor.Seconds())
		return err
	})
	return old, err
}

// mine returns ErrReplaced where another builder took this one's place.
func (b *building) mine(ctx context.Context, tx pgx.Tx) error {
	var last int64
	var builder string
	var leased bool
	if err := tx.QueryRow(ctx, sqlBuilder).Scan(&last, &builder, &leased); err != nil {
		return err
	}
	if builder != b.builder {
		return projections.ErrReplaced
	}
	return nil
}

// swap levels both epochs, and makes the new one active.
func (b *building) swap(ctx context.Context, old tables, keep bool,
	read func(ctx context.Context, partition int32, from, to int64, apply func(schemas.Batch) error) error,
) error {
	if err := b.step("held"); err != nil {
		return err
	}
	if err := b.level(ctx, old, read); err != nil {
		return err
	}
	if err := b.step("levelled"); err != nil {
		return err
	}
	if err := b.s.db.RunTx(ctx, writing(), func(tx pgx.Tx) error { return b.activate(ctx, tx, old, keep) }); err != nil {
		return err
	}
	return b.step("activated")
}

// level applies to each of the two epochs what the other is ahead by.
func (b *building) level(ctx context.Context, old tables,
	read func(ctx context.Context, partition int32, from, to int64, apply func(schemas.Batch) error) error,
) error {
	of := func(t tables) projections.Applier {
		return projections.Applier{
			Applied: func(ctx context.Context) ([]int64, error) { return b.s.appliedOf(ctx, t) },
			Apply:   func(ctx context.Context, in schemas.Batch) error { return b.s.applyTo(ctx, t, in) },
		}
	}
	_, err := projections.Level(ctx, of(old), of(b.t), read)
	return err
}

// level returns ErrMoved unless both epochs stand at the same offsets in tx.
func (s *Store) level(ctx context.Context, tx pgx.Tx, old, other tables) error {
	a, err := s.applied(ctx, tx, old)
	if err != nil {
		return err
	}
	b, err := s.applied(ctx, tx, other)
	if err != nil {
		return err
	}
	if !slices.Equal(a, b) {
		return projections.ErrMoved
	}
	return nil
}

// activate is the swap itself.
func (b *building) activate(ctx context.Context, tx pgx.Tx, old tables, keep bool) error {
	if err := b.mine(ctx, tx); err != nil {
		return err
	}
	if err := b.s.level(ctx, tx, old, b.t); err != nil {
		return err
	}
	moved, err := tx.Exec(ctx, sqlActivate, b.t.epoch, old.epoch)
	if err != nil {
		return err
	}
	if moved.RowsAffected() != 1 {
		return projections.ErrReplaced
	}
	state := "old"
	if keep {
		state = "kept"
	}
	if _, err := tx.Exec(ctx, sqlPutState, old.epoch, state); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, sqlDropState, b.t.epoch); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, sqlEnd, b.builder)
	return err
}
