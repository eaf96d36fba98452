package ingest

import (
	"crypto/sha256"
	"encoding/json"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gin-gonic/gin"

	"github.com/campanile-push/campanile/schemas"
)

const (
	headerAppV3     = "X-Campanile-App"
	headerIdemKey   = "Idempotency-Key"
	headerReplayed  = "Idempotent-Replayed"
	prefixV3        = "/api/v3"
	catchUpV3       = time.Second // bounds the wait for the end of broadcasts
	openAPIPath     = prefixV3 + "/openapi.json"
	openAPICacheFor = "public, max-age=300"
)

// routesV3 adds the native API.
func (s *Server) routesV3(e *gin.Engine) {
	for _, r := range []struct {
		method, path, name string
		handler            handler
	}{
		{http.MethodPut, "/tokens/:token", "v3_tokens", (*call).putToken},
		{http.MethodDelete, "/tokens/:token", "v3_tokens", (*call).deleteToken},
		{http.MethodPut, "/channels/:channel/tokens/:token", "v3_channels", (*call).subscribe},
		{http.MethodDelete, "/channels/:channel/tokens/:token", "v3_channels", (*call).unsubscribe},
		{http.MethodPost, "/notifications", "v3_notifications", (*call).postNotification},
		{http.MethodPost, "/broadcasts", "v3_broadcasts", (*call).postBroadcast},
		{http.MethodPost, "/broadcasts/:id/pause", "v3_control", control("pause")},
		{http.MethodPost, "/broadcasts/:id/resume", "v3_control", control("resume")},
		{http.MethodPost, "/broadcasts/:id/cancel", "v3_control", control("cancel")},
		{http.MethodPost, "/broadcasts/:id/rate", "v3_control", control("rate")},
	} {
		e.Handle(r.method, prefixV3+r.path, s.serve(r.name, v3(r.handler)))
	}
	for _, path := range []string{"/broadcasts", "/broadcasts/:id", "/broadcasts/:id/progress"} {
		e.GET(prefixV3+path, s.serveRead("v3_reads"))
	}
	if len(s.options.Document) > 0 {
		e.GET(openAPIPath, s.serve("v3_openapi", v3((*call).document)))
	}
}

// v3 marks a call, so that its errors are problems.
func v3(h handler) handler {
	return func(c *call) *answer {
		c.v3 = true
		return h(c)
	}
}

func (c *call) isV3() bool {
	path := c.gin.Request.URL.Path
	c.v3 = path == prefixV3 || strings.HasPrefix(path, prefixV3+"/")
	return c.v3
}

// admitV3 finds the app and the key, and asks for a right.
func (c *call) admitV3(bit uint32) *answer {
	h := c.gin.Request.Header
	name, key := h.Get(headerAppV3), ""
	if scheme, credentials, ok := strings.Cut(h.Get("Authorization"), " "); ok && strings.EqualFold(scheme, "bearer") {
		key = strings.TrimSpace(credentials)
	}
	if name == "" {
		name = h.Get(headerApp)
	}
	if key == "" {
		key = h.Get(headerKey)
	}
	switch {
	case name == "" || key == "":
		return v3NoCredentials
	case len(name) > maxHeader || len(key) > maxHeader:
		return headerTooLarge
	}
	if refused := c.authorise(name, key, needsKey); refused != nil {
		return refused
	}
	if c.grant.may(bit) {
		return nil
	}
	switch bit {
	case bitCreate:
		return mayNotCreate
	case bitDelete:
		return mayNotDelete
	case bitNotify:
		return mayNotNotify
	}
	return mayNotBroadcast
}

// bodyV3 reads the members of the body. Where it may be missing, no body is an empty object.
func (c *call) bodyV3(optional bool) ([]member, *answer) {
	body, refused := c.body()
	switch {
	case refused != nil:
		return nil, refused
	case body == "" && optional:
		return nil, nil
	case !utf8.ValidString(body):
		return nil, refusal(http.StatusBadRequest, "invalid-body", "the body is not UTF-8")
	}
	members, isObject, syntax := parseObject(body, c.members[:0])
	c.members = members
	switch {
	case syntax != nil:
		return nil, refusal(http.StatusBadRequest, "invalid-body", syntax.Error())
	case !isObject:
		return nil, notAnObject
	}
	return members, nil
}

// idempotent reads the Idempotency-Key, and with it the id and the body's hash; keyed is false without one.
func (c *call) idempotent() (hash [32]byte, keyed bool, refused *answer) {
	keys := c.gin.Request.Header[headerIdemKey]
	h := sha256.New()
	_, _ = h.Write([]byte(c.gin.FullPath() + "\n"))
	_, _ = h.Write(c.buf.Bytes())
	h.Sum(hash[:0])
	if len(keys) == 0 {
		return hash, false, nil
	}
	if len(keys) > 1 || keys[0] == "" || !idempotencyKey(keys[0]) {
		return hash, false, v3BadIdemKey
	}
	c.wantedID = schemas.RequestID(c.grant.app, c.grant.keyID(), keys[0])
	return hash, true, nil
}

// mine reports which keys' broadcasts this grant sees and steers: those of its own claim. nil: all of the app's.
func (s *Server) mine(g *grant) func(keyID string) bool {
	site := g.claim()
	if site == nil {
		return nil
	}
	app, own, channel := g.app, g.keyID(), site.channel
	return func(keyID string) bool { return keyID == own || s.apps.ofClaim(app, keyID, channel) }
}

// ofClaim reports whether a key was given to the claim with that channel.
func (r *registry) ofClaim(app, keyID, channel string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	a := r.apps[app]
	if a == nil {
		return false
	}
	k := a.byID[keyID]
	return k != nil && k.claim != nil && k.claim.channel == channel
}

// serveRead checks a request and hands it on to Reads.
func (s *Server) serveRead(name string) gin.HandlerFunc {
	m := s.metrics.route(name)
	return func(g *gin.Context) {
		start := time.Now()
		c := s.calls.Get().(*call) //nolint:forcetypeassert // the pool holds nothing else
		c.begin(g, s.options.Now())
		refused := c.run(func(c *call) *answer { return c.admitV3(bitBroadcast) })
		app, mine := c.grant.app, s.mine(&c.grant)
		c.finish()
		s.calls.Put(c)
		if refused == nil && s.options.Reads == nil {
			refused = v3NoReads
		}
		if refused != nil {
			asProblem(refused).write(g.Writer)
		} else {
			s.options.Reads(g.Writer, g.Request, app, mine)
		}
		m.answered(g.Writer.Status(), time.Since(start))
	}
}

// document is GET /api/v3/openapi.json.
func (c *call) document() *answer {
	c.gin.Writer.Header().Set("Cache-Control", openAPICacheFor)
	return &answer{status: http.StatusOK, body: c.server.options.Document}
}

// accepted is the answer about what the log took.
func accepted(status int, v any) *answer {
	body, err := json.Marshal(v)
	if err != nil { // what we answer always marshals
		return crashed
	}
	return &answer{status: status, body: body}
}
