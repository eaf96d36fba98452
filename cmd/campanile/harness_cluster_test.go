package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/campanile-push/campanile/bench"
	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/eventlog/logtest"
	"github.com/campanile-push/campanile/projections/chdbtest"
	"github.com/campanile-push/campanile/schemas"
)

// The other shape of a campanile: every stage a process of its own, on Apache Kafka, PostgreSQL and the ClickHouse engine behind HTTP.

// pipeline is a running campanile of either shape.
type pipeline interface {
	// moodles are clients of its ingests, one each.
	moodles(app, key string) []bench.Moodle
	// stop asks every process to end, and fails the test unless all end well.
	stop(t *testing.T)
}

// shape is one way to run a campanile.
type shape struct {
	cluster  bool
	newWorld func(t *testing.T, simulatorArgs ...string) *world
}

// size is a test's size by shape: a cluster is a dozen processes.
func (s shape) size(embedded, cluster int64) int64 {
	if s.cluster {
		return cluster
	}
	return embedded
}

// eachShape runs a test on both shapes: it makes its worlds with s.newWorld, and starts their pipelines with begin.
func eachShape(t *testing.T, test func(t *testing.T, s shape)) {
	t.Helper()
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		test(t, shape{newWorld: newWorld})
	})
	t.Run("cluster", func(t *testing.T) {
		t.Parallel()
		test(t, shape{cluster: true, newWorld: newClusterWorld})
	})
}

// begin starts the pipeline of this world.
func (w *world) begin(t *testing.T, settings ...string) pipeline {
	t.Helper()
	if w.real == nil {
		return w.up(t, settings...)
	}
	return w.startCluster(t, settings...)
}

func (u *up) moodles(app, key string) []bench.Moodle { return []bench.Moodle{u.moodle(app, key)} }

// real is where a world's engines are.
type real struct {
	log         eventlog.Config
	environment []string
}

// clusterPartitions are enough for two processes to share.
const clusterPartitions = 4

//nolint:gochecknoglobals // a dozen processes under the race detector are as much as a small machine can carry at a time
var clusterSlot = make(chan struct{}, 1)

// newClusterWorld is a world on real engines: topics, a database and an analytics engine of its own.
func newClusterWorld(t *testing.T, simulatorArgs ...string) *world {
	t.Helper()
	return newWorldOn(t, logtest.Kafka(t), simulatorArgs...)
}

// newWorldOn is newClusterWorld on a Kafka of its own.
func newWorldOn(t *testing.T, cfg eventlog.Config, simulatorArgs ...string) *world {
	t.Helper()
	database := newDatabase(t)
	library := chdbtest.Library(t)
	clusterSlot <- struct{}{}
	t.Cleanup(func() { <-clusterSlot })
	w := newWorld(t, simulatorArgs...)
	engine := start(t, nil, "analytics-engine", "--dir", filepath.Join(w.dir, "clickhouse"), "--key-file", filepath.Join(w.dir, "clickhouse.key"),
		"--listen", "127.0.0.1:0", "--clickhouse-library", library)
	master, hash := filepath.Join(w.dir, "master.key"), filepath.Join(w.dir, "hash.key")
	w.keyFile(t, master)
	w.keyFile(t, hash, "--hash")
	w.real = &real{cfg, []string{
		"CAMPANILE_KAFKA_BROKERS=" + strings.Join(cfg.Brokers, ","), "CAMPANILE_KAFKA_PREFIX=" + cfg.Prefix,
		fmt.Sprintf("CAMPANILE_KAFKA_PARTITIONS=%d", clusterPartitions), fmt.Sprintf("CAMPANILE_KAFKA_REPLICATION=%d", cfg.Replication),
		"CAMPANILE_COCKROACH_URL=" + database,
		"CAMPANILE_CLICKHOUSE_URL=" + engine.await(t, `(?m)^CLICKHOUSE_URL=(\S+)$`)[0],
		"CAMPANILE_VAULT_MASTER_KEY_FILE=" + master, "CAMPANILE_VAULT_HASH_KEY_FILE=" + hash,
	}}
	w.run(t, "topics", "apply")
	return w
}

func (w *world) keyFile(t *testing.T, file string, flags ...string) {
	t.Helper()
	out, err := command(t, w.dir, nil, append([]string{"key-file"}, flags...)...)
	writeFile(t, file, must(t, out, err)+"\n")
}

