package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/campanile-push/campanile/bench"
	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/schemas"
)

// What the pipeline promises on Apache Kafka when its surroundings fail. `make proofs` runs these tests in full size, `make test` in a
// short one.

// proof is a size: the one of `make proofs` (CAMPANILE_PROOFS=1), or the short one.
func proof[T any](short, full T) T {
	if os.Getenv("CAMPANILE_PROOFS") == "1" {
		return full
	}
	return short
}

// exactly are the accounts of a world in which everybody's phones got every broadcast once, and others one notification each.
type exactly struct {
	phones     []bench.Phone
	broadcasts int
	notified   []bench.Phone // one notification each, answered 202
	taken      int64         // notifications in the log, those included; 0: as many
}

// are waits until everything is settled and compares log, ledger and ClickHouse with what is wanted. bound is how many repeats may
// stand in the ledger; it returns how many do.
func (want exactly) are(t *testing.T, w *world, bound int64) (repeats int64) {
	t.Helper()
	accepted := int64(len(want.phones)*want.broadcasts) + max(want.taken, int64(len(want.notified)))
	r := w.accounts(t, 2*time.Minute, accepted)
	if r.Delivered != r.Accepted || r.Accepted != accepted {
		t.Errorf("want %d accepted and all of them delivered, got %+v", accepted, r)
	}
	repeats = w.summary(t).Accepted - r.Delivered
	if repeats < 0 || repeats > bound {
		t.Errorf("the ledger has %d pushes for %d deliveries; the bound of repeats is %d", r.Delivered+repeats, r.Delivered, bound)
	}
	for i, got := range w.pushes(t, want.notified...) {
		if got == 0 || bound == 0 && got > 1 {
			t.Errorf("notification %d, which was answered 202, got %d pushes", i, got)
		}
	}
	for i, got := range w.pushes(t, want.phones...) {
		if got < want.broadcasts || bound == 0 && got > want.broadcasts {
			t.Errorf("phone %d got %d pushes of %d broadcasts", i, got, want.broadcasts)
		}
	}
	w.countsAre(t, r)
	return repeats
}

// notifyOnce registers phones of a set of their own and sends each a notification, which must be answered 202.
func (w *world) notifyOnce(t *testing.T, ms []bench.Moodle, set string, n int) []bench.Phone {
	t.Helper()
	all := phones(set, n)
	for i, p := range all {
		m := ms[i%len(ms)]
		if err := m.Register(t.Context(), p.Token, p.Platform, set); err != nil {
			t.Fatal(err)
		}
		a, err := m.Push(t.Context(), p.Token, p.Platform, set)
		if err != nil || a.Status != http.StatusAccepted {
			t.Fatalf("push: %d %s %v", a.Status, a.Body, err)
		}
	}
	return all
}

