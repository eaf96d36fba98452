package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	driver "github.com/ClickHouse/clickhouse-go/v2"

	"github.com/campanile-push/campanile/schemas"
	"github.com/campanile-push/campanile/vault"
)

// Options say where the engine is.
type Options struct {
	// URL of the engine, with user, password and database: http://user:password@host:8123/campanile, clickhouse://host:9000/campanile,
	// or what chdb.Child says. No database means campanile.
	URL string
	// Hasher makes the hashes of tokens and users, under the same key as the senders'.
	Hasher vault.Hasher
	// Linger is how long a small batch waits for its successors after the last insert of its partition, in Handle. An insert
	// costs 5 to 10 ms of CPU however small it is. 0: one second; negative: it does not wait.
	Linger time.Duration
	// Timeout bounds each statement. 0: 30 seconds.
	Timeout time.Duration
	Logger  *slog.Logger
	// Read reads the records of a partition of deliveries in [from, to) that are still in the log, and hands them on in batches. It is asked after
	// a rebuild, which sets the analytics back to the end of what it has built. Nil: such records are a gap.
	Read func(ctx context.Context, partition int32, from, to int64, handle func(schemas.Batch) error) error
}

// Numbers that Options leave open.
const (
	defaultDatabase = "campanile"
	defaultLinger   = time.Second
	defaultTimeout  = 30 * time.Second
	// largeBatch is the number of rows from which a batch does not linger.
	largeBatch = 2000
)

// Analytics is the projection in ClickHouse. Its methods may be called from any goroutine, Handle for one partition from one
// at a time.
type Analytics struct {
	conn    driver.Conn
	hash    vault.Hasher
	log     *slog.Logger
	linger  time.Duration
	timeout time.Duration
	read    func(ctx context.Context, partition int32, from, to int64, handle func(schemas.Batch) error) error

	at       func(step string) error // tests break a rebuild off here; nil elsewhere
	orphaned time.Duration           // see epoch.go

	mu         sync.Mutex
	partitions map[place]*partition
	refreshing sync.Mutex // one refresh of the rollups at a time
}

// place is a partition of a topic.
type place struct {
	topic schemas.Topic
	part  int32
}

// Error is a failure of the engine or of the way to it. Nothing was counted twice, and the same call can be made again.
type Error struct {
	doing string
	err   error
}

func (e *Error) Error() string { return e.doing + ": " + e.err.Error() }

// Unwrap returns the driver's error.
func (e *Error) Unwrap() error { return e.err }

// Temporary is always true: a batch that the engine refuses is never a poisonous one, since every value in it was checked.
func (e *Error) Temporary() bool { return true }

// failed wraps an error of the driver; nil stays nil.
func failed(err error, doing string, args ...any) error {
	if err == nil {
		return nil
	}
	return &Error{fmt.Sprintf(doing, args...), err}
}

// Open connects, and creates the database, tables and views that are not there. The engine must answer: while it does not, the
// error is an *Error, and Open can be called again. Close the Analytics.
func Open(ctx context.Context, o Options) (*Analytics, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Linger == 0 {
		o.Linger = defaultLinger
	}
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	conf, err := driver.ParseDSN(o.URL)
	if err != nil {
		// The driver's error may hold the URL, and so the password.
		return nil, errors.New("the engine's URL is none: want http://user:password@host:8123/database or clickhouse://host:9000/database")
	}
	if conf.Auth.Database == "" {
		conf.Auth.Database = defaultDatabase
	}
	conf.DialTimeout = min(o.Timeout, 5*time.Second)
	conf.ReadTimeout = o.Timeout
	conf.MaxOpenConns, conf.MaxIdleConns = 8, 4
	conf.ConnMaxLifetime = time.Hour
	if conf.Settings == nil {
		conf.Settings = driver.Settings{}
	}
	conf.Settings["async_insert"] = 0                    // an insert's answer means that the rows are there
	conf.Settings["max_partitions_per_insert_block"] = 0 // a batch of devices read anew can span months
	if err := createDatabase(ctx, *conf, o.Timeout); err != nil {
		return nil, err
	}
	conn, err := driver.Open(conf)
	if err != nil {
		return nil, failed(err, "open ClickHouse")
	}
	a := &Analytics{
		conn: conn, hash: o.Hasher, log: o.Logger, linger: o.Linger, timeout: o.Timeout, read: o.Read, orphaned: orphaned,
		partitions: map[place]*partition{},
	}
	if err := a.migrate(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return a, nil
}

// createDatabase makes the database on a connection that does not name it. Atomic is the engine of choice of a server, and
// chDB's own default database has another, which lacks much.
func createDatabase(ctx context.Context, conf driver.Options, timeout time.Duration) error {
	name := conf.Auth.Database
	conf.Auth.Database = "default"
	conn, err := driver.Open(&conf)
	if err != nil {
		return failed(err, "open ClickHouse")
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	quoted := "`" + strings.NewReplacer(`\`, `\\`, "`", "\\`").Replace(name) + "`"
	return failed(conn.Exec(ctx, "CREATE DATABASE IF NOT EXISTS "+quoted+" ENGINE = Atomic"), "create the database %s", name)
}

// Close ends the connections.
func (a *Analytics) Close() error {
	if err := a.conn.Close(); err != nil {
		return fmt.Errorf("close ClickHouse: %w", err)
	}
	return nil
}

// Ready returns nil if the engine answers now.
func (a *Analytics) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	return failed(a.conn.Ping(ctx), "reach ClickHouse")
}

// exec runs a statement under the timeout.
func (a *Analytics) exec(ctx context.Context, doing, query string, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	return failed(a.conn.Exec(ctx, query, args...), "%s", doing)
}

// each runs a query under the timeout and calls scan for each row.
func (a *Analytics) each(ctx context.Context, doing string, scan func(row) error, query string, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	rows, err := a.conn.Query(ctx, query, args...)
	if err != nil {
		return failed(err, "%s", doing)
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return failed(err, "%s", doing)
		}
	}
	return failed(rows.Err(), "%s", doing)
}

// row is what a scan reads from.
type row interface {
	Scan(dest ...any) error
}
