// Package fcm pushes through Google's FCM HTTP v1: with go-fcm's client, or with closet h2's.
package fcm

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"firebase.google.com/go/v4/messaging"
	gofcm "github.com/appleboy/go-fcm"

	"github.com/campanile-push/campanile/senders"
	"github.com/campanile-push/campanile/senders/h2"
)

// Options say how to reach FCM; the zero value reaches Google. Where access tokens come from stands in the service account
// (token_uri).
type Options struct {
	// Endpoint is the base URL, with or without /v1: Google's. To any other the header X-Campanile-Send-Id names each push, for
	// ledgers and proxies; Google has no use for it.
	Endpoint string
	// RootCAs verify both servers: the system's.
	RootCAs *x509.CertPool
	// Limit is the number of pushes in flight: 2,000.
	Limit int
	// MaxConns bounds the connections: as many as Limit needs where each carries 90 streams (FCM grants about 100), and 2 more.
	MaxConns int
	// Timeout is for one push: 15 s (Google advises 10 at least). After that its fate is unknown, and it is tried again.
	Timeout time.Duration
	// Transport is senders.H2Transport (also "") or senders.StockTransport.
	Transport string
	// Tokens are shared by all providers of a process, so that one access token serves all that push as one service account. Nil: its own.
	Tokens *Tokens
}

// The SDK starts 50 goroutines for every Send, whatever the number of messages, and each works through its share: so messages are
// sent by the fifty where as many wait, and at most sends batches start while the ones before are younger than straggler.
const (
	batchSize = 50
	sends     = 20
	straggler = 250 * time.Millisecond
)

const (
	defaultLimit = 2000
	streams      = 90 // that a connection is counted on to carry

	googleHost      = "fcm.googleapis.com"
	defaultEndpoint = "https://" + googleHost + "/v1"
	sendIDHeader    = "X-Campanile-Send-Id"
)

// stock is senders.Provider on go-fcm's client.
type stock struct {
	*target
	client    *gofcm.Client
	transport *h2.Transport

	jobs  chan job
	slots chan struct{}
	life  context.Context //nolint:containedctx // ends with Close: goroutines outlive the call that started them
	end   context.CancelFunc
	bg    sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	pending int
	drained chan struct{} // closed when closed and nothing is pending
}

type job struct {
	ctx  context.Context //nolint:containedctx // a push's own, on its way to the wire
	r    *senders.Request
	done senders.Done
}

// Open makes a provider, and fetches a token and makes a connection in the background. The error wraps senders.ErrCredentials, or
// says which option is wrong.
func Open(_ context.Context, a senders.Account, o Options) (senders.Provider, error) {
	switch o.Transport {
	case "", senders.H2Transport, senders.StockTransport:
	default:
		return nil, fmt.Errorf("fcm: %q is no transport: want %s or %s", o.Transport, senders.StockTransport, senders.H2Transport)
	}
	t, err := newTarget(a, o)
	if err != nil {
		return nil, err
	}
	if o.MaxConns <= 0 {
		o.MaxConns = t.limit/streams + 2
	}
	if a.Apart {
		o.MaxConns = 1
	}
	if o.Transport == senders.StockTransport {
		return openStock(t, o) //nolint:contextcheck // a provider outlives the call that opens it
	}
	return openDirect(t, o, a.Answered)
}

func openStock(t *target, o Options) (senders.Provider, error) {
	p := &stock{target: t, drained: make(chan struct{})}
	p.transport = h2.NewTransport(h2.Options{TLS: t.trust, MaxConns: o.MaxConns})
	p.life, p.end = context.WithCancel(context.Background())
	var err error
	p.client, err = gofcm.NewClient(p.life,
		gofcm.WithProjectID(t.project), gofcm.WithTokenSource(p.tokens), gofcm.WithEndpoint(t.endpoint),
		gofcm.WithHTTPClient(&http.Client{Transport: wire{p, p.transport}}))
	if err != nil {
		p.end()
		t.tokens.release()
		return nil, bad("%w", err)
	}
	p.jobs, p.slots = make(chan job, p.limit), make(chan struct{}, sends)
	p.bg.Go(func() {
		_ = p.tokens.ready(p.life) // a failure of either shows at the first push
		_ = p.transport.Warm(p.life, addr(t.url))
	})
	p.bg.Go(p.run)
	return p, nil
}

// Push implements senders.Provider.
func (p *stock) Push(ctx context.Context, r *senders.Request, done senders.Done) {
	if ctx.Err() != nil || !p.enter() {
		done(r, senders.Result{NoAttempt: true})
		return
	}
	j := job{ctx, r, done}
	select {
	case p.jobs <- j:
	case <-ctx.Done():
		p.answer(j, senders.Result{NoAttempt: true})
	}
}

func (p *stock) enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.pending++
	return true
}

// answer ends a push.
func (p *stock) answer(j job, answer senders.Result) {
	j.done(j.r, answer)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pending--
	if p.closed && p.pending == 0 {
		close(p.drained)
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
	p.tokens.release()
	p.transport.Close()
	return nil
}

// run gathers what waits into batches. While every slot is taken more gathers: batches grow with the load.
func (p *stock) run() {
	for {
		var b batch
		select {
		case j := <-p.jobs:
			b.jobs = append(make([]job, 0, batchSize), j)
		case <-p.life.Done():
			return
		}
		p.slots <- struct{}{} // a send gives it back in time, whatever becomes of it
		for len(b.jobs) < batchSize {
			select {
			case j := <-p.jobs:
				b.jobs = append(b.jobs, j)
				continue
			default:
			}
			break
		}
		p.bg.Go(func() { p.send(&b) })
	}
}

// send sends one batch through the SDK. It holds its slot until the batch is done or drags.
func (p *stock) send(b *batch) {
	var once sync.Once
	free := func() { once.Do(func() { <-p.slots }) }
	drags := time.AfterFunc(straggler, free)
	defer func() {
		drags.Stop()
		free()
	}()
	ready, cancel := context.WithTimeout(p.life, p.timeout)
	err := p.tokens.ready(ready)
	cancel()
	if err != nil {
		for _, j := range b.jobs {
			p.answer(j, unready(j, err))
		}
		return
	}
	b.answered = make([]bool, len(b.jobs))
	messages := make([]*messaging.Message, len(b.jobs))
	for i := range messages {
		messages[i] = &messaging.Message{Token: strconv.Itoa(i)}
	}
	// The SDK's own deadline is only a bound behind the pushes' own: it adds one dial and one answer to theirs.
	ctx, cancel := context.WithTimeout(context.WithValue(p.life, batchKey{}, b), 2*p.timeout)
	defer cancel()
	_, err = p.client.Send(ctx, messages...)
	for i, j := range b.jobs {
		if !b.answered[i] { // the SDK gave up before the wire: its token is gone, or the message is refused by itself
			p.answer(j, unready(j, err))
		}
	}
}

// unready judges a push that could not leave.
func unready(j job, err error) senders.Result {
	if j.ctx.Err() != nil {
		return senders.Result{NoAttempt: true}
	}
	return judge(err)
}
