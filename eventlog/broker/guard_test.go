package broker_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/campanile-push/campanile/eventlog/broker"
)

func TestOneProcessHasTheDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := open(t, broker.Options{Dir: dir})
	if _, err := broker.Open(broker.Options{Dir: dir}); !errors.Is(err, broker.ErrLocked) || !strings.Contains(err.Error(), dir) {
		t.Errorf("want ErrLocked that names %s, got %v", dir, err)
	}
	shut(t, b)
	open(t, broker.Options{Dir: dir})
}

func TestAnotherProcessFindsTheRunningBroker(t *testing.T) {
	t.Parallel()
	for name, dir := range map[string]string{
		"short path": t.TempDir(),
		"long path":  filepath.Join(t.TempDir(), strings.Repeat("long/", 30)),
	} {
		if _, ok := broker.Running(dir); ok {
			t.Errorf("%s: want nobody before the start", name)
		}
		b := open(t, broker.Options{Dir: dir})
		dial, ok := broker.Running(dir)
		if !ok {
			t.Fatalf("%s: want the broker found", name)
		}
		cl, err := kgo.NewClient(kgo.SeedBrokers(broker.Brokers()...), kgo.Dialer(dial))
		if err != nil {
			t.Fatal(err)
		}
		if err := cl.Ping(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		cl.Close()
		info, err := os.Stat(b.Addr())
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode of the socket: want 0600, got %o", name, info.Mode().Perm())
		}
		parent, err := os.Stat(filepath.Dir(b.Addr()))
		if err != nil {
			t.Fatal(err)
		}
		if parent.Mode().Perm() != 0o700 {
			t.Errorf("%s: mode of its directory: want 0700, got %o", name, parent.Mode().Perm())
		}
		shut(t, b)
		if _, ok := broker.Running(dir); ok {
			t.Errorf("%s: want nobody after the end", name)
		}
		if _, err := os.Stat(b.Addr()); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: want the socket gone, got %v", name, err)
		}
	}
}

func TestALogLargerThanMemoryIsRefusedWithWhatToDo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := open(t, broker.Options{Dir: dir})
	cl := client(t, b, kgo.ProducerBatchCompression(kgo.NoCompression()))
	create(t, cl, "a", 1, nil)
	put(t, cl, "a", 0, "k", strings.Repeat("x", 100_000))
	cl.Close()
	shut(t, b)
	_, err := broker.Open(broker.Options{Dir: dir, MaxMemory: 50_000})
	if !errors.Is(err, broker.ErrTooBig) || !strings.Contains(err.Error(), "more memory") {
		t.Errorf("want ErrTooBig and what to do, got %v", err)
	}
	open(t, broker.Options{Dir: dir, MaxMemory: 500_000})
}

func TestFullSaysWhichRoomIsMissing(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		size, maxBytes, free, minFree int64
		want                          error
	}{
		{0, 100, 10, 10, nil},
		{99, 100, 10, 10, nil},
		{100, 100, 10, 10, broker.ErrOverBudget},
		{0, 100, 9, 10, broker.ErrNoSpace},
		{200, 100, 9, 10, broker.ErrNoSpace},
	} {
		if err := broker.Verdict(c.size, c.maxBytes, c.free, c.minFree); !errors.Is(err, c.want) {
			t.Errorf("%+v: want %v, got %v", c, c.want, err)
		}
	}
	dir := t.TempDir()
	b := open(t, broker.Options{Dir: dir})
	if err := b.Full(); err != nil || b.Pressed() {
		t.Errorf("a new log: want room, got %v, pressed %v", err, b.Pressed())
	}
	shut(t, b)
	b = open(t, broker.Options{Dir: dir, MaxBytes: 100})
	if err := b.Full(); !errors.Is(err, broker.ErrOverBudget) || !b.Pressed() {
		t.Errorf("a log of 100 bytes: want ErrOverBudget and pressure, got %v, %v", err, b.Pressed())
	}
	shut(t, b)
	if _, err := broker.Open(broker.Options{Dir: dir, MinFree: 1 << 50}); !errors.Is(err, broker.ErrNoSpace) {
		t.Errorf("a disk without a quarter of a pebibyte: want no start but ErrNoSpace, got %v", err)
	}
}

func TestNothingRunsAfterClose(t *testing.T) { //nolint:paralleltest // it looks at every goroutine
	before := goleak.IgnoreCurrent()
	b, err := broker.Open(broker.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	goleak.VerifyNone(t, before)
}

func TestOffsetsOfAnEmptyGroupAreKept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := open(t, broker.Options{Dir: dir})
	cl := client(t, b)
	create(t, cl, "a", 1, nil)
	offsets := kadm.Offsets{}
	offsets.AddOffset("a", 0, 7, -1)
	if err := kadm.NewClient(cl).CommitAllOffsets(t.Context(), "g", offsets); err != nil {
		t.Fatal(err)
	}
	dir = killed(t, dir)
	got, err := kadm.NewClient(client(t, open(t, broker.Options{Dir: dir}))).FetchOffsets(t.Context(), "g")
	if err != nil {
		t.Fatal(err)
	}
	if at, ok := got.Lookup("a", 0); !ok || at.At != 7 {
		t.Errorf("want offset 7 after a kill, got %+v", at)
	}
}
