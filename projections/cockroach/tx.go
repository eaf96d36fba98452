package cockroach

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/cockroachdb/cockroach-go/v2/crdb"
	crdbpgx "github.com/cockroachdb/cockroach-go/v2/crdb/crdbpgxv5"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/campanile-push/campanile/projections"
)

// Dialect is which of the two databases answers.
type Dialect int

// The dialects.
const (
	PostgreSQL Dialect = iota
	CockroachDB
)

// DialectOf reads what SELECT version() says.
func DialectOf(version string) Dialect {
	if strings.Contains(version, "CockroachDB") {
		return CockroachDB
	}
	return PostgreSQL
}

// Transactor runs transactions as the database wants them retried. Both ways exist because neither works on the other side:
// CockroachDB's protocol (retry from a savepoint, and its release is the commit) loses commits silently on PostgreSQL, which
// keeps the old snapshot after the rollback to a savepoint and reports serialization failures at COMMIT.
type Transactor struct {
	// Conn begins transactions: a pool, or one connection.
	Conn crdbpgx.Conn
	// Dialect of the database behind Conn.
	Dialect Dialect
}

// writing is for what changes rows.
func writing() pgx.TxOptions { return pgx.TxOptions{IsoLevel: pgx.Serializable} }

// reading is one snapshot. On PostgreSQL it goes without that database's bookkeeping of what was read: a read-only
// transaction needs one consistent state and no more.
func (d Dialect) reading() pgx.TxOptions {
	if d == CockroachDB {
		return pgx.TxOptions{IsoLevel: pgx.Serializable, AccessMode: pgx.ReadOnly}
	}
	return pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
}

// Waits between two tries on PostgreSQL: a random part of a bound that doubles. Conflicts are between a few projectors, and a
// transaction takes milliseconds.
const (
	firstWait = 2 * time.Millisecond
	lastWait  = 500 * time.Millisecond
)

// RunTx runs fn in a transaction and commits it. fn may run several times: it must have no effect but through tx, or undo it
// at its start. RunTx tries again, until ctx ends, as long as the database reports a conflict between transactions.
func (t Transactor) RunTx(ctx context.Context, o pgx.TxOptions, fn func(tx pgx.Tx) error) error {
	if t.Dialect == CockroachDB {
		// No count of tries: ctx is the bound, as below.
		return crdbpgx.ExecuteTx(crdb.WithMaxRetries(ctx, 0), t.Conn, o, fn)
	}
	for bound := firstWait; ; bound = min(2*bound, lastWait) {
		err := t.once(ctx, o, fn)
		if !conflict(err) {
			return err
		}
		if ended := wait(ctx, rand.N(bound)); ended != nil {
			return fmt.Errorf("%w while retrying: %w", ended, err)
		}
	}
}

// once is one try. What COMMIT says decides: on PostgreSQL that is where write skew is found.
func (t Transactor) once(ctx context.Context, o pgx.TxOptions, fn func(tx pgx.Tx) error) error {
	tx, err := t.Conn.BeginTx(ctx, o)
	if err != nil {
		return err
	}
	if err := fn(tx); err != nil {
		// fn's error matters; a rollback that fails closes the connection, which rolls back too.
		_ = tx.Rollback(ctx)
		return err
	}
	return tx.Commit(ctx)
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// SQLSTATEs after which the whole transaction can be run again: nothing of it happened.
const (
	serializationFailure = "40001"
	deadlockDetected     = "40P01"
)

func conflict(err error) bool {
	var refused *pgconn.PgError
	return errors.As(err, &refused) && (refused.Code == serializationFailure || refused.Code == deadlockDetected)
}

// judge says which errors the same batch would meet again: those about its values. All others (connection, memory, a server
// that shuts down, a conflict that outlived ctx) pass.
func judge(err error) error {
	var refused *pgconn.PgError
	if errors.As(err, &refused) && (strings.HasPrefix(refused.Code, "22") || strings.HasPrefix(refused.Code, "23")) {
		return projections.Permanent(hide(refused))
	}
	return err
}

// hide keeps the code and drops the text: the database quotes the value that it did not like.
func hide(refused *pgconn.PgError) error {
	return fmt.Errorf("the database refused a value: SQLSTATE %s", refused.Code)
}
