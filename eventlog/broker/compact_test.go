package broker_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/campanile-push/campanile/eventlog/broker"
)

// latest is the last record of each key, by partition: what compaction must keep.
func latest(all map[int32]map[string][]at) map[int32]map[string]at {
	last := make(map[int32]map[string]at)
	for p, keys := range all {
		last[p] = make(map[string]at)
		for k, records := range keys {
			last[p][k] = records[len(records)-1]
		}
	}
	return last
}

// count is how many records there are.
func count(all map[int32]map[string][]at) (n int) {
	for _, keys := range all {
		for _, records := range keys {
			n += len(records)
		}
	}
	return n
}

// history writes rounds of values under a few keys to 2 partitions, one batch for each record.
func history(t *testing.T, cl *kgo.Client, topic string, rounds int) {
	t.Helper()
	for i := range rounds {
		for p := range int32(2) {
			put(t, cl, topic, p, "k"+strconv.Itoa(i%7), strconv.Itoa(i))
		}
	}
}

func compact(t *testing.T, b *broker.Broker) {
	t.Helper()
	if err := b.Sweep(t.Context(), time.Now(), true); err != nil {
		t.Fatal(err)
	}
}

func TestCompactionKeepsTheLastOfEachKeyThroughRestarts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := open(t, broker.Options{Dir: dir, SegmentBytes: 2000})
	cl := client(t, b)
	create(t, cl, "c", 2, map[string]string{"cleanup.policy": "compact"})
	history(t, cl, "c", 60)
	live := readAll(t, b, "c")
	for _, restart := range []string{"none", "clean", "unclean"} {
		switch restart {
		case "clean":
			cl.Close()
			shut(t, b)
			b = open(t, broker.Options{Dir: dir, SegmentBytes: 2000})
		case "unclean":
			b = open(t, broker.Options{Dir: killed(t, dir), SegmentBytes: 2000})
		}
		compact(t, b)
		got := readAll(t, b, "c")
		if want := latest(live); !reflect.DeepEqual(latest(got), want) {
			t.Errorf("restart %s: want %v, got %v", restart, want, latest(got))
		}
		if count(got) >= count(live) {
			t.Errorf("restart %s: want fewer than %d records, got %d", restart, count(live), count(got))
		}
	}
}

func TestCompactionWaitsWhileMuchIsWritten(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		maxBytes int64
		want     int // the first sweep that compacts
	}{
		"there is room":           {1 << 30, 3},
		"the budget is nearly up": {100, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t, broker.Options{Dir: t.TempDir(), CompactGrowth: 1, MaxBytes: c.maxBytes})
			cl := client(t, b)
			create(t, cl, "c", 2, map[string]string{"cleanup.policy": "compact"})
			history(t, cl, "c", 30)
			now := time.Now()
			for i, before := range []struct {
				rounds int // of two records
				since  time.Duration
			}{
				{0, 0}, // nobody knows how much is written
				{30, 100 * time.Millisecond},
				{30, 599 * time.Millisecond},
				{50, time.Second},
			} {
				history(t, cl, "c", before.rounds)
				records := count(readAll(t, b, "c"))
				now = now.Add(before.since)
				if err := b.Sweep(t.Context(), now, false); err != nil {
					t.Fatal(err)
				}
				if count(readAll(t, b, "c")) < records {
					if i != c.want {
						t.Errorf("want sweep %d to compact, got %d", c.want, i)
					}
					return
				}
			}
			t.Error("want a compaction, got none")
		})
	}
}

func TestACrashInACompactionLosesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := open(t, broker.Options{Dir: dir, SegmentBytes: 2000})
	cl := client(t, b)
	create(t, cl, "c", 2, map[string]string{"cleanup.policy": "compact"})
	history(t, cl, "c", 60)
	want := latest(readAll(t, b, "c"))

	crashes := make(map[string]string)
	b.OnStep(func(step string) { crashes[step] = killed(t, dir) })
	compact(t, b)
	if len(crashes) != 4 {
		t.Fatalf("want 4 steps, got %d", len(crashes))
	}
	// kfake deletes and writes the files of one partition after the other between these two steps.
	for name, damage := range map[string]func(path string) error{
		"all files deleted":   os.Remove,
		"all files truncated": func(path string) error { return os.Truncate(path, 0) },
		"all files cut":       func(path string) error { return os.Truncate(path, 30) },
	} {
		crash := killed(t, crashes[broker.StepReady])
		damageStore(t, crash, damage)
		crashes[name] = crash
	}
	for step, crash := range crashes {
		b := open(t, broker.Options{Dir: crash, SegmentBytes: 2000})
		if got := latest(readAll(t, b, "c")); !reflect.DeepEqual(got, want) {
			t.Errorf("crash at %s: want %v, got %v", step, want, got)
		}
		if got := put(t, client(t, b), "c", 0, "k0", "new"); got != 60 {
			t.Errorf("crash at %s: the next offset: want 60, got %d", step, got)
		}
		left, err := filepath.Glob(filepath.Join(crash, "compacting*"))
		if err != nil || len(left) > 0 {
			t.Errorf("crash at %s: want nothing left, got %q, %v", step, left, err)
		}
	}
}

