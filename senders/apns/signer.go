package apns

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"sync"
	"time"

	"github.com/sideshow/apns2/token"
)

// Apple refuses a provider token older than an hour, and tokens made more often than every 20 minutes. apns2 makes a new one after
// 50 minutes, in the middle of a push and without a word of errors: ours is always ahead of that.
const (
	renewAfter = 45 * time.Minute
	renewLeast = 20 * time.Minute
)

// Signers keep one provider token for each team and key, whatever the number of apps, environments and connections that use it:
// Apple counts the tokens of a team together. The zero value is ready, and safe for concurrent use.
type Signers struct {
	mu    sync.Mutex
	byKey map[signerKey]*signer
}

type signerKey struct {
	team, keyID string
	key         [sha256.Size]byte // of the public key: two files under one key id are two signers
}

// signer makes the provider tokens of one key.
type signer struct {
	mu    sync.Mutex
	token *token.Token // what apns2 takes its bearer from
	made  time.Time
	held  time.Time // none is made before
}

func (s *Signers) of(p *parsed, now time.Time) (*signer, error) {
	public, err := x509.MarshalPKIXPublicKey(&p.key.PublicKey)
	if err != nil {
		return nil, bad("the .p8 key cannot be read: %w", err)
	}
	k := signerKey{p.team, p.keyID, sha256.Sum256(public)}
	s.mu.Lock()
	defer s.mu.Unlock()
	if found := s.byKey[k]; found != nil {
		return found, nil
	}
	made := &signer{token: &token.Token{AuthKey: p.key, KeyID: p.keyID, TeamID: p.team}}
	if err := made.fresh(now); err != nil {
		return nil, bad("the .p8 key does not sign: %w", err)
	}
	if s.byKey == nil {
		s.byKey = map[signerKey]*signer{}
	}
	s.byKey[k] = made
	return made, nil
}

// fresh makes a new token where the present one is getting old. It costs a lock where it is not.
func (s *signer) fresh(now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.made.IsZero() && now.Sub(s.made) < renewAfter {
		return nil
	}
	return s.make(now)
}

// bearer is a token that is fresh.
func (s *signer) bearer(now time.Time) (string, error) {
	if err := s.fresh(now); err != nil {
		return "", err
	}
	s.token.Lock()
	defer s.token.Unlock()
	return s.token.Bearer, nil
}

// make signs a token; s.mu is held.
func (s *signer) make(now time.Time) error {
	s.token.Lock()
	defer s.token.Unlock()
	if _, err := s.token.Generate(); err != nil {
		return fmt.Errorf("sign provider token: %w", err)
	}
	s.made = now
	return nil
}

// refused makes a new token after APNs called bearer expired: once for all the pushes that heard so, and only if the refused one is
// old enough for that to be true. A younger one is refused because a clock is wrong, which more tokens do not mend.
func (s *signer) refused(bearer string, now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token.Lock()
	current := s.token.Bearer
	s.token.Unlock()
	if bearer != current || now.Sub(s.made) < renewLeast || now.Before(s.held) {
		return nil
	}
	return s.make(now)
}

// hold makes no token for 20 minutes after APNs complained of too many.
func (s *signer) hold(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = now.Add(renewLeast)
}
