package simulator_test

import (
	"bytes"
	"encoding/base64"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/campanile-push/campanile/simulator"
)

func TestClientSeesWhatHappened(t *testing.T) {
	t.Parallel()
	r := setup(t)
	c := r.Client()
	ctx := t.Context()
	r.push(goodHex, setHeader("Apns-Id", goodID), setHeader("Apns-Expiration", "0"), setHeader("Apns-Collapse-Id", "c"))
	r.push(goodHex, setHeader("Apns-Id", goodID))
	r.push("0badcafe041000" + goodHex[14:])
	r.send(messageTo(fcmToken, goodID))

	s, err := c.Summary(ctx)
	if err != nil || s.Accepted != 3 || s.Unique != 2 || s.Repeats != 1 || len(s.Apps) != 2 || s.FirstUS == 0 {
		t.Fatalf("got %+v, %v", s, err)
	}
	counts, err := c.Counts(ctx, simulator.APNS, []string{hexToken(1), goodHex, strings.ToUpper(goodHex)})
	if err != nil || len(counts) != 3 || counts[0] != 0 || counts[1] != 2 || counts[2] != 2 {
		t.Fatalf("got %v, %v", counts, err)
	}
	pushes, err := c.Pushes(ctx, simulator.PushFilter{Provider: simulator.APNS, App: topic, Token: goodHex})
	if err != nil || len(pushes) != 2 {
		t.Fatalf("want 2 pushes, got %+v, %v", pushes, err)
	}
	p := pushes[0]
	if p.ID != goodID || p.Expiration == nil || *p.Expiration != 0 || p.CollapseID != "c" || p.PushType != "alert" || p.Priority != "10" || string(p.Body) != `{"aps":{"alert":"hi"}}` {
		t.Errorf("got %+v", p)
	}
	if pushes[1].Expiration != nil {
		t.Errorf("want no expiration where none was given, got %d", *pushes[1].Expiration)
	}
	st, err := c.Stats(ctx)
	if err != nil || st.Requests != 4 || st.AccessTokens != 1 || st.CPUPerRequest <= 0 || st.Opened < 2 {
		t.Fatalf("got %+v, %v", st, err)
	}
	want := simulator.AnswerCount{Provider: simulator.APNS, Environment: simulator.Production, Status: 410, Reason: "Unregistered", Count: 1}
	found := false
	for _, a := range st.Answers {
		found = found || a == want
	}
	if !found {
		t.Errorf("want %+v among %+v", want, st.Answers)
	}
	var out bytes.Buffer
	if err := c.Export(ctx, &out); err != nil || strings.Count(out.String(), "\n") != 4 || !strings.Contains(out.String(), goodID) {
		t.Errorf("export: %v, %s", err, out.String())
	}
	if err := c.Reset(ctx); err != nil {
		t.Fatal(err)
	}
	if st, err := c.Stats(ctx); err != nil || st.Requests != 0 || st.Ledger.Accepted != 0 || len(st.Answers) != 0 {
		t.Errorf("want nothing after a reset, got %+v, %v", st, err)
	}
	if err := c.Reset(ctx, "everything"); err == nil || !strings.Contains(err.Error(), "want some of ledger") {
		t.Errorf("want an error that says what can be reset, got %v", err)
	}
}

func TestAdminRefusesWhatMakesNoSense(t *testing.T) {
	t.Parallel()
	r := setup(t)
	for _, c := range []struct{ method, path, body, want string }{
		{"PUT", "/rules", `[{"reason":"nope"}]`, "want one of"},
		{"PUT", "/rules", `{}`, "json"},
		{"PUT", "/rules", `[{"reson":"dead"}]`, "unknown field"},
		{"PUT", "/scenario", `{"mix":{"dead":2}}`, "want 0 to 1"},
		{"PUT", "/scenario", `{"latency":"fast"}`, "want 0, 20ms"},
		{"POST", "/kill", `{"provider":"wns","tokens":["x"]}`, "want apns or fcm"},
		{"POST", "/brownout", `{"provider":"apns"}`, "say how long"},
		{"POST", "/brownout", `{"provider":"apns","reason":"UNAVAILABLE","for":"1s"}`, "no reason of apns"},
		{"POST", "/keys", `{"team_id":"x"}`, "is no team id"},
		{"GET", "/service-account?project=X", "", "is no project id"},
		{"GET", "/pushes?limit=0", "", "want a number above 0"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), c.method, r.AdminURL()+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		got, err := r.do(&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, req)
		if err != nil || got.status != 400 || !strings.Contains(got.body, c.want) {
			t.Errorf("%s %s %s: want 400 with %q, got %d %s, %v", c.method, c.path, c.body, c.want, got.status, got.body, err)
		}
	}
}

