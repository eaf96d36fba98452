package simulator

import (
	"encoding/json"
	"log/slog"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

func TestCountTableAgreesWithAMap(t *testing.T) {
	t.Parallel()
	for _, counts := range []bool{false, true} {
		table, model := countTable{counts: counts}, map[uint64]uint32{}
		r := rand.New(rand.NewPCG(1, 1))
		for range 50_000 {
			key := r.Uint64() % 8000
			if r.IntN(2) == 0 {
				key = mix(key) // some spread over the shards, some crowded in one
			}
			before := table.add(key)
			want := model[nonZero(key)]
			if !counts {
				want = min(want, 1)
			}
			if before != want {
				t.Fatalf("key %d: want %d, got %d", key, want, before)
			}
			model[nonZero(key)]++
		}
		if table.n != len(model) {
			t.Fatalf("want %d keys, got %d", len(model), table.n)
		}
		for key, want := range model {
			if !counts {
				want = 1
			}
			if got := table.count(key); got != want {
				t.Fatalf("key %d: want %d, got %d", key, want, got)
			}
		}
		if table.count(1<<63) != 0 || table.bytes() == 0 {
			t.Fatal("want no count of what was never added")
		}
	}
}

func TestEveryReasonHasItsAnswer(t *testing.T) {
	t.Parallel()
	for reason := range apnsStatus {
		var body struct {
			Reason    string
			Timestamp *int64
		}
		if err := json.Unmarshal(appendAPNSBody(nil, reason, 7), &body); err != nil || body.Reason != reason {
			t.Errorf("%s: %+v, %v", reason, body, err)
		}
		if gone := apnsStatus[reason] == 410; gone != (body.Timestamp != nil) || gone && *body.Timestamp != 7 {
			t.Errorf("%s: timestamp %v", reason, body.Timestamp)
		}
	}
	for reason, e := range fcmErrors {
		body := appendFCMBody(nil, reason, "", "")
		var answer struct {
			Error struct {
				Code   int
				Status string
			}
		}
		switch err := json.Unmarshal(body, &answer); {
		case e.status == "" && err == nil:
			t.Errorf("%s: want HTML, got %s", reason, body)
		case e.status != "" && (err != nil || answer.Error.Code != e.code || answer.Error.Status != e.status):
			t.Errorf("%s: %s, %v", reason, body, err)
		}
	}
	for word, at := range words {
		if word == Accept {
			continue
		}
		if _, ok := apnsStatus[at.apns]; !ok {
			t.Errorf("%s: APNs has no %s", word, at.apns)
		}
		if _, ok := fcmErrors[at.fcm]; !ok {
			t.Errorf("%s: FCM has no %s", word, at.fcm)
		}
	}
	for code, reason := range apnsMarkers {
		if _, ok := apnsStatus[reason]; !ok && reason != Accept {
			t.Errorf("marker %s: APNs has no %s", code, reason)
		}
	}
}

func TestQuotaRefillsWithTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ledger, err := OpenLedger(t.TempDir(), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		defer ledger.Close()
		c := newCore(Scenario{FCM: FCMScenario{QuotaPerMinute: 60}}, ledger, 0, time.Now)
		take := func(n int) (taken int) {
			for range n {
				if ok, _ := c.withinQuota("p"); ok {
					taken++
				}
			}
			return taken
		}
		if got := take(100); got != 60 {
			t.Errorf("want a minute's 60 at once, got %d", got)
		}
		if ok, wait := c.withinQuota("p"); ok || wait != time.Second {
			t.Errorf("want to wait a second, got %v, %v", ok, wait)
		}
		if ok, _ := c.withinQuota("q"); !ok {
			t.Error("want another project untouched")
		}
		time.Sleep(10 * time.Second) //nolint:forbidigo // the bubble's clock
		if got := take(100); got != 10 {
			t.Errorf("want 10 after 10 seconds, got %d", got)
		}
		time.Sleep(time.Hour) //nolint:forbidigo // the bubble's clock
		if got := take(100); got != 60 {
			t.Errorf("want no more than a minute's 60 after an hour, got %d", got)
		}
	})
}

func TestRulesKeepTheirTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ledger, err := OpenLedger(t.TempDir(), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		defer ledger.Close()
		c := newCore(Scenario{Rules: []Rule{{Reason: "dead", After: Duration(10 * time.Second), For: Duration(5 * time.Second)}}}, ledger, 0, time.Now)
		begin := time.Now()
		for _, step := range []struct {
			at     time.Duration
			reason string
		}{{0, ""}, {9999 * time.Millisecond, ""}, {10 * time.Second, "Unregistered"}, {14999 * time.Millisecond, "Unregistered"}, {15 * time.Second, ""}} {
			time.Sleep(time.Until(begin.Add(step.at))) //nolint:forbidigo // the bubble's clock
			a, err := c.take(&Push{Provider: APNS, Environment: Production, App: "a", Token: "00"})
			if err != nil || a.reason != step.reason {
				t.Errorf("after %v: want %q, got %q, %v", step.at, step.reason, a.reason, err)
			}
		}
		c.addRules([]Rule{{Reason: "ok"}})
		if n := len(c.scenario().Rules); n != 1 {
			t.Errorf("want the rule that ended gone, got %d rules", n)
		}
	})
}

func TestAttemptsAreBounded(t *testing.T) {
	t.Parallel()
	c := &core{attempts: [2]map[uint64]int{{}, nil}}
	p := &Push{Provider: FCM, tokenHash: 1}
	if !c.attempt(p, 0, 2) {
		t.Fatal("want the first attempt to fail")
	}
	for i := range maxAttempts { // the younger generation is full once, and becomes the older
		c.attempt(&Push{Provider: FCM, tokenHash: uint64(i) + 10}, 0, 2)
	}
	if !c.attempt(p, 0, 2) || c.attempt(p, 0, 2) {
		t.Error("want the count of the older generation to go on: one more failure, then none")
	}
	if n := len(c.attempts[0]) + len(c.attempts[1]); n > 2*maxAttempts {
		t.Errorf("want at most two generations, got %d counts", n)
	}
}
