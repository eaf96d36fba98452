package cockroach_test

import (
	"context"
	"crypto/rand"
	"errors"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"github.com/campanile-push/campanile/projections"
	"github.com/campanile-push/campanile/projections/cockroach"
	"github.com/campanile-push/campanile/projections/storetest"
	"github.com/campanile-push/campanile/schemas"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is the URL of the database that the tests use: what the environment names, or a PostgreSQL started for them.
var server = sync.OnceValues(func() (string, error) {
	for _, name := range []string{"COCKROACH_URL", "POSTGRES_URL"} {
		if v := os.Getenv(name); v != "" {
			return v, nil
		}
	}
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	out, err := exec.CommandContext(context.Background(), filepath.Join(root, "deployments/local/postgres.sh"), "start").Output()
	if err != nil {
		if ended, ok := errors.AsType[*exec.ExitError](err); ok {
			err = errors.New(strings.TrimSpace(string(ended.Stderr)))
		}
		return "", err
	}
	for line := range strings.Lines(string(out)) {
		if v, found := strings.CutPrefix(strings.TrimSpace(line), "POSTGRES_URL="); found {
			return v, nil
		}
	}
	return "", errors.New("postgres.sh start says no POSTGRES_URL")
})

func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no go.mod above the test")
		}
		dir = parent
	}
}

// newDatabase makes a database that is dropped when tb ends, and returns its URL.
func newDatabase(tb testing.TB) string {
	tb.Helper()
	if os.Getenv("CAMPANILE_SKIP_REAL") == "1" {
		tb.Skip("CAMPANILE_SKIP_REAL=1: no database")
	}
	base, err := server()
	if err != nil {
		if os.Getenv("CI") == "true" {
			tb.Fatalf("no database: %v", err)
		}
		tb.Skipf("no database can be had: %v", err)
	}
	at, err := url.Parse(base)
	if err != nil {
		tb.Fatal("the database's URL cannot be read")
	}
	name := "campanile_" + strings.ToLower(rand.Text())
	execute(tb, base, "CREATE DATABASE "+name)
	tb.Cleanup(func() { execute(tb, base, "DROP DATABASE "+name) })
	at.Path = "/" + name
	q := at.Query()
	q.Set("pool_max_conns", "4") // many tests run at once
	at.RawQuery = q.Encode()
	return at.String()
}

func execute(tb testing.TB, at, sql string) {
	tb.Helper()
	ctx := context.WithoutCancel(tb.Context()) // also at cleanup
	pool, err := pgxpool.New(ctx, at)
	if err != nil {
		tb.Fatal(err)
	}
	defer pool.Close()
	if _, err := pool.Exec(ctx, sql); err != nil {
		tb.Error(err)
	}
}

// place is a new database.
func place(t *testing.T) storetest.Open {
	t.Helper()
	at := newDatabase(t)
	return func(l schemas.Layout) (projections.DeviceStore, error) {
		store, err := cockroach.Open(t.Context(), cockroach.Options{URL: at, Layout: l, Lease: 2 * time.Second})
		if err != nil {
			return nil, err
		}
		return store, nil
	}
}

func TestStorePassesTheSuite(t *testing.T) {
	t.Parallel()
	storetest.Run(t, place)
}

func TestStoreIsFilledAsApplyWouldFillIt(t *testing.T) {
	t.Parallel()
	storetest.RunFill(t, place)
}

func TestStoreIsRebuiltBesideItself(t *testing.T) {
	t.Parallel()
	storetest.RunEpochs(t, place)
}

func TestRebuildsKilledInTheSwapLeaveOneWholeEpoch(t *testing.T) {
	t.Parallel()
	storetest.RunKilledSwaps(t, place, cockroach.BreakOff, "compared", "held", "levelled", "activated")
}
