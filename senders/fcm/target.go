package fcm

import (
	"crypto/tls"
	"fmt"
	"net/url"
	"strings"
	"time"

	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
	"github.com/campanile-push/campanile/senders"
)

const (
	accepted      = pushv1.Outcome_OUTCOME_ACCEPTED
	rejected      = pushv1.Outcome_OUTCOME_REJECTED
	misconfigured = pushv1.Outcome_OUTCOME_MISCONFIGURED
	unavailable   = pushv1.Outcome_OUTCOME_UNAVAILABLE
)

// target is where an account's pushes go and as whom, whatever carries them.
type target struct {
	url      *url.URL
	endpoint string // url's text, with /v1
	project  string
	trust    *tls.Config
	tokens   *tokens
	limit    int
	timeout  time.Duration
	named    bool // pushes carry sendIDHeader
}

func newTarget(a senders.Account, o Options) (*target, error) {
	config, project, err := parse(a.FCM)
	if err != nil {
		return nil, err
	}
	endpoint := strings.TrimSuffix(o.Endpoint, "/")
	if endpoint == "" {
		endpoint = defaultEndpoint
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("fcm: %q is no base URL: want https://host[:port]", o.Endpoint)
	}
	if !strings.HasSuffix(endpoint, "/v1") {
		endpoint += "/v1" // go-fcm appends /projects/… to what it is given
		u.Path += "/v1"
	}
	t := &target{url: u, endpoint: endpoint, project: project, limit: o.Limit, timeout: o.Timeout, named: u.Host != googleHost}
	if t.limit <= 0 {
		t.limit = defaultLimit
	}
	if t.timeout <= 0 {
		t.timeout = 15 * time.Second
	}
	t.trust = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.RootCAs}
	all := o.Tokens
	if all == nil {
		all = &Tokens{}
	}
	t.tokens = all.of(config, t.trust)
	return t, nil
}

func addr(u *url.URL) string {
	if u.Port() != "" {
		return u.Host
	}
	return u.Host + ":443"
}

// Project is whose quota the pushes count against.
func (t *target) Project() string { return t.project }

// Limit implements senders.Provider.
func (t *target) Limit() int { return t.limit }
