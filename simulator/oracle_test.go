package simulator_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/campanile-push/campanile/simulator"
)

// TestBothServersSayAndRecordTheSame asks the server of frames and that of net/http the same under each scenario.
func TestBothServersSayAndRecordTheSame(t *testing.T) {
	t.Parallel()
	rule := func(r simulator.Rule) simulator.Scenario {
		return simulator.Scenario{Seed: 3, Rules: []simulator.Rule{r}}
	}
	ms := simulator.Duration(time.Millisecond)
	scenarios := map[string]simulator.Scenario{
		"nothing":     {Seed: 1},
		"mix":         {Seed: 7, Mix: simulator.Mix{"dead": 0.2, "bad_token": 0.1, "throttled": 0.2, "unavailable": 0.1, "BAD_GATEWAY": 0.1, "Shutdown": 0.1}, RetryAfter: 1500 * ms},
		"quota":       {FCM: simulator.FCMScenario{QuotaPerMinute: 1}},
		"per device":  {APNS: simulator.APNSScenario{PerDevice: 2}, FCM: simulator.FCMScenario{PerDevice: 2}, RetryAfter: 5000 * ms},
		"bad tokens":  {APNS: simulator.APNSScenario{Connections: simulator.ConnScenario{BadTokens: 2}}, Mix: simulator.Mix{"bad_token": 0.5}},
		"topics":      {APNS: simulator.APNSScenario{Topics: []string{"org.other"}}},
		"late":        {Latency: latency(t, "uniform:1ms,3ms"), FCM: simulator.FCMScenario{Connections: simulator.ConnScenario{Latency: latency(t, "bimodal:1ms,3ms,0.5")}}},
		"retry date":  rule(simulator.Rule{Reason: "unavailable", Times: 1, RetryAfter: 200_000 * ms, RetryAfterDate: true}),
		"retry 5s":    rule(simulator.Rule{Reason: "throttled", Every: 3, RetryAfter: 5000 * ms}),
		"dead before": rule(simulator.Rule{Reason: "dead", Share: 0.5, DeadAgo: 3_600_000 * ms}),
		"model":       rule(simulator.Rule{Latency: latency(t, "uniform:1ms,2ms"), App: topic}),
	}
	for _, f := range []simulator.Fault{
		simulator.FaultGoAway, simulator.FaultRST, simulator.FaultRSTAfter, simulator.FaultReset, simulator.FaultResetAfter, simulator.FaultBlackhole,
		simulator.FaultDrip, simulator.FaultSlowRead,
	} {
		scenarios[string(f)] = rule(simulator.Rule{Fault: f, Every: 9, Pause: ms})
		if f == simulator.FaultGoAway || f == simulator.FaultRST || f == simulator.FaultResetAfter { // the others are no different
			scenarios[string(f)+" late"] = rule(simulator.Rule{Fault: f, Every: 9, Pause: ms, Delay: 2 * ms})
		}
	}
	for name, s := range scenarios {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want, wantLedger := askAll(t, simulator.ServerNetHTTP, s)
			got, gotLedger := askAll(t, simulator.ServerFrames, s)
			for i := range want {
				if got[i] != want[i] {
					t.Errorf("answer %d:\nnet/http %s\nframes   %s", i, want[i], got[i])
				}
			}
			if !slices.Equal(gotLedger, wantLedger) {
				t.Errorf("ledgers:\nnet/http %d %v\nframes   %d %v", len(wantLedger), wantLedger, len(gotLedger), gotLedger)
			}
		})
	}
}

