package apns

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

func newKey(t *testing.T) *parsed {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &parsed{team: "TEAM123456", keyID: "KEY1234567", key: key}
}

func (s *Signers) mustHave(t *testing.T, p *parsed, now time.Time) *signer {
	t.Helper()
	one, err := s.of(p, now)
	if err != nil {
		t.Fatal(err)
	}
	return one
}

// TestProviderTokenIsRenewedAheadAndNeverTooOften walks through the life of one.
func TestProviderTokenIsRenewedAheadAndNeverTooOften(t *testing.T) {
	t.Parallel()
	grid := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Truncate(renewEvery)
	at := func(minutes float64) time.Time { return grid.Add(time.Duration(minutes * float64(time.Minute))) }
	var all Signers
	s := all.mustHave(t, newKey(t), at(2))
	first := s.token.Bearer
	fresh := func(now time.Time) error { return s.fresh(now) }
	refused := func(now time.Time) error { return s.refused(s.token.Bearer, now) }
	for _, c := range []struct {
		name    string
		at      float64 // minutes
		do      func(now time.Time) error
		changes bool
		issued  float64
	}{
		{"young, asked for", 3, fresh, false, 0},
		{"young, called expired", 4, refused, false, 0},
		{"asked for at the end of its time", 40.9, fresh, false, 0},
		{"asked for behind it", 41, fresh, true, 40},
		{"old enough, called expired", 62, refused, true, 62},
		{"the one before, called expired", 64, func(now time.Time) error { return s.refused(first, now) }, false, 62},
		{"out of turn, so that the next is one too soon", 81, fresh, false, 62},
		{"and comes when it is old enough", 82, fresh, true, 80},
		{"held", 105, func(now time.Time) error { s.hold(now); return s.refused(s.token.Bearer, now) }, false, 80},
		{"held, and due", 121, fresh, false, 80},
		{"no longer held", 125, fresh, true, 120},
		{"held again and again", 160, func(now time.Time) error { s.hold(now); return s.fresh(now) }, false, 120},
		{"held until it is too old", 175, func(now time.Time) error { s.hold(now); return s.fresh(now) }, true, 160},
		{"after a night", 900, fresh, true, 880},
		{"a clock that was set back", 300, fresh, true, 280},
	} {
		before := s.token.Bearer
		if err := c.do(at(c.at)); err != nil {
			t.Fatal(err)
		}
		if got := s.token.Bearer != before; got != c.changes || !s.issued.Equal(at(c.issued)) || s.token.IssuedAt != s.issued.Unix() {
			t.Errorf("%s: want changed=%v and issued at %v, got %v and %v", c.name, c.changes, at(c.issued), got, s.issued)
		}
	}
}

// TestAFleetPushesUnderOneProviderToken: processes know nothing of each other, and start when they start.
func TestAFleetPushesUnderOneProviderToken(t *testing.T) {
	t.Parallel()
	p, start := newKey(t), time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	used := map[string]time.Time{} // when first
	var fleet []*signer
	for minute := range 24 * 60 {
		now := start.Add(time.Duration(minute) * time.Minute)
		if minute%37 == 0 {
			var process Signers
			fleet = append(fleet, process.mustHave(t, p, now))
		}
		seen := map[string]bool{}
		for _, s := range fleet {
			bearer, err := s.bearer(now)
			if err != nil {
				t.Fatal(err)
			}
			if age := now.Sub(s.issued); age < 0 || age > 45*time.Minute {
				t.Fatalf("want a token that Apple takes, got one of %v", age)
			}
			seen[bearer] = true
			if used[bearer].IsZero() {
				used[bearer] = now
			}
		}
		if len(seen) != 1 {
			t.Fatalf("minute %d: want one token for %d processes, got %d", minute, len(fleet), len(seen))
		}
	}
	if most := 24*60/40 + 1; len(used) > most {
		t.Errorf("want at most %d tokens in a day, got %d", most, len(used))
	}
}

// TestATeamsKeysAreHeldTogether: Apple counts the tokens of a team, whatever their keys.
func TestATeamsKeysAreHeldTogether(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Truncate(renewEvery).Add(30 * time.Minute)
	var all Signers
	one, two, other := newKey(t), newKey(t), newKey(t)
	two.keyID, other.team = "KEY7654321", "TEAM654321"
	a, b, c := all.mustHave(t, one, now), all.mustHave(t, two, now), all.mustHave(t, other, now)
	if a == b || a != all.mustHave(t, one, now) {
		t.Fatal("want one signer for a key")
	}
	a.hold(now)
	for s, changes := range map[*signer]bool{a: false, b: false, c: true} {
		before := s.token.Bearer
		if err := s.refused(before, now.Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		if got := s.token.Bearer != before; got != changes {
			t.Errorf("team %s, key %s: want changed=%v, got %v", s.token.TeamID, s.token.KeyID, changes, got)
		}
	}
}

// TestTheProviderTokenIsOneOfES256 reads it with the library that others use.
func TestTheProviderTokenIsOneOfES256(t *testing.T) {
	t.Parallel()
	p, issued := newKey(t), time.Unix(1_800_000_000, 0)
	text, err := sign(p.key, p.keyID, p.team, issued)
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := sign(p.key, p.keyID, p.team, issued); again != text {
		t.Error("want the same token for the same time")
	}
	var claims jwt.RegisteredClaims
	read, err := jwt.NewParser(jwt.WithoutClaimsValidation(), jwt.WithValidMethods([]string{"ES256"})).ParseWithClaims(text, &claims, func(*jwt.Token) (any, error) { return &p.key.PublicKey, nil })
	if err != nil {
		t.Fatal(err)
	}
	if read.Header["kid"] != p.keyID || claims.Issuer != p.team || !claims.IssuedAt.Equal(issued) {
		t.Errorf("want key, team and time in it, got %v %+v", read.Header, claims)
	}
}

func FuzzReadReason(f *testing.F) {
	f.Add([]byte(`{"reason":"Unregistered","timestamp":1700000000123}`))
	f.Add([]byte(`<html>`))
	f.Add([]byte(`{"reason":1}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		reason, at := readReason(body)
		if len(reason) > 64 || at < 0 {
			t.Errorf("want a bounded reason and time, got %d bytes and %d", len(reason), at)
		}
	})
}
