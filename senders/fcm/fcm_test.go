package fcm_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
	"github.com/campanile-push/campanile/senders"
	"github.com/campanile-push/campanile/senders/fcm"
	"github.com/campanile-push/campanile/senders/providertest"
)

// server answers as Google's token endpoint and FCM do.
type server struct {
	providertest.HTTP
	tokens  atomic.Int32 // handed out
	refuse  atomic.Int32 // status of the token endpoint; zero: hand out
	valid   atomic.Int32 // the number of the access token that FCM takes; zero: any
	inspect func(body []byte, header http.Header)

	transport string // of the providers opened
	answered  func() // of their accounts
}

func start(t testing.TB, transport string) *server {
	t.Helper()
	s := &server{transport: transport}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /token", s.token)
	mux.HandleFunc("POST /v1/projects/campus/messages:send", s.send)
	s.StartHTTP(t, mux)
	return s
}

func (s *server) token(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("content-type", "application/json")
	if status := s.refuse.Load(); status != 0 {
		w.WriteHeader(int(status))
		_, _ = io.WriteString(w, `{"error":"invalid_grant"}`)
		return
	}
	_, _ = fmt.Fprintf(w, `{"access_token":"access-%d","token_type":"Bearer","expires_in":3600}`, s.tokens.Add(1))
}

