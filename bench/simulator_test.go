package bench

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"

	"github.com/campanile-push/campanile/senders/h2"
	"github.com/campanile-push/campanile/simulator"
)

// The variables tell the child process of BenchmarkSimulator what to serve, and how.
const (
	simulatorDir      = "CAMPANILE_BENCH_SIMULATOR_DIR"
	simulatorServer   = "CAMPANILE_BENCH_SIMULATOR_SERVER"
	simulatorScenario = "CAMPANILE_BENCH_SIMULATOR_SCENARIO"
	simulatorProfile  = "CAMPANILE_BENCH_SIMULATOR_PROFILE" // where it leaves its CPU profile; empty: nowhere
)

// TestSimulatorChild is a simulator in a process of its own. It ends with its input.
func TestSimulatorChild(t *testing.T) { //nolint:paralleltest // it is a process of its own
	dir := os.Getenv(simulatorDir)
	if dir == "" {
		return // the suite itself
	}
	scenario, err := simulator.ParseScenario([]byte(os.Getenv(simulatorScenario)))
	if err != nil {
		t.Fatal(err)
	}
	s, err := simulator.Start(t.Context(), simulator.Options{Dir: dir, Server: os.Getenv(simulatorServer), Scenario: scenario, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(s.Identity())
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("identity %s\n", text)
	_, _ = io.Copy(io.Discard, os.Stdin)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// startSimulator starts one in a process of its own.
func startSimulator(tb testing.TB, server, scenario string) simulator.Identity {
	tb.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(tb.Context()), os.Args[0], "-test.run=^TestSimulatorChild$", "-test.cpuprofile="+os.Getenv(simulatorProfile))
	cmd.Env = append(os.Environ(), simulatorDir+"="+tb.TempDir(), simulatorServer+"="+server, simulatorScenario+"="+scenario)
	in, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = in.Close()
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait()
	})
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var id simulator.Identity
		var text string
		if _, err := fmt.Sscanf(lines.Text(), "identity %s", &text); err == nil && json.Unmarshal([]byte(lines.Text()[len("identity "):]), &id) == nil {
			return id
		}
	}
	tb.Fatal("the simulator did not start")
	return simulator.Identity{}
}

// simulatorLoad pushes with the batching client.
type simulatorLoad struct {
	client *h2.Client
	free   chan *h2.Request
	push   func(r *h2.Request, i int)
}

const loadInFlight = 500

func newSimulatorLoad(tb testing.TB, at simulator.Identity, p simulator.Provider, bodySize int) *simulatorLoad {
	tb.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(at.CAPEM))
	secure := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}
	base := at.APNSURL
	if p == simulator.FCM {
		base = at.FCMURL
	}
	u, err := url.Parse(base)
	if err != nil {
		tb.Fatal(err)
	}
	client, err := h2.NewClient(h2.ClientOptions{Addr: u.Host, TLS: secure, MaxConns: 2, Timeout: time.Minute})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(client.Close)
	l := &simulatorLoad{client: client, free: make(chan *h2.Request, loadInFlight)}
	var head *h2.Head
	if p == simulator.APNS {
		head, err = h2.NewHead("POST", "https", u.Host, "", h2.Field{Name: "authorization", Value: "bearer " + providerToken(tb, at.APNSKey)},
			h2.Field{Name: "apns-topic", Value: bundle}, h2.Field{Name: "apns-push-type", Value: "alert"}, h2.Field{Name: "apns-priority", Value: "10"})
	} else {
		head, err = h2.NewHead("POST", "https", u.Host, "/v1/projects/"+at.Project+"/messages:send",
			h2.Field{Name: "authorization", Value: "Bearer " + fcmAccess(tb, at, secure)}, h2.Field{Name: "content-type", Value: "application/json"})
	}
	if err != nil {
		tb.Fatal(err)
	}
	fill := make([]byte, bodySize)
	for i := range fill {
		fill[i] = "abcdefg hijklmnop"[i%17]
	}
	apnsBody := fmt.Appendf(nil, `{"aps":{"alert":{"title":"Due tomorrow","body":"%s"},"sound":"default","badge":3},"site":"https://moodle.example.org","cmid":567}`, fill)
	l.push = func(r *h2.Request, i int) {
		r.Fields.Reset()
		if p == simulator.APNS {
			r.Path = fmt.Appendf(r.Path[:0], "/3/device/%064x", uint64(i)*0x9e3779b97f4a7c15)
			r.Fields.Add("apns-id", fmt.Sprintf("123e4567-e89b-12d3-a456-%012x", i))
			r.Body = apnsBody
			return
		}
		r.Fields.Add("x-campanile-send-id", fmt.Sprintf("123e4567-e89b-12d3-a456-%012x", i))
		r.Body = fmt.Appendf(r.Body[:0], `{"message":{"token":"dQw4w9WgXcQ:APA91b%0140x","notification":{"title":"Due tomorrow","body":"%s"},"android":{"priority":"high","ttl":"86400s"}}}`,
			uint64(i)*0x9e3779b97f4a7c15, fill)
	}
	for range loadInFlight {
		r := &h2.Request{Head: head}
		r.Done = func(r *h2.Request, res *h2.Response, err error) {
			if err != nil || res.Status != http.StatusOK {
				tb.Errorf("push: %v, %+v", err, res)
			}
			l.free <- r
		}
		l.free <- r
	}
	return l
}

