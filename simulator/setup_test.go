package simulator_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"

	"github.com/campanile-push/campanile/simulator"
)

const (
	topic    = "org.example.app"
	goodHex  = "00fc13adff785122b4ad28809a3420982341241421348097878e577c991de8f0"
	fcmToken = "dQw4w9WgXcQ:APA91bF-x_Y"
	goodID   = "123e4567-e89b-12d3-a456-426655440000"
)

// rig is a simulator and what a sender knows of it.
type rig struct {
	*simulator.Simulator
	t      *testing.T
	apns   *http.Client
	fcm    *http.Client
	bearer string
	access func() string // of the default project
}

func setup(t *testing.T, change ...func(o *simulator.Options)) *rig {
	t.Helper()
	o := simulator.Options{Dir: t.TempDir(), Logger: slog.New(slog.DiscardHandler), Exact: 1000}
	for _, f := range change {
		f(&o)
	}
	s, err := simulator.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	r := &rig{Simulator: s, t: t}
	r.apns, r.fcm = r.client(), r.client()
	r.bearer = "bearer " + providerToken(t, s.APNSKey(), time.Now())
	r.access = sync.OnceValue(func() string { return r.accessToken(simulator.DefaultProject) })
	return r
}

func with(s simulator.Scenario) func(o *simulator.Options) {
	return func(o *simulator.Options) { o.Scenario = s }
}

// client is a stock HTTP/2 client with a connection of its own.
func (r *rig) client() *http.Client {
	return r.clientWith(&tls.Config{RootCAs: r.RootCAs(), MinVersion: tls.VersionTLS12})
}

func (r *rig) clientWith(config *tls.Config) *http.Client {
	transport := &http.Transport{TLSClientConfig: config, Protocols: new(http.Protocols)}
	transport.Protocols.SetHTTP2(true)
	r.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 30 * time.Second}
}

func providerToken(t *testing.T, k simulator.APNSKey, issued time.Time) string {
	t.Helper()
	key, err := jwt.ParseECPrivateKeyFromPEM([]byte(k.P8))
	if err != nil {
		t.Fatal(err)
	}
	token := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{"iss": k.TeamID, "iat": issued.Unix()})
	token.Header["kid"] = k.KeyID
	signed, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// reply is an answer read whole.
type reply struct {
	status int
	header http.Header
	body   string
	reason string // APNs: reason; FCM: errorCode, or status where there is none
	dead   int64  // APNs: timestamp
}

// push sends a valid push to APNs' production host, changed by change.
func (r *rig) push(token string, change ...func(req *http.Request)) reply {
	r.t.Helper()
	got, err := r.tryPush(r.apns, r.APNSURL(), token, change...)
	if err != nil {
		r.t.Fatal(err)
	}
	return got
}

func (r *rig) tryPush(c *http.Client, host, token string, change ...func(req *http.Request)) (reply, error) {
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodPost, host+"/3/device/"+token, strings.NewReader(`{"aps":{"alert":"hi"}}`))
	if err != nil {
		return reply{}, err
	}
	req.Header.Set("Authorization", r.bearer)
	req.Header.Set("Apns-Topic", topic)
	req.Header.Set("Apns-Push-Type", "alert")
	for _, f := range change {
		f(req)
	}
	return r.do(c, req)
}

func (r *rig) do(c *http.Client, req *http.Request) (reply, error) {
	answer, err := c.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return reply{}, err
	}
	got := reply{status: answer.StatusCode, header: answer.Header, body: string(body)}
	var words struct {
		Reason    string
		Timestamp int64
		Error     json.RawMessage
	}
	if json.Unmarshal(body, &words) == nil {
		got.reason, got.dead = words.Reason, words.Timestamp
	}
	var e struct {
		Status  string
		Details []struct {
			ErrorCode string `json:"errorCode"`
		}
	}
	if json.Unmarshal(words.Error, &e) == nil && e.Status != "" {
		got.reason = e.Status
		for _, d := range e.Details {
			if d.ErrorCode != "" {
				got.reason = d.ErrorCode
			}
		}
	}
	return got, nil
}

// send posts a body to FCM as the default project.
func (r *rig) send(body string, change ...func(req *http.Request)) reply {
	r.t.Helper()
	got, err := r.trySend(r.fcm, body, change...)
	if err != nil {
		r.t.Fatal(err)
	}
	return got
}

func (r *rig) trySend(c *http.Client, body string, change ...func(req *http.Request)) (reply, error) {
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodPost, r.FCMURL()+"/v1/projects/"+simulator.DefaultProject+"/messages:send", strings.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	req.Header.Set("Authorization", "Bearer "+r.access())
	for _, f := range change {
		f(req)
	}
	return r.do(c, req)
}

// accessToken asks for one as Google's own library does.
func (r *rig) accessToken(project string) string {
	r.t.Helper()
	account, err := r.ServiceAccount(project)
	if err != nil {
		r.t.Fatal(err)
	}
	config, err := google.JWTConfigFromJSON(account, "https://www.googleapis.com/auth/firebase.messaging")
	if err != nil {
		r.t.Fatal(err)
	}
	token, err := config.TokenSource(context.WithValue(r.t.Context(), oauth2.HTTPClient, r.fcm)).Token()
	if err != nil {
		r.t.Fatal(err)
	}
	return token.AccessToken
}

func messageTo(token, id string) string {
	return `{"message":{"token":"` + token + `","data":{"campanile_id":"` + id + `"},"notification":{"title":"a","body":"b"}}}`
}

func setHeader(name, value string) func(req *http.Request) {
	return func(req *http.Request) { req.Header.Set(name, value) }
}

func setBody(body []byte) func(req *http.Request) {
	return func(req *http.Request) {
		req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		req.GetBody = nil
	}
}

func newID() func(req *http.Request) { return setHeader("Apns-Id", uuid.NewString()) }
