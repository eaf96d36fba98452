package ingest

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gin-gonic/gin"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

const (
	headerApp  = "X-An-App-Name" // as net/http writes it; clients send X-AN-APP-NAME
	headerKey  = "X-An-App-Key"
	maxHeader  = 1024     // bytes of either
	keptBody   = 64 << 10 // bytes; larger buffers are not kept
	keptFields = 64       // fields
)

// call is one request on its way to its answer. It is used again: nothing of it may be kept.
type call struct {
	server *Server
	gin    *gin.Context
	now    time.Time
	grant  grant
	form   form
	id     string // of what was accepted
	read   bool   // the body, to its end or as far as it is taken
	v3     bool   // errors are problems

	wantedID  schemas.ID // of what will be accepted; zero: a new one
	requestID [16]byte
	repeat    schemas.ID         // what the notification has in common with its repeats; its memory, too
	say       func(*schemas.Out) // sayNotification, bound once
	members   []member

	buf          bytes.Buffer
	limited      io.LimitedReader
	content      contentBuilder
	notification pushv1.NotificationRequested
}

func newCall(s *Server) *call {
	c := &call{server: s}
	c.say = c.sayNotification
	return c
}

func (c *call) begin(g *gin.Context, now time.Time) { c.gin, c.now = g, now }

// finish lets go of the request's memory.
func (c *call) finish() {
	c.gin, c.id, c.grant = nil, "", grant{}
	c.v3, c.read, c.wantedID = false, false, schemas.ID{}
	clear(c.form.fields)
	c.form.fields = c.form.fields[:0]
	if cap(c.form.fields) > keptFields {
		c.form.fields = nil
	}
	clear(c.members)
	if cap(c.members) > keptFields {
		c.members = nil
	}
	c.buf.Reset()
	if c.buf.Cap() > keptBody {
		c.buf = bytes.Buffer{}
	}
	c.notification.Content = nil
	c.notification.Reset()
	c.content.release()
}

// body reads the request's body as text, valid UTF-8 or not.
func (c *call) body() (string, *answer) {
	r := c.gin.Request
	limit := c.server.options.MaxBody
	c.read = true
	if r.ContentLength == 0 || r.Body == nil {
		return "", nil
	}
	if r.ContentLength > limit {
		c.hangUp()
		return "", bodyTooLarge
	}
	c.buf.Reset()
	c.limited = io.LimitedReader{R: r.Body, N: limit + 1}
	_, err := c.buf.ReadFrom(&c.limited)
	c.limited.R = nil
	switch {
	case int64(c.buf.Len()) > limit:
		c.hangUp()
		return "", bodyTooLarge
	case err != nil:
		c.hangUp()
		return "", bodyCut
	}
	return c.buf.String(), nil
}

// hangUp closes the connection after the answer: the rest of the body is of no use.
func (c *call) hangUp() { c.gin.Writer.Header().Set("Connection", "close") }

// maxDrain bounds the body that is read for nothing, in bytes; net/http does as much after an answer of HTTP/1.1.
const maxDrain = 256 << 10

// drain reads a body that the answer did not need. Over HTTP/2 an answer before the request's end is followed by a reset of the stream,
// and Debian's curl (7.88) then fails in place of taking the answer.
func (c *call) drain() {
	r := c.gin.Request
	if c.read || r.ProtoMajor < 2 || r.Body == nil || r.ContentLength == 0 || r.ContentLength > maxDrain {
		return
	}
	_, _ = io.CopyN(io.Discard, r.Body, maxDrain) // an error: the client is gone, or had less to say
}

// json reads the members of the body, a JSON object, whatever its label says: Moodle's says form.
func (c *call) json() ([]member, *answer) {
	body, refused := c.body()
	if refused != nil {
		return nil, refused
	}
	if !utf8.ValidString(body) {
		body = strings.ToValidUTF8(body, "\uFFFD")
	}
	members, ok, err := parseObject(body, c.members[:0])
	c.members = members
	switch {
	case err != nil:
		return nil, badJSON(err)
	case !ok:
		return nil, notAnObject
	}
	return members, nil
}