// run pushes n times, tokens from first on, and waits for the answers.
func (l *simulatorLoad) run(ctx context.Context, tb testing.TB, first, n int) {
	tb.Helper()
	for i := range n {
		r := <-l.free
		l.push(r, first+i)
		if err := l.client.Start(ctx, r); err != nil {
			tb.Fatal(err)
		}
	}
	all := make([]*h2.Request, 0, loadInFlight)
	for range loadInFlight {
		all = append(all, <-l.free)
	}
	for _, r := range all {
		l.free <- r
	}
}

func providerToken(tb testing.TB, k simulator.APNSKey) string {
	tb.Helper()
	key, err := jwt.ParseECPrivateKeyFromPEM([]byte(k.P8))
	if err != nil {
		tb.Fatal(err)
	}
	token := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{"iss": k.TeamID, "iat": time.Now().Unix()})
	token.Header["kid"] = k.KeyID
	signed, err := token.SignedString(key)
	if err != nil {
		tb.Fatal(err)
	}
	return signed
}

func fcmAccess(tb testing.TB, at simulator.Identity, secure *tls.Config) string {
	tb.Helper()
	account, err := simulator.NewClient(at.AdminURL, nil).ServiceAccount(tb.Context(), "")
	if err != nil {
		tb.Fatal(err)
	}
	config, err := google.JWTConfigFromJSON(account, "https://www.googleapis.com/auth/firebase.messaging")
	if err != nil {
		tb.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: secure.Clone()}}
	token, err := config.TokenSource(context.WithValue(tb.Context(), oauth2.HTTPClient, client)).Token()
	if err != nil {
		tb.Fatal(err)
	}
	return token.AccessToken
}

// BenchmarkSimulator prints the CPU time of the simulator's process for each push of a batching client, and the rate.
func BenchmarkSimulator(b *testing.B) {
	for _, server := range []string{simulator.ServerFrames, simulator.ServerNetHTTP} {
		for _, p := range []simulator.Provider{simulator.APNS, simulator.FCM} {
			b.Run(server+"/"+string(p), func(b *testing.B) {
				at := startSimulator(b, server, os.Getenv(simulatorScenario))
				admin := simulator.NewClient(at.AdminURL, nil)
				l := newSimulatorLoad(b, at, p, 80)
				l.run(b.Context(), b, 0, 20_000) // TLS records grow, tables too
				if err := admin.Reset(b.Context(), "stats"); err != nil {
					b.Fatal(err)
				}
				b.ResetTimer()
				l.run(b.Context(), b, 20_000, b.N)
				b.StopTimer()
				s, err := admin.Stats(b.Context())
				if err != nil {
					b.Fatal(err)
				}
				if s.Requests != int64(b.N) || s.Ledger.Repeats != 0 {
					b.Fatalf("want %d pushes once, got %+v", b.N, s)
				}
				b.ReportMetric(float64(s.Peak)/(1<<20), "sim_peak_MB")
				b.ReportMetric(float64(s.Ledger.Memory)/float64(s.Ledger.Accepted), "ledger_B/push")
				b.ReportMetric(s.CPUPerRequest, "sim_cpu_us/push")
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "push/s")
			})
		}
	}
}