// TestACompactionThatCannotWriteStopsTheBrokerAndLosesNothing: kfake only logs it, and would serve what is left.
func TestACompactionThatCannotWriteStopsTheBrokerAndLosesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b, err := broker.Open(broker.Options{Dir: dir, SegmentBytes: 2000})
	if err != nil {
		t.Fatal(err)
	}
	cl := client(t, b)
	create(t, cl, "c", 2, map[string]string{"cleanup.policy": "compact"})
	history(t, cl, "c", 60)
	want := latest(readAll(t, b, "c"))
	b.OnStep(func(step string) {
		if step != broker.StepReady {
			return
		}
		path := filepath.Join(dir, "store", "partitions", "c-1")
		if err := errors.Join(os.Rename(path, path+".gone"), os.WriteFile(path, nil, 0o600)); err != nil { // a file where a directory was
			t.Error(err)
		}
	})
	if err := b.Sweep(t.Context(), time.Now(), true); err == nil {
		t.Fatal("want the compaction to fail")
	}
	if b.Full() == nil {
		t.Error("want Full to say that nothing is taken")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := cl.Ping(ctx); err == nil {
		t.Error("want no request answered after it")
	}
	cl.Close()
	if err := b.Close(t.Context()); err == nil {
		t.Error("want Close to say that not everything was saved")
	}
	b = open(t, broker.Options{Dir: dir, SegmentBytes: 2000})
	if got := latest(readAll(t, b, "c")); !reflect.DeepEqual(got, want) {
		t.Errorf("after a restart: want %v, got %v", want, got)
	}
	compact(t, b)
}

func damageStore(t *testing.T, dir string, damage func(path string) error) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "store", "partitions", "c-*", "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no files to damage: %v", err)
	}
	for _, f := range files {
		if strings.HasSuffix(f, ".dat") || strings.HasSuffix(f, ".idx") {
			if err := damage(f); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestCompactionWaitsForOpenTransactions: kfake would drop what an open transaction overwrites, and if it aborts, that too.
func TestCompactionWaitsForOpenTransactions(t *testing.T) {
	t.Parallel()
	b := open(t, broker.Options{Dir: t.TempDir()})
	tx := transactor(t, b, "tx")
	create(t, tx, "c", 2, map[string]string{"cleanup.policy": "compact"})
	begin(t, tx)
	write(t, tx, "c", 2, "truth")
	end(t, tx, kgo.TryCommit)
	begin(t, tx)
	write(t, tx, "c", 2, "never")
	write(t, tx, "c", 2, "never either")
	if err := b.Sweep(t.Context(), time.Now(), true); err == nil {
		t.Error("want a refusal while a transaction is open")
	}
	end(t, tx, kgo.TryAbort)
	compact(t, b)
	same(t, values(t, b, "c"), 2, "truth")
}

func TestCompactionGoesOnBesideTransactions(t *testing.T) {
	t.Parallel()
	b := open(t, broker.Options{Dir: t.TempDir()})
	tx := transactor(t, b, "tx")
	create(t, tx, "c", 2, map[string]string{"cleanup.policy": "compact"})
	done := make(chan error, 1)
	go func() {
		for i := range 300 {
			err := tx.BeginTransaction()
			if err == nil {
				err = tx.ProduceSync(t.Context(),
					&kgo.Record{Topic: "c", Partition: 0, Key: []byte("a"), Value: fmt.Append(nil, i)},
					&kgo.Record{Topic: "c", Partition: 1, Key: []byte("b"), Value: fmt.Append(nil, i)}).FirstErr()
			}
			if err == nil {
				err = tx.EndTransaction(t.Context(), kgo.TransactionEndTry(i%3 != 2)) // each third aborts
			}
			if err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for running := true; running; {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			running = false
		default:
			compact(t, b)
		}
	}
	compact(t, b)
	last := latest(readAll(t, b, "c"))
	if last[0]["a"].value != "298" || last[1]["b"].value != "298" {
		t.Errorf("want 298 in both, the last that was committed; got %q and %q", last[0]["a"].value, last[1]["b"].value)
	}
}

func TestCompactionIsWorthItWhenTheTopicsHaveDoubled(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		size, last, growth int64
		want               bool
	}{
		{0, 0, 10, false},
		{10, 0, 10, true},
		{19, 10, 10, false},
		{20, 10, 10, true},
		{199, 100, 10, false},
		{200, 100, 10, true},
		{50, 100, 10, false},
	} {
		if got := broker.WorthCompacting(c.size, c.last, c.growth); got != c.want {
			t.Errorf("size %d, last %d, growth %d: want %v, got %v", c.size, c.last, c.growth, c.want, got)
		}
	}
}
