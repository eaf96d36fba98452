package simulator_test

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/campanile-push/campanile/simulator"
)

// hexToken is a token of the n-th device.
func hexToken(n int) string {
	r := rand.New(rand.NewPCG(uint64(n), 7))
	return fmt.Sprintf("%016x%016x%016x%016x", r.Uint64(), r.Uint64(), r.Uint64(), r.Uint64())
}

func TestFateDependsOnSeedAndTokenAlone(t *testing.T) {
	t.Parallel()
	scenario := simulator.Scenario{Seed: 7, Mix: simulator.Mix{"dead": 0.2, "bad_token": 0.1, "throttled": 0.1, "ExpiredToken": 0.05}}
	const n = 400
	fates := func(r *rig, from, step int) map[int]string {
		got := map[int]string{}
		for i := from; i >= 0 && i < n; i += step {
			got[i] = r.push(hexToken(i), newID()).reason
		}
		return got
	}
	first := fates(setup(t, with(scenario)), 0, 1)
	second := fates(setup(t, with(scenario)), n-1, -1)
	counts := map[string]int{}
	for i, want := range first {
		if second[i] != want {
			t.Errorf("token %d: %q, then %q in another run and order", i, want, second[i])
		}
		counts[want]++
	}
	for reason, share := range map[string]float64{"Unregistered": 0.2, "BadDeviceToken": 0.1, "TooManyRequests": 0.1, "ExpiredToken": 0.05, "": 0.55} {
		if got := float64(counts[reason]) / n; got < share-0.08 || got > share+0.08 {
			t.Errorf("%q: want a share of about %v, got %v", reason, share, got)
		}
	}
	scenario.Seed = 8
	other := fates(setup(t, with(scenario)), 0, 1)
	same := 0
	for i, want := range first {
		if other[i] == want {
			same++
		}
	}
	if same == n {
		t.Error("another seed gave every token the same fate")
	}
}

func TestFateOfATransientFaultHeals(t *testing.T) {
	t.Parallel()
	r := setup(t, with(simulator.Scenario{Seed: 1, Mix: simulator.Mix{"throttled": 1}, RetryAfter: simulator.Duration(1500 * time.Millisecond)}))
	for i := range 20 {
		for range 2 { // each notification begins anew
			id := uuid.NewString()
			attempts := 0
			for {
				got := r.push(hexToken(i), setHeader("Apns-Id", id))
				if got.status == 200 {
					break
				}
				if got.reason != "TooManyRequests" || got.header.Get("Retry-After") != "2" {
					t.Fatalf("want 429 with Retry-After 2, got %d %s %v", got.status, got.body, got.header)
				}
				attempts++
			}
			if attempts < 1 || attempts > 2 {
				t.Errorf("token %d: want 1 or 2 refusals, got %d", i, attempts)
			}
		}
	}
	if s := r.Ledger().Summary(); s.Accepted != 40 || s.Repeats != 0 {
		t.Errorf("want 40 accepted once, got %+v", s)
	}
}

func TestFateIsWrittenInAMarker(t *testing.T) {
	t.Parallel()
	r := setup(t, with(simulator.Scenario{Mix: simulator.Mix{"dead": 1}}))
	for code, reason := range map[string]string{
		"0200": "", "0410": "Unregistered", "1410": "ExpiredToken", "0400": "BadDeviceToken", "1400": "DeviceTokenNotForTopic", "2400": "BadTopic",
		"0403": "Forbidden", "1403": "InvalidProviderToken", "2403": "ExpiredProviderToken", "0413": "PayloadTooLarge",
		"0429": "TooManyRequests", "0500": "InternalServerError", "0503": "ServiceUnavailable", "1503": "Shutdown",
	} {
		got := r.push("0badcafe" + code + "00" + goodHex[14:])
		if got.reason != reason {
			t.Errorf("%s: want %q, got %q", code, reason, got.reason)
		}
		if dead := time.Since(time.UnixMilli(got.dead)); got.status == 410 && (dead < -time.Second || dead > time.Minute) {
			t.Errorf("%s: want a timestamp of now, got %d", code, got.dead)
		}
	}
	for attempt, want := range []int{429, 429, 200} {
		if got := r.push("0badcafe042902"+goodHex[14:], setHeader("Apns-Id", goodID)); got.status != want {
			t.Errorf("attempt %d: want %d, got %d", attempt, want, got.status)
		}
	}
	for attempt, want := range []int{503, 503, 503, 200} {
		if got := r.send(messageTo("sim:unavailable*3:x", goodID)); got.status != want {
			t.Errorf("FCM attempt %d: want %d, got %d", attempt, want, got.status)
		}
	}
	if got := r.send(messageTo("sim:ok:x", goodID)); got.status != 200 {
		t.Errorf("want ok whatever the mix says, got %d", got.status)
	}
	if got := r.send(messageTo("sim:nonsense:x", goodID)); got.status != 404 {
		t.Errorf("want the mix for what is no marker, got %d", got.status)
	}
}

