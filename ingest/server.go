package ingest

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/campanile-push/campanile/schemas"
	"github.com/campanile-push/campanile/vault"
)

// Server answers AirNotifier's clients. Its methods may be called from any goroutine.
type Server struct {
	options  Options
	log      Log
	store    Store
	slog     *slog.Logger
	apps     registry
	devices  *deviceMemory
	casts    broadcastMemory
	taken    requestMemory
	catchUp  *catchUp
	proof    *prover // with the proof that a "no" needs
	glance   *prover // what the store knows now
	creator  *creator
	check    *siteCheck
	perIP    *limiter
	perURL   *limiter
	metrics  *metrics
	calls    sync.Pool // *call
	handler  *gin.Engine
	indexDoc *answer
}

// New returns a server that answers once apps has been applied to it. Nothing of it runs in the background before Run. It
// panics where a trusted proxy is no address or where metrics of that name are registered already: both are the caller's mistakes.
func New(o Options, log Log, store Store, hasher vault.Hasher, logger *slog.Logger, reg prometheus.Registerer) *Server {
	o = o.withDefaults()
	log = patientLog{log, o.AppendPatience}
	s := &Server{
		options: o, log: log, store: store, slog: logger,
		apps:    registry{apps: make(map[string]*appState)},
		devices: newDeviceMemory(hasher),
		casts:   broadcastMemory{all: map[schemas.ID]*knownBroadcast{}},
		catchUp: newCatchUp(o.CatchUpApps),
		proof:   newProver(log, store, true, o.ProofPatience),
		glance:  newProver(log, store, false, o.ProofPatience),
		check:   newSiteCheck(o),
		perIP:   newLimiter(o.KeysPerAddress, o.KeyInterval),
		perURL:  newLimiter(o.KeysPerURL, o.KeyInterval),
	}
	s.calls.New = func() any { return newCall(s) }
	s.metrics = newMetrics(reg, func() float64 { return float64(s.devices.deadCount()) })
	s.creator = newCreator(s)
	s.indexDoc = indexPage(o.IndexURL)
	s.handler = s.routes()
	return s
}

// ApplyApps folds a record of the topic apps. Follow the topic from its start. Errors are schemas.ErrUnknownType and ErrMalformed, wrapped.
func (s *Server) ApplyApps(r schemas.Record) error { return s.apps.apply(r) }

// ApplyDevices keeps the set of dead devices by the topic devices. Follow the topic from its start. Errors as of ApplyApps.
func (s *Server) ApplyDevices(r schemas.Record) error { return s.devices.apply(r) }

// ApplyBroadcasts keeps what v3 must know of broadcasts, by the topic of that name. Follow the topic from its start. Errors as of
// ApplyApps.
func (s *Server) ApplyBroadcasts(r schemas.Record) error { return s.casts.apply(r) }

// Handler serves the whole API, from the host's root.
func (s *Server) Handler() http.Handler { return s.handler }

// RoutesV3 are the methods and paths that are served below /api/v3, such as "GET /broadcasts/{id}", sorted.
func (s *Server) RoutesV3() (routes []string) {
	for _, r := range s.handler.Routes() {
		if path, ok := strings.CutPrefix(r.Path, prefixV3); ok {
			parts := strings.Split(path, "/")
			for i, p := range parts {
				if name, ok := strings.CutPrefix(p, ":"); ok {
					parts[i] = "{" + name + "}"
				}
			}
			routes = append(routes, r.Method+" "+strings.Join(parts, "/"))
		}
	}
	slices.Sort(routes)
	return routes
}

// Run asks the store and the end of apps on behalf of the requests, appends missing registrations, and forgets what is old,
// until ctx ends; it returns nil then. While it does not run, requests that would need it are answered as if the store were away.
func (s *Server) Run(ctx context.Context) error {
	var tasks sync.WaitGroup
	tasks.Go(func() { s.catchUp.run(ctx) })
	tasks.Go(func() { s.proof.run(ctx) })
	tasks.Go(func() { s.glance.run(ctx) })
	tasks.Go(func() { s.creator.run(ctx) })
	tasks.Go(func() { s.upkeep(ctx) })
	tasks.Wait()
	return nil
}

func (s *Server) upkeep(ctx context.Context) {
	tick := time.NewTicker(refusedFor)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.catchUp.upkeep()
		}
		if n%60 == 0 {
			s.perIP.upkeep(s.options.Now())
			s.perURL.upkeep(s.options.Now())
		}
	}
}

