package apns

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/campanile-push/campanile/senders"
	"github.com/campanile-push/campanile/senders/h2"
)

// direct is senders.Provider on h2.Client: no goroutine for a push, the payload as it was rendered, and constant header fields once
// for each connection. Tokens are apns2's.
type direct struct {
	*target
	client  *h2.Client
	pool    sync.Pool // of *push
	batches sync.Pool // of *batch

	heads headCache
}

// push is one push on its way. It is pooled, and keeps its buffers.
type push struct {
	h2.Request
	p      *direct
	ctx    context.Context //nolint:containedctx // the push's own
	r      *senders.Request
	done   senders.Done
	bearer string
	began  time.Time

	// What nearly every push fits into stands beside it: memory in pieces all over the heap is slow to come by.
	fields [160]byte
	path   [96]byte
}

func openDirect(t *target, o Options, answered func()) (*direct, error) {
	client, err := h2.NewClient(h2.ClientOptions{
		Addr: addr(t.url), TLS: t.config, MaxConns: o.MaxConns, Timeout: t.timeout, MaxBody: maxAnswer, Keep: []string{"retry-after"},
		Settled: answered,
	})
	if err != nil {
		return nil, err
	}
	p := &direct{target: t, client: client}
	p.heads.authority = t.url.Host
	p.batches.New = func() any { return &batch{} }
	p.pool.New = func() any {
		f := &push{p: p}
		f.Done = f.answered
		f.Fields.Use(f.fields[:])
		f.Path = f.path[:0]
		return f
	}
	t.renew = client.Renew
	client.Warm()
	return p, nil
}

// Push implements senders.Provider.
func (p *direct) Push(ctx context.Context, r *senders.Request, done senders.Done) {
	p.PushAll(ctx, []*senders.Request{r}, done)
}

// batch is the memory of one PushAll, pooled.
type batch struct {
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
	b, _ := p.batches.Get().(*batch)
	bearer, signed := p.bearer(requests[0].At)
	for _, r := range requests {
		f, _ := p.pool.Get().(*push)
		f.ctx, f.r, f.done, f.began, f.bearer = ctx, r, done, r.At, bearer //nolint:fatcontext // one for each push, not one in another
		if f.began.IsZero() {
			f.began = time.Now()
		}
		if !signed {
			f.end(unsigned())
		} else if f.fill() != nil {
			f.end(unsendable())
		} else {
			b.pushes, b.requests = append(b.pushes, f), append(b.requests, &f.Request)
		}
	}
	for from := 0; from < len(b.requests); {
		n, err := p.client.StartAll(ctx, b.requests[from:])
		if from += n; err == nil {
			break
		}
		f := b.pushes[from] // those before it may be others' by now
		from++
		if ctx.Err() != nil || errors.Is(err, h2.ErrClosed) {
			f.end(senders.Result{NoAttempt: true})
		} else {
			f.end(unsendable())
		}
	}
	clear(b.pushes)
	clear(b.requests)
	b.pushes, b.requests = b.pushes[:0], b.requests[:0]
	p.batches.Put(b)
}

// bearer is the provider token of pushes that begin at began, where the account has one; false: its key does not sign.
func (p *direct) bearer(began time.Time) (string, bool) {
	if p.signer == nil {
		return "", true
	}
	if began.IsZero() {
		began = time.Now()
	}
	bearer, err := p.signer.bearer(began)
	return bearer, err == nil
}

// unsendable is the end of a push that HTTP cannot carry.
func unsendable() senders.Result {
	return senders.Result{Verdict: senders.Verdict{Outcome: rejected}, Reason: senders.ReasonUnsendable}
}

// fill writes the request.
func (f *push) fill() (err error) {
	r, m := f.r, f.r.APNS
	f.Head, err = f.p.heads.of(f.p.topic, m, f.bearer)
	f.Path = appendToken(append(f.Path[:0], "/3/device/"...), r.Token)
	f.Body = m.Payload
	f.Deadline = f.began.Add(f.p.timeout)
	f.Fields.Reset()
	f.Fields.PutID(idField, r.SendID)
	f.Fields.PutInt(expirationField, max(r.ExpiresUS, 0)/1e6) // 0: APNs tries once
	f.Fields.PutInt(lengthField, int64(len(f.Body)))
	if m.CollapseID != "" {
		f.Fields.Add("apns-collapse-id", m.CollapseID)
	}
	return err
}

