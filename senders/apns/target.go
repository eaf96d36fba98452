package apns

import (
	"crypto/tls"
	"fmt"
	"net/url"
	"sync"
	"time"

	"github.com/sideshow/apns2"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
	"github.com/campanile-push/campanile/senders"
)

const (
	defaultLimit = 2000
	streams      = 900 // that a connection is counted on to carry
)

const (
	rejected      = pushv1.Outcome_OUTCOME_REJECTED
	misconfigured = pushv1.Outcome_OUTCOME_MISCONFIGURED
	unavailable   = pushv1.Outcome_OUTCOME_UNAVAILABLE
)

// target is where an account's pushes go and as whom, whatever carries them.
type target struct {
	url     *url.URL
	config  *tls.Config
	signer  *signer // nil: a certificate speaks for us
	topic   string
	limit   int
	timeout time.Duration
	renew   func() // gives the connections up

	mu      sync.Mutex
	renewed time.Time
}

func newTarget(a senders.Account, o Options) (*target, error) {
	c, err := parse(a.APNS)
	if err != nil {
		return nil, err
	}
	base := o.Production
	if base == "" {
		base = apns2.HostProduction
	}
	if a.Environment == schemas.Sandbox {
		if base = o.Sandbox; base == "" {
			base = apns2.HostDevelopment
		}
	}
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("apns: %q is no base URL: want https://host[:port]", base)
	}
	t := &target{url: u, topic: c.topic, limit: o.Limit, timeout: o.Timeout}
	if t.limit <= 0 {
		t.limit = defaultLimit
	}
	if t.timeout <= 0 {
		t.timeout = 15 * time.Second
	}
	t.config = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.RootCAs}
	if c.certificate != nil {
		t.config.Certificates = []tls.Certificate{*c.certificate}
		return t, nil
	}
	signers := o.Signers
	if signers == nil {
		signers = &Signers{}
	}
	t.signer, err = signers.of(c, time.Now())
	return t, err
}

func addr(u *url.URL) string {
	if u.Port() != "" {
		return u.Host
	}
	return u.Host + ":443"
}

// Limit implements senders.Provider.
func (t *target) Limit() int { return t.limit }

// unsigned is a push whose provider token could not be made.
func unsigned() senders.Result {
	return senders.Result{Verdict: senders.Verdict{Outcome: misconfigured, Actions: senders.Park}, Reason: senders.ReasonBadSigning}
}

// leastRenewal is how far apart connections are given up: APNs takes rapid reconnecting for an attack.
const leastRenewal = 5 * time.Second

// heed does what an answer asks for beyond its own push, which carried bearer.
func (t *target) heed(answer senders.Result, bearer string) {
	if answer.Actions == 0 {
		return
	}
	now := time.Now()
	if t.signer != nil && answer.Has(senders.RefreshToken) {
		_ = t.signer.refused(bearer, now) // its error comes again with the next push
	}
	if t.signer != nil && answer.Has(senders.HoldToken) {
		t.signer.hold(now)
	}
	if !answer.Has(senders.Reconnect) {
		return
	}
	t.mu.Lock()
	due := now.Sub(t.renewed) >= leastRenewal
	if due {
		t.renewed = now
	}
	t.mu.Unlock()
	if due {
		t.renew()
	}
}
