//go:build linux && amd64 && !static

package chdb_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/campanile-push/campanile/projections/chdb"
	"github.com/campanile-push/campanile/projections/chdbtest"
)

// do posts a statement, with rows in the body where rows is given, and returns status and text.
func do(ctx context.Context, t *testing.T, base, query string, rows io.Reader) (int, string, error) {
	t.Helper()
	at, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	user := at.User
	params := url.Values{}
	body := io.Reader(strings.NewReader(query))
	if rows != nil {
		params.Set("query", query)
		body = rows
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+at.Host+"/?"+params.Encode(), body)
	if err != nil {
		t.Fatal(err)
	}
	key, _ := user.Password()
	req.SetBasicAuth(user.Username(), key)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return res.StatusCode, strings.TrimSpace(string(text)), err
}

// must is do for a statement that succeeds.
func must(t *testing.T, base, query string, rows io.Reader) string {
	t.Helper()
	status, text, err := do(t.Context(), t, base, query, rows)
	if err != nil || status != http.StatusOK {
		t.Fatalf("%s: %d %s %v", query, status, text, err)
	}
	return text
}

func TestEngineAnswersUnderItsKeyOnly(t *testing.T) {
	t.Parallel()
	child := chdbtest.Start(t, t.TempDir())
	if got := must(t, child.URL, "SELECT 40 + 2", nil); got != "42" {
		t.Errorf("want 42, got %q", got)
	}
	stranger := strings.Replace(child.URL, "campanile:", "campanile:0", 1)
	status, text, err := do(t.Context(), t, stranger, "SELECT 1", nil)
	if err != nil || status != http.StatusUnauthorized || !strings.HasPrefix(text, "Code: 516.") {
		t.Errorf("a wrong key: %d %q %v", status, text, err)
	}
	if status, text, _ := do(t.Context(), t, child.URL, "SELECT nothing", nil); status != 500 || !strings.HasPrefix(text, "Code: 47.") {
		t.Errorf("an unknown column: %d %q", status, text)
	}
	if got := must(t, child.URL, "SELECT 1", nil); got != "1" {
		t.Errorf("after an error: %q", got)
	}
}

func TestTornRowsInsertNothing(t *testing.T) {
	t.Parallel()
	child := chdbtest.Start(t, t.TempDir())
	must(t, child.URL, "CREATE DATABASE d ENGINE = Atomic", nil)
	must(t, child.URL, "CREATE TABLE d.t (n UInt64) ENGINE = MergeTree ORDER BY n", nil)
	must(t, child.URL, "INSERT INTO d.t FORMAT TabSeparated", strings.NewReader("1\n2\n3\n"))

	at, _ := url.Parse(child.URL)
	key, _ := at.User.Password()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", at.Host)
	if err != nil {
		t.Fatal(err)
	}
	// Three megabytes of a promised ten, then the client is gone.
	req := "POST /?query=" + url.QueryEscape("INSERT INTO d.t FORMAT TabSeparated") +
		" HTTP/1.1\r\nHost: x\r\nX-ClickHouse-Key: " + key + "\r\nContent-Length: 10000000\r\n\r\n"
	if _, err := io.WriteString(conn, req+strings.Repeat("7\n", 1_500_000)); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn) // ends when the handler has given the insert up
	if err != nil || !strings.Contains(string(answer), "nothing was inserted") {
		t.Fatalf("the torn insert was answered %q, %v", answer, err)
	}
	_ = conn.Close()
	if got := must(t, child.URL, "SELECT count() FROM d.t", nil); got != "3" {
		t.Errorf("want the 3 rows of the whole insert, got %s", got)
	}
}

func TestQueryOfAGoneClientIsKilled(t *testing.T) {
	t.Parallel()
	child := chdbtest.Start(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() {
		_, _, err := do(ctx, t, child.URL, "SELECT count() FROM numbers(1000000000000) WHERE NOT ignore(sipHash64(number)) /*long*/", nil)
		gone <- err
	}()
	running := func() string {
		return must(t, child.URL, "SELECT count() FROM system.processes WHERE query LIKE '%/*long*/' AND query NOT LIKE '%processes%'", nil)
	}
	until(t, "the query runs", func() bool { return running() == "1" })
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	until(t, "the query is killed", func() bool { return running() == "0" })
}

// until polls what nothing tells of.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

func TestEngineComesBackAfterKill(t *testing.T) {
	t.Parallel()
	child := chdbtest.Start(t, t.TempDir())
	must(t, child.URL, "CREATE DATABASE d ENGINE = Atomic", nil)
	must(t, child.URL, "CREATE TABLE d.t (n UInt64) ENGINE = MergeTree ORDER BY n", nil)
	must(t, child.URL, "INSERT INTO d.t FORMAT TabSeparated", strings.NewReader("1\n2\n"))
	first := child.Pid()
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, "another process answers", func() bool { pid := child.Pid(); return pid != 0 && pid != first })
	if err := child.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := must(t, child.URL, "SELECT count() FROM d.t", nil); got != "2" {
		t.Errorf("want 2 rows, got %s", got)
	}
}

func TestSecondProcessOnADirectoryIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	chdbtest.Start(t, dir)
	_, err := chdb.Start(t.Context(), chdbtest.Options(t, dir))
	if err == nil || !strings.Contains(err.Error(), chdb.ErrInUse.Error()) {
		t.Errorf("want %q, got %v", chdb.ErrInUse, err)
	}
}

func TestMissingLibraryIsSaid(t *testing.T) {
	t.Parallel()
	o := chdbtest.Options(t, t.TempDir())
	o.Env = append(o.Env, chdb.LibraryEnv+"=/nowhere/libchdb.so")
	_, err := chdb.Start(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), "make chdb") {
		t.Errorf("want how to get the library, got %v", err)
	}
	if _, err := chdb.FindLibrary("/nowhere/libchdb.so"); !errors.Is(err, chdb.ErrNoLibrary) {
		t.Errorf("want ErrNoLibrary, got %v", err)
	}
}

// TestEngineEndsWithItsParent: the child ends by itself when its standard input is closed, as it is when the parent is killed.
func TestEngineEndsWithItsParent(t *testing.T) {
	t.Parallel()
	o := chdbtest.Options(t, t.TempDir())
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), o.Env...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(stdin, "\n"); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 1024)
	n, err := stdout.Read(line)
	if err != nil || !strings.HasPrefix(string(line[:n]), `{"url":"http://127.0.0.1:`) {
		t.Fatalf("ready line %q, %v", line[:n], err)
	}
	if err := stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the child ended with %v", err)
	}
}

func TestSignalsStayGos(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), signalsEnv+"="+t.TempDir(), chdb.LibraryEnv+"="+chdbtest.Library(t))
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "signals are Go's") {
		t.Errorf("%v: %s", err, out)
	}
}