func (s *server) send(w http.ResponseWriter, req *http.Request) {
	body, _ := io.ReadAll(req.Body)
	var m struct {
		Message struct {
			Token string `json:"token"`
		} `json:"message"`
	}
	if err := json.Unmarshal(body, &m); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	f, faulty := s.Count(m.Message.Token)
	if s.inspect != nil {
		s.inspect(body, req.Header)
	}
	w.Header().Set("content-type", "application/json")
	if v := s.valid.Load(); v != 0 && req.Header.Get("authorization") != fmt.Sprintf("Bearer access-%d", v) {
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"error":{"code":401,"status":"UNAUTHENTICATED","message":"no"}}`)
		return
	}
	if !faulty {
		_, _ = fmt.Fprintf(w, `{"name":"projects/campus/messages/%s"}`, m.Message.Token[:8])
		return
	}
	if s.Plant(w, req, f) {
		return
	}
	status, body2 := refusal(f)
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body2)
}

func refusal(f providertest.Fault) (int, string) {
	detail := func(code int, status, word, extra string) (int, string) {
		return code, fmt.Sprintf(`{"error":{"code":%d,"message":"m","status":%q,"details":[`+
			`{"@type":"type.googleapis.com/google.firebase.fcm.v1.FcmError","errorCode":%q}%s]}}`, code, status, word, extra)
	}
	switch f {
	case providertest.Dead:
		return detail(404, "NOT_FOUND", "UNREGISTERED", "")
	case providertest.Malformed:
		return detail(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT",
			`,{"@type":"type.googleapis.com/google.rpc.BadRequest","fieldViolations":[{"field":"message.token","description":"d"}]}`)
	case providertest.Throttled:
		return detail(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", "")
	case providertest.Busy:
		return detail(503, "UNAVAILABLE", "UNAVAILABLE", "")
	case providertest.Refused: // the project is not there: no FcmError
		return 404, `{"error":{"code":404,"message":"Requested entity was not found.","status":"NOT_FOUND"}}`
	case providertest.Page, providertest.Broken, providertest.Silent:
	}
	return 500, ""
}

func (s *server) Token(n int) string { return fmt.Sprintf("%08d:APA91b_-%d", n, n) }

func (s *server) Open(t *testing.T, timeout time.Duration) senders.Provider {
	return s.open(t, timeout)
}

func (s *server) open(t testing.TB, timeout time.Duration) senders.Provider {
	t.Helper()
	a := senders.Account{App: "moodle", CredentialsID: schemas.NewID(), FCM: credentials(t, s.URL+"/token"), Answered: s.answered}
	p, err := fcm.Open(t.Context(), a, fcm.Options{Endpoint: s.URL, RootCAs: s.Roots, Timeout: timeout, Transport: s.transport})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// key is made once: RSA keys are slow to make.
var key = sync.OnceValue(func() string {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		panic(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
})

func credentials(t testing.TB, tokenURI string) *pushv1.FcmCredentials {
	t.Helper()
	account, err := json.Marshal(map[string]string{
		"type": "service_account", "project_id": "campus", "private_key_id": "k", "private_key": key(),
		"client_email": "push@campus.iam.gserviceaccount.com", "token_uri": tokenURI,
	})
	if err != nil {
		t.Fatal(err)
	}
	return &pushv1.FcmCredentials{ServiceAccountJson: string(account)}
}

func push(t *testing.T, p senders.Provider, r *senders.Request) senders.Result {
	t.Helper()
	answers := make(chan senders.Result, 1)
	p.Push(t.Context(), r, func(_ *senders.Request, a senders.Result) { answers <- a })
	return <-answers
}

func TestConformance(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, transport string) {
		providertest.Run(t, schemas.FCM, func(t *testing.T) providertest.Server { return start(t, transport) })
	})
}

// transports are the HTTP/2 clients that every test of pushes runs on.
var transports = []string{senders.StockTransport, senders.H2Transport}

func each(t *testing.T, run func(t *testing.T, transport string)) {
	t.Helper()
	for _, transport := range transports {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			run(t, transport)
		})
	}
}

func TestAnUnknownTransportIsRefused(t *testing.T) {
	t.Parallel()
	a := senders.Account{App: "moodle", FCM: credentials(t, "https://oauth2.googleapis.com/token")}
	if _, err := fcm.Open(t.Context(), a, fcm.Options{Transport: "pigeon"}); err == nil || !strings.Contains(err.Error(), "pigeon") {
		t.Errorf("want the transport refused by name, got %v", err)
	}
}

func TestMessageGoesOutAsRendered(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, transport string) {
		s := start(t, transport)
		got, names := make(chan string, 1), make(chan string, 1)
		s.inspect = func(body []byte, header http.Header) {
			got <- string(body)
			names <- header.Get("X-Campanile-Send-Id")
		}
		p := s.Open(t, 0)
		defer func() { _ = p.Close() }()
		r := providertest.Request(t, schemas.FCM, s.Token(1))
		if a := push(t, p, r); a.Status != http.StatusOK {
			t.Errorf("want 200, got %d", a.Status)
		}
		if want, body := string(r.FCM.AppendBody(nil, r.Token, -1)), <-got; body != want {
			t.Errorf("want %s, got %s", want, body)
		}
		if name := <-names; name != r.SendID.String() {
			t.Errorf("want the send id %s in a header, got %q", r.SendID, name)
		}
	})
}

func TestARefusedAccessTokenIsReplacedOnce(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, transport string) {
		s := start(t, transport)
		s.valid.Store(2)
		p := s.Open(t, 0)
		defer func() { _ = p.Close() }()
		got := push(t, p, providertest.Request(t, schemas.FCM, s.Token(1)))
		if got.Outcome != pushv1.Outcome_OUTCOME_UNAVAILABLE || !got.Has(senders.RefreshToken) {
			t.Errorf("want unavailable and a new token, got %+v", got)
		}
		if got = push(t, p, providertest.Request(t, schemas.FCM, s.Token(2))); got.Outcome != pushv1.Outcome_OUTCOME_ACCEPTED {
			t.Errorf("want accepted with the next token, got %+v", got)
		}
		s.valid.Store(9) // refused again at once: the tokens are not the trouble
		push(t, p, providertest.Request(t, schemas.FCM, s.Token(3)))
		push(t, p, providertest.Request(t, schemas.FCM, s.Token(4)))
		if n := s.tokens.Load(); n != 2 {
			t.Errorf("want two tokens fetched, got %d", n)
		}
	})
}

// TestOneServiceAccountHasOneAccessToken: both lanes of a project, and what is pushed apart.
func TestOneServiceAccountHasOneAccessToken(t *testing.T) {
	t.Parallel()
	s := start(t, "")
	var tokens fcm.Tokens
	a := senders.Account{App: "moodle", FCM: credentials(t, s.URL+"/token")}
	for i, transport := range append(transports, transports...) {
		a.Apart = i > 1
		p, err := fcm.Open(t.Context(), a, fcm.Options{Endpoint: s.URL, RootCAs: s.Roots, Transport: transport, Tokens: &tokens})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := errors.Join(p.Close(), p.Close()); err != nil {
				t.Error(err)
			}
		}()
		if got := push(t, p, providertest.Request(t, schemas.FCM, s.Token(i))); got.Outcome != pushv1.Outcome_OUTCOME_ACCEPTED {
			t.Errorf("want accepted, got %+v", got)
		}
	}
	if n := s.tokens.Load(); n != 1 {
		t.Errorf("want one token fetched for all, got %d", n)
	}
}

func TestARefusedServiceAccountParksTheApp(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, transport string) {
		for _, c := range []struct {
			status  int32
			outcome schemas.Outcome
			reason  string
		}{
			{400, pushv1.Outcome_OUTCOME_MISCONFIGURED, senders.ReasonNoToken},
			{503, pushv1.Outcome_OUTCOME_UNAVAILABLE, senders.ReasonTokenDown},
		} {
			s := start(t, transport)
			s.refuse.Store(c.status)
			p := s.Open(t, 0)
			got := push(t, p, providertest.Request(t, schemas.FCM, s.Token(1)))
			if got.Outcome != c.outcome || got.Reason != c.reason {
				t.Errorf("token endpoint says %d: want %s, got %+v", c.status, c.reason, got)
			}
			if seen := s.Seen(t, s.Token(1)); seen != 0 {
				t.Errorf("want nothing sent without a token, got %d", seen)
			}
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestABatchersAnswersAreTold: who starts pushes by the batch looks at answers when it is told, also where no push left for want of a
// token.
func TestABatchersAnswersAreTold(t *testing.T) {
	t.Parallel()
	for _, status := range []int32{0, 400} {
		s := start(t, senders.H2Transport)
		s.refuse.Store(status)
		given, told := make(chan struct{}, 1), make(chan bool, 100)
		s.answered = func() { told <- len(given) == 1 }
		p := s.Open(t, 0)
		p.Push(t.Context(), providertest.Request(t, schemas.FCM, s.Token(1)), func(*senders.Request, senders.Result) { given <- struct{}{} })
		for after, end := false, time.After(30*time.Second); !after; {
			select {
			case after = <-told:
			case <-end:
				t.Fatal("the answer was not told after it was given")
			}
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestCredentialsThatCannotWorkSayWhatToDo(t *testing.T) {
	t.Parallel()
	good := credentials(t, "https://oauth2.googleapis.com/token").ServiceAccountJson
	if err := fcm.CheckCredentials(&pushv1.FcmCredentials{ServiceAccountJson: good}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, json, project, want string }{
		{"nothing", "", "", "Firebase's console"},
		{"no JSON", "{", "", "no JSON"},
		{"another type", `{"type":"authorized_user"}`, "", "authorized_user"},
		{"no key", `{"type":"service_account","client_email":"a@b"}`, "", "private_key"},
		{"no project", strings.Replace(good, `"project_id":"campus"`, `"project_id":""`, 1), "", "project id"},
		{"a path as project", good, "a/b", "project id"},
		{"plain token_uri", strings.Replace(good, "https:", "http:", 1), "", "token_uri"},
		{"broken key", strings.Replace(good, "PRIVATE KEY-----\\n", "PRIVATE KEY-----\\nAAAA", 1), "", "private_key"},
	} {
		err := fcm.CheckCredentials(&pushv1.FcmCredentials{ServiceAccountJson: c.json, ProjectId: c.project})
		if !errors.Is(err, senders.ErrCredentials) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: want an error that speaks of %q, got %v", c.name, c.want, err)
		}
	}
}
