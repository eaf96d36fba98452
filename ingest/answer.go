package ingest

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"github.com/gin-gonic/gin"
)

// answer is a status and a JSON body, spaced as Python's json module writes it. An empty body is no body.
type answer struct {
	status     int
	body       []byte
	retryAfter int // seconds; zero: no header
	html       bool
	problem    bool // RFC 9457
}

func fixed(status int, body string) *answer { return &answer{status: status, body: []byte(body)} }

// The answers that never change, with AirNotifier's texts and spelling (contract, section 1).
//
//nolint:gochecknoglobals // a table, which nobody changes
var (
	okStatus       = fixed(http.StatusOK, `{"status": "ok"}`)
	tokenExists    = fixed(http.StatusOK, `{"status": "token exists"}`)
	tokenDeleted   = fixed(http.StatusOK, `{"status": "deleted"}`)
	tokenNotThere  = fixed(http.StatusNotFound, `{"status": "Token does't exist"}`)
	okEmpty        = fixed(http.StatusOK, "")
	acceptedEmpty  = fixed(http.StatusAccepted, "")
	appNameMissing = fixed(http.StatusBadRequest, `{"error": "app name is required"}`)
	appKeyMissing  = fixed(http.StatusBadRequest, `{"error": "app key is required"}`)
	invalidToken   = fixed(http.StatusBadRequest, `{"error": "Invalid token"}`)
	invalidApp     = fixed(http.StatusBadRequest, `{"error": "Invalid application name"}`)
	blockedIP      = fixed(http.StatusLocked, `{"error": "Blocked IP"}`)
	invalidKey     = fixed(http.StatusBadRequest, `{"error": "Invalid access key"}`)
	pendingKey     = fixed(http.StatusForbidden, `{"error": "Access key waits for approval"}`)

	mayNotCreate    = fixed(http.StatusForbidden, `{"error": "No permission to create token"}`)
	mayNotDelete    = fixed(http.StatusForbidden, `{"error": "No permission to delete token"}`)
	mayNotNotify    = fixed(http.StatusForbidden, `{"error": "No permission to send notification"}`)
	mayNotBroadcast = fixed(http.StatusForbidden, `{"error": "No permission to send broadcast"}`)

	noToken            = fixed(http.StatusBadRequest, `{"error": "No token provided"}`)
	noAlert            = fixed(http.StatusBadRequest, `{"error": "Missing argument alert"}`)
	noAlertV2          = fixed(http.StatusInternalServerError, `{"error": "Missing argument alert"}`)
	invalidDeviceType  = fixed(http.StatusBadRequest, `{"error": "Invalid device type"}`)
	invalidChannel     = fixed(http.StatusBadRequest, `{"error": "Invalid channel"}`)
	invalidEnvironment = fixed(http.StatusBadRequest, `{"error": "Invalid environment: production or sandbox"}`)
	invalidAlert       = fixed(http.StatusBadRequest, `{"error": "Invalid alert: a text, an object with title and body, or null"}`)
	invalidExtra       = fixed(http.StatusBadRequest, `{"error": "Invalid extra: an object"}`)
	tooManyFields      = fixed(http.StatusBadRequest, `{"error": "Too many fields"}`)
	notAnObject        = fixed(http.StatusBadRequest, `{"error": "The body must be a JSON object"}`)
	malformedForm      = fixed(http.StatusBadRequest, `{"error": "Malformed form"}`)
	bodyCut            = fixed(http.StatusBadRequest, `{"error": "The body ended early"}`)
	bodyTooLarge       = fixed(http.StatusRequestEntityTooLarge, `{"error": "The body is too large"}`)
	headerTooLarge     = fixed(http.StatusRequestHeaderFieldsTooLarge, `{"error": "The app name or key is too long"}`)
	unknownToken       = fixed(http.StatusBadRequest, `{"error": "Unknow token and you have no permission to create"}`)
	deadToken          = fixed(http.StatusNotFound, `{"error": "Unregistered token"}`)

	siteUnknown    = fixed(http.StatusForbidden, `{"error": "Site not registered on moodle.net"}`)
	siteNoURL      = fixed(http.StatusForbidden, `{"error": "url must be the address of the site, http or https"}`)
	tooManyKeys    = &answer{status: http.StatusTooManyRequests, body: []byte(`{"error": "Too many key requests, try again later"}`), retryAfter: 60}
	tooManyPending = &answer{status: http.StatusTooManyRequests, body: []byte(`{"error": "Too many keys wait for approval"}`), retryAfter: 3600}

	gone = fixed(http.StatusGone, `{"error": "Campanile has no users and objects API: it keeps devices and sends pushes, and nothing else"}`)

	cannotVerify   = unavailable("The access key cannot be verified now, try again later", 1)
	siteCheckAway  = unavailable("The site cannot be checked now, try again later", 30)
	storeBehind    = unavailable("The device cannot be looked up now, try again later", 2)
	logUnreachable = unavailable("The log takes nothing now, try again later", 2)
	crashed        = fixed(http.StatusInternalServerError, `{"error": "internal error"}`)
)

func unavailable(why string, retryAfter int) *answer {
	a := failure(http.StatusServiceUnavailable, why)
	a.retryAfter = retryAfter
	return a
}

// failure is {"error": text}.
func failure(status int, text string) *answer {
	return &answer{status: status, body: append(append([]byte(`{"error": `), quote(text)...), '}')}
}

func quote(s string) []byte {
	b, err := json.Marshal(s)
	if err != nil { // a string always marshals
		return []byte(`""`)
	}
	return b
}

// notRegistered is v1's answer about a dead token, as /notification/ gave it.
func notRegistered(token string) *answer {
	body := append([]byte(`{"error": "Not Registered", "regids": [`), quote(token)...)
	return &answer{status: http.StatusBadRequest, body: append(body, "]}"...)}
}

// noProcessor is Python's word for a hook that is not there.
func noProcessor(status int, name string) *answer {
	if len(name) > 64 {
		name = strings.ToValidUTF8(name[:64], "")
	}
	return failure(status, "No module named 'hooks."+name+"'")
}

// badJSON is AirNotifier's answer to a body that it could not read: 500, with the parser's words.
func badJSON(err *syntaxError) *answer { return failure(http.StatusInternalServerError, err.Error()) }

//nolint:gochecknoglobals // constants, in the form that a header map takes without a copy
var (
	typeJSON = []string{"application/json; charset=utf-8"}
	typeHTML = []string{"text/html; charset=utf-8"}

	typeProblem = []string{"application/problem+json"}
)

// write sends a.
func (a *answer) write(w gin.ResponseWriter) {
	h := w.Header()
	switch {
	case a.html:
		h["Content-Type"] = typeHTML
	case a.problem:
		h["Content-Type"] = typeProblem
	case a.status != http.StatusNoContent:
		h["Content-Type"] = typeJSON
	}
	if a.problem && a.status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", "Bearer")
	}
	if a.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(a.retryAfter))
	}
	w.WriteHeader(a.status)
	w.WriteHeaderNow() // else gin adds a text of its own to an empty 404
	if len(a.body) > 0 {
		_, _ = w.Write(a.body) // an error: the client is gone, and there is nobody to tell
	}
}
