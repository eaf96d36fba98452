package bench

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/campanile-push/campanile/schemas"
	"github.com/campanile-push/campanile/senders"
)

// TestEveryPromisedFigureHasABenchmark: the names are what other programs read.
func TestEveryPromisedFigureHasABenchmark(t *testing.T) {
	t.Parallel()
	have := map[string]bool{}
	for _, b := range benchmarks(1_000_000) {
		for _, name := range b.rows {
			if have[name] {
				t.Errorf("%s stands twice", name)
			}
			have[name] = true
		}
	}
	for _, want := range []string{
		"append/kfake/ratio", "transform/kfake/ratio", "deliver/kfake/ratio", "router/kfake/ratio", "ingest/push/ratio", "fair/direct_p99",
		"sender/apns/0ms/200B/stock/cpu_us", "sender/fcm/0ms/200B/stock/cpu_us", "pipeline/embedded/1M/cpu_us",
		"sender/apns/50ms/4KB/h2/rss_mb", "sender/fcm/20ms/200B/floor/rate", "sender/apns/0ms/200B/library/cpu_us", "sender/fcm/50ms/200B/h2/little",
		"sender/memory/apns/10M/rss_mb", "broadcast/small/p99_ratio",
		"scale/embedded/10k/cpu_us", "scale/embedded/1M/up/rss_mb", "scale/embedded/10M/seconds", "scale/cluster/10M/router/rss_mb", "scale/cluster/100k/sender.fcm/rss_mb",
		"page/pebble/rate", "page/postgres/cpu_us", "page/postgres/two/rate",
	} {
		if !have[want] {
			t.Errorf("no benchmark gives %s", want)
		}
	}
}

func TestOnlyPicksByTheNamesOfFigures(t *testing.T) {
	t.Parallel()
	for only, want := range map[string]int{
		"": len(benchmarks(1_000_000)), "^router/kfake/": 1, "append/kfake": 1, "/library/": 2, "sender/fcm/50ms": 2, "nothing": 0,
		"^scale/": 7, "^scale/embedded/10k/": 1, "^scale/cluster/10M/": 1, "^page/pebble/": 1,
	} {
		got := 0
		for _, b := range benchmarks(1_000_000) {
			if b.matches(regexp.MustCompile(only)) {
				got++
			}
		}
		if got != want {
			t.Errorf("%q: want %d benchmarks, got %d", only, want, got)
		}
	}
}

// TestAPNsPayloadHasTheSizeOfItsName: the figures are called 200B.
func TestAPNsPayloadHasTheSizeOfItsName(t *testing.T) {
	t.Parallel()
	m, err := senders.RenderAPNS(payload())
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Payload) != 200 {
		t.Errorf("want 200 bytes, got %d: %s", len(m.Payload), m.Payload)
	}
}

func TestMemoryAudienceGivesEachDeviceOnceInOrder(t *testing.T) {
	t.Parallel()
	const n = 500
	a := newMemoryAudience(n)
	seen := map[string]int{}
	for _, transport := range schemas.Transports {
		for rng := range uint32(4) {
			q := schemas.PageQuery{Transport: transport, Limit: 7}
			q.ShardFrom, q.ShardTo = schemas.ShardRange(rng, 4)
			for done := false; !done; {
				var page schemas.Page
				if err := a.Page(t.Context(), q, &page); err != nil {
					t.Fatal(err)
				}
				for _, d := range page.Devices {
					seen[string(d.Token)]++
				}
				if len(page.Devices) == 0 && !page.Done {
					t.Fatal("an empty page before the end")
				}
				q.After, done = page.Next, page.Done
			}
		}
	}
	for i := range n {
		if token := MakePhone("bench", i).Token; seen[token] != 1 {
			t.Fatalf("phone %d: want it once, got it %d times", i, seen[token])
		}
	}
	if len(seen) != n {
		t.Errorf("want %d devices, got %d", n, len(seen))
	}
}

func TestLoadSendsEveryRequestAndReportsARefusal(t *testing.T) {
	t.Parallel()
	var got atomic.Int64
	var status atomic.Int64
	status.Store(http.StatusAccepted)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		got.Add(1)
		w.WriteHeader(int(status.Load()))
	}))
	defer web.Close()
	plan := &loadPlan{Conns: 3, Want: "202", Requests: [][]byte{pushRequest(MakePhone("bench", 0)), pushRequest(MakePhone("bench", 1))}}
	o := loadOrder{Address: strings.TrimPrefix(web.URL, "http://"), N: 50}
	if _, err := plan.run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if got.Load() != 50 {
		t.Errorf("want 50 requests, got %d", got.Load())
	}
	status.Store(http.StatusTeapot)
	if _, err := plan.run(t.Context(), o); err == nil {
		t.Error("want an error where the answer is another, got none")
	}
}

func TestDuelCountsNoWarmUp(t *testing.T) {
	t.Parallel()
	h := &harness{Options: Options{Rounds: 3, Out: io.Discard}}
	var order []string
	play := func(name string) side {
		return func(context.Context) (sample, error) {
			order = append(order, name)
			return sample{n: 1, wall: time.Second}, nil
		}
	}
	d, err := h.duel(t.Context(), "x", play("ours"), play("bare"))
	if err != nil {
		t.Fatal(err)
	}
	if len(d.ours) != 3 || len(d.bare) != 3 {
		t.Errorf("want 3 rounds of each, got %d and %d", len(d.ours), len(d.bare))
	}
	if got := strings.Join(order, " "); got != strings.TrimSpace(strings.Repeat("ours bare ", 4)) {
		t.Errorf("want both in turns, got %s", got)
	}
	want := errors.New("broken")
	if _, err := h.duel(t.Context(), "x", play("ours"), func(context.Context) (sample, error) { return sample{}, want }); !errors.Is(err, want) {
		t.Errorf("want the baseline's error, got %v", err)
	}
}

func TestAChildRefusesWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	for in, role := range map[string]string{"{}\n": "nobody", "not JSON\n": roleBroker, "": roleSimulator} {
		if err := Child(t.Context(), role, strings.NewReader(in), io.Discard); err == nil {
			t.Errorf("role %q with %q: want an error, got none", role, in)
		}
	}
	if err := Child(t.Context(), roleLoad, bufio.NewReader(strings.NewReader("{}\n")), io.Discard); err == nil {
		t.Error("load without a plan: want an error, got none")
	}
}
