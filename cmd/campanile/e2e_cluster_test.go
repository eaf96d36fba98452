package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/campanile-push/campanile/bench"
	"github.com/campanile-push/campanile/eventlog/logtest"
	"github.com/campanile-push/campanile/projections/chdbtest"
)

// TestRolesComeAndGo ends the processes of a cluster one after the other, each in the middle of a broadcast, while phones register and
// are notified through both ingests. Asked to stop, no role loses or repeats anything. Killed, a sender alone repeats, within its
// bound, and nothing is lost. ClickHouse counts what the log says.
func TestRolesComeAndGo(t *testing.T) {
	t.Parallel()
	const devices, window = 3000, 128
	w := newClusterWorld(t, "--latency", "lognormal:15ms,60ms")
	c := w.startCluster(t, fmt.Sprintf("CAMPANILE_SENDERS_WINDOW=%d", window), "CAMPANILE_ROUTER_MAX_PAGE=200", "CAMPANILE_ROUTER_START_RATE=1000")
	w.app(t, app)
	key := w.key(t, app, "all")
	w.load(t, app, "everybody", phones("roles", devices))

	var broadcasts, notified int64
	// during broadcasts, and calls end when a part of it is delivered.
	during := func(name string, end func(name string)) {
		t.Helper()
		before := w.summary(t).Accepted
		if _, err := c.moodles(app, key)[broadcasts%2].Broadcast(t.Context(), "everybody", "The library closes at six"); err != nil {
			t.Fatal(err)
		}
		broadcasts++
		eventually(t, time.Minute, "some of the broadcast is delivered before "+name+" ends", func() bool {
			return w.summary(t).Accepted > before+devices/10
		})
		end(name)
	}
	// check waits until all is settled, and compares log, ledger and ClickHouse.
	check := func(phase string, n notifier, bound int64) {
		t.Helper()
		answered := n.end()
		r := w.accounts(t, 2*time.Minute, broadcasts*devices+notified+int64(len(answered)))
		notified = r.Accepted - broadcasts*devices // those that were taken and not answered too
		ledger := w.summary(t)
		t.Logf("%s: %d broadcasts, %d notifications of which %d were answered; %+v; the ledger has %d; bound of repeats %d",
			phase, broadcasts, notified, len(answered), r, ledger.Accepted, bound)
		if r.Delivered != r.Accepted {
			t.Errorf("%s: not all is delivered: %+v", phase, r)
		}
		if repeats := ledger.Accepted - r.Delivered; repeats < 0 || repeats > bound {
			t.Errorf("%s: the ledger has %d pushes for %d that were delivered: %d repeats, the bound is %d", phase, ledger.Accepted, r.Delivered, repeats, bound)
		}
		for i, got := range w.pushes(t, answered...) {
			if got == 0 || bound == 0 && got > 1 {
				t.Errorf("%s: %s of a notification that was answered 202 got %d pushes", phase, answered[i].Platform, got)
			}
		}
		for i, got := range w.pushes(t, phones("roles", devices)...) {
			if int64(got) < broadcasts || bound == 0 && int64(got) > broadcasts {
				t.Errorf("%s: phone %d got %d pushes of %d broadcasts", phase, i, got, broadcasts)
			}
		}
		w.countsAre(t, r)
	}

	n := w.notify(t, c.moodles(app, key), "stopped")
	for _, name := range []string{"apns-1", "router-1", "ingest-1", "fcm-2", "projector", "router-2", "analytics"} {
		during(name, func(name string) {
			c.roles[name].stop(t)
			c.launch(t, name)
			c.ready(t, name)
		})
	}
	check("stopped", n, 0)

	n = w.notify(t, c.moodles(app, key), "killed")
	for _, name := range []string{"router-1", "ingest-2", "router-2", "projector", "analytics"} {
		during(name, func(name string) { c.restart(t, name) })
	}
	check("killed", n, 0)

	// A sender has at most a window for each partition in flight, on each lane; the tiers are empty.
	n = w.notify(t, c.moodles(app, key), "killed senders")
	kills := []string{"apns-1", "fcm-1", "fcm-2"}
	for _, name := range kills {
		during(name, func(name string) { c.restart(t, name) })
	}
	check("killed senders", n, int64(len(kills))*2*clusterPartitions*window)
	c.stop(t)
}

// notifier registers and notifies phones until end, which returns those whose notification was answered 202.
type notifier struct{ end func() []bench.Phone }

// notify calls all ingests in turn. A request that an ending ingest cuts off, or refuses for now, is not tried again: whether it was
// taken is the log's to say.
func (w *world) notify(t *testing.T, ms []bench.Moodle, set string) notifier {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	var answered []bench.Phone
	ended := make(chan error, 1)
	go func() {
		ended <- bench.Each(ctx, 1<<30, 2, nil, func(ctx context.Context, i int) error {
			p, m := bench.MakePhone(set, i), ms[i%len(ms)]
			if err := m.Register(ctx, p.Token, p.Platform, set); err != nil {
				return nil
			}
			a, err := m.Push(ctx, p.Token, p.Platform, set)
			switch {
			case err != nil || a.Status == http.StatusServiceUnavailable:
				return nil
			case a.Status != http.StatusAccepted:
				return fmt.Errorf("push: %d %s", a.Status, a.Body)
			}
			mu.Lock()
			defer mu.Unlock()
			answered = append(answered, p)
			return nil
		})
	}()
	return notifier{end: func() []bench.Phone {
		t.Helper()
		cancel()
		if err := <-ended; err != nil && ctx.Err() == nil {
			t.Error(err)
		}
		if len(answered) == 0 {
			t.Error("no notification was answered 202")
		}
		return answered
	}}
}

