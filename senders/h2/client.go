package h2

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"
)

// ClientOptions are what NewClient needs: Addr, or Dial. Zero values are the defaults.
type ClientOptions struct {
	// Addr is host:port of the one server.
	Addr string
	// TLS is cloned. Nil: the system's roots. Sessions are kept for the next connection.
	TLS *tls.Config
	// Dial replaces TCP and TLS to Addr: it returns a connection on which HTTP/2 is agreed.
	Dial func(ctx context.Context) (net.Conn, error)
	// MaxConns bounds the connections that take requests: 4. As many again may be ending.
	MaxConns int
	// MaxStreams bounds the requests on one connection: 1000. The server's own limit counts where it is lower.
	MaxStreams int
	// Timeout of a request without a deadline of its own: 15 s.
	Timeout time.Duration
	// DialTimeout is for TCP and TLS together: 10 s.
	DialTimeout time.Duration
	// PingAfter is how long a connection may be silent before it is asked whether it lives: 10 s, and a quarter of that where answers are due. PingTimeout is the time to answer: 4 s.
	PingAfter, PingTimeout time.Duration
	// WriteTimeout is for 64 KiB: 8 s.
	WriteTimeout time.Duration
	// IdleTimeout closes a connection that carries nothing while another is open: 5 min. The last one stays.
	IdleTimeout time.Duration
	// MaxBody bounds what is kept of a response's body, bytes: 64 KiB.
	MaxBody int
	// Keep names, in lower case, the response fields that are kept. Nil: all.
	Keep []string
	// Settled is called after Dones, by the same goroutine and once for those that came together: it must not wait either. Nil: nobody
	// needs it.
	Settled func()
	// Log hears of connections. Nil: nobody does.
	Log *slog.Logger
}

// The pool's constants.
const (
	leastDialGap  = 20 * time.Millisecond // from one dial to the next
	firstBackoff  = 100 * time.Millisecond
	mostBackoff   = 5 * time.Second
	patientDials  = 5 // failures in a row, over a second and a half, after which waiting requests fail with them
	mostResends   = 16
	busyTick      = 25 * time.Millisecond // how exact deadlines and ends of contexts are
	idleTick      = 2 * time.Second
	warmUp        = 2 * time.Second // a new connection's first answer may take that long before another connection is made
	sessionsKept  = 8
	keepAliveTCP  = 15 * time.Second
	defaultMaxLen = 64 << 10
)

var errRetired = errors.New("h2: connection is done")

// Client carries requests to one server over a few connections. It is safe for concurrent use. Close or Shutdown it.
type Client struct {
	o    ClientOptions
	life context.Context //nolint:containedctx // ends with Close: dials outlive the request that asked for them
	end  context.CancelFunc
	bg   sync.WaitGroup
	tick chan struct{} // wakes the sweeper from its slow pace

	calls sync.WaitGroup // Starts whose Done has not returned

	mu       sync.Mutex
	links    []*link // in order of age; those that drain are among them
	waiting  deque
	finished []outcome // Dones to be called when mu is given back
	dialling bool
	wanted   bool // a connection, though nothing waits
	failures int  // of connections in a row, before they answered anything
	nextDial time.Time
	slow     bool // the sweeper's pace
	closed   bool // to new requests
	aborted  bool // to all
	stats    Stats
	heads    map[[2]string]*Head // RoundTripper's, by method and authority
}

// Stats count what happened since NewClient; Conns, Open and Waiting are of this moment.
type Stats struct {
	Conns   int // that take requests
	Open    int // requests on connections
	Waiting int // for a place on one
	Dials   int // connections made or tried
	Failed  int // of those
	Resent  int // requests that a server had not touched
}

type outcome struct {
	r   *Request
	err error
}

// NewClient returns a client without connections: Warm, or the first request, makes one.
func NewClient(o ClientOptions) (*Client, error) {
	if o.Dial == nil {
		if _, _, err := net.SplitHostPort(o.Addr); err != nil {
			return nil, fmt.Errorf("h2: %q is no address: want host:port: %w", o.Addr, err)
		}
		o.Dial = dialer(o)
	}
	setDefault(&o.MaxConns, 4)
	setDefault(&o.MaxStreams, 1000)
	setDefault(&o.Timeout, 15*time.Second)
	setDefault(&o.DialTimeout, 10*time.Second)
	setDefault(&o.PingAfter, 10*time.Second)
	setDefault(&o.PingTimeout, 4*time.Second)
	setDefault(&o.WriteTimeout, 8*time.Second)
	setDefault(&o.IdleTimeout, 5*time.Minute)
	setDefault(&o.MaxBody, defaultMaxLen)
	c := &Client{o: o, tick: make(chan struct{}, 1), slow: true}
	c.life, c.end = context.WithCancel(context.Background())
	c.bg.Go(c.sweeper)
	return c, nil
}

