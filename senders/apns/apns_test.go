package apns_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
	"github.com/campanile-push/campanile/senders"
	"github.com/campanile-push/campanile/senders/apns"
	"github.com/campanile-push/campanile/senders/providertest"
)

// server answers as APNs does.
type server struct {
	providertest.HTTP
	transport string // of the providers opened
	answered  func() // of their accounts
	inspect   func(req *http.Request, body []byte)
}

func start(t testing.TB) *server {
	t.Helper()
	return startFor(t, senders.StockTransport)
}

func startFor(t testing.TB, transport string) *server {
	t.Helper()
	s := &server{transport: transport}
	s.StartHTTP(t, http.HandlerFunc(s.serve))
	return s
}

func (s *server) serve(w http.ResponseWriter, req *http.Request) {
	token, ok := strings.CutPrefix(req.URL.Path, "/3/device/")
	if !ok || req.Method != http.MethodPost {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	body, _ := io.ReadAll(req.Body)
	w.Header().Set("apns-id", req.Header.Get("apns-id"))
	f, faulty := s.Count(token)
	if s.inspect != nil {
		s.inspect(req, body)
	}
	if !faulty || s.Plant(w, req, f) {
		return
	}
	answers := map[providertest.Fault]struct {
		status int
		body   string
	}{
		providertest.Dead:      {410, `{"reason":"Unregistered","timestamp":1700000000123}`},
		providertest.Malformed: {400, `{"reason":"BadDeviceToken"}`},
		providertest.Throttled: {429, `{"reason":"TooManyRequests"}`},
		providertest.Busy:      {503, `{"reason":"ServiceUnavailable"}`},
		providertest.Refused:   {403, `{"reason":"InvalidProviderToken"}`},
	}
	w.WriteHeader(answers[f].status)
	_, _ = io.WriteString(w, answers[f].body)
}

func (s *server) Token(n int) string { return fmt.Sprintf("%064x", n+1) }

func (s *server) Open(t *testing.T, timeout time.Duration) senders.Provider {
	return s.open(t, timeout)
}

func (s *server) open(t testing.TB, timeout time.Duration) senders.Provider {
	t.Helper()
	a := account(t)
	a.Answered = s.answered
	p, err := apns.Open(t.Context(), a, apns.Options{Production: s.URL, RootCAs: s.Roots, Timeout: timeout, Transport: s.transport})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func account(t testing.TB) senders.Account {
	t.Helper()
	return senders.Account{App: "moodle", CredentialsID: schemas.NewID(), APNS: credentials(t)}
}

func credentials(t testing.TB) *pushv1.ApnsCredentials {
	t.Helper()
	return &pushv1.ApnsCredentials{Topic: "com.example.app", TeamId: "TEAM123456", KeyId: "KEY1234567", P8: p8(t, elliptic.P256())}
}

func p8(t testing.TB, curve elliptic.Curve) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func TestConformance(t *testing.T) {
	t.Parallel()
	for _, transport := range transports {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			providertest.Run(t, schemas.APNS, func(t *testing.T) providertest.Server { return startFor(t, transport) })
		})
	}
}

// transports are the HTTP/2 clients that every test of pushes runs on.
var transports = []string{senders.StockTransport, senders.H2Transport}

func TestAnUnknownTransportIsRefused(t *testing.T) {
	t.Parallel()
	if _, err := apns.Open(t.Context(), account(t), apns.Options{Transport: "pigeon"}); err == nil || !strings.Contains(err.Error(), "pigeon") {
		t.Errorf("want the transport refused by name, got %v", err)
	}
}

func TestPayloadAndHeadersGoOutAsRendered(t *testing.T) {
	t.Parallel()
	for _, transport := range transports {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			goOut(t, startFor(t, transport))
		})
	}
}

// TestABatchersAnswersAreTold: who starts pushes by the batch looks at answers when it is told.
func TestABatchersAnswersAreTold(t *testing.T) {
	t.Parallel()
	s := startFor(t, senders.H2Transport)
	given, told := make(chan struct{}, 1), make(chan bool, 100)
	s.answered = func() { told <- len(given) == 1 }
	p := s.Open(t, 0)
	defer func() { _ = p.Close() }()
	p.Push(t.Context(), providertest.Request(t, schemas.APNS, s.Token(1)), func(*senders.Request, senders.Result) { given <- struct{}{} })
	for end := time.After(30 * time.Second); ; {
		select {
		case after := <-told:
			if after {
				return
			}
		case <-end:
			t.Fatal("the answer was not told after it was given")
		}
	}
}

func goOut(t *testing.T, s *server) {
	t.Helper()
	type seen struct {
		header http.Header
		body   string
	}
	got := make(chan seen, 1)
	s.inspect = func(req *http.Request, body []byte) { got <- seen{req.Header.Clone(), string(body)} }
	p := s.Open(t, 0)
	defer func() { _ = p.Close() }()
	for _, c := range []struct {
		expires int64
		want    string
	}{{0, "0"}, {1_900_000_000_000_000, "1900000000"}} {
		r := providertest.Request(t, schemas.APNS, s.Token(1))
		r.ExpiresUS = c.expires
		r.APNS.CollapseID = "thread"
		answered := make(chan senders.Result, 1)
		p.Push(t.Context(), r, func(_ *senders.Request, a senders.Result) { answered <- a })
		if a := <-answered; a.Status != http.StatusOK {
			t.Errorf("want 200, got %d", a.Status)
		}
		g := <-got
		if g.body != string(r.APNS.Payload) || !strings.Contains(g.body, "<rings> & rings") {
			t.Errorf("want the payload unescaped, got %s", g.body)
		}
		for name, want := range map[string]string{
			"apns-topic": "com.example.app", "apns-push-type": "alert", "apns-priority": "10", "apns-id": r.SendID.String(),
			"apns-expiration": c.want, "apns-collapse-id": "thread",
		} {
			if g.header.Get(name) != want {
				t.Errorf("%s: want %q, got %q", name, want, g.header.Get(name))
			}
		}
		if !strings.HasPrefix(g.header.Get("authorization"), "bearer ey") {
			t.Error("want a provider token")
		}
	}
}