// await returns the groups of a pattern when the process has printed it.
func (r *running) await(t *testing.T, pattern string) []string {
	t.Helper()
	line := regexp.MustCompile(pattern)
	var found []string
	eventually(t, time.Minute, "it prints "+pattern, func() bool {
		select {
		case <-r.ended:
			t.Fatalf("it ended: %v\n%s", r.err, r.output.String())
		default:
		}
		found = line.FindStringSubmatch(r.output.String())
		return found != nil
	})
	return found[1:]
}

//nolint:gochecknoglobals // the script is asked once for all tests
var postgres = sync.OnceValues(func() (string, error) { return script(nil, "postgres.sh", "start") })

// newDatabase makes a database for a test in a PostgreSQL that deployments/local/postgres.sh starts and leaves running. The test is skipped
// as logtest.Kafka says.
func newDatabase(t *testing.T) string {
	t.Helper()
	if _, err := postgres(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("NOT TESTED on PostgreSQL, which cannot be had: %v", err)
	}
	name := "campanile_" + strings.ReplaceAll(schemas.NewID().String(), "-", "")
	out, err := script(nil, "postgres.sh", "database", name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := script(nil, "postgres.sh", "drop", name); err != nil {
			t.Error(err)
		}
	})
	return strings.TrimPrefix(strings.TrimSpace(out), "POSTGRES_URL=")
}

// script runs one of deployments/local and returns what it prints.
func script(env []string, name string, args ...string) (string, error) {
	var said bytes.Buffer
	cmd := exec.Command(filepath.Join("..", "..", "deployments", "local", name), args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(said.Bytes()))
	}
	return string(out), nil
}

// role is one process of a cluster. It keeps its addresses over its lives.
type role struct {
	*running

	name     string
	args     []string
	api, ops string
}

// cluster is a campanile of many processes.
type cluster struct {
	w        *world
	settings []string
	roles    map[string]*role
}

// roleNames says what runs in a cluster.
func roleNames() map[string][]string {
	return map[string][]string{
		"ingest-1": {"ingest"}, "ingest-2": {"ingest"},
		"router-1": {"router"}, "router-2": {"router"},
		"apns-1": {"sender", "--platform", "apns"}, "apns-2": {"sender", "--platform", "apns"},
		"fcm-1": {"sender", "--platform", "fcm"}, "fcm-2": {"sender", "--platform", "fcm"},
		"projector": {"projector"}, "analytics": {"analytics"},
	}
}

// startCluster starts every role and waits until all are ready.
func (w *world) startCluster(t *testing.T, settings ...string) *cluster {
	t.Helper()
	return w.startRoles(t, roleNames(), settings...)
}

// startRoles starts these and waits until all are ready.
func (w *world) startRoles(t *testing.T, names map[string][]string, settings ...string) *cluster {
	t.Helper()
	c := &cluster{w: w, settings: settings, roles: map[string]*role{}}
	for name, args := range names {
		c.roles[name] = &role{name: name, args: args, api: "127.0.0.1:0", ops: "127.0.0.1:0"}
		c.launch(t, name)
	}
	for name := range c.roles {
		c.ready(t, name)
	}
	return c
}

// launch starts a role, for the first time or again.
func (c *cluster) launch(t *testing.T, name string) {
	t.Helper()
	r := c.roles[name]
	env := c.w.env(append([]string{"CAMPANILE_HTTP_LISTEN=" + r.api, "CAMPANILE_OPS_LISTEN=" + r.ops}, c.settings...)...)
	r.running = start(t, env, r.args...)
}

// ready waits until a role says so.
func (c *cluster) ready(t *testing.T, name string) {
	t.Helper()
	r := c.roles[name]
	found := r.await(t, `msg=ready api=http://(\S*) ops=http://(\S+)`)
	if found[0] != "" {
		r.api = found[0]
	}
	r.ops = found[1]
	eventually(t, time.Minute, name+" is ready", func() bool {
		response, err := http.Get("http://" + r.ops + "/readyz")
		if err != nil {
			return false
		}
		_ = response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
}

// restart kills a role and starts it again.
func (c *cluster) restart(t *testing.T, name string) {
	t.Helper()
	c.roles[name].kill()
	c.launch(t, name)
	c.ready(t, name)
}

func (c *cluster) moodles(app, key string) []bench.Moodle {
	var all []bench.Moodle
	for _, name := range []string{"ingest-1", "ingest-2"} {
		all = append(all, bench.Moodle{BaseURL: "http://" + c.roles[name].api, App: app, Key: key, Client: bench.NewClient(64)})
	}
	return all
}

func (c *cluster) stop(t *testing.T) {
	t.Helper()
	var all sync.WaitGroup
	for _, r := range c.roles {
		all.Go(func() { r.stop(t) })
	}
	all.Wait()
}