// countsAre waits until ClickHouse has counted everything that is finished, and compares the counts with the log's.
func (w *world) countsAre(t *testing.T, r reconciled) {
	t.Helper()
	var got reconciled
	eventually(t, time.Minute, "ClickHouse has counted all", func() bool {
		var stats struct {
			Totals []struct {
				Outcome string
				Repeat  bool
				Pushes  int64
			}
		}
		if err := json.Unmarshal([]byte(w.run(t, "stats", "--json")), &stats); err != nil {
			t.Fatal(err)
		}
		got = reconciled{}
		for _, total := range stats.Totals {
			switch {
			case total.Repeat:
				got.Repeats += total.Pushes
				continue
			case total.Outcome == "accepted":
				got.Delivered += total.Pushes
			}
			got.Accepted += total.Pushes
		}
		return got.Accepted >= r.Accepted && got.Repeats >= r.Repeats
	})
	if diff := cmp.Diff(reconciled{Accepted: r.Accepted, Delivered: r.Delivered, Repeats: r.Repeats}, got); diff != "" {
		t.Errorf("ClickHouse counts otherwise (-log +clickhouse):\n%s", diff)
	}
}

// TestClusterScript plays deployments/local/cluster.sh: everything runs, a second start starts what is missing and leaves the others
// alone, and nothing runs after the end.
func TestClusterScript(t *testing.T) {
	t.Parallel()
	cfg, database := logtest.Kafka(t), newDatabase(t)
	chdbtest.Library(t)
	clusterSlot <- struct{}{}
	t.Cleanup(func() { <-clusterSlot })
	w := &world{dir: t.TempDir()}
	env := []string{
		"CLUSTER_DIR=" + w.dir, "CLUSTER_BINARY=" + binary, "CLUSTER_PORT=" + strconv.Itoa(freePorts(t)), "CLUSTER_PARTITIONS=2",
		"CLUSTER_PREFIX=" + cfg.Prefix, "KAFKA_BROKERS=" + strings.Join(cfg.Brokers, ","), "POSTGRES_URL=" + database,
	}
	cluster := func(verb string) string {
		out, err := script(env, "cluster.sh", verb)
		return must(t, out, err)
	}
	t.Cleanup(func() {
		for _, verb := range []string{"down", "engines-down"} {
			if out, err := script(env, "cluster.sh", verb); err != nil {
				t.Errorf("%s: %v %s", verb, err, out)
			}
		}
		if left := processesOf(t, w.dir); len(left) > 0 {
			t.Errorf("after the end these still run: %v", left)
		}
	})
	cluster("up")
	before := processesOf(t, w.dir)
	names := slices.Sorted(maps.Keys(before))
	if want := slices.Sorted(slices.Values(append(slices.Collect(maps.Keys(roleNames())), "engine", "simulator"))); !slices.Equal(names, want) {
		t.Fatalf("want the processes %v, got %v", want, names)
	}

	if err := syscall.Kill(before["fcm-1"], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "the killed process is gone", func() bool { return processesOf(t, w.dir)["fcm-1"] == 0 })
	if out, err := script(env, "cluster.sh", "status"); err == nil {
		t.Errorf("status without a sender: want an error, got %s", out)
	}
	out := cluster("up")
	after := processesOf(t, w.dir)
	if after["fcm-1"] == 0 || after["fcm-1"] == before["fcm-1"] {
		t.Error("the killed process was not started again")
	}
	after["fcm-1"] = before["fcm-1"]
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("a second start touched what ran (-before +after):\n%s", diff)
	}

	// The settings that it leaves are those of every command, and what it started delivers.
	w.settings = []string{"CAMPANILE_CONFIG=" + filepath.Join(w.dir, "campanile.yaml")}
	text, err := os.ReadFile(filepath.Join(w.dir, "simulator", "simulator.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &w.sim); err != nil {
		t.Fatal(err)
	}
	w.app(t, app)
	ingest := regexp.MustCompile(`(?m)^ingest-2 (\S+)$`).FindStringSubmatch(out)
	if ingest == nil {
		t.Fatalf("up prints no address of ingest-2:\n%s", out)
	}
	m := bench.Moodle{BaseURL: ingest[1], App: app, Key: w.key(t, app, "all"), Client: bench.NewClient(4)}
	all := phones("script", 6)
	for _, p := range all {
		if err := m.Register(t.Context(), p.Token, p.Platform, "room"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.Broadcast(t.Context(), "room", "Welcome"); err != nil {
		t.Fatal(err)
	}
	r := w.accounts(t, time.Minute, int64(len(all)))
	if want := (reconciled{Accepted: 6, Delivered: 6}); r != want {
		t.Errorf("want %+v, got %+v", want, r)
	}
	w.countsAre(t, r)
}

// processesOf are the live processes that have a pid file in a cluster's folder.
func processesOf(t *testing.T, dir string) map[string]int {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.pid"))
	if err != nil {
		t.Fatal(err)
	}
	running := map[string]int{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			t.Fatal(err)
		}
		command, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) // empty for who has ended and was not waited for
		if err == nil && strings.Contains(string(command), dir) {
			running[strings.TrimSuffix(filepath.Base(file), ".pid")] = pid
		}
	}
	return running
}

// freePorts is the first of a hundred ports of which nobody listens on those that cluster.sh takes.
func freePorts(t *testing.T) int {
	t.Helper()
	for base := 20000; base < 32000; base += 100 {
		free := true
		for _, offset := range []int{1, 2, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 99} {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", base+offset))
			if err != nil {
				free = false
				break
			}
			_ = l.Close()
		}
		if free {
			return base
		}
	}
	t.Fatal("no free ports")
	return 0
}
