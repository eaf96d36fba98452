package fcm

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2/jwt"
)

// endpoint is Google's token endpoint: slow, and down when told.
type endpoint struct {
	mu            sync.Mutex
	asked, flying int
	down          bool
	together      bool // two were under way at once
}

func (e *endpoint) RoundTrip(req *http.Request) (*http.Response, error) {
	e.mu.Lock()
	e.asked++
	e.flying++
	e.together = e.together || e.flying > 1
	down := e.down
	e.mu.Unlock()
	time.Sleep(300 * time.Millisecond) //nolint:forbidigo // the bubble's clock
	e.mu.Lock()
	e.flying--
	e.mu.Unlock()
	if down {
		return nil, errors.New("no route")
	}
	return &http.Response{
		StatusCode: http.StatusOK, Request: req, Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(strings.NewReader(`{"access_token":"a","token_type":"Bearer","expires_in":3600}`)),
	}, nil
}

func (e *endpoint) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.asked
}

func (e *endpoint) set(down bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.down = down
}

// TestAccessTokensAreFetchedAheadOnceForAll asks for the token from many sides for ten hours: after the first nobody waits, one fetch
// runs at a time, and an endpoint that is away for less than the time ahead is not noticed.
func TestAccessTokensAreFetchedAheadOnceForAll(t *testing.T) {
	t.Parallel()
	private := newPrivateKey(t)
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{}
		s := &tokens{
			config: &jwt.Config{Email: "push@example.org", PrivateKey: private, TokenURL: "https://oauth2.example.org/token"},
			client: &http.Client{Transport: e},
		}
		var first sync.WaitGroup
		for range 100 {
			first.Go(func() {
				if err := s.ready(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		first.Wait()
		if e.asked != 1 {
			t.Fatalf("want one fetch for all who wait, got %d", e.asked)
		}
		const minutes = 600
		for minute := range minutes {
			e.set(minute%56 == 54) // at the end of a token's life, for a minute
			for range 50 {
				if _, ok := s.access(time.Now()); !ok {
					t.Fatalf("minute %d: want a token without a wait", minute)
				}
			}
			time.Sleep(time.Minute) //nolint:forbidigo // the bubble's clock
		}
		s.wg.Wait()
		if e.together {
			t.Error("want one fetch at a time")
		}
		if most := minutes/55 + minutes/56 + 3; e.asked < minutes/60 || e.asked > most {
			t.Errorf("want a fetch for each life of a token and each failure, %d at most, got %d", most, e.asked)
		}
	})
}

func newPrivateKey(t *testing.T) []byte {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
}

// TestProvidersOfOneServiceAccountShareItsToken: lanes, apps and connections apart, for hours, while providers come and go.
func TestProvidersOfOneServiceAccountShareItsToken(t *testing.T) {
	t.Parallel()
	private := newPrivateKey(t)
	synctest.Test(t, func(t *testing.T) {
		var all Tokens
		trust, e := &tls.Config{MinVersion: tls.VersionTLS12}, &endpoint{}
		open := func(email string) *tokens {
			s := all.of(&jwt.Config{Email: email, PrivateKey: private, TokenURL: "https://oauth2.example.org/token"}, trust)
			s.client = &http.Client{Transport: e}
			return s
		}
		users := make([]*tokens, 12)
		for i := range users {
			users[i] = open("push@example.org")
		}
		var waiting sync.WaitGroup
		for _, s := range users {
			waiting.Go(func() {
				if err := s.ready(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		waiting.Wait()
		if n := e.count(); n != 1 {
			t.Fatalf("want one fetch for twelve providers, got %d", n)
		}
		for i, s := range users[:11] { // replaced one after another, over ten hours
			time.Sleep(54 * time.Minute) //nolint:forbidigo // the bubble's clock
			if _, ok := s.access(time.Now()); !ok {
				t.Fatalf("provider %d: want a token without a wait", i)
			}
			time.Sleep(2 * time.Minute) //nolint:forbidigo // the bubble's clock
			if _, ok := s.access(time.Now()); !ok {
				t.Fatalf("provider %d: want a token without a wait", i)
			}
			s.release()
		}
		time.Sleep(time.Second) //nolint:forbidigo // the bubble's clock
		if n := e.count(); n != 12 || e.together {
			t.Errorf("want a fetch for each life of a token, got %d, together: %v", n, e.together)
		}
		other := open("push@example.com")
		if err := other.ready(t.Context()); err != nil || e.count() != 13 {
			t.Errorf("want another account to have its own token, got %d fetches, %v", e.count(), err)
		}
		other.release()
		users[11].drop("a") // refused by FCM
		if again := open("push@example.org"); again != users[11] || again.ready(t.Context()) != nil || e.count() != 14 {
			t.Errorf("want one more fetch for all, got %d", e.count())
		} else {
			again.release()
		}
		users[11].release()
		if len(all.byAccount) != 0 {
			t.Errorf("want nothing kept that nobody uses, got %d", len(all.byAccount))
		}
	})
}