// routes builds the router. Nothing about a path is normalised, redirected or guessed: a token stands in it as it is.
func (s *Server) routes() *gin.Engine {
	gin.SetMode(gin.ReleaseMode)
	e := gin.New()
	e.RedirectTrailingSlash, e.RedirectFixedPath, e.RemoveExtraSlash = false, false, false
	e.UseEscapedPath, e.UnescapePathValues = true, false // gin would read a plus as a space
	e.HandleMethodNotAllowed = true
	e.ForwardedByClientIP = len(s.options.TrustedProxies) > 0
	if err := e.SetTrustedProxies(s.options.TrustedProxies); err != nil {
		panic(fmt.Sprintf("ingest: trusted proxies: %v", err))
	}

	both := func(method, path, name string, h handler) {
		run := s.serve(name, h)
		e.Handle(method, path, run)
		e.Handle(method, path+"/", run)
	}
	both(http.MethodPost, "/tokens/:token", "tokens", (*call).registerV1)
	both(http.MethodDelete, "/tokens/:token", "tokens", (*call).unregister)
	both(http.MethodPost, "/api/v2/tokens", "v2_tokens", (*call).registerV2)
	both(http.MethodDelete, "/api/v2/tokens/:token", "v2_tokens", (*call).unregister)
	both(http.MethodPost, "/notification", "notification", (*call).notify)
	both(http.MethodPost, "/api/v2/push", "v2_push", (*call).push)
	both(http.MethodPost, "/broadcast", "broadcast", (*call).broadcastV1)
	both(http.MethodPost, "/api/v2/broadcast", "v2_broadcast", (*call).broadcastV2)
	both(http.MethodPost, "/accesskeys", "accesskeys", (*call).requestKeyV1)
	both(http.MethodPost, "/api/v2/accesskeys", "v2_accesskeys", (*call).requestKeyV2)

	index := s.serve("index", func(*call) *answer { return s.indexDoc })
	e.GET("/", index)
	e.HEAD("/", index)
	removed := s.serve("gone", func(*call) *answer { return gone })
	for _, path := range []string{"/users", "/api/v2/users", "/objects", "/api/v2/objects"} {
		e.Any(path, removed)
		e.Any(path+"/*rest", removed)
	}
	s.routesV3(e)
	e.NoRoute(s.serve("unknown", func(c *call) *answer {
		if c.isV3() {
			return v3NoRoute
		}
		return notFound
	}))
	e.NoMethod(s.serve("wrong_method", (*call).wrongMethod))
	return e
}

//nolint:gochecknoglobals // a table
var (
	notFound    = &answer{status: http.StatusNotFound, html: true}
	wrongMethod = &answer{
		status: http.StatusMethodNotAllowed, html: true,
		body: []byte("<html><title>405: Method Not Allowed</title><body>405: Method Not Allowed</body></html>"),
	}
)

// wrongMethod is answered after the common checks, as AirNotifier does.
func (c *call) wrongMethod() *answer {
	if path := c.gin.Request.URL.Path; path == "/" {
		return wrongMethod
	}
	if c.isV3() {
		return v3WrongMethod
	}
	if refused := c.admit(needsKey, false); refused != nil {
		return refused
	}
	return wrongMethod
}

// handler answers one request; it reads what it needs through the call.
type handler func(c *call) *answer

// serve runs a handler on a pooled call.
func (s *Server) serve(name string, h handler) gin.HandlerFunc {
	m := s.metrics.route(name)
	return func(g *gin.Context) {
		start := time.Now()
		c := s.calls.Get().(*call) //nolint:forcetypeassert // the pool holds nothing else
		c.begin(g, s.options.Now())
		a := c.run(h)
		if c.v3 {
			a = asProblem(a)
		}
		if c.id != "" && a.status < 300 {
			g.Writer.Header()[idHeader] = []string{c.id}
		}
		c.drain()
		a.write(g.Writer)
		c.finish()
		s.calls.Put(c)
		m.answered(a.status, time.Since(start))
	}
}

// idHeader carries the id of what was accepted.
const idHeader = "X-Campanile-Id"

// run calls the handler; a panic in it costs this one request.
func (c *call) run(h handler) (a *answer) {
	defer func() {
		if r := recover(); r != nil {
			// The value may quote the request; its type and the stack do not.
			c.server.slog.Error("handler panicked", "panic_type", fmt.Sprintf("%T", r), "route", c.gin.FullPath(), "stack", string(debug.Stack()))
			a = crashed
		}
	}()
	return h(c)
}