func TestOneTeamAndKeyShareOneProviderToken(t *testing.T) {
	t.Parallel()
	s := start(t)
	got := make(chan string, 2)
	s.inspect = func(req *http.Request, _ []byte) { got <- req.Header.Get("authorization") }
	a := account(t)
	var signers apns.Signers
	for _, transport := range transports {
		p, err := apns.Open(t.Context(), a, apns.Options{Production: s.URL, RootCAs: s.Roots, Signers: &signers, Transport: transport})
		if err != nil {
			t.Fatal(err)
		}
		answered := make(chan struct{})
		p.Push(t.Context(), providertest.Request(t, schemas.APNS, s.Token(1)), func(*senders.Request, senders.Result) { close(answered) })
		<-answered
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
	if first, second := <-got, <-got; first != second {
		t.Error("want the same provider token from both providers")
	}
}

// TestACertificateSpeaksForItself uses testdata/client.p12, self-signed, password "secret"; modern.p12 is the same in OpenSSL 3's own
// encryption, which cannot be read.
func TestACertificateSpeaksForItself(t *testing.T) {
	t.Parallel()
	s := start(t)
	got := make(chan http.Header, 1)
	s.inspect = func(req *http.Request, _ []byte) { got <- req.Header.Clone() }
	file := func(name string) *pushv1.ApnsCredentials {
		p12, err := os.ReadFile("testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return &pushv1.ApnsCredentials{Topic: "com.example.app", P12: p12, P12Password: "secret"}
	}
	if err := apns.CheckCredentials(file("modern.p12")); !errors.Is(err, senders.ErrCredentials) || !strings.Contains(err.Error(), "-legacy") {
		t.Errorf("want to be told of -legacy, got %v", err)
	}
	for _, transport := range transports {
		p, err := apns.Open(t.Context(), senders.Account{App: "moodle", APNS: file("client.p12")}, apns.Options{Production: s.URL, RootCAs: s.Roots, Transport: transport})
		if err != nil {
			t.Fatal(err)
		}
		pushOnce(t, s, p, got)
	}
}

// pushOnce pushes with a certificate.
func pushOnce(t *testing.T, s *server, p senders.Provider, got <-chan http.Header) {
	t.Helper()
	answered := make(chan senders.Result, 1)
	p.Push(t.Context(), providertest.Request(t, schemas.APNS, s.Token(1)), func(_ *senders.Request, a senders.Result) { answered <- a })
	if a := <-answered; a.Outcome != pushv1.Outcome_OUTCOME_ACCEPTED {
		t.Errorf("want accepted, got %+v", a)
	}
	if h := <-got; h.Get("authorization") != "" || h.Get("apns-topic") != "com.example.app" {
		t.Errorf("want a topic and no provider token, got %v", h)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

func TestWhatHTTPCannotCarryIsRejected(t *testing.T) {
	t.Parallel()
	s := startFor(t, senders.H2Transport)
	p := s.Open(t, 0)
	defer func() { _ = p.Close() }()
	for name, change := range map[string]func(r *senders.Request){
		"a collapse id of two lines": func(r *senders.Request) { r.APNS.CollapseID = "a\nb" },
		"a push type of two lines":   func(r *senders.Request) { r.APNS.PushType = "a\nb" },
	} {
		r := providertest.Request(t, schemas.APNS, s.Token(1))
		change(r)
		answered := make(chan senders.Result, 1)
		p.Push(t.Context(), r, func(_ *senders.Request, a senders.Result) { answered <- a })
		if a := <-answered; a.Outcome != pushv1.Outcome_OUTCOME_REJECTED || a.Reason != senders.ReasonUnsendable {
			t.Errorf("%s: want rejected, got %+v", name, a)
		}
	}
	if seen := s.Seen(t, s.Token(1)); seen != 0 {
		t.Errorf("want nothing sent, got %d", seen)
	}
}

func TestCredentialsThatCannotWorkSayWhatToDo(t *testing.T) {
	t.Parallel()
	if err := apns.CheckCredentials(credentials(t)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		change func(c *pushv1.ApnsCredentials)
		want   string
	}{
		{"no topic", func(c *pushv1.ApnsCredentials) { c.Topic = "" }, "bundle id"},
		{"nothing", func(c *pushv1.ApnsCredentials) { c.P8 = "" }, "create a key"},
		{"both", func(c *pushv1.ApnsCredentials) { c.P12 = []byte{1} }, "one of them"},
		{"team", func(c *pushv1.ApnsCredentials) { c.TeamId = "T" }, "Membership"},
		{"key id", func(c *pushv1.ApnsCredentials) { c.KeyId = "K" }, "AuthKey_"},
		{"no PEM", func(c *pushv1.ApnsCredentials) { c.P8 = "hello" }, "BEGIN PRIVATE KEY"},
		{"curve", func(c *pushv1.ApnsCredentials) { c.P8 = p8(t, elliptic.P384()) }, "P-256"},
		{"p12", func(c *pushv1.ApnsCredentials) { c.P8, c.P12 = "", []byte("no") }, "password"},
	} {
		bad := credentials(t)
		c.change(bad)
		err := apns.CheckCredentials(bad)
		if !errors.Is(err, senders.ErrCredentials) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: want an error that speaks of %q, got %v", c.name, c.want, err)
		}
	}
}
