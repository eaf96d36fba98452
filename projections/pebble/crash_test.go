package pebble_test

import (
	"bufio"
	"context"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/campanile-push/campanile/projections/pebble"
	"github.com/campanile-push/campanile/projections/storetest"
)

const (
	crashDirectory = "CAMPANILE_CRASH_DIRECTORY" // names the store that the child writes until it is killed
	crashSeed      = 7
	crashRounds    = 400
)

// crashLog is the same in parent and child.
func crashLog() *storetest.Log {
	r := rand.New(rand.NewPCG(crashSeed, 0))
	log := storetest.NewLog(two)
	storetest.SayRandom(r, log, storetest.RandomDevices(r, 200), 20*crashRounds)
	return log
}

// TestCrashWriter is the child of TestKilledStoreHoldsAPrefix; alone it does nothing.
func TestCrashWriter(t *testing.T) {
	dir := os.Getenv(crashDirectory)
	if dir == "" {
		return
	}
	store, err := pebble.Open(dir, pebble.Options{Layout: two})
	if err != nil {
		t.Fatal(err)
	}
	log := crashLog()
	for {
		applied, err := store.Applied(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for p := range two.Partitions {
			in := log.Batch(p, applied[p])
			in.Records = in.Records[:min(len(in.Records), 10)]
			if err := store.Apply(t.Context(), in); err != nil {
				t.Fatal(err)
			}
		}
		// What was applied, for the parent to kill at: not a log line.
		if _, err := os.Stdout.WriteString("applied " + strconv.FormatInt(applied[0], 10) + "\n"); err != nil {
			t.Fatal(err)
		}
	}
}

// TestKilledStoreHoldsAPrefix kills a writer with SIGKILL, over and over: each time the rows are exactly those of the log up
// to the applied offsets, which never go back.
func TestKilledStoreHoldsAPrefix(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := crashLog()
	var reached int64
	for kill := range 6 {
		killWriter(t, dir, int64(100+kill*400))
		store, err := pebble.Open(dir, pebble.Options{Layout: two})
		if err != nil {
			t.Fatal(err)
		}
		applied, err := store.Applied(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if applied[0] < reached {
			t.Errorf("applied went back from %d to %d", reached, applied[0])
		}
		reached = applied[0]
		sum, err := store.Checksum(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
		prefix := storetest.NewLog(two)
		for p := range two.Partitions {
			for _, r := range log.Batch(p, 0).Records {
				if r.Offset < applied[p] {
					prefix.Append(p, r.Key, r.Value)
				}
			}
		}
		if want := storetest.ModelOf(t, prefix).Checksum(); want != sum {
			t.Errorf("kill %d, applied %v: want %x, got %x", kill, applied, want, sum)
		}
	}
	if reached == 0 {
		t.Error("nothing was ever applied")
	}
}

// killWriter runs the child until it says that it passed an offset, and kills it.
func killWriter(t *testing.T, dir string, at int64) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	child := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestCrashWriter$")
	child.Env = append(os.Environ(), crashDirectory+"="+dir)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	passed := false
	for lines.Scan() && !passed {
		if n, found := strings.CutPrefix(lines.Text(), "applied "); found {
			offset, err := strconv.ParseInt(n, 10, 64)
			passed = err == nil && offset >= at
		}
	}
	cancel() // SIGKILL
	_ = child.Wait()
	if !passed {
		t.Fatalf("the writer ended before offset %d: %v", at, lines.Err())
	}
}
