// Package apns pushes through Apple's APNs: with apns2's client, or with closet h2's and apns2's tokens.
package apns

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/sideshow/apns2"

	"github.com/campanile-push/campanile/senders"
	"github.com/campanile-push/campanile/senders/h2"
)

// Options say how to reach APNs; the zero value reaches Apple.
type Options struct {
	// Production and Sandbox are base URLs: Apple's.
	Production, Sandbox string
	// RootCAs verify the server: the system's.
	RootCAs *x509.CertPool
	// Limit is the number of pushes in flight: 2,000.
	Limit int
	// MaxConns bounds the connections: as many as Limit needs where each carries 900 streams (APNs grants about 1,000), and 3 more, for
	// connections that end while others take their place.
	MaxConns int
	// Timeout is for one push: 15 s. After that its fate is unknown, and it is tried again.
	Timeout time.Duration
	// Transport is senders.H2Transport (also "") or senders.StockTransport.
	Transport string
	// Signers are shared by all providers of a process, since Apple counts the provider tokens of a team together. Nil: its own.
	Signers *Signers
}

// stock is senders.Provider on apns2's client.
type stock struct {
	*target
	client    *apns2.Client
	transport *h2.Transport

	jobs chan job
	life context.Context //nolint:containedctx // ends with Close: workers outlive the call that started them
	end  context.CancelFunc
	bg   sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	workers int
	pending int
	drained chan struct{} // closed when closed and nothing is pending
}

type job struct {
	ctx  context.Context //nolint:containedctx // a push's own, on its way to a worker
	r    *senders.Request
	done senders.Done
}

// Open makes a provider, and a connection in the background. The error wraps senders.ErrCredentials, or says which option is wrong.
func Open(_ context.Context, a senders.Account, o Options) (senders.Provider, error) {
	t, err := newTarget(a, o)
	if err != nil {
		return nil, err
	}
	if o.MaxConns <= 0 {
		o.MaxConns = t.limit/streams + 3
	}
	if a.Apart {
		o.MaxConns = 1
	}
	switch o.Transport {
	case senders.StockTransport:
		return openStock(t, o), nil //nolint:contextcheck // a provider outlives the call that opens it
	case "", senders.H2Transport:
		return openDirect(t, o, a.Answered)
	}
	return nil, fmt.Errorf("apns: %q is no transport: want %s or %s", o.Transport, senders.StockTransport, senders.H2Transport)
}

func openStock(t *target, o Options) *stock {
	p := &stock{target: t, drained: make(chan struct{})}
	p.transport = h2.NewTransport(h2.Options{TLS: t.config, MaxConns: o.MaxConns})
	t.renew = p.transport.Renew
	p.client = &apns2.Client{Host: t.url.Scheme + "://" + t.url.Host, HTTPClient: &http.Client{Transport: wire{p.transport}}}
	if p.signer != nil {
		p.client.Token = p.signer.token
	}
	p.jobs = make(chan job, p.limit)
	p.life, p.end = context.WithCancel(context.Background())
	p.bg.Go(func() { _ = p.transport.Warm(p.life, addr(t.url)) }) // a failure shows at the first push
	return p
}

// Push implements senders.Provider.
func (p *stock) Push(ctx context.Context, r *senders.Request, done senders.Done) {
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
func (p *stock) enter() bool {
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

func (p *stock) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pending--
	if p.closed && p.pending == 0 {
		close(p.drained)
	}
}

func (p *stock) work() {
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
func (p *stock) Close() error {
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
func (p *stock) push(ctx context.Context, r *senders.Request) senders.Result {
	began := time.Now()
	if p.signer != nil {
		if err := p.signer.fresh(began); err != nil {
			return unsigned()
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
		Verdict: senders.APNSVerdict(c.status, c.reason), Status: c.status, Reason: c.reason, TimestampUS: c.timestampUS,
		RetryAfter: senders.ReadRetryAfter(c.retryAfter, time.Now()), LatencyUS: time.Since(began).Microseconds(),
	}
	p.heed(answer, c.bearer)
	return answer
}

var emptyPayload = []byte("{}")

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
