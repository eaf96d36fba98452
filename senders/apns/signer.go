package apns

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sideshow/apns2/token"
)

// Apple refuses a provider token older than an hour, and tokens made more often than every 20 minutes, over all of a team's. So every
// process makes the same one: issued at the last multiple of renewEvery since the year 1, and signed deterministically. A fleet pushes
// under one token, and so does a process that has just started again. It goes over to the next renewLag later, when the clocks of all, and
// Apple's, have passed that moment.
const (
	renewEvery = 40 * time.Minute
	renewLag   = time.Minute
	renewLeast = 20 * time.Minute
	mostAge    = 55 * time.Minute // beyond it a token is made whatever Apple said: the old one is about to be refused
)

// issueTime is when the token that is in use now was issued.
func issueTime(now time.Time) time.Time { return now.Add(-renewLag).Truncate(renewEvery) }

// Signers keep one provider token for each team and key, whatever the number of apps, environments and connections that use it. The
// zero value is ready, and safe for concurrent use.
type Signers struct {
	mu     sync.Mutex
	byKey  map[signerKey]*signer
	byTeam map[string]*team
}

type signerKey struct {
	team, keyID string
	key         [sha256.Size]byte // of the public key: two files under one key id are two signers
}

// team is what Apple counts together.
type team struct {
	heldUS atomic.Int64 // no token is made before, Unix microseconds
}

func (t *team) held(now time.Time) bool { return now.UnixMicro() < t.heldUS.Load() }

// signer makes the provider tokens of one key.
type signer struct {
	team *team

	mu     sync.Mutex
	token  *token.Token // what apns2 takes its bearer from
	issued time.Time    // of the token; zero: none was made
	next   time.Time    // when the next is due
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
	if s.byKey == nil {
		s.byKey, s.byTeam = map[signerKey]*signer{}, map[string]*team{}
	}
	if s.byTeam[p.team] == nil {
		s.byTeam[p.team] = &team{}
	}
	made := &signer{team: s.byTeam[p.team], token: &token.Token{AuthKey: p.key, KeyID: p.keyID, TeamID: p.team}}
	if err := made.fresh(now); err != nil {
		return nil, bad("the .p8 key does not sign: %w", err)
	}
	s.byKey[k] = made
	return made, nil
}

// fresh goes over to the next token when its time has come. It costs a lock when it has not.
func (s *signer) fresh(now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	age := now.Sub(s.issued)
	switch {
	case s.issued.IsZero(), age < -renewLag: // the clock was set back
	case now.Before(s.next), age < mostAge && s.team.held(now):
		return nil
	}
	return s.make(issueTime(now))
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
func (s *signer) make(issued time.Time) error {
	text, err := sign(s.token.AuthKey, s.token.KeyID, s.token.TeamID, issued)
	if err != nil {
		return fmt.Errorf("sign provider token: %w", err)
	}
	s.token.Lock()
	defer s.token.Unlock()
	s.token.Bearer, s.token.IssuedAt = text, issued.Unix()
	s.issued = issued
	s.next = issued.Truncate(renewEvery).Add(renewEvery + renewLag)
	if least := issued.Add(renewLeast); s.next.Before(least) {
		s.next = least
	}
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
	if bearer != current || now.Sub(s.issued) < renewLeast || s.team.held(now) {
		return nil
	}
	return s.make(now)
}

// hold makes no token of the team for 20 minutes after APNs complained of too many.
func (s *signer) hold(now time.Time) { s.team.heldUS.Store(now.Add(renewLeast).UnixMicro()) }
