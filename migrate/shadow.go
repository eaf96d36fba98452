package migrate

import (
	"bytes"
	"context"
	"errors"
	"hash/fnv"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	maxShadowBody  = 1 << 20 // bytes of a request or an answer; larger ones pass, and are not compared
	shadowLanes    = 16      // requests of one key go through one lane, in order
	shadowWaiting  = 256     // requests in a lane; those beyond are not compared
	shadowPatience = 10 * time.Second
)

// ShadowOptions say where a Shadow stands.
type ShadowOptions struct {
	// Upstream is the AirNotifier that answers. To is the Campanile that is tried.
	Upstream, To *url.URL
	// Transport calls both; nil: a transport of its own.
	Transport http.RoundTripper
	Log       *slog.Logger
}

// Shadow is a proxy in front of an AirNotifier, which answers every request, byte for byte. Afterwards the same request goes to a Campanile, and the
// answers are compared. Campanile never makes a client wait: what it is too slow for is counted, and not compared.
//
// Both take every push. So the Campanile must not be able to deliver: one without credentials cannot.
type Shadow struct {
	options ShadowOptions
	proxy   *httputil.ReverseProxy
	client  *http.Client
	lanes   [shadowLanes]chan *shadowed

	mu    sync.Mutex
	count ShadowCount
	kinds map[Difference]int64
}

// ShadowCount is how many requests there were, by what became of their comparison.
type ShadowCount struct {
	Same      int64 `json:"same"`
	Different int64 `json:"different"`
	// Skipped were too large, or came faster than Campanile could take them.
	Skipped int64 `json:"skipped"`
	// Failed had no answer, of one or the other.
	Failed int64 `json:"failed"`
}

// Difference is a kind of difference, without tokens, keys and texts.
type Difference struct {
	Method    string `json:"method"`
	Route     string `json:"route"`
	Upstream  string `json:"upstream"`
	Campanile string `json:"campanile"`
}

// CountedDifference is a Difference and how often it was seen.
type CountedDifference struct {
	Difference
	Count int64 `json:"count"`
}

// shadowed is a request on its way.
type shadowed struct {
	method string
	uri    string // path and query
	header http.Header
	body   []byte
	answer string // upstream's; empty: there was none
	large  bool   // the answer was
}

type shadowKey struct{}

// NewShadow returns a proxy whose Run must run for anything to be compared.
func NewShadow(o ShadowOptions) *Shadow {
	if o.Transport == nil {
		o.Transport = &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: shadowLanes, IdleConnTimeout: time.Minute}
	}
	s := &Shadow{options: o, kinds: map[Difference]int64{}, client: &http.Client{
		Transport: o.Transport, Timeout: shadowPatience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	for i := range s.lanes {
		s.lanes[i] = make(chan *shadowed, shadowWaiting)
	}
	s.proxy = &httputil.ReverseProxy{
		Transport: o.Transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(o.Upstream)
			r.Out.Host = r.In.Host
			r.Out.Header["X-Forwarded-For"] = r.In.Header["X-Forwarded-For"]
			r.SetXForwarded()
		},
		ModifyResponse: s.keepAnswer,
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			o.Log.Error("upstream did not answer", "error", hideURL(err))
			w.WriteHeader(http.StatusBadGateway)
		},
	}
	return s
}

// hideURL drops the URL of a client's error: it holds the token.
func hideURL(err error) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		return wrapped.Err
	}
	return err
}

// ServeHTTP implements http.Handler.
func (s *Shadow) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxShadowBody+1))
	if err != nil {
		s.add(func(c *ShadowCount) { c.Failed++ })
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	x := &shadowed{method: r.Method, uri: r.URL.RequestURI(), header: r.Header.Clone(), body: body}
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil { // for Campanile's block lists, where it trusts this proxy
		x.header.Set("X-Forwarded-For", strings.Join(append(r.Header.Values("X-Forwarded-For"), host), ", "))
	}
	rest := io.Reader(bytes.NewReader(body))
	if len(body) > maxShadowBody {
		rest = io.MultiReader(rest, r.Body)
	}
	r = r.WithContext(context.WithValue(r.Context(), shadowKey{}, x))
	r.Body = io.NopCloser(rest)
	s.proxy.ServeHTTP(w, r)
	switch {
	case x.answer == "":
		s.add(func(c *ShadowCount) { c.Failed++ })
	case len(body) > maxShadowBody || x.large:
		s.add(func(c *ShadowCount) { c.Skipped++ })
	default:
		s.enqueue(x)
	}
}

