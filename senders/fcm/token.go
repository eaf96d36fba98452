package fcm

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/jwt"

	"github.com/campanile-push/campanile/senders"
)

// Tokens live for an hour. A new one is fetched while the old one still serves.
const (
	renewAhead    = 5 * time.Minute  // or a quarter of a shorter life
	leastRefresh  = 10 * time.Second // between tokens that FCM refused
	refetchPause  = time.Second      // after a failure
	fetchTimeout  = 10 * time.Second
	assumedExpiry = time.Hour
)

// tokens hold the access token of one service account, for all providers that push as it. It is an oauth2.TokenSource that never waits for the network: ready, which
// can be cancelled, does that before.
type tokens struct {
	config *jwt.Config
	client *http.Client
	idle   func() // closes the idle connections to the token endpoint

	all  *Tokens
	key  accountKey
	used int // providers; guarded by all.mu

	mu       sync.Mutex
	token    *oauth2.Token
	renew    time.Time // when the next one is due
	fetching chan struct{}
	err      error // of the last fetch
	failed   time.Time
	dropped  time.Time

	wg sync.WaitGroup
}

var errNoToken = errors.New("fcm: no access token")

// Token implements oauth2.TokenSource.
func (s *tokens) Token() (*oauth2.Token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.token == nil {
		return nil, errNoToken
	}
	return s.token, nil
}

// access returns the token if it lives, without waiting, and starts the fetch of the next one ahead of time.
func (s *tokens) access(now time.Time) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.token == nil || !now.Before(s.token.Expiry) {
		return "", false
	}
	if !now.Before(s.renew) && s.fetching == nil && now.Sub(s.failed) >= refetchPause {
		s.fetch()
	}
	return s.token.AccessToken, true
}

// ready returns when there is a token that lives. It starts the fetch of the next one ahead of time. An error is the last fetch's,
// or ctx's.
func (s *tokens) ready(ctx context.Context) error {
	for first := true; ; first = false {
		s.mu.Lock()
		now := time.Now()
		alive := s.token != nil && now.Before(s.token.Expiry)
		if (!alive || !now.Before(s.renew)) && s.fetching == nil && now.Sub(s.failed) >= refetchPause {
			s.fetch() //nolint:contextcheck // one fetch serves many pushes, and outlives the one that began it
		}
		fetching, err := s.fetching, s.err
		s.mu.Unlock()
		switch {
		case alive:
			return nil
		case fetching == nil || !first && err != nil:
			return err
		}
		select {
		case <-fetching:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// fetch fetches in the background, for all who wait; s.mu is held.
func (s *tokens) fetch() {
	done := make(chan struct{})
	s.fetching = done
	s.wg.Go(func() {
		ctx, cancel := context.WithTimeout(context.WithValue(context.Background(), oauth2.HTTPClient, s.client), fetchTimeout)
		defer cancel()
		token, err := s.config.TokenSource(ctx).Token()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.fetching, s.err = nil, err
		now := time.Now()
		if err != nil {
			s.failed = now
		} else {
			if token.Expiry.IsZero() {
				token.Expiry = now.Add(assumedExpiry)
			}
			life := token.Expiry.Sub(now)
			s.token, s.renew = token, token.Expiry.Add(-min(renewAhead, life/4))
		}
		close(done)
	})
}

// drop gives up a token that FCM refused: once for all the pushes that heard so.
func (s *tokens) drop(access string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); s.token != nil && s.token.AccessToken == access && now.Sub(s.dropped) >= leastRefresh {
		s.token, s.dropped = nil, now
	}
}

// judge says what it means for a push that there is no token.
func judge(err error) senders.Result {
	var refused *oauth2.RetrieveError
	if errors.As(err, &refused) && refused.Response != nil {
		if code := refused.Response.StatusCode; code >= 400 && code < 500 && code != http.StatusTooManyRequests && code != http.StatusRequestTimeout {
			return senders.Result{
				Verdict: senders.Verdict{Outcome: misconfigured, Actions: senders.Park}, Status: code, Reason: senders.ReasonNoToken,
			}
		}
	}
	return senders.Result{Verdict: senders.Verdict{Outcome: unavailable}, Reason: senders.ReasonTokenDown}
}
