package main

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/campanile-push/campanile/bench"
	"github.com/campanile-push/campanile/migrate"
	"github.com/campanile-push/campanile/migrate/migratetest"
)

// TestALargeAirNotifierMovesOver is `make import-demo`: it imports an export of IMPORT_TOKENS records with all their dirt by a binary
// without the race detector, prints the report and how long it took, imports it again, and tries every key. Smaller ones are the tests
// beside this.
func TestALargeAirNotifierMovesOver(t *testing.T) {
	tokens, err := strconv.Atoi(os.Getenv("IMPORT_TOKENS"))
	if err != nil {
		t.Skip("IMPORT_TOKENS says how many tokens: `make import-demo`")
	}
	plain := filepath.Join(t.TempDir(), "campanile")
	if out, err := exec.Command("go", "build", "-o", plain, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	raced := binary
	binary = plain // this test runs alone
	t.Cleanup(func() { binary = raced })
	w := newWorld(t)
	dir, made := w.exported(t, migratetest.Export{Tokens: tokens, Sites: 1000, Canonical: true, Gzip: true})
	environment := w.env("CAMPANILE_EMBEDDED_MAX_LOG=4294967296")
	run := func(args ...string) (out string, took, cpu time.Duration) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), plain, append([]string{"import", "airnotifier", dir}, args...)...)
		cmd.Env, cmd.Stderr = append(os.Environ(), environment...), os.Stderr
		began := time.Now()
		text, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		used := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		return string(text), time.Since(began).Round(10 * time.Millisecond), used.Round(10 * time.Millisecond)
	}
	table, took, cpu := run()
	t.Logf("%d records, canonical, gzip: imported in %s, with %s of CPU time\n%s", tokens, took, cpu, table)
	text, took, cpu := run("--json")
	var again migrate.Report
	if err := json.Unmarshal([]byte(text), &again); err != nil {
		t.Fatal(err)
	}
	t.Logf("the second run took %s, with %s of CPU time, and found %d devices there", took, cpu, again.Count("tokens", migrate.Unchanged))
	for _, row := range again.Rows {
		if row.Result == migrate.Imported && row.Count > 0 {
			t.Errorf("the second run imports %d %s", row.Count, row.What)
		}
	}
	if got := again.Count("tokens", migrate.Unchanged); got != made.Devices {
		t.Errorf("%d devices are there, of %d", got, made.Devices)
	}

	u := w.up(t, withoutAnalytics, "CAMPANILE_EMBEDDED_MAX_LOG=4294967296")
	anybody := u.moodle("demo", "")
	var good atomic.Int64
	err = bench.Each(t.Context(), len(made.Keys), 32, nil, func(ctx context.Context, i int) error {
		a, err := anybody.With(made.Keys[i]).Do(ctx, http.MethodPost, "/tokens/testtoken", formLabel, nil)
		if err == nil && a.Field("error") == "Invalid token" { // how Moodle's check page sees that a key is good
			good.Add(1)
		}
		return err
	})
	if err != nil || good.Load() != int64(len(made.Keys)) {
		t.Errorf("%d of %d keys work, %v", good.Load(), len(made.Keys), err)
	}
	t.Logf("all %d keys work: Moodle's check page calls them good", good.Load())
	u.stop(t)
}