// arguments reads the query and, where the endpoint takes forms, the body.
func (c *call) arguments(withBody bool) *answer {
	var err error
	if q := c.gin.Request.URL.RawQuery; q != "" {
		err = c.form.addQuery(q)
	}
	if withBody && err == nil {
		body, refused := c.body()
		if refused != nil {
			return refused
		}
		err = c.form.addBody(c.gin.Request.Header.Get("Content-Type"), body)
	}
	switch {
	case errors.Is(err, errTooManyFields):
		return tooManyFields
	case err != nil:
		return malformedForm
	}
	return nil
}

// keyNeed is whether an endpoint wants a valid key, or only the header.
type keyNeed bool

const (
	needsKey keyNeed = true
	anyKey   keyNeed = false
)

// admit makes the checks common to all endpoints, in AirNotifier's order (contract, section 1.1); formBody says that the body is a form.
func (c *call) admit(need keyNeed, formBody bool) *answer {
	h := c.gin.Request.Header
	names, keys := h[headerApp], h[headerKey]
	if len(names) == 0 {
		return appNameMissing
	}
	if len(keys) == 0 {
		return appKeyMissing
	}
	name, key := names[0], keys[0]
	if len(name) > maxHeader || len(key) > maxHeader {
		return headerTooLarge
	}
	if refused := c.arguments(formBody); refused != nil {
		return refused
	}
	if name == "" {
		name = appArgument(c.form.get("appname"))
	}
	if token, there := c.form.lookup("token"); there && badTokenArgument(token, c.form.get("device")) {
		return invalidToken
	}
	return c.authorise(name, key, need)
}

// appArgument reduces the argument `appname` to what a name can hold.
func appArgument(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '_':
			return r
		case r >= 'A' && r <= 'Z':
			return r + ('a' - 'A')
		}
		return -1
	}, s)
}

// authorise finds the app and the key. Nothing is refused as unknown before everything in `apps` has been read, since a key
// that was issued anywhere works everywhere at once.
func (c *call) authorise(name, key string, need keyNeed) *answer {
	s := c.server
	hash := sha256.Sum256([]byte(key))
	g, appThere, keyThere := s.apps.find(name, &hash)
	waits := keyThere && g.key.pending // or was approved a moment ago
	if !appThere || need == needsKey && (!keyThere || waits) {
		tried := refusalHash(name, &hash)
		if waits || !s.catchUp.wasRefused(tried) {
			if err := s.catchUp.wait(c.gin.Request.Context()); err != nil {
				if c.gin.Request.Context().Err() == nil {
					s.slog.Warn("key could not be verified", "error", err)
				}
				return cannotVerify
			}
			g, appThere, keyThere = s.apps.find(name, &hash)
			if !appThere || need == needsKey && !keyThere {
				s.catchUp.refuse(tried)
			}
		}
	}
	c.grant = g
	switch {
	case !appThere:
		return invalidApp
	case len(g.blocked) > 0 && blocks(g.blocked, c.gin.ClientIP()):
		return blockedIP
	case need == anyKey:
		return nil
	case !keyThere:
		return invalidKey
	case g.key.pending:
		return pendingKey
	}
	return nil
}

// refusalHash names an app and a key in the memory of refused ones: 8 bytes of SHA-256, which nobody can aim at another's key.
func refusalHash(app string, keyHash *[32]byte) uint64 {
	h := sha256.New()
	_, _ = io.WriteString(h, app)
	_, _ = h.Write(keyHash[:])
	return binary.BigEndian.Uint64(h.Sum(nil))
}

// full is the refusal while the log takes nothing; nil while it does.
func (c *call) full() *answer {
	if c.server.options.Full == nil {
		return nil
	}
	if err := c.server.options.Full(); err != nil {
		return unavailable(err.Error(), 30)
	}
	return nil
}

// failed is the answer to an append or a read of the log that went wrong.
func (c *call) failed(err error) *answer {
	if c.gin.Request.Context().Err() == nil { // else the client hung up, and nobody reads the answer
		c.server.slog.Error("log refused a request", "error", err, "route", c.gin.FullPath())
	}
	return logUnreachable
}

// sayNotification writes the push down; a method, so that an append needs no closure of its own.
func (c *call) sayNotification(out *schemas.Out) { out.NotificationRequested(&c.notification) }
