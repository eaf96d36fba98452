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
	groups sync.Pool // of *group

	answered func() // Account.Answered

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

	// What nearly every push fits into stands beside it: memory in pieces all over the heap is slow to come by.
	fields [96]byte
	start  [288]byte
}

func openDirect(t *target, o Options, answered func()) (senders.Provider, error) {
	client, err := h2.NewClient(h2.ClientOptions{
		Addr: addr(t.url), TLS: t.trust, MaxConns: o.MaxConns, Timeout: t.timeout, MaxBody: maxAnswer, Keep: []string{"retry-after"},
		Settled: answered,
	})
	if err != nil {
		t.tokens.release()
		return nil, err
	}
	p := &direct{target: t, client: client, answered: answered}
	p.pool.New = func() any {
		f := &push{p: p}
		f.Done = f.answered
		f.Fields.Use(f.fields[:])
		f.body = f.start[:0]
		return f
	}
	p.groups.New = func() any { return &group{} }
	p.life, p.end = context.WithCancel(context.Background())
	client.Warm()
	p.bg.Go(func() { _ = p.tokens.ready(p.life) }) // a failure shows at the first push
	return p, nil
}

// Push implements senders.Provider.
func (p *direct) Push(ctx context.Context, r *senders.Request, done senders.Done) {
	p.PushAll(ctx, []*senders.Request{r}, done)
}

// group is the memory of one PushAll, pooled.
type group struct {
	pushes   []*push
	requests []*h2.Request // theirs
}

// PushAll implements senders.Batcher.
func (p *direct) PushAll(ctx context.Context, requests []*senders.Request, done senders.Done) {
	if ctx.Err() != nil {
		for _, r := range requests {
			done(r, senders.Result{NoAttempt: true})
		}
		return
	}
	g, _ := p.groups.Get().(*group)
	defer p.free(g)
	now := requests[0].At
	if now.IsZero() {
		now = time.Now()
	}
	for _, r := range requests {
		f, _ := p.pool.Get().(*push)
		f.ctx, f.r, f.done, f.began = ctx, r, done, r.At //nolint:fatcontext // one for each push, not one in another
		if f.began.IsZero() {
			f.began = now
		}
		g.pushes = append(g.pushes, f)
	}
	access, ok := p.tokens.access(now) //nolint:contextcheck // a fetch is for all, not for who came first
	if ok {
		p.start(ctx, g, access)
		return
	}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		for _, f := range g.pushes {
			f.finish(senders.Result{NoAttempt: true})
		}
		return
	}
	if len(p.waiting) == 0 {
		p.fetches.Go(p.await)
	}
	p.waiting = append(p.waiting, g.pushes...)
	p.mu.Unlock()
}

func (p *direct) free(g *group) {
	clear(g.pushes)
	clear(g.requests)
	g.pushes, g.requests = g.pushes[:0], g.requests[:0]
	p.groups.Put(g)
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
	access, ok := p.tokens.access(now)
	if err == nil {
		err = errNoToken // if it is not ok, it was refused in the meantime
	}
	for _, f := range waiting {
		if !ok {
			f.finish(unready(job{ctx: f.ctx}, err))
			continue
		}
		f.began = now
		g, _ := p.groups.Get().(*group)
		g.pushes = append(g.pushes, f)
		p.start(f.ctx, g, access)
		p.free(g)
	}
	if p.answered != nil {
		p.answered() // of those that have ended
	}
}

// start puts pushes with the same context on the wire.
func (p *direct) start(ctx context.Context, g *group, access string) {
	head, err := p.headFor(access)
	if err != nil {
		for _, f := range g.pushes {
			f.finish(unsendable())
		}
		return
	}
	for _, f := range g.pushes {
		f.access = access
		f.fill(head)
		g.requests = append(g.requests, &f.Request)
	}
	for from := 0; from < len(g.requests); {
		n, err := p.client.StartAll(ctx, g.requests[from:])
		if from += n; err == nil {
			return
		}
		f := g.pushes[from] // those before it may be others' by now
		from++
		if ctx.Err() != nil || errors.Is(err, h2.ErrClosed) {
			f.finish(senders.Result{NoAttempt: true})
		} else {
			f.finish(unsendable())
		}
	}
}

// unsendable is the end of a push that HTTP cannot carry.
func unsendable() senders.Result {
	return senders.Result{Verdict: senders.Verdict{Outcome: rejected}, Reason: senders.ReasonUnsendable}
}

// fill writes the request.
func (f *push) fill(head *h2.Head) {
	r := f.r
	ttl := int64(-1)
	if r.ExpiresUS > 0 {
		ttl = max((r.ExpiresUS-f.began.UnixMicro())/1e6, 0)
	}
	f.body = r.FCM.AppendStart(f.body[:0], r.Token, ttl)
	f.Head, f.Body, f.Tail = head, f.body, r.FCM.Tail
	f.Deadline = f.began.Add(f.p.timeout)
	f.Fields.Reset()
	f.Fields.PutInt(lengthField, int64(len(f.Body)+len(f.Tail)))
	if f.p.named {
		f.Fields.PutID(sendIDField, r.SendID)
	}
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
	answer.LatencyUS, answer.WaitedUS = max(now.Sub(f.began).Microseconds(), 1), res.Waited.Microseconds()
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
	again := p.closed
	p.closed = true
	p.mu.Unlock()
	p.fetches.Wait()
	p.client.Shutdown(context.Background()) // every push has a deadline
	p.end()
	p.bg.Wait()
	if !again {
		p.tokens.release()
	}
	return nil
}
