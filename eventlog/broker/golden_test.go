package broker_test

import (
	"flag"
	"os"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/campanile-push/campanile/eventlog/broker"
	"github.com/campanile-push/campanile/eventlog/broker/brokertest"
)

var update = flag.Bool("update", false, "write the golden data directory anew")

const golden = "testdata/golden"

// TestADirectoryOfTheFormatInUseIsRead holds kfake to its format on disk, of which it promises nothing: a directory written once,
// with a transaction committed, one aborted, one torn and one open, must be read by every later version of kfake and of this
// package. -update writes a new one: that is a change of format, and asks for a way to read the old.
func TestADirectoryOfTheFormatInUseIsRead(t *testing.T) {
	t.Parallel()
	if *update {
		writeGolden(t)
	}
	dir := t.TempDir()
	if err := brokertest.Copy(golden, dir); err != nil {
		t.Fatal(err)
	}
	b := open(t, broker.Options{Dir: dir})
	if !b.Unclean() || b.Boots() != 2 {
		t.Errorf("want unclean and boots 2, got %v and %d", b.Unclean(), b.Boots())
	}
	same(t, values(t, b, "pages"), 2, "committed", "torn")
	if got := latest(readAll(t, b, "c"))[0]; len(got) != 3 || got["k0"].value != "15" || got["k0"].offset != 15 {
		t.Errorf("compacted topic: want 3 keys, the last of k0 15 at 15; got %v", got)
	}
	cl := client(t, b)
	if got := put(t, cl, "c", 0, "k", "v"); got != 16 {
		t.Errorf("next offset: want 16, got %d", got)
	}
	offsets, err := kadm.NewClient(cl).FetchOffsets(t.Context(), "g")
	if err != nil {
		t.Fatal(err)
	}
	if at, ok := offsets.Lookup("pages", 1); !ok || at.At != 2 || at.Metadata != "note" {
		t.Errorf("group: want offset 2 with its note, got %+v", at)
	}
}

func writeGolden(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	b := open(t, broker.Options{Dir: dir})
	tx, other := transactor(t, b, "tx"), transactor(t, b, "other")
	create(t, tx, "pages", 2, nil)
	create(t, tx, "c", 1, map[string]string{"cleanup.policy": "compact"})
	begin(t, tx)
	write(t, tx, "pages", 2, "committed")
	end(t, tx, kgo.TryCommit)
	begin(t, tx)
	write(t, tx, "pages", 2, "aborted")
	end(t, tx, kgo.TryAbort)
	cl := client(t, b)
	for i := range 16 {
		put(t, cl, "c", 0, "k"+string(rune('0'+i%3*(i%2))), string([]byte{'0' + byte(i/10), '0' + byte(i%10)}))
	}
	compact(t, b)
	offsets := kadm.Offsets{}
	offsets.Add(kadm.Offset{Topic: "pages", Partition: 1, At: 2, LeaderEpoch: -1, Metadata: "note"})
	if err := kadm.NewClient(cl).CommitAllOffsets(t.Context(), "g", offsets); err != nil {
		t.Fatal(err)
	}
	begin(t, other)
	write(t, other, "pages", 1, "open") // only in partition 0, so that the marker of the next is the last batch of 1
	begin(t, tx)
	write(t, tx, "pages", 2, "torn")
	end(t, tx, kgo.TryCommit)
	stopped := killed(t, dir)
	end(t, other, kgo.TryAbort)
	if _, err := brokertest.Tear(stopped, func(topic string, p int32) bool { return topic == "pages" && p == 1 }); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(golden); err != nil {
		t.Fatal(err)
	}
	if err := brokertest.Copy(stopped, golden); err != nil {
		t.Fatal(err)
	}
}
