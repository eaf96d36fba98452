package broker_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/campanile-push/campanile/eventlog/broker"
)

// open starts a broker that the test's end closes, if the test has not.
func open(t *testing.T, o broker.Options) *broker.Broker {
	t.Helper()
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
	}
	b, err := broker.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, b) })
	return b
}

func shut(t *testing.T, b *broker.Broker) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := b.Close(ctx); err != nil {
		t.Error(err)
	}
}

func client(t *testing.T, b *broker.Broker, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(b.Brokers()...), kgo.Dialer(b.Dial), kgo.RecordPartitioner(kgo.ManualPartitioner())}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func create(t *testing.T, cl *kgo.Client, topic string, partitions int32, configs map[string]string) {
	t.Helper()
	cfg := make(map[string]*string)
	for k, v := range configs {
		cfg[k] = &v
	}
	if _, err := kadm.NewClient(cl).CreateTopic(t.Context(), partitions, 1, cfg, topic); err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, cl *kgo.Client, topic string, partition int32, key, value string) int64 {
	t.Helper()
	r := &kgo.Record{Topic: topic, Partition: partition, Key: []byte(key), Value: []byte(value)}
	if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
		t.Fatal(err)
	}
	return r.Offset
}

func TestALogOpensWhereItWasClosed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := open(t, broker.Options{Dir: dir})
	cl := client(t, b)
	create(t, cl, "a", 1, nil)
	if got := put(t, cl, "a", 0, "k", "v"); got != 0 {
		t.Fatalf("first offset: want 0, got %d", got)
	}
	cl.Close()
	shut(t, b)
	if b.Unclean() || b.Boots() != 1 {
		t.Errorf("first start: want clean and boots 1, got unclean=%v boots=%d", b.Unclean(), b.Boots())
	}
	b = open(t, broker.Options{Dir: dir})
	if b.Unclean() || b.Boots() != 2 {
		t.Errorf("second start: want clean and boots 2, got unclean=%v boots=%d", b.Unclean(), b.Boots())
	}
	if got := put(t, client(t, b), "a", 0, "k", "v"); got != 1 {
		t.Errorf("offset after a restart: want 1, got %d", got)
	}
}

// TestAKillIsNoReboot: after a kill the machine is the same one; of a directory that does not say so, nobody can know.
func TestAKillIsNoReboot(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/sys/kernel/random/boot_id"); err != nil {
		t.Skip("this system does not name its boots")
	}
	dir := t.TempDir()
	b := open(t, broker.Options{Dir: dir})
	if b.Unclean() || b.Rebooted() {
		t.Error("a new directory is unclean")
	}
	dead := killed(t, dir)
	if b := open(t, broker.Options{Dir: dead}); !b.Unclean() || b.Rebooted() {
		t.Errorf("after a kill: unclean %v, rebooted %v", b.Unclean(), b.Rebooted())
	}
	dead = killed(t, dir)
	for _, boot := range []string{"", "another boot"} {
		if err := os.WriteFile(filepath.Join(dead, "dirty"), []byte(boot), 0o600); err != nil {
			t.Fatal(err)
		}
		b := open(t, broker.Options{Dir: dead})
		if !b.Unclean() || !b.Rebooted() {
			t.Errorf("after boot %q: unclean %v, rebooted %v", boot, b.Unclean(), b.Rebooted())
		}
		shut(t, b)
	}
}
