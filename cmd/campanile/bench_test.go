package main

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/campanile-push/campanile/eventlog/logtest"
	"github.com/campanile-push/campanile/projections/chdbtest"
)

// TestEveryBenchmarkRuns at the smallest size. What it measures means nothing.
func TestEveryBenchmarkRuns(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "bench.json")
	// Of the senders' grid only a corner, since each of its clients is a process.
	rows := benched(t, dir, file, "--only", "/kfake/|^(ingest|tls|pipeline/embedded)/|^fair/(direct|quota|20ms|rate)|^broadcast/small/(p99|quota)|/0ms/200B/|fcm/50ms/4KB|memory/apns|^scale/embedded/(10k|10M)/|^page/pebble/")
	for _, want := range []string{
		"append/kfake/ratio", "append/batch/kfake/ratio", "transform/kfake/ratio", "deliver/kfake/ratio", "router/kfake/ratio", "router/memory/kfake/ratio",
		"ingest/push/ratio", "tls/fresh/ratio", "tls/fresh/resumed/ratio", "tls/fresh/http1/ratio", "tls/fresh/p99_ms", "tls/fresh/stall/max_ms",
		"sender/apns/0ms/200B/stock/cpu_us", "sender/fcm/0ms/200B/stock/cpu_us", "sender/apns/0ms/200B/floor/rate", "sender/fcm/0ms/200B/library/cpu_us",
		"sender/fcm/50ms/4KB/h2/little", "sender/fcm/50ms/4KB/floor/rss_mb", "sender/memory/apns/10M/rss_mb",
		"sender/apns/0ms/200B/h2/cpu_us", "sender/fcm/0ms/200B/h2/cpu_us", "pipeline/embedded/300/cpu_us",
		"fair/direct_p99", "fair/direct_p50", "fair/direct_p99/ratio",
		"broadcast/small/p99", "broadcast/small/p50", "broadcast/small/p99_ratio", "fair/quota/direct_p99", "broadcast/small/quota/p99", "fair/20ms/direct_p99", "fair/rate/direct_p99",
		"scale/embedded/10k/cpu_us", "scale/embedded/10k/up/rss_mb", "scale/embedded/10M/rate", "scale/embedded/10M/seconds", "page/pebble/rate", "page/pebble/two/cpu_us",
	} {
		if !rows[want] {
			t.Errorf("%s is missing", want)
		}
	}
}

// TestBenchmarksRunOnRealEngines is TestEveryBenchmarkRuns on Kafka, PostgreSQL and ClickHouse's engine.
func TestBenchmarksRunOnRealEngines(t *testing.T) {
	t.Parallel()
	logtest.Kafka(t)
	chdbtest.Library(t)
	clusterSlot <- struct{}{}
	t.Cleanup(func() { <-clusterSlot })
	dir := t.TempDir()
	scripts := filepath.Join("..", "..", "deployments", "local")
	rows := benched(t, dir, filepath.Join(dir, "bench.json"), "--only", "^(router|pipeline|fair|broadcast/small)/kafka/|^page/postgres/", "--scripts", scripts)
	// Of a few pushes the processes' CPU time would be none: /proc counts it in pieces of 10 ms.
	maps.Copy(rows, benched(t, dir, filepath.Join(dir, "scale.json"), "--only", "^scale/cluster/1M/", "--scripts", scripts, "--scale", "0.0003"))
	for _, want := range []string{
		"router/kafka/ratio", "router/kafka/rate", "pipeline/kafka/300/cpu_us", "pipeline/kafka/300/rate", "pipeline/kafka/300/rss_mb", "page/postgres/rate",
		"page/postgres/two/cpu_us", "scale/cluster/1M/cpu_us", "scale/cluster/1M/router/rss_mb", "scale/cluster/1M/sender.apns/cpu_us", "scale/cluster/1M/sender.fcm/rss_mb",
		"fair/kafka/direct_p99", "broadcast/small/kafka/p99",
	} {
		if !rows[want] {
			t.Errorf("%s is missing", want)
		}
	}
}

// benched runs benchmarks at the smallest size, and returns which figures they made.
func benched(t *testing.T, dir, file string, flags ...string) map[string]bool {
	t.Helper()
	run := start(t, nil, append([]string{"bench", "--rounds", "1", "--scale", "0.0001", "--devices", "300", "--dir", dir, "--out", file}, flags...)...)
	select {
	case <-run.ended:
	case <-time.After(5 * time.Minute): // it starts some twenty processes, with the race detector
		t.Fatal("the benchmarks do not end")
	}
	if run.err != nil {
		t.Fatal(run.err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var rows []struct {
		Name          string
		Value, Median float64
		N             int
	}
	if err := json.Unmarshal(text, &rows); err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for _, r := range rows {
		have[r.Name] = true
		if r.Value <= 0 || r.Value != r.Median || r.N != 1 {
			t.Errorf("want a figure of one round, got %+v", r)
		}
	}
	return have
}

func TestBenchSaysWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	if out, err := command(t, t.TempDir(), nil, "bench", "--only", "nothing of that name"); err == nil {
		t.Errorf("want an error, got none\n%s", out)
	}
}