func (s *Shadow) add(f func(*ShadowCount)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.count)
}

// keepAnswer copies upstream's answer as it passes.
func (s *Shadow) keepAnswer(res *http.Response) error {
	x, ok := res.Request.Context().Value(shadowKey{}).(*shadowed)
	if !ok {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxShadowBody+1))
	if err != nil {
		return err //nolint:wrapcheck // for ErrorHandler
	}
	x.large = len(body) > maxShadowBody
	x.answer = describe(res.StatusCode, body)
	res.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(body), res.Body), res.Body}
	return nil
}

// enqueue puts the request into its key's lane, so that a registration is not overtaken by the push after it.
func (s *Shadow) enqueue(x *shadowed) {
	h := fnv.New32a()
	_, _ = h.Write([]byte(x.header.Get("X-An-App-Key")))
	select {
	case s.lanes[h.Sum32()%shadowLanes] <- x:
	default:
		s.add(func(c *ShadowCount) { c.Skipped++ })
	}
}

// Run compares until ctx ends.
func (s *Shadow) Run(ctx context.Context) error {
	var lanes sync.WaitGroup
	for _, lane := range s.lanes {
		lanes.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case x := <-lane:
					s.compare(ctx, x)
				}
			}
		})
	}
	lanes.Wait()
	return ctx.Err() //nolint:wrapcheck // the caller's own
}

func (s *Shadow) compare(ctx context.Context, x *shadowed) {
	got, err := s.ask(ctx, x)
	if err != nil {
		if ctx.Err() == nil {
			s.options.Log.Warn("campanile did not answer", "error", hideURL(err))
		}
		s.add(func(c *ShadowCount) { c.Failed++ })
		return
	}
	if got == x.answer {
		s.add(func(c *ShadowCount) { c.Same++ })
		return
	}
	path, _, _ := strings.Cut(x.uri, "?")
	d := Difference{x.method, routeOf(path), x.answer, got}
	defer s.add(func(c *ShadowCount) { c.Different++ })
	s.mu.Lock()
	s.kinds[d]++
	first := s.kinds[d] == 1
	s.mu.Unlock()
	if first {
		s.options.Log.Info("answers differ", "method", d.Method, "route", d.Route, "upstream", d.Upstream, "campanile", d.Campanile)
	}
}

// ask sends the request to Campanile.
func (s *Shadow) ask(ctx context.Context, x *shadowed) (string, error) {
	req, err := http.NewRequestWithContext(ctx, x.method, strings.TrimRight(s.options.To.String(), "/")+x.uri, bytes.NewReader(x.body))
	if err != nil {
		return "", err //nolint:wrapcheck // for the log, with its URL hidden
	}
	req.Header = x.header
	for _, hop := range []string{"Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Accept-Encoding", "Expect"} {
		req.Header.Del(hop)
	}
	res, err := s.client.Do(req)
	if err != nil {
		return "", err //nolint:wrapcheck // as above
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxShadowBody))
	return describe(res.StatusCode, body), err //nolint:wrapcheck // as above
}

// Count is how many requests there were so far.
func (s *Shadow) Count() ShadowCount {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

// Differences are all kinds seen so far, the most frequent first.
func (s *Shadow) Differences() []CountedDifference {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]CountedDifference, 0, len(s.kinds))
	for d, n := range s.kinds {
		all = append(all, CountedDifference{d, n})
	}
	slices.SortFunc(all, func(a, b CountedDifference) int {
		if a.Count != b.Count {
			return int(b.Count - a.Count)
		}
		return strings.Compare(a.Route+a.Method+a.Upstream+a.Campanile, b.Route+b.Method+b.Upstream+b.Campanile)
	})
	return all
}