func TestKilledTokensSayWhenTheyDied(t *testing.T) {
	t.Parallel()
	r := setup(t)
	c := r.Client()
	since := time.UnixMilli(1_700_000_000_123)
	if err := c.Kill(t.Context(), simulator.APNS, since, strings.ToUpper(goodHex)); err != nil {
		t.Fatal(err)
	}
	if err := c.Kill(t.Context(), simulator.FCM, time.Time{}, fcmToken); err != nil {
		t.Fatal(err)
	}
	if got := r.push(goodHex); got.status != 410 || got.body != `{"reason":"Unregistered","timestamp":1700000000123}` {
		t.Errorf("want 410 since %d, got %d %s", since.UnixMilli(), got.status, got.body)
	}
	if got := r.send(messageTo(fcmToken, goodID)); got.status != 404 || got.reason != "UNREGISTERED" {
		t.Errorf("want UNREGISTERED, got %d %s", got.status, got.body)
	}
	if err := c.Revive(t.Context(), simulator.APNS, goodHex, "0badcafe041000"+goodHex[14:]); err != nil {
		t.Fatal(err)
	}
	if got := r.push(goodHex); got.status != 200 {
		t.Errorf("want it alive again, got %d %s", got.status, got.body)
	}
	if got := r.push("0badcafe041000" + goodHex[14:]); got.status != 200 {
		t.Errorf("want it alive whatever its marker says, got %d %s", got.status, got.body)
	}
	if got := r.send(messageTo(fcmToken, goodID)); got.status != 404 {
		t.Errorf("want the FCM token still dead, got %d", got.status)
	}
	if err := c.Reset(t.Context(), "tokens"); err != nil {
		t.Fatal(err)
	}
	if got := r.send(messageTo(fcmToken, goodID)); got.status != 200 {
		t.Errorf("want the FCM token alive after a reset, got %d", got.status)
	}
}

