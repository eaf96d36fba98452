package apns

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"testing"
	"testing/synctest"
	"time"
)

func newSigner(t *testing.T) *signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var all Signers
	s, err := all.of(&parsed{team: "TEAM123456", keyID: "KEY1234567", key: key}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestProviderTokenIsRenewedAheadAndNeverTooOften walks through the life of one.
func TestProviderTokenIsRenewedAheadAndNeverTooOften(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSigner(t)
		first := s.token.Bearer
		for _, c := range []struct {
			name    string
			after   time.Duration
			do      func() error
			changes bool
		}{
			{"young, asked for", time.Minute, func() error { return s.fresh(time.Now()) }, false},
			{"young, called expired", time.Minute, func() error { return s.refused(s.token.Bearer, time.Now()) }, false},
			{"old enough, called expired", 20 * time.Minute, func() error { return s.refused(s.token.Bearer, time.Now()) }, true},
			{"the one before, called expired", 21 * time.Minute, func() error { return s.refused(first, time.Now()) }, false},
			{"old, asked for", 25 * time.Minute, func() error { return s.fresh(time.Now()) }, true},
			{"held", 21 * time.Minute, func() error { s.hold(time.Now()); return s.refused(s.token.Bearer, time.Now()) }, false},
		} {
			time.Sleep(c.after) //nolint:forbidigo // the bubble's clock
			before := s.token.Bearer
			if err := c.do(); err != nil {
				t.Fatal(err)
			}
			if got := s.token.Bearer != before; got != c.changes {
				t.Errorf("%s: want changed=%v, got %v", c.name, c.changes, got)
			}
		}
	})
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
