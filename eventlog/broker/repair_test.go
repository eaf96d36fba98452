package broker_test

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/campanile-push/campanile/eventlog/broker"
	"github.com/campanile-push/campanile/eventlog/broker/brokertest"
)

// killed returns a copy of a running broker's directory, as kill -9 would leave it now.
func killed(t *testing.T, dir string) string {
	t.Helper()
	to := t.TempDir()
	if err := brokertest.Copy(dir, to); err != nil {
		t.Fatal(err)
	}
	return to
}

// same fails unless each of n partitions holds exactly want.
func same(t *testing.T, got map[int32][]string, n int32, want ...string) {
	t.Helper()
	for p := range n {
		if !slices.Equal(got[p], want) {
			t.Errorf("partition %d: want %q, got %q", p, want, got[p])
		}
	}
}

func TestATornCommitIsCompleted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := open(t, broker.Options{Dir: dir})
	tx := transactor(t, b, "tx")
	create(t, tx, "pages", 4, nil)
	for _, v := range []string{"1", "2"} {
		begin(t, tx)
		write(t, tx, "pages", 4, v)
		end(t, tx, kgo.TryCommit)
	}
	tx.Close()
	shut(t, b)
	if n, err := brokertest.Tear(dir, func(_ string, p int32) bool { return p != 2 }); err != nil || n != 3 {
		t.Fatalf("tear: want 3 markers dropped, got %d, %v", n, err)
	}
	b = open(t, broker.Options{Dir: dir})
	if !b.Unclean() {
		t.Error("want an unclean start")
	}
	same(t, values(t, b, "pages"), 4, "1", "2")
}

func TestATransactionWithoutAnyMarkerIsAbortedForEver(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := open(t, broker.Options{Dir: dir})
	tx := transactor(t, b, "tx")
	create(t, tx, "pages", 4, nil)
	begin(t, tx)
	write(t, tx, "pages", 4, "1")
	end(t, tx, kgo.TryCommit)
	begin(t, tx)
	write(t, tx, "pages", 4, "lost")
	dir = killed(t, dir)
	end(t, tx, kgo.TryAbort)

	b = open(t, broker.Options{Dir: dir})
	same(t, values(t, b, "pages"), 4, "1")
	tx = transactor(t, b, "tx")
	begin(t, tx)
	write(t, tx, "pages", 4, "2")
	end(t, tx, kgo.TryCommit)
	same(t, values(t, b, "pages"), 4, "1", "2")

	// kfake alone would take the commit of the same producer for that of what was aborted.
	b = open(t, broker.Options{Dir: killed(t, dir)})
	same(t, values(t, b, "pages"), 4, "1", "2")
}

func TestABatchWithoutItsIndexEntryStaysUncommitted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := open(t, broker.Options{Dir: dir})
	tx := transactor(t, b, "tx")
	create(t, tx, "pages", 2, nil)
	begin(t, tx)
	write(t, tx, "pages", 2, "lost")
	dir = killed(t, dir)
	end(t, tx, kgo.TryAbort)
	for p := range 2 {
		idx := filepath.Join(dir, "store", "partitions", "pages-"+strconv.Itoa(p), "0.idx")
		if err := os.Truncate(idx, int64(p)*7); err != nil { // nothing of it, and half of it
			t.Fatal(err)
		}
	}
	same(t, values(t, open(t, broker.Options{Dir: dir}), "pages"), 2)
}

func TestATornBatchIsCutOffBeforeTheMarkers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := open(t, broker.Options{Dir: dir})
	tx := transactor(t, b, "tx")
	create(t, tx, "pages", 2, nil)
	begin(t, tx)
	write(t, tx, "pages", 2, "1")
	end(t, tx, kgo.TryCommit)
	begin(t, tx)
	write(t, tx, "pages", 2, "lost")
	dir = killed(t, dir)
	end(t, tx, kgo.TryAbort)
	dat := filepath.Join(dir, "store", "partitions", "pages-1", "0.dat")
	info, err := os.Stat(dat)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(dat, info.Size()-5); err != nil {
		t.Fatal(err)
	}
	b = open(t, broker.Options{Dir: dir})
	same(t, values(t, b, "pages"), 2, "1")
	cl := client(t, b)
	put(t, cl, "pages", 1, "k1", "2")
	if got := values(t, b, "pages")[1]; !slices.Equal(got, []string{"1", "2"}) {
		t.Errorf("after the repair: want 1 and 2, got %q", got)
	}
}

func TestRepairFindsNothingInWhatItRepaired(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := open(t, broker.Options{Dir: dir})
	tx := transactor(t, b, "tx")
	create(t, tx, "pages", 4, nil)
	begin(t, tx)
	write(t, tx, "pages", 4, "open")
	dir = killed(t, dir)
	end(t, tx, kgo.TryAbort)
	for i, want := range []bool{true, false} {
		n, err := broker.RepairStore(filepath.Join(dir, "store"))
		if err != nil || (n > 0) != want {
			t.Errorf("repair %d: want something to do: %v, got %d things, %v", i, want, n, err)
		}
	}
}

func TestOffsetsCommittedAfterATornOneSurviveTheNextKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	commit := func(b *broker.Broker, at int64) {
		offsets := kadm.Offsets{}
		offsets.AddOffset("a", 0, at, -1)
		if err := kadm.NewClient(client(t, b)).CommitAllOffsets(t.Context(), "g", offsets); err != nil {
			t.Fatal(err)
		}
	}
	b := open(t, broker.Options{Dir: dir})
	create(t, client(t, b), "a", 1, nil)
	commit(b, 1)
	commit(b, 2)
	dir = killed(t, dir)
	path := filepath.Join(dir, "store", "groups.log")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, info.Size()-3); err != nil {
		t.Fatal(err)
	}
	commit(open(t, broker.Options{Dir: dir}), 3)
	b = open(t, broker.Options{Dir: killed(t, dir)})
	got, err := kadm.NewClient(client(t, b)).FetchOffsets(t.Context(), "g")
	if err != nil {
		t.Fatal(err)
	}
	if at, _ := got.Lookup("a", 0); at.At != 3 {
		t.Errorf("want offset 3, the last that was committed, got %d", at.At)
	}
}

func FuzzRepair(f *testing.F) {
	f.Add([]byte{}, []byte{})
	f.Add(make([]byte, 61), make([]byte, 15))
	if raw, err := os.ReadFile("testdata/golden/store/partitions/pages-0/0.dat"); err == nil {
		idx, _ := os.ReadFile("testdata/golden/store/partitions/pages-0/0.idx")
		f.Add(raw, idx)
		f.Add(raw[:len(raw)-3], idx)
		f.Add(raw, idx[:5])
	}
	if raw, err := os.ReadFile("testdata/golden/store/groups.log"); err == nil {
		f.Add(raw, []byte{1})
		f.Add(raw[:len(raw)-1], []byte{1})
	}
	f.Fuzz(func(t *testing.T, dat, idx []byte) {
		store := t.TempDir()
		part := filepath.Join(store, "partitions", "a-0")
		if err := os.MkdirAll(part, 0o700); err != nil {
			t.Fatal(err)
		}
		for name, raw := range map[string][]byte{"partitions/a-0/0.dat": dat, "partitions/a-0/0.idx": idx, "groups.log": dat} {
			if err := os.WriteFile(filepath.Join(store, name), raw, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := broker.RepairStore(store); err != nil {
			t.Fatal(err)
		}
		if n, err := broker.RepairStore(store); err != nil || n > 0 {
			t.Fatalf("the second repair: want nothing to do, got %d things, %v", n, err)
		}
	})
}