func TestRulesHoldForWhatTheyMatch(t *testing.T) {
	t.Parallel()
	r := setup(t)
	c := r.Client()
	set := func(rules ...simulator.Rule) {
		t.Helper()
		if err := c.SetRules(t.Context(), rules...); err != nil {
			t.Fatal(err)
		}
	}
	status := func(token string) int { t.Helper(); return r.push(token, newID()).status }

	set(simulator.Rule{Name: "one", TokenPrefix: "00fc", Reason: "Unregistered", DeadAgo: simulator.Duration(time.Hour)})
	got := r.push(goodHex)
	if ago := time.Since(time.UnixMilli(got.dead)); got.status != 410 || ago < 59*time.Minute || ago > 61*time.Minute {
		t.Errorf("want dead for an hour, got %d %s", got.status, got.body)
	}
	if status(hexToken(1)) != 200 || r.send(messageTo(fcmToken, goodID)).status != 200 {
		t.Error("want others untouched")
	}

	set(simulator.Rule{Every: 3, Reason: "ServiceUnavailable"})
	for i, want := range []int{200, 200, 503, 200, 200, 503} {
		if got := status(goodHex); got != want {
			t.Errorf("every third, push %d: want %d, got %d", i, want, got)
		}
	}
	set(simulator.Rule{Limit: 2, Reason: "throttled"})
	for i, want := range []int{429, 429, 200} {
		if got := status(goodHex); got != want {
			t.Errorf("limit, push %d: want %d, got %d", i, want, got)
		}
	}
	set(simulator.Rule{Times: 1, Reason: "throttled", RetryAfter: simulator.Duration(time.Hour), RetryAfterDate: true})
	first, second := r.push(goodHex, setHeader("Apns-Id", goodID)), r.push(goodHex, setHeader("Apns-Id", goodID))
	if at, err := time.Parse(time.RFC1123, first.header.Get("Retry-After")); first.status != 429 || second.status != 200 || err != nil || time.Until(at) < 50*time.Minute {
		t.Errorf("want 429 with a date and then 200, got %d %v and %d", first.status, first.header, second.status)
	}
	set(simulator.Rule{Environment: simulator.Sandbox, Reason: "BadDeviceToken"}, simulator.Rule{App: topic, Reason: "PayloadTooLarge"})
	sandbox, err := r.tryPush(r.apns, r.SandboxURL(), goodHex)
	if err != nil || sandbox.reason != "BadDeviceToken" || status(goodHex) != 413 {
		t.Errorf("want the first rule in the sandbox and the second for the app, got %+v, %v", sandbox, err)
	}
	set(simulator.Rule{Name: "later", After: simulator.Duration(time.Hour), Reason: "internal"})
	if got := status(goodHex); got != 200 {
		t.Errorf("want nothing before the rule begins, got %d", got)
	}
	set(simulator.Rule{Name: "half", Share: 0.5, Reason: "dead"})
	dead := 0
	for i := range 100 {
		if status(hexToken(i)) == 410 {
			dead++
		}
	}
	if dead < 30 || dead > 70 {
		t.Errorf("want about half, got %d of 100", dead)
	}
	if err := c.AddRules(t.Context(), simulator.Rule{Name: "ok", Reason: "ok"}); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		if got := status(hexToken(i)); got != 200 {
			t.Errorf("want the youngest rule first, got %d", got)
		}
	}
	if err := c.RemoveRules(t.Context(), "ok"); err != nil {
		t.Fatal(err)
	}
	if err := c.RemoveRules(t.Context(), "ok"); err == nil || !strings.Contains(err.Error(), "no rule") {
		t.Errorf("want an error for a rule that is not there, got %v", err)
	}
}

func TestRuleDelaysAndLetsTheNextDecide(t *testing.T) {
	t.Parallel()
	r := setup(t)
	err := r.Client().SetRules(t.Context(), simulator.Rule{Delay: simulator.Duration(20 * time.Millisecond)}, simulator.Rule{Reason: "dead"})
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if got := r.push(goodHex); got.status != 410 || time.Since(begin) < 20*time.Millisecond {
		t.Fatalf("want 410 after 20 ms, got %d after %v", got.status, time.Since(begin))
	}
}

func TestBrownoutEnds(t *testing.T) {
	t.Parallel()
	r := setup(t)
	if err := r.Client().Brownout(t.Context(), simulator.FCM, "", time.Hour); err != nil {
		t.Fatal(err)
	}
	if got := r.send(messageTo(fcmToken, goodID)); got.status != 503 || got.reason != "UNAVAILABLE" {
		t.Fatalf("want UNAVAILABLE, got %d %s", got.status, got.body)
	}
	if got := r.push(goodHex); got.status != 200 {
		t.Fatalf("want APNs untouched, got %d", got.status)
	}
	if err := r.Client().RemoveRules(t.Context(), "brownout"); err != nil {
		t.Fatal(err)
	}
	if err := r.Client().Brownout(t.Context(), simulator.FCM, "BAD_GATEWAY", time.Millisecond); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for r.send(messageTo(fcmToken, goodID)).status != 200 {
		if time.Now().After(deadline) {
			t.Fatal("the brown-out of a millisecond does not end")
		}
	}
}

