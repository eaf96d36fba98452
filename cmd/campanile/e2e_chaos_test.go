package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/campanile-push/campanile/eventlog/logtest"
	"github.com/campanile-push/campanile/projections/chdbtest"
)

// TestChaos is the short form of `make chaos`: a few kills on one broker, a stop, and an outage of the ClickHouse engine, under load. The
// engines that other tests use too stay as they are.
func TestChaos(t *testing.T) {
	t.Parallel()
	cfg, database, library := logtest.Kafka(t), newDatabase(t), chdbtest.Library(t)
	clusterSlot <- struct{}{}
	t.Cleanup(func() { <-clusterSlot })
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	dir := t.TempDir()
	cmd := exec.CommandContext(ctx, binary, "chaos", "--network=false", "--kills", "6", "--stops", "1", "--scales", "0", "--engine-outages", "1",
		"--outage-for", "5s", "--stop-for", "10s", "--devices", "300", "--rate", "20", "--broadcast-rate", "300", "--partitions", fmt.Sprint(clusterPartitions), "--seed", strconv.Itoa(chaosSeed),
		"--dir", dir, "--scripts", filepath.Join("..", "..", "deployments", "local"),
		"--kafka-brokers", strings.Join(cfg.Brokers, ","), "--kafka-prefix", cfg.Prefix, "--kafka-replication", fmt.Sprint(cfg.Replication),
		"--cockroach-url", database, "--clickhouse-library", library)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // it ends what it started
	cmd.WaitDelay = time.Minute
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	t.Log(out.String())
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	var kills, stops, outages, accepted, lost, repeats, bound, diff int64
	last := lines[len(lines)-1]
	if _, err := fmt.Sscanf(last, "chaos: kills=%d stops=%d outages=%d accepted=%d lost=%d repeats=%d bound=%d analytics_diff=%d",
		&kills, &stops, &outages, &accepted, &lost, &repeats, &bound, &diff); err != nil {
		t.Fatalf("the last line is %q: %v", last, err)
	}
	if kills != 6 || stops != 1 || outages != 1 || accepted < 300 || lost != 0 || repeats > bound || diff != 0 {
		t.Errorf("got %q", last)
	}
}

// chaosSeed is one whose plan kills senders and routers alike.
const chaosSeed = 1