func latency(t *testing.T, text string) simulator.Latency {
	t.Helper()
	l, err := simulator.ParseLatency(text)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// question is one request.
type question struct {
	name string
	ask  func(r *rig, ctx context.Context) (reply, error)
}

func apnsQuestion(name, token string, change ...func(req *http.Request)) question {
	return question{name, func(r *rig, ctx context.Context) (reply, error) {
		return r.tryPush(r.apns, r.APNSURL(), token, append(change, within(ctx))...)
	}}
}

func fcmQuestion(name, body string, change ...func(req *http.Request)) question {
	return question{name, func(r *rig, ctx context.Context) (reply, error) {
		return r.trySend(r.fcm, body, append(change, within(ctx))...)
	}}
}

// within bounds a request, and keeps net/http from sending it twice on its own account.
func within(ctx context.Context) func(req *http.Request) {
	return func(req *http.Request) { *req = *req.WithContext(ctx); req.GetBody = nil }
}

func setPath(path string) func(req *http.Request) {
	return func(req *http.Request) { req.URL.Path, req.URL.RawPath = path, "" }
}

func questions() []question {
	q := []question{
		apnsQuestion("valid", goodHex, setHeader("Apns-Id", goodID)),
		apnsQuestion("capitals", strings.ToUpper(goodHex), setHeader("Apns-Id", goodID)),
		apnsQuestion("no authorization", goodHex, func(req *http.Request) { req.Header.Del("Authorization") }),
		apnsQuestion("forged", goodHex, setHeader("Authorization", "bearer a.b.c")),
		apnsQuestion("twice", goodHex, func(req *http.Request) { req.Header["Apns-Priority"] = []string{"5", "10"} }),
		apnsQuestion("no topic", goodHex, func(req *http.Request) { req.Header.Del("Apns-Topic") }),
		apnsQuestion("bad topic", goodHex, setHeader("Apns-Topic", "a b")),
		apnsQuestion("bad id", goodHex, setHeader("Apns-Id", "x")),
		apnsQuestion("bad priority", goodHex, setHeader("Apns-Priority", "7")),
		apnsQuestion("background", goodHex, setHeader("Apns-Push-Type", "background"), setHeader("Apns-Priority", "10")),
		apnsQuestion("bad type", goodHex, setHeader("Apns-Push-Type", "telegram")),
		apnsQuestion("expiration", goodHex, setHeader("Apns-Expiration", "0"), setHeader("Apns-Id", "123e4567-e89b-12d3-a456-426655440001")),
		apnsQuestion("bad expiration", goodHex, setHeader("Apns-Expiration", "soon")),
		apnsQuestion("collapse", goodHex, setHeader("Apns-Collapse-Id", strings.Repeat("é", 33))),
		apnsQuestion("empty", goodHex, setBody(nil)),
		apnsQuestion("no JSON", goodHex, setBody([]byte(`{"aps":`))),
		apnsQuestion("largest", goodHex, setBody(payloadOf(4096)), setHeader("Apns-Id", "123e4567-e89b-12d3-a456-426655440002")),
		apnsQuestion("too large", goodHex, setBody(payloadOf(4097))),
		apnsQuestion("far too large", goodHex, setBody(payloadOf(300_000))),
		apnsQuestion("bad token", "zz"),
		apnsQuestion("GET", goodHex, func(req *http.Request) { req.Method = http.MethodGet }),
		apnsQuestion("no token", ""),
		apnsQuestion("bad path", goodHex, setPath("/4/elsewhere")),
		apnsQuestion("coded path", goodHex, func(req *http.Request) { req.URL.RawQuery = "x=1" }, setHeader("Apns-Id", "123e4567-e89b-12d3-a456-426655440003")),
		{"sandbox", func(r *rig, ctx context.Context) (reply, error) {
			return r.tryPush(r.apns, r.SandboxURL(), goodHex, setHeader("Apns-Id", "123e4567-e89b-12d3-a456-426655440004"), within(ctx))
		}},
		fcmQuestion("valid", messageTo(fcmToken, goodID)),
		fcmQuestion("header id", messageTo(fcmToken, ""), setHeader(simulator.SendIDHeader, goodID)),
		fcmQuestion("content id", `{"message":{"token":"a:b","notification":{"title":"é"},"android":{"ttl":"5s"}}}`),
		fcmQuestion("options", `{"validate_only":true,"message":{"token":"a:b","apns":{"payload":{"aps":{"badge":1}}},"android":{"priority":"HIGH","ttl":"86400s"}}}`),
		fcmQuestion("topic", `{"message":{"topic":"news","notification":{"title":"x"}}}`),
		fcmQuestion("bad token", `{"message":{"token":"ä"}}`),
		fcmQuestion("unknown field", `{"message":{"token":"a","colour":"red"}}`),
		fcmQuestion("two targets", `{"message":{"token":"a","topic":"b"}}`),
		fcmQuestion("too big", messageTo("a", strings.Repeat("x", 5000))),
		fcmQuestion("far too big", messageTo("a", strings.Repeat("x", 70_000))),
		fcmQuestion("no JSON", `{"message"`),
		fcmQuestion("no access", messageTo(fcmToken, goodID), setHeader("Authorization", "Bearer ya29.other")),
		fcmQuestion("other project", messageTo(fcmToken, goodID), setPath("/v1/projects/other-project/messages:send")),
		fcmQuestion("elsewhere", messageTo(fcmToken, goodID), setPath("/v1/elsewhere")),
		fcmQuestion("no assertion", "grant_type=x", setPath("/token"), setHeader("Content-Type", "application/x-www-form-urlencoded")),
		fcmQuestion("subscribe", `{"to":"/topics/news","registration_tokens":["a","b","ä"]}`, setPath("/iid/v1:batchAdd"), setHeader("access_token_auth", "true")),
		fcmQuestion("subscribed", `{"message":{"topic":"news","notification":{"title":"x"}}}`),
		fcmQuestion("subscribe to nothing", `{}`, setPath("/iid/v1:batchRemove"), setHeader("access_token_auth", "true")),
	}
	for i := range 12 {
		id := fmt.Sprintf("00000000-e89b-12d3-a456-%012x", i)
		q = append(q, apnsQuestion("device", hexToken(i/2), setHeader("Apns-Id", id)), fcmQuestion("device", messageTo(fmt.Sprintf("device:%d", i/2), id)))
	}
	return q
}

func payloadOf(size int) []byte {
	return []byte(`{"aps":{"alert":"` + strings.Repeat("x", size-20) + `"}}`)
}

var (
	generated  = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}`)
	messageID  = regexp.MustCompile(`0:[0-9]+%`)
	hostAndDay = regexp.MustCompile(`127\.0\.0\.1:[0-9]+|"timestamp":[0-9]+|[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} GMT`)
)

// askAll asks one server everything, and returns what it answered and what its ledger says.
func askAll(t *testing.T, server string, s simulator.Scenario) (answers, ledger []string) {
	t.Helper()
	r := setup(t, with(s), func(o *simulator.Options) { o.Server = server }, knownBefore)
	for i, q := range questions() {
		answers = append(answers, fmt.Sprintf("%d %s: %s", i, q.name, r.hear(q)))
	}
	err := r.Ledger().Each(t.Context(), func(e *simulator.Entry) bool {
		ledger = append(ledger, fmt.Sprintf("%s %v %s %x %x %x %v", e.Service, e.Sandbox, e.App, e.Token, e.ID, e.Body, e.Unanswered))
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return answers, withoutMadeIDs(ledger)
}

// identityFile is where a simulator keeps its keys.
const identityFile = "identity.json"

// knownIdentity is that of one simulator, for many: making the keys takes longer than the questions.
var knownIdentity = sync.OnceValues(func() ([]byte, error) { //nolint:gochecknoglobals // made once
	dir, err := os.MkdirTemp("", "identity")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	s, err := simulator.Start(context.Background(), simulator.Options{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	if err := s.Close(); err != nil {
		return nil, err
	}
	return os.ReadFile(filepath.Join(dir, identityFile))
})

// knownBefore gives a simulator the keys of an earlier one.
func knownBefore(o *simulator.Options) {
	if text, err := knownIdentity(); err == nil {
		_ = os.WriteFile(filepath.Join(o.Dir, identityFile), text, 0o600) // without it, it makes its own
	}
}

// withoutMadeIDs blanks the ids of pushes that had none, which are random.
func withoutMadeIDs(ledger []string) []string {
	made := regexp.MustCompile(`[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}`)
	for i := range ledger {
		ledger[i] = made.ReplaceAllString(ledger[i], "made")
	}
	return ledger
}

// hear asks, with a patience that only what is never answered uses up.
func (r *rig) hear(q question) string {
	ctx, cancel := context.WithCancel(r.t.Context())
	defer cancel()
	if rules := r.Rules(); len(rules) > 0 && rules[0].Fault == simulator.FaultBlackhole {
		before := r.Ledger().Summary().Unanswered
		go func() {
			r.waitFor(func() bool { return r.Ledger().Summary().Unanswered > before || ctx.Err() != nil })
			cancel()
		}()
	}
	got, err := q.ask(r, ctx)
	if err != nil {
		return "no answer"
	}
	header := map[string]string{}
	for _, name := range []string{"Apns-Id", "Apns-Unique-Id", "Content-Type", "Retry-After", "Www-Authenticate"} {
		if v := got.header.Values(name); len(v) > 0 {
			header[name] = strings.Join(v, ",")
		}
	}
	if got.reason == "QUOTA_EXCEEDED" && len(r.Rules()) == 0 {
		header["Retry-After"] = "by the clock"
	}
	text := fmt.Sprintf("%d %q %s", got.status, header, got.body)
	for _, random := range []*regexp.Regexp{generated, messageID, hostAndDay} {
		text = random.ReplaceAllString(text, "…")
	}
	return text
}