func TestLatencyIsTheSameForTheSameHash(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	for _, c := range []struct {
		text        string
		least, most time.Duration
		p50, p99    time.Duration // ±15 %; 0: not checked
	}{
		{"0s", 0, 0, 0, 0},
		{"20ms", 20 * ms, 20 * ms, 20 * ms, 20 * ms},
		{"uniform:10ms,50ms", 10 * ms, 50 * ms, 30 * ms, 49600 * time.Microsecond},
		{"lognormal:20ms,80ms", ms, time.Minute, 20 * ms, 80 * ms},
	} {
		l, err := simulator.ParseLatency(c.text)
		if err != nil || l.String() != c.text {
			t.Errorf("%s: got %s, %v", c.text, l, err)
		}
		const n = 20_000
		r := rand.New(rand.NewPCG(1, 2))
		below50, below99 := 0, 0
		for range n {
			h := r.Uint64()
			d := l.Of(h)
			if d != l.Of(h) || d < c.least || d > c.most {
				t.Fatalf("%s: %v, then %v", c.text, d, l.Of(h))
			}
			if d <= c.p50 {
				below50++
			}
			if d <= c.p99 {
				below99++
			}
		}
		if c.p50 != c.p99 && (below50 < n*45/100 || below50 > n*55/100 || below99 < n*985/1000 || below99 > n*995/1000) {
			t.Errorf("%s: %d and %d of %d below the median and the 99th percentile", c.text, below50, below99, n)
		}
	}
	for _, text := range []string{"", "20", "-1ms", "2h", "uniform:50ms,10ms", "uniform:1ms", "lognormal:0s,1ms", "normal:1ms,2ms"} {
		if _, err := simulator.ParseLatency(text); err == nil {
			t.Errorf("%q: want an error", text)
		}
	}
}

func TestScenarioSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	good := `
seed: 7
latency: lognormal:20ms,80ms
mix: {dead: 0.02, throttled: 0.01, UNAVAILABLE: 0.01}
retry_after: 2s
rules:
  - {name: storm, provider: fcm, reason: throttled, after: 10s, for: 30s, retry_after: 5s}
  - {every: 5000, fault: goaway, provider: apns}
apns: {topics: [org.example.app], token_update: -1s}
fcm: {quota_per_minute: 600000, token_lifetime: 10m}
`
	s, err := simulator.ParseScenario([]byte(good))
	if err != nil || s.Seed != 7 || s.Mix["dead"] != 0.02 || s.Rules[0].For.D() != 30*time.Second || s.FCM.QuotaPerMinute != 600000 || s.Latency.String() != "lognormal:20ms,80ms" {
		t.Fatalf("got %+v, %v", s, err)
	}
	if s, err := simulator.ParseScenario(nil); err != nil || s.Seed != 0 {
		t.Errorf("want the zero scenario for no text, got %+v, %v", s, err)
	}
	for text, want := range map[string]string{
		"sed: 7":                                     "not found",
		"latency: fast":                              "want 0, 20ms",
		"retry_after: 5":                             "want a number and a unit",
		"mix: {nobody: 0.1}":                         "want one of",
		"mix: {dead: 2}":                             "want 0 to 1",
		"mix: {dead: 0.6, bad_token: 0.6}":           "at most 1",
		"rules: [{name: x}]":                         "does nothing",
		"rules: [{reason: nope}]":                    "want one of",
		"rules: [{provider: wns, reason: dead}]":     "want apns or fcm",
		"rules: [{provider: fcm, reason: BadPath}]":  "no reason of fcm",
		"rules: [{fault: explode}]":                  "is no fault",
		"rules: [{reason: dead, share: 3}]":          "want 0 to 1",
		"rules: [{reason: dead, times: -1}]":         "0 or more",
		"rules: [{reason: dead, fault: freeze}]":     "leave the reason out",
		"rules: [{reason: dead, environment: test}]": "want production or sandbox",
	} {
		if _, err := simulator.ParseScenario([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: want an error with %q, got %v", text, want, err)
		}
	}
}

func TestMixReadsAndWritesText(t *testing.T) {
	t.Parallel()
	m, err := simulator.ParseMix(" throttled=0.01, dead=0.02 ")
	if err != nil || m.String() != "dead=0.02,throttled=0.01" {
		t.Fatalf("got %v, %v", m, err)
	}
	for _, text := range []string{"dead", "dead=x", "dead=NaN", "nobody=0.1", "dead=" + strconv.Itoa(2)} {
		if _, err := simulator.ParseMix(text); err == nil {
			t.Errorf("%q: want an error", text)
		}
	}
}