// ops asks a role's ops port.
func (r *role) ask(t *testing.T, path string) (status int, body string) {
	t.Helper()
	response, err := http.Get("http://" + r.ops + path)
	if err != nil {
		return 0, ""
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// ends stops roles side by side.
func (c *cluster) ends(t *testing.T, names ...string) {
	t.Helper()
	var all sync.WaitGroup
	for _, name := range names {
		all.Go(func() { c.roles[name].stop(t) })
	}
	all.Wait()
}

// signal sends roles a signal.
func (c *cluster) signal(t *testing.T, signal syscall.Signal, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := c.roles[name].cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTheClusterKeepsItsPromises breaks one thing after the other around a running cluster.
func TestTheClusterKeepsItsPromises(t *testing.T) {
	t.Parallel()
	const window = 64
	w := newClusterWorld(t, "--latency", "lognormal:15ms,60ms")
	database, analytics := w.setting("CAMPANILE_COCKROACH_URL"), w.setting("CAMPANILE_CLICKHOUSE_URL")
	database, databaseGate := gated(t, database)
	analytics, analyticsGate := gated(t, analytics)
	c := w.startCluster(t, fmt.Sprintf("CAMPANILE_SENDERS_WINDOW=%d", window), "CAMPANILE_ROUTER_MAX_PAGE=200", "CAMPANILE_ROUTER_START_RATE=1000",
		"CAMPANILE_COCKROACH_URL="+database, "CAMPANILE_CLICKHOUSE_URL="+analytics)
	w.app(t, app)
	k := &kept{w: w, c: c, ms: c.moodles(app, w.key(t, app, "all")), window: window, database: databaseGate, analytics: analyticsGate}
	k.want.phones = phones("everybody", proof(1000, 5000))
	w.load(t, app, "everybody", k.want.phones)
	k.lostOffsets(t)
	k.enginesAway(t)
	k.stoppedAndWoken(t)
	c.stop(t)
}

// setting is one of a real world's environment.
func (w *world) setting(name string) string {
	for _, pair := range w.real.environment {
		if value, ok := strings.CutPrefix(pair, name+"="); ok {
			return value
		}
	}
	return ""
}

// kept is a cluster under proof, and what must have come of it so far.
type kept struct {
	w                   *world
	c                   *cluster
	ms                  []bench.Moodle
	window              int64
	database, analytics *gate
	want                exactly
}

// broadcast asks for one to everybody.
func (k *kept) broadcast(t *testing.T) {
	t.Helper()
	if _, err := k.ms[k.want.broadcasts%len(k.ms)].Broadcast(t.Context(), "everybody", "The library closes at six"); err != nil {
		t.Fatal(err)
	}
	k.want.broadcasts++
}

func (k *kept) notifies(t *testing.T, set string, n int) {
	t.Helper()
	k.want.notified = append(k.want.notified, k.w.notifyOnce(t, k.ms, set, n)...)
}

// lostOffsets deletes the committed offsets of every group while the stages are stopped: in the log stand then sends that are sent and
// sends that are not, notifications that are routed and some that are not, and registrations that no store knows. Each stage that
// cannot know where it was says so and what to do, and goes on when that is done: nothing is repeated, nothing is left out.
func (k *kept) lostOffsets(t *testing.T) {
	k.broadcast(t)
	k.notifies(t, "before", 60)
	k.want.are(t, k.w, 0)
	k.c.ends(t, "apns-1", "apns-2", "fcm-1", "fcm-2")
	k.notifies(t, "routed", 20)
	k.broadcast(t)
	k.w.reaches(t, time.Minute, schemas.GroupDirectRouter)
	k.c.ends(t, "router-1", "router-2", "projector", "analytics")
	k.notifies(t, "not routed", 20)

	for _, group := range eventlog.Groups() {
		k.w.run(t, "topics", "forget", group)
	}
	var stages []string
	for name := range roleNames() {
		if !strings.HasPrefix(name, "ingest") {
			stages = append(stages, name)
			k.c.launch(t, name)
		}
	}
	slices.Sort(stages)
	alarmed := map[string][]string{"router-1": {schemas.GroupDirectRouter, schemas.GroupTally}}
	alarmed["router-2"] = alarmed["router-1"]
	for _, n := range []string{"1", "2"} {
		for _, transport := range schemas.Transports {
			for _, lane := range schemas.Lanes {
				name := transport.Word() + "-" + n
				alarmed[name] = append(alarmed[name], schemas.SenderGroup(transport, lane))
			}
		}
	}
	for name, groups := range alarmed {
		r := k.c.roles[name]
		r.ops = r.await(t, `msg=ready api=http://\S* ops=http://(\S+)`)[0]
		for _, group := range groups {
			eventually(t, time.Minute, name+" says what to do for "+group, func() bool {
				status, body := r.ask(t, "/readyz")
				_, metrics := r.ask(t, "/metrics")
				return status == http.StatusServiceUnavailable && strings.Contains(body, "campanile topics reset "+group) &&
					strings.Contains(metrics, fmt.Sprintf("campanile_group_lost{group=%q} 1", group)) &&
					strings.Contains(r.output.String(), "its consumer group has lost its place")
			})
		}
	}
	for _, name := range []string{"router-1", "apns-1", "fcm-1"} {
		for _, group := range alarmed[name] {
			k.w.run(t, "topics", "reset", group)
		}
	}
	for _, name := range stages { // also those that keep their own offsets, and need no help
		k.c.ready(t, name)
		_, metrics := k.c.roles[name].ask(t, "/metrics")
		if strings.Contains(metrics, "campanile_group_lost{") {
			t.Errorf("%s: the alarm did not end", name)
		}
	}
	k.want.are(t, k.w, 0)
}

// reaches waits until a group has committed all that is there.
func (w *world) reaches(t *testing.T, patience time.Duration, group string) {
	t.Helper()
	log := w.open(t)
	eventually(t, patience, group+" has read all", func() bool {
		offsets, err := log.GroupOffsets(t.Context(), group)
		if err != nil {
			t.Fatal(err)
		}
		return !slices.ContainsFunc(offsets, func(o eventlog.GroupOffset) bool { return o.Lag() > 0 })
	})
}

// enginesAway takes the device store and ClickHouse away. Pushes to one phone flow meanwhile; then both catch up by themselves.
func (k *kept) enginesAway(t *testing.T) {
	away := proof(10*time.Second, time.Minute)
	registered := phones("away", 200)
	for _, p := range registered {
		if err := k.ms[0].Register(t.Context(), p.Token, p.Platform, "away"); err != nil {
			t.Fatal(err)
		}
	}
	k.broadcast(t)
	k.database.close()
	k.analytics.close()
	ended := time.NewTimer(away)
	defer ended.Stop()
	next := time.NewTicker(away / 100)
	defer next.Stop()
	pushed := 0
	for waiting := true; waiting; {
		select {
		case <-ended.C:
			waiting = false
		case <-next.C:
			if pushed == len(registered) {
				continue
			}
			p := registered[pushed]
			a, err := k.ms[pushed%2].Push(t.Context(), p.Token, p.Platform, "away")
			if err != nil || a.Status != http.StatusAccepted {
				t.Fatalf("push %d without the engines: %d %s %v", pushed, a.Status, a.Body, err)
			}
			pushed++
		}
	}
	// All but the youngest of them are there already.
	arrived := 0
	for _, got := range k.w.pushes(t, registered[:pushed]...) {
		arrived += min(got, 1)
	}
	t.Logf("%s without the device store and ClickHouse: %d notifications were answered 202, %d of them had arrived at its end", away, pushed, arrived)
	if arrived < pushed*8/10 {
		t.Errorf("of %d notifications only %d arrived while the engines were away", pushed, arrived)
	}
	k.database.open()
	k.analytics.open()
	k.want.notified = append(k.want.notified, registered[:pushed]...)
	k.want.are(t, k.w, 0)
}

// stoppedAndWoken stops one process of each role for longer than its session, in the middle of a broadcast, and wakes it. What it
// still means to do is refused, or does no harm; only pushes that a stopped sender had in flight may be made again.
func (k *kept) stoppedAndWoken(t *testing.T) {
	stopped := []string{"router-1", "apns-1", "fcm-1", "projector", "analytics"}
	for round := range proof(1, 5) {
		before := k.w.summary(t).Accepted
		k.broadcast(t)
		eventually(t, time.Minute, "some of the broadcast is delivered", func() bool {
			return k.w.summary(t).Accepted > before+int64(len(k.want.phones))/10
		})
		k.c.signal(t, syscall.SIGSTOP, stopped...)
		k.notifies(t, fmt.Sprintf("stopped-%d", round), 20)
		pause := time.NewTimer(eventlog.DefaultSessionTimeout * 3 / 2)
		select {
		case <-pause.C:
		case <-t.Context().Done():
		}
		k.c.signal(t, syscall.SIGCONT, stopped...)
		for _, name := range stopped {
			k.c.ready(t, name)
		}
		k.notifies(t, fmt.Sprintf("woken-%d", round), 20)
		// What each of two senders had in flight: at most a window of each of its partitions, on each lane; they have half of them.
		bound := int64(round+1) * 2 * 2 * clusterPartitions / 2 * k.window
		repeats := k.want.are(t, k.w, bound)
		t.Logf("stopped and woken: %d repeats by now, bound %d", repeats, bound)
	}
}
