package migrate_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/campanile-push/campanile/migrate"
)

const secret = "31bde27540b03bb221f14a815a690582"

// stand is a Shadow between two servers.
type stand struct {
	shadow *migrate.Shadow
	url    string

	mu   sync.Mutex
	seen []string // by Campanile: method, path, body
	text strings.Builder
}

// Write keeps what is logged.
func (s *stand) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

func (s *stand) logged() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func (s *stand) asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.seen)
}

func newStand(t *testing.T, upstream, campanile http.HandlerFunc) *stand {
	t.Helper()
	s := &stand{}
	up := httptest.NewServer(upstream)
	to := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		s.seen = append(s.seen, r.Method+" "+r.URL.Path+" "+string(body))
		s.mu.Unlock()
		campanile(w, r)
	}))
	parse := func(text string) *url.URL {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	s.shadow = migrate.NewShadow(migrate.ShadowOptions{
		Upstream: parse(up.URL), To: parse(to.URL), Log: slog.New(slog.NewTextHandler(s, nil)),
	})
	front := httptest.NewServer(s.shadow)
	s.url = front.URL
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.shadow.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		front.Close()
		up.Close()
		to.Close()
	})
	return s
}

// call sends a request as a client of AirNotifier does.
func (s *stand) call(t *testing.T, method, path, body string) (status int, answer string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-An-App-Key", secret)
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

// compared waits until n requests were.
func (s *stand) compared(t *testing.T, n int64) migrate.ShadowCount {
	t.Helper()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		c := s.shadow.Count()
		if c.Same+c.Different+c.Skipped+c.Failed >= n {
			return c
		}
		select {
		case <-deadline.C:
			t.Fatalf("%+v", c)
		case <-tick.C:
		}
	}
}

