package cockroach_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/campanile-push/campanile/projections/cockroach"
)

var serializable = pgx.TxOptions{IsoLevel: pgx.Serializable}

// transactor is a Transactor on a new database with a table of numbers.
func transactor(t *testing.T) (cockroach.Transactor, *pgxpool.Pool) {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), newDatabase(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	var version string
	if err := pool.QueryRow(t.Context(), "SELECT version()").Scan(&version); err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec(t.Context(), "CREATE TABLE numbers (id INT8 PRIMARY KEY, n INT8 NOT NULL)"); err != nil {
		t.Fatal(err)
	}
	return cockroach.Transactor{Conn: pool, Dialect: cockroach.DialectOf(version)}, pool
}

func number(t *testing.T, pool *pgxpool.Pool, sql string, args ...any) (n int64) {
	t.Helper()
	if err := pool.QueryRow(t.Context(), sql, args...).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestNoIncrementIsLost is the forced conflict: many read, add and write one row.
func TestNoIncrementIsLost(t *testing.T) {
	t.Parallel()
	db, pool := transactor(t)
	if _, err := pool.Exec(t.Context(), "INSERT INTO numbers (id, n) VALUES (1, 0)"); err != nil {
		t.Fatal(err)
	}
	const workers, each = 4, 50
	var tries atomic.Int64
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for range each {
				err := db.RunTx(t.Context(), serializable, func(tx pgx.Tx) error {
					tries.Add(1)
					var n int64
					if err := tx.QueryRow(t.Context(), "SELECT n FROM numbers WHERE id = 1").Scan(&n); err != nil {
						return err
					}
					_, err := tx.Exec(t.Context(), "UPDATE numbers SET n = $1 WHERE id = 1", n+1)
					return err
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if got := number(t, pool, "SELECT n FROM numbers WHERE id = 1"); got != workers*each {
		t.Errorf("want %d, got %d", workers*each, got)
	}
	if tries.Load() == workers*each {
		t.Error("nothing was ever in conflict: the test proves nothing")
	}
}

// TestWriteSkewIsRetried makes pairs of transactions that each read both rows of a pair and write one: both may commit only
// one after the other. PostgreSQL says so at COMMIT, which is the error that must not get lost.
func TestWriteSkewIsRetried(t *testing.T) {
	t.Parallel()
	db, pool := transactor(t)
	const pairs = 25
	var tries atomic.Int64
	for pair := range int64(pairs) {
		if _, err := pool.Exec(t.Context(), "INSERT INTO numbers (id, n) VALUES ($1, 0), ($2, 0)", 2*pair, 2*pair+1); err != nil {
			t.Fatal(err)
		}
		// At their first try both have read before either writes.
		var read sync.WaitGroup
		read.Add(2)
		var group sync.WaitGroup
		for side := range int64(2) {
			group.Go(func() {
				first := sync.OnceFunc(func() { read.Done(); read.Wait() })
				err := db.RunTx(t.Context(), serializable, func(tx pgx.Tx) error {
					tries.Add(1)
					var sum int64
					if err := tx.QueryRow(t.Context(), "SELECT sum(n)::INT8 FROM numbers WHERE id IN ($1, $2)", 2*pair, 2*pair+1).Scan(&sum); err != nil {
						return err
					}
					first()
					_, err := tx.Exec(t.Context(), "UPDATE numbers SET n = $1 WHERE id = $2", sum+1, 2*pair+side)
					return err
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
	}
	// One after the other gives 1 and 2 in each pair; a lost commit 0, and skew 1 and 1.
	if got := number(t, pool, "SELECT sum(n)::INT8 FROM numbers"); got != 3*pairs {
		t.Errorf("want %d, got %d", 3*pairs, got)
	}
	if tries.Load() <= 2*pairs {
		t.Error("nothing was ever in conflict: the test proves nothing")
	}
}

func TestOtherErrorsAreNotRetried(t *testing.T) {
	t.Parallel()
	db, pool := transactor(t)
	tries, mine := 0, errors.New("mine")
	err := db.RunTx(t.Context(), serializable, func(tx pgx.Tx) error {
		tries++
		if _, err := tx.Exec(t.Context(), "INSERT INTO numbers (id, n) VALUES (9, 9)"); err != nil {
			return err
		}
		return mine
	})
	if !errors.Is(err, mine) || tries != 1 {
		t.Errorf("want %v after one try, got %v after %d", mine, err, tries)
	}
	if got := number(t, pool, "SELECT count(*) FROM numbers"); got != 0 {
		t.Error("what failed was committed")
	}
}

func TestRetriesEndWithTheContext(t *testing.T) {
	t.Parallel()
	db, _ := transactor(t)
	ctx, cancel := context.WithCancel(t.Context())
	tries := 0
	err := db.RunTx(ctx, serializable, func(pgx.Tx) error {
		if tries++; tries == 3 {
			cancel()
		}
		return &pgconn.PgError{Code: "40001"}
	})
	if !errors.Is(err, context.Canceled) || tries != 3 {
		t.Errorf("want %v after 3 tries, got %v after %d", context.Canceled, err, tries)
	}
}

// scripted is a CockroachDB as its protocol of retries shows it: no more is needed to see that RunTx follows it there.
type scripted struct {
	pgx.Tx
	said   []string
	refuse map[int]error // by number of the RELEASE
}

func (s *scripted) Begin(ctx context.Context) (pgx.Tx, error) { return s.BeginTx(ctx, pgx.TxOptions{}) }

func (s *scripted) BeginTx(context.Context, pgx.TxOptions) (pgx.Tx, error) {
	s.said = append(s.said, "BEGIN")
	return s, nil
}

func (s *scripted) Exec(_ context.Context, sql string, _ ...any) (pgconn.CommandTag, error) {
	s.said = append(s.said, sql)
	if sql != "RELEASE SAVEPOINT cockroach_restart" {
		return pgconn.CommandTag{}, nil
	}
	releases := 0
	for _, said := range s.said {
		if said == sql {
			releases++
		}
	}
	return pgconn.CommandTag{}, s.refuse[releases]
}

func (s *scripted) Commit(context.Context) error {
	s.said = append(s.said, "COMMIT")
	return nil
}

func (s *scripted) Rollback(context.Context) error {
	s.said = append(s.said, "ROLLBACK")
	return nil
}

func TestCockroachRetriesFromItsSavepoint(t *testing.T) {
	t.Parallel()
	conn := &scripted{refuse: map[int]error{1: &pgconn.PgError{Code: "40001"}}}
	tries := 0
	err := cockroach.Transactor{Conn: conn, Dialect: cockroach.CockroachDB}.RunTx(t.Context(), serializable, func(pgx.Tx) error {
		if tries++; tries == 2 {
			return &pgconn.PgError{Code: "40001"}
		}
		return nil
	})
	want := []string{
		"BEGIN", "SAVEPOINT cockroach_restart", "RELEASE SAVEPOINT cockroach_restart", "ROLLBACK TO SAVEPOINT cockroach_restart",
		"ROLLBACK TO SAVEPOINT cockroach_restart", "RELEASE SAVEPOINT cockroach_restart", "COMMIT",
	}
	if err != nil || tries != 3 || !slices.Equal(want, conn.said) {
		t.Errorf("want %q in 3 tries, got %q in %d, %v", want, conn.said, tries, err)
	}
}

func TestDialectIsReadFromTheVersion(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]cockroach.Dialect{
		"CockroachDB CCL v26.1.0 (x86_64-pc-linux-gnu, built 2026/02/01)": cockroach.CockroachDB,
		"PostgreSQL 15.20 (Debian 15.20-0+deb12u1) on x86_64":             cockroach.PostgreSQL,
		"YugabyteDB": cockroach.PostgreSQL, // ExecuteTx is for CockroachDB alone
	} {
		if got := cockroach.DialectOf(version); got != want {
			t.Errorf("%s: want %d, got %d", version, want, got)
		}
	}
}