func setDefault[T int | time.Duration](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

func dialer(o ClientOptions) func(ctx context.Context) (net.Conn, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.TLS != nil {
		config = o.TLS.Clone()
	}
	config.NextProtos = []string{"h2"}
	config.DynamicRecordSizingDisabled = true // batches are large
	if config.ClientSessionCache == nil {
		config.ClientSessionCache = tls.NewLRUClientSessionCache(sessionsKept)
	}
	d := &tls.Dialer{NetDialer: &net.Dialer{KeepAlive: keepAliveTCP}, Config: config}
	return func(ctx context.Context) (net.Conn, error) {
		conn, err := d.DialContext(ctx, "tcp", o.Addr)
		if err != nil {
			return nil, err
		}
		if secure, ok := conn.(*tls.Conn); !ok || secure.ConnectionState().NegotiatedProtocol != "h2" {
			return nil, errors.Join(fmt.Errorf("%s speaks no HTTP/2", o.Addr), conn.Close())
		}
		return conn, nil
	}
}

// streamWindow is what a stream may receive: room for a body that is kept, and then some for padding.
func (c *Client) streamWindow() int { return max(2*c.o.MaxBody, defaultWindow) }

// Start starts a request, and returns without waiting for the network. An error says that it could not be started, and Done is not
// called. What finds no place waits for one, in order, until its deadline or the end of ctx, which are looked at every 25 ms: the
// caller bounds how many requests it starts.
func (c *Client) Start(ctx context.Context, r *Request) error {
	_, err := c.StartAll(ctx, []*Request{r})
	return err
}

// StartAll starts requests as Start does, in order, for less than they cost one by one. It stops at the first that cannot be started:
// err says why, and started counts those before it. The slice is the caller's again when it returns.
func (c *Client) StartAll(ctx context.Context, requests []*Request) (started int, err error) {
	if err := ctx.Err(); err != nil {
		return 0, notSent(err)
	}
	sound := 0
	var expires time.Time // of those without a deadline
	for ; sound < len(requests); sound++ {
		if err = requests[sound].check(); err != nil {
			break
		}
		if expires.IsZero() && requests[sound].Deadline.IsZero() {
			expires = time.Now().Add(c.o.Timeout)
		}
	}
	c.mu.Lock()
	var l *link
	var now time.Time // once somebody waits
	for _, r := range requests[:sound] {
		switch {
		case c.closed:
			err = notSent(ErrClosed)
		case r.busy:
			err = notSent(errUnderWay)
		}
		if c.closed || r.busy {
			break
		}
		started++
		r.begin(ctx)
		if r.expires = r.Deadline; r.expires.IsZero() {
			r.expires = expires
		}
		if l == nil || !l.room() {
			if l = c.pick(); c.waiting.len() > 0 {
				l = nil // those that wait come first
			}
		}
		if l != nil {
			l.send(r)
		} else {
			if now.IsZero() {
				now = time.Now()
			}
			r.queued = now
			c.waiting.push(r)
		}
	}
	if started == 0 {
		c.mu.Unlock()
		return 0, err
	}
	c.calls.Add(started)
	if c.waiting.len() > 0 {
		c.pump()
	}
	if c.slow {
		c.wakeSweeper()
	}
	var spare []outcome
	c.unlock(&spare)
	return started, err
}

// Do starts a request and waits for its end; r.Done is the client's meanwhile. It ends with ctx at once. The response is valid until r
// is started again.
func (c *Client) Do(ctx context.Context, r *Request) (*Response, error) {
	ended := make(chan error, 1)
	r.Done = func(_ *Request, _ *Response, err error) { ended <- err }
	if err := c.Start(ctx, r); err != nil {
		return nil, err
	}
	var err error
	select {
	case err = <-ended:
	case <-ctx.Done():
		c.cancel(r, ctx.Err())
		err = <-ended
	}
	if err != nil {
		return nil, err
	}
	return &r.response, nil
}

// cancel ends a request, if it has not ended.
func (c *Client) cancel(r *Request, err error) {
	c.mu.Lock()
	if r.busy && r.ctx != nil {
		c.abandon(r, err)
		c.pump()
	}
	var spare []outcome
	c.unlock(&spare)
}

// abandon gives up a request wherever it stands; mu is held.
func (c *Client) abandon(r *Request, err error) {
	if l := r.link; l != nil {
		l.reset(r, Cancel)
		c.finish(r, err)
		return
	}
	c.waiting.remove(r)
	c.finish(r, notSent(err))
}

// finish ends a request; its Done is called when mu, which is held, is given back.
func (c *Client) finish(r *Request, err error) {
	r.ctx, r.link = nil, nil
	c.finished = append(c.finished, outcome{r, err})
}

// unlock gives mu back, and calls the Dones that are due. spare is memory of the caller's own.
func (c *Client) unlock(spare *[]outcome) {
	due := c.finished
	if len(due) == 0 {
		c.mu.Unlock()
		return
	}
	c.finished = (*spare)[:0]
	for _, o := range due {
		o.r.busy = false
	}
	c.mu.Unlock()
	for _, o := range due {
		res := &o.r.response
		if o.err != nil {
			res = nil
		}
		o.r.Done(o.r, res, o.err)
	}
	if c.o.Settled != nil {
		c.o.Settled()
	}
	c.calls.Add(-len(due))
	clear(due)
	*spare = due[:0]
}

// pick returns a connection with a place; mu is held. The first that has one: few busy connections batch better than many idle ones.
func (c *Client) pick() *link {
	for _, l := range c.links {
		if l.room() {
			return l
		}
	}
	return nil
}

// pump gives places to those that wait, and dials where there are too few; mu is held.
func (c *Client) pump() {
	var now time.Time
	for c.waiting.len() > 0 {
		l := c.pick()
		if l == nil {
			break
		}
		if now.IsZero() {
			now = time.Now()
		}
		r := c.waiting.pop()
		r.response.Waited += now.Sub(r.queued)
		l.send(r)
	}
	c.dialIfNeeded()
}

// resend puts requests that the server has not touched in front of those that wait; mu is held. counts: the server said so itself, and
// may go on saying so.
func (c *Client) resend(again []*Request, cause error, counts bool) {
	for _, r := range again {
		if counts {
			r.resends++
		}
		if c.aborted || r.resends > mostResends {
			c.finish(r, notSent(cause))
			continue
		}
		c.stats.Resent++
		r.queued = time.Now()
		c.waiting.pushFront(r)
	}
}

// Stats are the counts.
func (c *Client) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	s.Waiting = c.waiting.len()
	for _, l := range c.links {
		s.Open += l.streams.len()
		if !l.draining {
			s.Conns++
		}
	}
	return s
}

