package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/campanile-push/campanile/bench"
	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/eventlog/broker"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
	"github.com/campanile-push/campanile/simulator"
)

func (w *world) ledger() *simulator.Client { return simulator.NewClient(w.sim.Admin, nil) }

func (w *world) summary(t *testing.T) simulator.Summary {
	t.Helper()
	s, err := w.ledger().Summary(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// pushes is how often a phone's provider accepted a push to it.
func (w *world) pushes(t *testing.T, phones ...bench.Phone) []int {
	t.Helper()
	tokens := map[simulator.Provider][]string{}
	for _, p := range phones {
		tokens[provider(p)] = append(tokens[provider(p)], p.Token)
	}
	counts := map[string]int{}
	for pr, list := range tokens {
		for from := 0; from < len(list); from += 5000 {
			part := list[from:min(from+5000, len(list))]
			got, err := w.ledger().Counts(t.Context(), pr, part)
			if err != nil {
				t.Fatal(err)
			}
			for i, token := range part {
				counts[token] = got[i]
			}
		}
	}
	all := make([]int, len(phones))
	for i, p := range phones {
		all[i] = counts[p.Token]
	}
	return all
}

func provider(p bench.Phone) simulator.Provider {
	if p.Platform == "ios" {
		return simulator.APNS
	}
	return simulator.FCM
}

// open connects to the log of a running campanile, as the commands do.
func (w *world) open(t *testing.T) *eventlog.Log {
	t.Helper()
	var cfg eventlog.Config
	if w.real != nil {
		cfg = w.real.log
	} else if dial, ok := broker.Running(filepath.Join(w.data(), "log")); ok {
		cfg = eventlog.Config{Brokers: broker.Brokers(), Dial: dial}
	} else {
		t.Fatal("no campanile runs on " + w.data())
	}
	log, err := eventlog.Open(t.Context(), cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close(context.Background()) })
	return log
}

// load registers phones in a channel by the log itself, as fast as it takes them.
func (w *world) load(t *testing.T, app, channel string, phones []bench.Phone) {
	t.Helper()
	log := w.open(t)
	for from := 0; from < len(phones); from += 5000 {
		err := log.Append(t.Context(), func(out *schemas.Out) {
			for _, p := range phones[from:min(from+5000, len(phones))] {
				tr := schemas.FCM
				if p.Platform == "ios" {
					tr = schemas.APNS
				}
				now := time.Now().UnixMicro()
				out.TokenRegistered(&pushv1.TokenRegistered{App: app, Transport: tr, Token: p.Token, Platform: p.Platform, RegisteredAtUs: now})
				out.ChannelSubscribed(&pushv1.ChannelSubscribed{App: app, Transport: tr, Token: p.Token, Channel: channel, SubscribedAtUs: now})
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func phones(set string, n int) []bench.Phone {
	all := make([]bench.Phone, n)
	for i := range all {
		all[i] = bench.MakePhone(set, i)
	}
	return all
}

const app = "commoodlemoodlemobile"

// TestDemoAccountsForEveryPush plays `make run` and reads what it prints.
func TestDemoAccountsForEveryPush(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := start(t, []string{"CAMPANILE_DATA=" + dir, "CAMPANILE_HTTP_LISTEN=127.0.0.1:0", "CAMPANILE_OPS_LISTEN=127.0.0.1:0"}, "up", "--demo")
	line := regexp.MustCompile(`(?m)^reconciled: accepted=(\d+) delivered=(\d+) rejected=(\d+) invalid=(\d+) expired=(\d+) cancelled=(\d+) pending=(\d+) ledger=(\d+) repeats=(\d+)$`)
	var n []int
	eventually(t, 4*time.Minute, "the demonstration reconciles", func() bool {
		select {
		case <-r.ended:
			t.Fatalf("it ended: %v\n%s", r.err, r.output.String())
		default:
		}
		found := line.FindStringSubmatch(r.output.String())
		if found == nil {
			return false
		}
		for _, f := range found[1:] {
			v, _ := strconv.Atoi(f)
			n = append(n, v)
		}
		return true
	})
	accepted, delivered, pending, ledger, repeats := n[0], n[1], n[6], n[7], n[8]
	if accepted == 0 || pending != 0 || accepted != delivered+n[2]+n[3]+n[4]+n[5] {
		t.Errorf("the figures do not add up: %v", n)
	}
	if ledger != delivered+repeats {
		t.Errorf("the ledger has %d, delivered and repeats are %d + %d", ledger, delivered, repeats)
	}
	// One broadcast to 2,000 phones less those that were found dead, and 1,000 notifications of which none was refused.
	if accepted < 2800 || accepted > 3000 {
		t.Errorf("accepted %d, want about 3,000: sites that were not addressed got something, or the one that was did not", accepted)
	}
	env, err := readDemoEnv(filepath.Join(dir, "demo.env"))
	if err != nil || env.all == "" || env.phone == "" || env.none == "" || len(env.sites) != demoSites {
		t.Errorf("demo.env: %+v, %v", env, err)
	}
	r.stop(t)
}

// TestBroadcastSurvivesAGracefulStop stops campanile in the middle of a broadcast and starts it again: every device gets it once.
func TestBroadcastSurvivesAGracefulStop(t *testing.T) {
	t.Parallel()
	eachShape(t, func(t *testing.T, s shape) { broadcastSurvivesAGracefulStop(t, s, s.size(100_000, 30_000)) })
}

func broadcastSurvivesAGracefulStop(t *testing.T, s shape, n int64) {
	t.Helper()
	w := s.newWorld(t)
	p := w.begin(t)
	w.app(t, app)
	key := w.key(t, app, "all")
	all := phones("graceful", int(n))
	w.load(t, app, "everybody", all)
	if _, err := p.moodles(app, key)[0].Broadcast(t.Context(), "everybody", "The library closes at six"); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "a tenth is delivered", func() bool { return w.summary(t).Accepted > n/10 })
	p.stop(t)
	before := w.summary(t).Accepted
	if before >= n {
		t.Fatalf("the broadcast was over (%d) before the stop: nothing is shown", before)
	}
	p = w.begin(t)
	r := w.accounts(t, 3*time.Minute, n)
	want := reconciled{Accepted: n, Delivered: n}
	if diff := cmp.Diff(want, r); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if ledger := w.summary(t); ledger.Accepted != n || ledger.Tokens != n {
		t.Errorf("the ledger has %d pushes to %d devices, want %d to %d", ledger.Accepted, ledger.Tokens, n, n)
	}
	p.stop(t)
}

// TestBroadcastSurvivesKills kills campanile ten times in the middle of a broadcast: every device gets it at least once, and the
// repeats are within the bound that docs/guarantees.md states.
func TestBroadcastSurvivesKills(t *testing.T) {
	t.Parallel()
	const n, kills, maxPage, window = 100_000, 10, 2000, 1024
	w := newWorld(t)
	settings := []string{"CAMPANILE_ROUTER_MAX_PAGE=" + strconv.Itoa(maxPage), "CAMPANILE_SENDERS_WINDOW=" + strconv.Itoa(window)}
	u := w.up(t, settings...)
	w.app(t, app)
	key := w.key(t, app, "all")
	all := phones("kills", n)
	w.load(t, app, "everybody", all)
	if _, err := u.moodle(app, key).Broadcast(t.Context(), "everybody", "The library closes at six"); err != nil {
		t.Fatal(err)
	}
	done := 0
	for k := range kills {
		target := int64(n * (k + 1) / (kills + 1))
		eventually(t, 2*time.Minute, fmt.Sprintf("%d are delivered", target), func() bool { return w.summary(t).Accepted >= target })
		u.kill()
		if w.summary(t).Tokens < n {
			done++
		}
		u = w.up(t, settings...)
	}
	if done < kills {
		t.Logf("%d of %d kills hit the broadcast while it ran", done, kills)
	}
	r := w.settled(t, 3*time.Minute)
	s := w.summary(t)
	if s.Tokens != n {
		t.Errorf("%d of %d devices got it", s.Tokens, n)
	}
	// What the providers had and the log did not: a window for each partition and platform. What the log may have torn: two pages for
	// each partition of expansions.
	bound := int64(kills) * embeddedPartitions * (2*window + 2*maxPage)
	repeats := s.Accepted - s.Tokens
	t.Logf("%d pushes, %d repeats after %d kills; bound %d", s.Accepted, repeats, kills, bound)
	if repeats > bound {
		t.Errorf("%d repeats, the bound is %d", repeats, bound)
	}
	if r.Accepted != n || r.Delivered != n {
		t.Errorf("the log accounts for %+v, want %d accepted and delivered", r, n)
	}
	u.stop(t)
}

// TestRegisteredBeforeIsReached registers and broadcasts in a tight loop: a registration that was answered before the broadcast was
// requested is always reached, also where one ingest answered the one and another the other.
func TestRegisteredBeforeIsReached(t *testing.T) {
	t.Parallel()
	eachShape(t, func(t *testing.T, s shape) {
		if s.cluster {
			registeredBeforeIsReached(t, s, 100, 100)
			return
		}
		t.Run("quiet", func(t *testing.T) {
			t.Parallel()
			registeredBeforeIsReached(t, s, 1000, 0)
		})
		t.Run("busy", func(t *testing.T) {
			t.Parallel()
			registeredBeforeIsReached(t, s, 0, 1000)
		})
	})
}

// registeredBeforeIsReached goes round so many times while nothing else happens, and so many while other phones register and are notified.
func registeredBeforeIsReached(t *testing.T, s shape, quiet, busy int) {
	t.Helper()
	w := s.newWorld(t)
	p := w.begin(t)
	w.app(t, app)
	ms := p.moodles(app, w.key(t, app, "all"))
	all := phones("loop", quiet+busy)
	round := func(i int) {
		channel := "room" + strconv.Itoa(i)
		if err := ms[i%len(ms)].Register(t.Context(), all[i].Token, all[i].Platform, channel); err != nil {
			t.Fatal(err)
		}
		if _, err := ms[(i+1)%len(ms)].Broadcast(t.Context(), channel, "Welcome"); err != nil {
			t.Fatal(err)
		}
	}
	for i := range quiet {
		round(i)
	}
	if busy > 0 {
		stop := w.noise(t, ms[0])
		for i := range busy {
			round(quiet + i)
		}
		stop()
	}
	w.accounts(t, 3*time.Minute, int64(len(all)))
	eventually(t, 3*time.Minute, "every phone got its push", func() bool { return !slices.Contains(w.pushes(t, all...), 0) })
	w.settled(t, 3*time.Minute)
	for i, got := range w.pushes(t, all...) {
		if got != 1 {
			t.Errorf("phone %d got %d pushes, want 1", i, got)
		}
	}
	p.stop(t)
}

// noise registers other phones and notifies them from several connections until stop is called.
func (w *world) noise(t *testing.T, m bench.Moodle) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	var sent atomic.Int64
	go func() {
		ended <- bench.Each(ctx, 1<<30, 8, &sent, func(ctx context.Context, i int) error {
			p := bench.MakePhone("noise", i)
			if err := m.Register(ctx, p.Token, p.Platform, "noise"); err != nil {
				return err
			}
			_, err := m.Push(ctx, p.Token, p.Platform, "noise")
			return err
		})
	}()
	return func() {
		cancel()
		if err := <-ended; err != nil && ctx.Err() == nil {
			t.Errorf("noise: %v", err)
		}
		t.Logf("%d phones registered and notified meanwhile", sent.Load())
	}
}

// TestDeadTokens follows tokens from death to a new life.
func TestDeadTokens(t *testing.T) {
	t.Parallel()
	eachShape(t, deadTokens)
}

func deadTokens(t *testing.T, s shape) {
	t.Helper()
	w := s.newWorld(t)
	pipeline := w.begin(t)
	w.app(t, app)
	ms := pipeline.moodles(app, w.key(t, app, "all"))
	m, other := ms[0], ms[len(ms)-1]
	all := phones("dead", 40)
	for _, p := range all {
		if err := m.Register(t.Context(), p.Token, p.Platform, "room"); err != nil {
			t.Fatal(err)
		}
	}
	dead, alive := all[:10], all[10:]
	w.die(t, dead)
	if _, err := m.Broadcast(t.Context(), "room", "first"); err != nil {
		t.Fatal(err)
	}
	if r := w.accounts(t, time.Minute, 40); r.Accepted != 40 || r.Invalid != 10 || r.Delivered != 30 {
		t.Fatalf("first broadcast: %+v", r)
	}

	// They are gone from the next broadcast, and a push to one is answered as Moodle needs it.
	eventually(t, 30*time.Second, "a dead token is answered 404 Unregistered token", func() bool {
		a, err := other.Push(t.Context(), dead[0].Token, dead[0].Platform, "gone?")
		return err == nil && a.Status == http.StatusNotFound && a.Field("error") == "Unregistered token"
	})
	before := w.settled(t, time.Minute)
	if _, err := m.Broadcast(t.Context(), "room", "second"); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "the second broadcast is delivered", func() bool {
		return w.reconcile(t).Delivered >= before.Delivered+30
	})
	after := w.settled(t, time.Minute)
	if after.Accepted-before.Accepted != 30 || after.Invalid != before.Invalid {
		t.Errorf("second broadcast: before %+v, after %+v: want 30 more accepted, none invalid", before, after)
	}

	// A dead token that a site registers again, and that is dead still, is taken and found dead again.
	if err := m.Register(t.Context(), dead[1].Token, dead[1].Platform, "room"); err != nil {
		t.Fatal(err)
	}
	a, err := other.Push(t.Context(), dead[1].Token, dead[1].Platform, "back?")
	if err != nil || a.Status != http.StatusAccepted {
		t.Fatalf("push to a token that was registered again: %d %s, %v", a.Status, a.Body, err)
	}
	eventually(t, 30*time.Second, "it is found dead again", func() bool {
		a, err := m.Push(t.Context(), dead[1].Token, dead[1].Platform, "gone?")
		return err == nil && a.Status == http.StatusNotFound
	})
	for i, got := range w.pushes(t, alive...) {
		if got != 2 {
			t.Errorf("living phone %d got %d pushes, want 2", i, got)
		}
	}
	pipeline.stop(t)
}

// die makes the providers call phones dead from now on.
func (w *world) die(t *testing.T, dead []bench.Phone) {
	t.Helper()
	for _, p := range dead {
		if err := w.ledger().Kill(t.Context(), provider(p), time.Now(), p.Token); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTenantsDoNotReachEachOther: two apps, and two sites of one of them.
func TestTenantsDoNotReachEachOther(t *testing.T) {
	t.Parallel()
	eachShape(t, tenantsDoNotReachEachOther)
}

func tenantsDoNotReachEachOther(t *testing.T, s shape) {
	t.Helper()
	w := s.newWorld(t)
	pipeline := w.begin(t)
	client := func(app, key string, ingest int) bench.Moodle {
		ms := pipeline.moodles(app, key)
		return ms[ingest%len(ms)]
	}
	const other = "orgotherapp"
	w.app(t, app, "--unproven-sites-may-broadcast")
	w.app(t, other)
	allKey, otherKey := w.key(t, app, "all"), w.key(t, other, "all")
	mine, theirs := client(app, allKey, 0), client(other, otherKey, 1)
	var sites []bench.Moodle
	for n := range 2 {
		key, err := mine.RequestKey(t.Context(), siteURL(n), "secret"+strconv.Itoa(n))
		if err != nil {
			t.Fatal(err)
		}
		sites = append(sites, client(app, key, n+1)) // not the ingest that gave the key
	}
	groups := map[string][]bench.Phone{"site 0": phones("s0", 5), "site 1": phones("s1", 5), "other app": phones("other", 5)}
	for name, m := range map[string]bench.Moodle{"site 0": sites[0], "site 1": sites[1], "other app": theirs} {
		for _, p := range groups[name] {
			if err := m.Register(t.Context(), p.Token, p.Platform, ""); err != nil {
				t.Fatal(err)
			}
		}
	}

	// A site that names another's channel, or any channel, is refused or reaches its own phones only.
	body := func(channel string) []byte {
		text, _ := json.Marshal(map[string]any{"alert": "x", "channel": channel, "extra": map[string]string{"wwwroot": siteURL(1)}})
		return text
	}
	for _, channel := range []string{siteChannel(1), "default", "everybody", "%", "*"} {
		a, err := sites[0].Do(t.Context(), http.MethodPost, "/api/v2/broadcast/", "application/json", body(channel))
		if err != nil {
			t.Fatal(err)
		}
		if a.Status != http.StatusForbidden && a.Status != http.StatusAccepted {
			t.Errorf("broadcast to %q: %d %s", channel, a.Status, a.Body)
		}
	}
	// A key of one app is none of the other.
	for _, m := range []bench.Moodle{client(other, allKey, 0), client(app, otherKey, 1)} {
		a, err := m.Do(t.Context(), http.MethodPost, "/api/v2/broadcast/", "application/json", body("default"))
		if err != nil || a.Status != http.StatusBadRequest || a.Field("error") != "Invalid access key" {
			t.Errorf("a key of another app: %d %s, %v", a.Status, a.Body, err)
		}
	}
	// A site that deletes another's token removes nothing of it.
	if _, err := sites[0].Do(t.Context(), http.MethodDelete, "/tokens/"+groups["site 1"][0].Token, "", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := sites[1].Broadcast(t.Context(), "", "to site 1"); err != nil {
		t.Fatal(err)
	}
	if _, err := theirs.Broadcast(t.Context(), "", "to the other app"); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "both broadcasts are delivered", func() bool {
		r := w.reconcile(t)
		return r.Pending == 0 && r.Delivered >= 10
	})
	w.settled(t, time.Minute)
	for name, want := range map[string]int{"site 1": 1, "other app": 1} {
		for i, got := range w.pushes(t, groups[name]...) {
			if got != want {
				t.Errorf("%s: phone %d got %d pushes, want %d", name, i, got, want)
			}
		}
	}
	pipeline.stop(t)
}

// TestMistakesAreToldClearly: each names the setting and what to do.
func TestMistakesAreToldClearly(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, c := range []struct {
		env  []string
		args []string
		want string
	}{
		{nil, []string{"config", "print", "--log-level", "loud"}, `log.level (--log-level, CAMPANILE_LOG_LEVEL): "loud" is none of`},
		{[]string{"CAMPANILE_ROUTER_MAX_PAGE=5"}, []string{"config", "print"}, "want 100 to 50000"},
		{[]string{"CAMPANILE_KAFKA_BROKER=x:1"}, []string{"config", "print"}, "unknown variable CAMPANILE_KAFKA_BROKER; did you mean one of"},
		{nil, []string{"config", "print", "--http-listen", "8801"}, "want host:port"},
		{nil, []string{"config", "print", "--senders-tiers", "1s"}, "want four delays"},
		{nil, []string{"config", "print", "--config", "/nowhere.yaml"}, "config file"},
		{nil, []string{"ingest"}, "kafka.brokers is not set"},
		{nil, []string{"app", "create", "Bad Name"}, "an app name is"},
		{nil, []string{"key", "create", "nosuchapp"}, "there is no app"},
		{nil, []string{"sender", "--platform", "wns", "--kafka-brokers", "127.0.0.1:1"}, "vault.master_key_file"},
	} {
		_, err := command(t, dir, append(c.env, "CAMPANILE_DATA="+filepath.Join(dir, "data")), c.args...)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v %v: want an error with %q, got %v", c.env, c.args, c.want, err)
		}
	}
}

// TestConfigPrintMasksSecrets reads file, environment and flags, in their order.
func TestConfigPrintMasksSecrets(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "c.yaml")
	writeFile(t, file, "log:\n  level: warn\nkafka:\n  prefix: fromfile.\nrouter:\n  max_page: 500\n")
	out, err := command(t, dir, []string{"CAMPANILE_CONFIG=" + file, "CAMPANILE_KAFKA_PREFIX=fromenv.", "CAMPANILE_KAFKA_SASL_PASSWORD=hunter2"},
		"config", "print", "--router-max-page", "700")
	text := must(t, out, err)
	for _, want := range []string{"level: warn", "prefix: fromenv.", "max_page: 700", "********"} {
		if !strings.Contains(text, want) {
			t.Errorf("want %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "hunter2") {
		t.Error("the password is printed")
	}
	writeFile(t, file, "kafka:\n  broker: x\n")
	if _, err := command(t, dir, []string{"CAMPANILE_CONFIG=" + file}, "config", "print"); err == nil || !strings.Contains(err.Error(), `unknown setting "kafka.broker"`) {
		t.Errorf("an unknown key: %v", err)
	}
}

// TestSecondProcessIsRefused: one process at a time owns a data folder.
func TestSecondProcessIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	u := w.up(t)
	second := start(t, w.env(), "up")
	select {
	case <-second.ended:
	case <-time.After(time.Minute):
		t.Fatal("a second process runs on the same data")
	}
	if second.err == nil {
		t.Error("a second process ended without an error")
	}
	_ = u.cmd.Process.Signal(syscall.SIGTERM)
	<-u.ended
	if u.err != nil {
		t.Errorf("the first one: %v", u.err)
	}
}
