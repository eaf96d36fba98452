// Package apns pushes through Apple's APNs with apns2, over connections of closet h2.
package apns

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/sideshow/apns2"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
	"github.com/campanile-push/campanile/senders"
	"github.com/campanile-push/campanile/senders/h2"
)

// Options say how to reach APNs; the zero value reaches Apple.
type Options struct {
	// Production and Sandbox are base URLs: Apple's.
	Production, Sandbox string
	// RootCAs verify the server: the system's.
	RootCAs *x509.CertPool
	// Limit is the number of pushes in flight: 900. APNs grants about 1,000 streams to a connection.
	Limit int
	// MaxConns bounds the connections: 4.
	MaxConns int
	// Timeout is for one push: 15 s. After that its fate is unknown, and it is tried again.
	Timeout time.Duration
	// Signers are shared by all providers of a process, since Apple counts the provider tokens of a team together. Nil: its own.
	Signers *Signers
}

// Provider is senders.Provider on APNs.
type Provider struct {
	client    *apns2.Client
	transport *h2.Transport
	signer    *signer // nil: a certificate speaks for us
	topic     string
	limit     int
	timeout   time.Duration

	jobs chan job
	life context.Context //nolint:containedctx // ends with Close: workers outlive the call that started them
	end  context.CancelFunc
	bg   sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	workers int
	pending int
	drained chan struct{} // closed when closed and nothing is pending
	renewed time.Time
}

type job struct {
	ctx  context.Context //nolint:containedctx // a push's own, on its way to a worker
	r    *senders.Request
	done senders.Done
}

// Open makes a provider, and a connection in the background. The error wraps senders.ErrCredentials, or says which option is wrong.
func Open(_ context.Context, a senders.Account, o Options) (*Provider, error) {
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
	p := &Provider{topic: c.topic, limit: o.Limit, timeout: o.Timeout, drained: make(chan struct{})}
	if p.limit <= 0 {
		p.limit = 900
	}
	if p.timeout <= 0 {
		p.timeout = 15 * time.Second
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.RootCAs}
	if c.certificate != nil {
		config.Certificates = []tls.Certificate{*c.certificate}
	} else {
		signers := o.Signers
		if signers == nil {
			signers = &Signers{}
		}
		if p.signer, err = signers.of(c, time.Now()); err != nil {
			return nil, err
		}
	}
	p.transport = h2.NewTransport(h2.Options{TLS: config, MaxConns: o.MaxConns}) //nolint:contextcheck // connections outlive the push that opens them
	p.client = &apns2.Client{Host: u.Scheme + "://" + u.Host, HTTPClient: &http.Client{Transport: wire{p.transport}}}
	if p.signer != nil {
		p.client.Token = p.signer.token
	}
	p.jobs = make(chan job, p.limit)
	p.life, p.end = context.WithCancel(context.Background())
	p.bg.Go(func() { _ = p.transport.Warm(p.life, addr(u)) }) // a failure shows at the first push
	return p, nil
}

func addr(u *url.URL) string {
	if u.Port() != "" {
		return u.Host
	}
	return u.Host + ":443"
}

// Limit implements senders.Provider.
func (p *Provider) Limit() int { return p.limit }

// Push implements senders.Provider.
func (p *Provider) Push(ctx context.Context, r *senders.Request, done senders.Done) {
	if ctx.Err() != nil || !p.enter() {
		done(r, senders.Result{NoAttempt: true})
		return
	}
	select {
	case p.jobs <- job{ctx, r, done}:
	case <-ctx.Done():
		done(r, senders.Result{NoAttempt: true})
		p.leave()
	}
}

// enter counts a push in, and starts another worker where all are busy; a worker stays.
func (p *Provider) enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.pending++
	if p.pending > p.workers && p.workers < p.limit {
		p.workers++
		p.bg.Go(p.work)
	}
	return true
}

func (p *Provider) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pending--
	if p.closed && p.pending == 0 {
		close(p.drained)
	}
}

func (p *Provider) work() {
	for {
		select {
		case j := <-p.jobs:
			j.done(j.r, p.push(j.ctx, j.r))
			p.leave()
		case <-p.life.Done():
			return
		}
	}
}

// Close implements senders.Provider.
func (p *Provider) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		p.bg.Wait()
		return nil
	}
	p.closed = true
	if p.pending == 0 {
		close(p.drained)
	}
	p.mu.Unlock()
	<-p.drained
	p.end()
	p.bg.Wait()
	p.transport.Close()
	return nil
}

// push makes one attempt, and waits for its answer.
func (p *Provider) push(ctx context.Context, r *senders.Request) senders.Result {
	began := time.Now()
	if p.signer != nil {
		if err := p.signer.fresh(began); err != nil {
			return senders.Result{Verdict: senders.Verdict{Outcome: misconfigured, Actions: senders.Park}, Reason: senders.ReasonBadSigning}
		}
	}
	m := r.APNS
	c := call{payload: m.Payload, tryOnce: r.ExpiresUS <= 0}
	n := apns2.Notification{
		ApnsID: r.SendID.String(), DeviceToken: url.PathEscape(r.Token), Topic: p.topic + m.TopicSuffix,
		CollapseID: m.CollapseID, Priority: m.Priority, PushType: apns2.EPushType(m.PushType),
		Payload: emptyPayload, // the wire puts m.Payload in its place
	}
	if r.ExpiresUS > 0 {
		n.Expiration = time.UnixMicro(r.ExpiresUS)
	}
	limited, cancel := context.WithTimeout(withCall(ctx, &c), p.timeout)
	defer cancel()
	_, err := p.client.PushWithContext(limited, &n)
	if err != nil {
		return failed(ctx, err, began)
	}
	answer := senders.Result{
		Verdict: senders.APNSVerdict(c.status, c.reason), Status: c.status, Reason: c.reason, TimestampUS: c.timestampUS, Name: c.id,
		RetryAfter: senders.ReadRetryAfter(c.retryAfter, time.Now()), LatencyUS: time.Since(began).Microseconds(),
	}
	p.heed(answer, c.bearer)
	return answer
}

var emptyPayload = []byte("{}")

const (
	misconfigured = pushv1.Outcome_OUTCOME_MISCONFIGURED
	unavailable   = pushv1.Outcome_OUTCOME_UNAVAILABLE
)

// failed judges a push without an answer.
func failed(ctx context.Context, err error, began time.Time) senders.Result {
	if ctx.Err() != nil {
		return senders.Result{NoAttempt: true}
	}
	reason := senders.ReasonNetwork
	if errors.Is(err, context.DeadlineExceeded) {
		reason = senders.ReasonTimeout
	}
	return senders.Result{Verdict: senders.Verdict{Outcome: unavailable}, Reason: reason, LatencyUS: time.Since(began).Microseconds()}
}

// leastRenewal is how far apart connections are given up: APNs takes rapid reconnecting for an attack.
const leastRenewal = 5 * time.Second

// heed does what an answer asks for beyond its own push.
func (p *Provider) heed(answer senders.Result, bearer string) {
	if answer.Actions == 0 {
		return
	}
	now := time.Now()
	if p.signer != nil && answer.Has(senders.RefreshToken) {
		_ = p.signer.refused(bearer, now) // its error comes again with the next push
	}
	if p.signer != nil && answer.Has(senders.HoldToken) {
		p.signer.hold(now)
	}
	if !answer.Has(senders.Reconnect) {
		return
	}
	p.mu.Lock()
	due := now.Sub(p.renewed) >= leastRenewal
	if due {
		p.renewed = now
	}
	p.mu.Unlock()
	if due {
		p.transport.Renew()
	}
}