// Warm makes a connection in the background, if there is none.
func (c *Client) Warm() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wanted = true
	c.dialIfNeeded()
}

// Renew gives the present connections no more requests; each closes with its last answer.
func (c *Client) Renew() {
	c.mu.Lock()
	for _, l := range slices.Clone(c.links) {
		l.drain()
	}
	c.pump()
	var spare []outcome
	c.unlock(&spare)
}

// Shutdown takes no new requests, waits for those under way, and closes. When ctx ends it waits no more, as Close.
func (c *Client) Shutdown(ctx context.Context) {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	stop := context.AfterFunc(ctx, c.abort)
	c.calls.Wait()
	stop()
	c.Close()
}

// Close ends every request with ErrClosed, says goodbye to the server, and returns when every Done has and no goroutine is left. It
// must not be called by a Done. More than once is fine.
func (c *Client) Close() {
	c.abort()
	c.calls.Wait()
	c.mu.Lock()
	for _, l := range slices.Clone(c.links) {
		l.drain()
	}
	c.mu.Unlock()
	c.end()
	c.bg.Wait()
}

func (c *Client) abort() {
	c.mu.Lock()
	c.closed, c.aborted = true, true
	c.failWaiting(ErrClosed)
	for _, l := range slices.Clone(c.links) {
		for r := range l.streams.all() {
			c.abandon(r, ErrClosed)
		}
	}
	var spare []outcome
	c.unlock(&spare)
}

// failWaiting ends what waits; mu is held.
func (c *Client) failWaiting(err error) {
	for c.waiting.len() > 0 {
		c.finish(c.waiting.pop(), notSent(err))
	}
}
