package broker_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/campanile-push/campanile/eventlog/broker"
)

// TestMain makes the test binary the process that TestKilledAgainAndAgain kills, when asked to.
func TestMain(m *testing.M) {
	if dir := os.Getenv("BROKER_TEST_VICTIM"); dir != "" {
		fmt.Fprintln(os.Stderr, victim(context.Background(), dir, os.Getenv("BROKER_TEST_ROUND")))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

const (
	killPartitions = 4
	killKeys       = 5
)

// victim writes until it is killed, and prints what the broker has acknowledged: "p <value>" for a plain record, "t <value>"
// for a transaction with the value in every partition of two topics. It compacts all the while.
func victim(ctx context.Context, dir, round string) error {
	b, err := broker.Open(broker.Options{Dir: dir, SegmentBytes: 20_000})
	if err != nil {
		return err
	}
	connect := func(opts ...kgo.Opt) (*kgo.Client, error) {
		return kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(b.Brokers()...), kgo.Dialer(b.Dial), kgo.RecordPartitioner(kgo.ManualPartitioner())}, opts...)...)
	}
	plain, err := connect()
	if err != nil {
		return err
	}
	compact := "compact"
	adm := kadm.NewClient(plain)
	_, _ = adm.CreateTopic(ctx, killPartitions, 1, nil, "plain") // all three are there from the second round on
	_, _ = adm.CreateTopic(ctx, killPartitions, 1, nil, "pages")
	_, _ = adm.CreateTopic(ctx, killPartitions, 1, map[string]*string{"cleanup.policy": &compact}, "cursors")
	tx, err := connect(kgo.TransactionalID("victim"))
	if err != nil {
		return err
	}
	failed := make(chan error, 3)
	go func() {
		for i := 0; ; i++ {
			value := round + "." + strconv.Itoa(i)
			r := &kgo.Record{Topic: "plain", Partition: int32(i % killPartitions), Key: []byte(value), Value: []byte(value)}
			if err := plain.ProduceSync(ctx, r).FirstErr(); err != nil {
				failed <- err
				return
			}
			fmt.Println("p " + value)
		}
	}()
	go func() {
		for i := 0; ; i++ {
			value := round + "." + strconv.Itoa(i)
			if err := killPage(ctx, tx, value, i); err != nil {
				failed <- err
				return
			}
			fmt.Println("t " + value)
		}
	}()
	go func() {
		for {
			_ = b.Sweep(ctx, time.Now(), true) // busy is no failure here
		}
	}()
	return <-failed
}

func killPage(ctx context.Context, tx *kgo.Client, value string, i int) error {
	if err := tx.BeginTransaction(); err != nil {
		return err
	}
	var records []*kgo.Record
	for p := range int32(killPartitions) {
		records = append(records,
			&kgo.Record{Topic: "pages", Partition: p, Key: []byte(value), Value: []byte(value)},
			&kgo.Record{Topic: "cursors", Partition: p, Key: []byte("k" + strconv.Itoa(i%killKeys)), Value: []byte(value)})
	}
	if err := tx.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return err
	}
	return tx.EndTransaction(ctx, kgo.TryCommit)
}

// kill runs one victim until it has printed some lines, kills it, and returns all that it printed.
func kill(t *testing.T, dir string, round, lines int) (plain, pages []string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "BROKER_TEST_VICTIM="+dir, "BROKER_TEST_ROUND="+strconv.Itoa(round))
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	n := 0
	for scan := bufio.NewScanner(out); scan.Scan(); n++ {
		kind, value, _ := strings.Cut(scan.Text(), " ")
		switch kind {
		case "p":
			plain = append(plain, value)
		case "t":
			pages = append(pages, value)
		}
		if n == lines {
			if err := cmd.Process.Kill(); err != nil { // what is in the pipe is read to its end
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait() // it was killed
	if n < lines {
		t.Fatalf("round %d: the process ended by itself after %d lines", round, n)
	}
	return plain, pages
}

// TestKilledAgainAndAgain kills a process that writes, commits and compacts, and looks after each time whether everything
// acknowledged is there, and every transaction whole or not there. BROKER_TEST_ROUNDS makes it longer.
func TestKilledAgainAndAgain(t *testing.T) {
	t.Parallel()
	rounds := 5
	if s := os.Getenv("BROKER_TEST_ROUNDS"); s != "" {
		var err error
		if rounds, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	var plain, pages []string
	for round := range rounds {
		p, g := kill(t, dir, round, 200+round*37%400)
		plain, pages = append(plain, p...), append(pages, g...)
		b := open(t, broker.Options{Dir: dir, SegmentBytes: 20_000})
		if !b.Unclean() {
			t.Errorf("round %d: want an unclean start", round)
		}
		var got []string
		for _, v := range values(t, b, "plain") {
			got = append(got, v...)
		}
		wholeAndThere(t, "plain", round, got, plain)
		all := values(t, b, "pages")
		for p := range int32(killPartitions) {
			if !slices.Equal(all[p], all[0]) {
				t.Errorf("round %d: partitions 0 and %d hold different transactions: torn", round, p)
			}
		}
		wholeAndThere(t, "pages", round, all[0], pages)
		cursorsAgree(t, b, round, all[0])
		shut(t, b)
	}
	t.Logf("%d rounds: %d records and %d transactions acknowledged, all there", rounds, len(plain), len(pages))
}

// wholeAndThere: acknowledged is there, once.
func wholeAndThere(t *testing.T, topic string, round int, got, acked []string) {
	t.Helper()
	there := make(map[string]int, len(got))
	for _, v := range got {
		there[v]++
	}
	for _, v := range acked {
		if there[v] != 1 {
			t.Errorf("round %d: %s %q was acknowledged, and is there %d times", round, topic, v, there[v])
		}
	}
}

// cursorsAgree: the last cursor of each key is that of a page that is there, and no page of its key is later.
func cursorsAgree(t *testing.T, b *broker.Broker, round int, pages []string) {
	t.Helper()
	want := make(map[string]string)
	order := func(v string) (n int) {
		r, i, _ := strings.Cut(v, ".")
		major, _ := strconv.Atoi(r)
		minor, _ := strconv.Atoi(i)
		return major*1_000_000 + minor
	}
	for _, v := range pages {
		_, i, _ := strings.Cut(v, ".")
		n, _ := strconv.Atoi(i)
		k := "k" + strconv.Itoa(n%killKeys)
		if want[k] == "" || order(v) > order(want[k]) {
			want[k] = v
		}
	}
	for p, keys := range latest(readAll(t, b, "cursors")) {
		for k, v := range want {
			if keys[k].value != v {
				t.Errorf("round %d: partition %d: cursor %s: want %q, got %q", round, p, k, v, keys[k].value)
			}
		}
	}
}