// The fields that are different each time.
var (
	idField         = h2.NewName("apns-id")
	expirationField = h2.NewName("apns-expiration")
	lengthField     = h2.NewName("content-length")
)

// plain are the bytes that stand in a path as they are, whatever a path's syntax says of others.
var plain = func() (t [256]bool) {
	for _, c := range "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" {
		t[c] = true
	}
	return t
}()

// appendToken appends a device token as a path has it. All that Apple ever gave out are hex digits.
func appendToken(b []byte, token string) []byte {
	for i := range len(token) {
		if !plain[token[i]] {
			return append(b, url.PathEscape(token)...)
		}
	}
	return append(b, token...)
}

// answered is the request's Done.
func (f *push) answered(_ *h2.Request, res *h2.Response, err error) {
	if err != nil {
		if errors.Is(err, h2.ErrClosed) {
			f.end(senders.Result{NoAttempt: true})
			return
		}
		f.end(failed(f.ctx, err, f.began))
		return
	}
	reason, timestamp := "", int64(0)
	if res.Status != http.StatusOK {
		if reason, timestamp = readReason(res.Body); reason == "" {
			reason = senders.ReasonNoBody
		}
	}
	answer := senders.Result{
		Verdict: senders.APNSVerdict(res.Status, reason), Status: res.Status, Reason: reason, TimestampUS: timestamp,
		RetryAfter: senders.ReadRetryAfter(res.Get("retry-after"), res.At), LatencyUS: max(res.At.Sub(f.began).Microseconds(), 1),
		WaitedUS: res.Waited.Microseconds(),
	}
	f.p.heed(answer, f.bearer)
	f.end(answer)
}

// end gives the answer.
func (f *push) end(answer senders.Result) {
	p, r, done := f.p, f.r, f.done
	f.ctx, f.r, f.done, f.Body = nil, nil, nil, nil
	p.pool.Put(f)
	done(r, answer)
}

// Close implements senders.Provider.
func (p *direct) Close() error {
	p.client.Shutdown(context.Background()) // every push has a deadline
	return nil
}

type headKey struct {
	topic, pushType string
	priority        int
}

// headCache keeps the constant parts of requests under the present provider token.
type headCache struct {
	authority string
	last      atomic.Pointer[lastHead] // the usual one

	mu     sync.Mutex
	bearer string
	heads  map[headKey]*h2.Head
}

// mostHeads bounds them: topics and push types come from callers.
const mostHeads = 32

// lastHead is the head that was asked for last.
type lastHead struct {
	m      *senders.APNSMessage
	bearer string
	head   *h2.Head
}

// of returns the head of a message, which many devices share.
func (c *headCache) of(topic string, m *senders.APNSMessage, bearer string) (*h2.Head, error) {
	if last := c.last.Load(); last != nil && last.m == m && last.bearer == bearer {
		return last.head, nil
	}
	head, err := c.get(headKey{topic + m.TopicSuffix, m.PushType, m.Priority}, bearer)
	if err == nil {
		c.last.Store(&lastHead{m, bearer, head})
	}
	return head, err
}

func (c *headCache) get(k headKey, bearer string) (*h2.Head, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if bearer != c.bearer || len(c.heads) >= mostHeads {
		c.bearer, c.heads = bearer, nil
	}
	if h := c.heads[k]; h != nil {
		return h, nil
	}
	fields := []h2.Field{{Name: "apns-topic", Value: k.topic}, {Name: "apns-push-type", Value: k.pushType}, {Name: "apns-priority", Value: strconv.Itoa(k.priority)}}
	if bearer != "" {
		fields = append(fields, h2.Field{Name: "authorization", Value: "bearer " + bearer})
	}
	h, err := h2.NewHead(http.MethodPost, "https", c.authority, "", fields...)
	if err != nil {
		return nil, err
	}
	if c.heads == nil {
		c.heads = map[headKey]*h2.Head{}
	}
	c.heads[k] = h
	return h, nil
}