func TestMetricsHoldNoTokens(t *testing.T) {
	t.Parallel()
	r := setup(t)
	r.push(goodHex)
	r.send(messageTo(fcmToken, goodID))
	get := func(path string) string {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.AdminURL()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := r.do(&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, req)
		if err != nil || got.status != 200 {
			t.Fatalf("%s: %d, %v", path, got.status, err)
		}
		return got.body
	}
	metrics := get("/metrics")
	for _, want := range []string{
		`campanile_simulator_answers_total{environment="production",provider="apns",reason="",status="200"} 1`,
		`campanile_simulator_ledger_accepted{environment="",provider="fcm"} 1`,
		`campanile_simulator_ledger_repeats{environment="production",provider="apns"} 0`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("want %s in\n%s", want, metrics)
		}
	}
	for _, text := range []string{metrics, get("/stats"), get("/ledger"), get("/ledger/export")} {
		if strings.Contains(text, goodHex) || strings.Contains(text, fcmToken) {
			t.Errorf("a token stands in\n%s", text)
		}
	}
	if get("/healthz") != "ok\n" || !strings.Contains(get("/"), "/ledger/export") {
		t.Error("want health and an index")
	}
}

func TestARestartKeepsIdentityPortsAndLedger(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := simulator.Options{Dir: dir, Logger: slog.New(slog.DiscardHandler)}
	first, err := simulator.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{Simulator: first, t: t}
	r.apns, r.fcm = r.client(), r.client()
	r.bearer = "bearer " + providerToken(t, first.APNSKey(), time.Now())
	r.access = sync.OnceValue(func() string { return r.accessToken(simulator.DefaultProject) })
	r.push(goodHex, setHeader("Apns-Id", goodID))
	r.send(messageTo(fcmToken, goodID))
	id := first.Identity()
	account, err := os.ReadFile(filepath.Join(dir, simulator.ServiceAccountFile))
	if err != nil {
		t.Fatal(err)
	}
	extra, err := first.NewAPNSKey(simulator.APNSKey{TeamID: "OTHERTEAM1"})
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatalf("the second Close: %v", err)
	}

	second, err := simulator.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	again := second.Identity()
	if again.CAPEM != id.CAPEM || again.APNSKey.P8 != id.APNSKey.P8 || again.APNSKey.KeyID != id.APNSKey.KeyID {
		t.Error("want the same CA and key")
	}
	if again.FCMURL == id.FCMURL { // unless somebody took the port meanwhile
		if now, err := os.ReadFile(filepath.Join(dir, simulator.ServiceAccountFile)); err != nil || !bytes.Equal(now, account) {
			t.Errorf("want the same service account, %v", err)
		}
	}
	r.Simulator = second
	r.apns, r.fcm = r.client(), r.client()
	if got := r.push(goodHex, setHeader("Apns-Id", goodID)); got.status != 200 {
		t.Errorf("want the old provider token to work, got %d %s", got.status, got.body)
	}
	if got, err := r.tryPush(r.client(), r.APNSURL(), goodHex, setHeader("Authorization", "bearer "+providerToken(t, extra, time.Now()))); err != nil || got.status != 200 {
		t.Errorf("want the second key to work, got %+v, %v", got, err)
	}
	if got := r.send(messageTo(fcmToken, goodID)); got.status != 200 {
		t.Errorf("want the old access token to work, got %d %s", got.status, got.body)
	}
	if s := second.Ledger().Summary(); s.Accepted != 5 || s.Repeats != 2 {
		t.Errorf("want 5 pushes and 2 repeats over both lives, got %+v", s)
	}
}

func TestDirectoryIsForOneSimulator(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	setup(t, func(o *simulator.Options) { o.Dir = dir })
	_, err := simulator.Start(t.Context(), simulator.Options{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "another") {
		t.Fatalf("want a refusal that names the other one, got %v", err)
	}
}

func TestADamagedIdentityIsNotReplaced(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "identity.json")
	if err := os.WriteFile(file, []byte(`{"ca":"`+base64.StdEncoding.EncodeToString([]byte("x"))+`"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := simulator.Start(t.Context(), simulator.Options{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "remove it") {
		t.Fatalf("want an error that says what to do, got %v", err)
	}
}

func TestLogHoldsNoTokensAndNoTexts(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	r := setup(t, func(o *simulator.Options) {
		o.Logger = slog.New(slog.NewTextHandler(&lockedWriter{w: &log}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	r.push(goodHex)
	r.send(messageTo(fcmToken, goodID))
	r.push("0badcafe041000" + goodHex[14:])
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{goodHex, goodHex[14:], fcmToken, `"hi"`, "PRIVATE KEY"} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("%q stands in the log:\n%s", secret, log.String())
		}
	}
	if !strings.Contains(log.String(), "simulator started") {
		t.Errorf("want the start in the log, got %s", log.String())
	}
}

// lockedWriter lets several goroutines write.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}
