package fcm

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/campanile-push/campanile/senders"
	"github.com/campanile-push/campanile/senders/h2"
)

// direct is senders.Provider on h2.Client: one request for each message, as it was rendered, without a goroutine of its own. What
// comes while there is no access token waits for it together.
type direct struct {
	*target
	client *h2.Client
	pool   sync.Pool // of *push

	life context.Context //nolint:containedctx // ends with Close: the first fetch outlives Open
	end  context.CancelFunc
	bg   sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	access  string // that head carries
	head    *h2.Head
	waiting []*push // for a token
	fetches sync.WaitGroup
}

// push is one push on its way. It is pooled, and keeps its buffers.
type push struct {
	h2.Request
	p      *direct
	ctx    context.Context //nolint:containedctx // the push's own
	r      *senders.Request
	done   senders.Done
	access string
	began  time.Time
	body   []byte
	value  []byte // of a field, on its way
}

func openDirect(t *target, o Options) (senders.Provider, error) {
	client, err := h2.NewClient(h2.ClientOptions{
		Addr: addr(t.url), TLS: t.trust, MaxConns: o.MaxConns, Timeout: t.timeout, MaxBody: maxAnswer, Keep: []string{"retry-after"},
	})
	if err != nil {
		return nil, err
	}
	p := &direct{target: t, client: client}
	p.pool.New = func() any {
		f := &push{p: p}
		f.Done = f.answered
		return f
	}
	p.life, p.end = context.WithCancel(context.Background())
	client.Warm()
	p.bg.Go(func() { _ = p.tokens.ready(p.life) }) // a failure shows at the first push
	return p, nil
}

// Push implements senders.Provider.
func (p *direct) Push(ctx context.Context, r *senders.Request, done senders.Done) {
	if ctx.Err() != nil {
		done(r, senders.Result{NoAttempt: true})
		return
	}
	f, _ := p.pool.Get().(*push)
	f.ctx, f.r, f.done, f.began = ctx, r, done, r.At
	if f.began.IsZero() {
		f.began = time.Now()
	}
	var ok bool
	if f.access, ok = p.tokens.access(f.began); ok { //nolint:contextcheck // a fetch is for all, not for who came first
		f.start()
		return
	}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		f.finish(senders.Result{NoAttempt: true})
		return
	}
	p.waiting = append(p.waiting, f)
	if len(p.waiting) == 1 {
		p.fetches.Go(p.await)
	}
	p.mu.Unlock()
}

// await starts what waits when there is a token, or ends it.
func (p *direct) await() {
	ctx, cancel := context.WithTimeout(context.Background(), p.timeout)
	defer cancel()
	err := p.tokens.ready(ctx)
	p.mu.Lock()
	waiting := p.waiting
	p.waiting = nil
	p.mu.Unlock()
	now := time.Now()
	for _, f := range waiting {
		var ok bool
		if f.access, ok = p.tokens.access(now); ok {
			f.began = now
			f.start()
			continue
		}
		cause := err
		if cause == nil {
			cause = errNoToken // refused in the meantime
		}
		f.finish(unready(job{ctx: f.ctx}, cause))
	}
}

// start puts the push on the wire.
func (f *push) start() {
	err := f.fill()
	if err == nil {
		err = f.p.client.Start(f.ctx, &f.Request)
	}
	switch {
	case err == nil:
	case f.ctx.Err() != nil, errors.Is(err, h2.ErrClosed):
		f.finish(senders.Result{NoAttempt: true})
	default:
		f.finish(senders.Result{Verdict: senders.Verdict{Outcome: rejected}, Reason: senders.ReasonUnsendable})
	}
}

func (f *push) fill() (err error) {
	r := f.r
	f.Head, err = f.p.headFor(f.access)
	ttl := int64(-1)
	if r.ExpiresUS > 0 {
		ttl = max((r.ExpiresUS-f.began.UnixMicro())/1e6, 0)
	}
	f.body = r.FCM.AppendStart(f.body[:0], r.Token, ttl)
	f.Body, f.Tail = f.body, r.FCM.Tail
	f.Deadline = f.began.Add(f.p.timeout)
	f.Fields.Reset()
	f.Fields.PutInt(lengthField, int64(len(f.Body)+len(f.Tail)))
	if f.p.named {
		f.value = r.SendID.Append(f.value[:0])
		f.Fields.Put(sendIDField, f.value)
	}
	return err
}

// The fields that are different each time; sendIDField is sendIDHeader as HTTP/2 writes it.
var (
	lengthField = h2.NewName("content-length")
	sendIDField = h2.NewName(strings.ToLower(sendIDHeader))
)

// headFor is the constant part of requests under an access token.
func (p *direct) headFor(access string) (*h2.Head, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.head != nil && p.access == access {
		return p.head, nil
	}
	h, err := h2.NewHead(http.MethodPost, "https", p.url.Host, p.url.EscapedPath()+"/projects/"+p.project+"/messages:send",
		h2.Field{Name: "authorization", Value: "Bearer " + access}, h2.Field{Name: "content-type", Value: "application/json"})
	if err != nil {
		return nil, err
	}
	p.head, p.access = h, access
	return h, nil
}

// answered is the request's Done.
func (f *push) answered(_ *h2.Request, res *h2.Response, err error) {
	switch {
	case err == nil:
	case f.ctx.Err() != nil, errors.Is(err, h2.ErrClosed):
		f.finish(senders.Result{NoAttempt: true})
		return
	default:
		reason := senders.ReasonNetwork
		if errors.Is(err, context.DeadlineExceeded) {
			reason = senders.ReasonTimeout
		}
		f.finish(senders.Result{Verdict: senders.Verdict{Outcome: unavailable}, Reason: reason, LatencyUS: time.Since(f.began).Microseconds()})
		return
	}
	now := res.At
	answer := read(res.Status, res.Get("retry-after"), res.Body, now)
	answer.LatencyUS = max(now.Sub(f.began).Microseconds(), 1)
	if answer.Has(senders.RefreshToken) {
		f.p.tokens.drop(f.access)
	}
	f.finish(answer)
}

// mostKept bounds the buffers that a pooled push keeps, bytes: a message and its token.
const mostKept = 16 << 10

// finish gives the answer.
func (f *push) finish(answer senders.Result) {
	p, r, done := f.p, f.r, f.done
	f.ctx, f.r, f.done, f.Body, f.Tail = nil, nil, nil, nil, nil
	if cap(f.body) > mostKept {
		f.body = nil
	}
	p.pool.Put(f)
	done(r, answer)
}

// Close implements senders.Provider.
func (p *direct) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.fetches.Wait()
	p.client.Shutdown(context.Background()) // every push has a deadline
	p.end()
	p.bg.Wait()
	p.tokens.wg.Wait()
	p.idle()
	return nil
}
