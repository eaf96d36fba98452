// Package chdbtest starts the embedded ClickHouse engine for tests: the test binary is its own child.
package chdbtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/campanile-push/campanile/projections/chdb"
)

// dirEnv, when it is set, makes the test binary the engine of that directory.
const dirEnv = "CAMPANILE_CHDBTEST_DIR"

// Main is what a package's TestMain calls: os.Exit(chdbtest.Main(m)). It fails where the tests leave goroutines behind.
func Main(m *testing.M) int {
	dir := os.Getenv(dirEnv)
	if dir == "" {
		code := m.Run()
		http.DefaultClient.CloseIdleConnections()
		if err := goleak.Find(); err != nil && code == 0 {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return code
	}
	if err := chdb.ServeChild(context.Background(), chdb.Options{Dir: dir}, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// Start runs the engine on dir in a child process, and ends it with the test.
func Start(tb testing.TB, dir string) *chdb.Child {
	tb.Helper()
	child, err := chdb.Start(tb.Context(), Options(tb, dir))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := child.Close(); err != nil {
			tb.Error(err)
		}
	})
	return child
}

// Options are those of a child that is this test binary.
func Options(tb testing.TB, dir string) chdb.ChildOptions {
	tb.Helper()
	return chdb.ChildOptions{MaxBackoff: 200 * time.Millisecond, Env: []string{dirEnv + "=" + dir, chdb.LibraryEnv + "=" + Library(tb)}}
}

//nolint:gochecknoglobals // the script is asked once for all tests of a binary
var library = sync.OnceValues(fetch)

// Library is the path of libchdb, fetched where it is not there yet. The test is skipped with CAMPANILE_SKIP_REAL=1, and,
// outside CI, where the library cannot be had; in CI it fails.
func Library(tb testing.TB) string {
	tb.Helper()
	if os.Getenv("CAMPANILE_SKIP_REAL") == "1" {
		tb.Skip("CAMPANILE_SKIP_REAL=1: nothing is tested on the embedded ClickHouse engine")
	}
	path, err := library()
	if err != nil && os.Getenv("CI") == "" {
		tb.Skipf("NOT TESTED on the embedded ClickHouse engine, since libchdb cannot be had: %v", err)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return path
}

func fetch() (string, error) {
	if path := os.Getenv(chdb.LibraryEnv); path != "" {
		return chdb.FindLibrary(path)
	}
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	var said bytes.Buffer
	cmd := exec.CommandContext(context.Background(), "sh", filepath.Join(root, "deployments", "local", "chdb.sh")) //nolint:gosec // our own script
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, bytes.TrimSpace(said.Bytes()))
	}
	return chdb.FindLibrary(strings.TrimPrefix(strings.TrimSpace(string(out)), chdb.LibraryEnv+"="))
}

// moduleRoot is the folder of go.mod above the test's own.
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
			return "", errors.New("no go.mod above the test's folder")
		}
		dir = parent
	}
}
