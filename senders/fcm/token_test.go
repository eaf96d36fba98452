package fcm

import (
	"crypto/rand"
	"crypto/rsa"
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

func (e *endpoint) set(down bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.down = down
}

// TestAccessTokensAreFetchedAheadOnceForAll asks for the token from many sides for ten hours: after the first nobody waits, one fetch
// runs at a time, and an endpoint that is away for less than the time ahead is not noticed.
func TestAccessTokensAreFetchedAheadOnceForAll(t *testing.T) {
	t.Parallel()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	private := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
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