func answering(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func TestClientsGetTheOldAnswerAndCampanileTheSameRequest(t *testing.T) {
	t.Parallel()
	s := newStand(t, answering(202, ""), answering(404, `{"error": "Unregistered token"}`))
	for range 3 {
		if status, answer := s.call(t, http.MethodPost, "/api/v2/push/", `{"token":"a:b","alert":"hello"}`); status != 202 || answer != "" {
			t.Errorf("the client got %d %q", status, answer)
		}
	}
	want := migrate.ShadowCount{Different: 3}
	if got := s.compared(t, 3); got != want {
		t.Errorf("want %+v, got %+v", want, got)
	}
	diff := cmp.Diff([]migrate.CountedDifference{{
		Difference: migrate.Difference{Method: "POST", Route: "/api/v2/push/", Upstream: "202", Campanile: "404 {error: Unregistered token}"}, Count: 3,
	}}, s.shadow.Differences())
	if diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := s.asked()[0]; got != `POST /api/v2/push/ {"token":"a:b","alert":"hello"}` {
		t.Errorf("campanile got %q", got)
	}
}

func TestSpacingOrderAndNewKeysAreNoDifference(t *testing.T) {
	t.Parallel()
	s := newStand(t, answering(200, `{"accesskey": "`+secret+`", "status": "ok"}`), answering(200, `{"status":"ok","accesskey":"ffffffffffffffffffffffffffffffff"}`))
	s.call(t, http.MethodPost, "/accesskeys/", "url=x")
	if got := s.compared(t, 1); got.Same != 1 {
		t.Errorf("%+v: %+v", got, s.shadow.Differences())
	}
}

func TestReportsHoldNeitherTokensNorKeys(t *testing.T) {
	t.Parallel()
	const token = "dQw4w9WgXcQ:APA91bF-x_Y0123456789abcdef"
	s := newStand(t, answering(400, `{"error": "Not Registered `+token+`", "regids": ["`+token+`"], "`+secret+`": 1}`), answering(500, "<html>"+token))
	s.call(t, http.MethodPost, "/tokens/"+token+"?key="+secret, "device=ios")
	s.call(t, http.MethodDelete, "/api/v2/tokens/"+token+"/", "")
	s.call(t, http.MethodGet, "/objects/"+token, "")
	s.compared(t, 3)
	text := fmt.Sprintf("%+v", s.shadow.Differences())
	for _, hidden := range []string{token, secret} {
		if strings.Contains(text, hidden) || strings.Contains(s.logged(), hidden) {
			t.Errorf("a secret stands in the report or in the log: %s", text)
		}
	}
	for _, route := range []string{"/tokens/<token>", "/api/v2/tokens/<token>", "(another path)"} {
		if !strings.Contains(text, route) {
			t.Errorf("%s is missing in %s", route, text)
		}
	}
}

func TestASiteIsComparedInItsOrder(t *testing.T) {
	t.Parallel()
	s := newStand(t, answering(200, ""), answering(200, ""))
	var want []string
	for i := range 50 {
		path := fmt.Sprintf("/tokens/t%d", i)
		s.call(t, http.MethodPost, path, "device=fcm")
		want = append(want, "POST "+path+" device=fcm")
	}
	s.compared(t, 50)
	if diff := cmp.Diff(want, s.asked()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestNobodyWaitsForCampanile(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	s := newStand(t, answering(202, ""), func(http.ResponseWriter, *http.Request) { <-release })
	const n = 400 // more than a lane holds
	for range n {
		if status, _ := s.call(t, http.MethodPost, "/api/v2/push/", "{}"); status != 202 {
			t.Fatalf("the client got %d", status)
		}
	}
	if s.shadow.Count().Skipped == 0 {
		t.Error("all of them wait in memory")
	}
	close(release)
	if got := s.compared(t, n); got.Same != 0 { // on a slow machine, what waited too long has failed
		t.Errorf("%+v", got)
	}
}

func TestWhatIsTooLargePassesWhole(t *testing.T) {
	t.Parallel()
	large := strings.Repeat("x", 2<<20)
	s := newStand(t, func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "%d %s", n, large)
	}, answering(200, ""))
	if _, answer := s.call(t, http.MethodPost, "/api/v2/push/", large); answer != fmt.Sprintf("%d %s", len(large), large) {
		t.Errorf("the answer has %d bytes", len(answer))
	}
	if got := s.compared(t, 1); got.Skipped != 1 {
		t.Errorf("%+v", got)
	}
}

func TestWhoIsDownIsCounted(t *testing.T) {
	t.Parallel()
	down := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	s := newStand(t, down, answering(200, ""))
	if status, _ := s.call(t, http.MethodPost, "/api/v2/push/", "{}"); status != http.StatusBadGateway {
		t.Errorf("without an upstream: %d", status)
	}
	other := newStand(t, answering(202, ""), down)
	if status, _ := other.call(t, http.MethodPost, "/tokens/"+secret, "{}"); status != 202 {
		t.Errorf("without a campanile: %d", status)
	}
	if got := other.compared(t, 1); got.Failed != 1 || s.shadow.Count().Failed != 1 {
		t.Errorf("%+v, %+v", got, s.shadow.Count())
	}
	if strings.Contains(other.logged(), secret) {
		t.Errorf("a token stands in the log: %s", other.logged())
	}
}

func FuzzShadow(f *testing.F) {
	s := migrate.NewShadow(migrate.ShadowOptions{
		Upstream: &url.URL{Scheme: "http", Host: "a"}, To: &url.URL{Scheme: "http", Host: "b"},
		Transport: answers{}, Log: slog.New(slog.DiscardHandler),
	})
	f.Add("/tokens/a", `{"status":"ok"}`)
	f.Add("/%zz?%", `{"error":{}}`)
	f.Fuzz(func(t *testing.T, path, body string) {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
		r.URL.Path = path
		s.ServeHTTP(httptest.NewRecorder(), r)
	})
}

// answers is a transport that answers with the request's body.
type answers struct{}

func (answers) RoundTrip(r *http.Request) (*http.Response, error) {
	body := r.Body
	if body == nil {
		body = http.NoBody
	}
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: body, Request: r}, nil
}
