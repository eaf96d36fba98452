package ingest

import (
	"encoding/json"
	"net/http"
)

// problemSpace is where the types of v3's errors are named (RFC 9457, section 3.1.1).
const problemSpace = "https://campanile-push.org/problems/"

// problem is an error of v3.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
	Field  string `json:"field,omitempty"` // the member of the body that is wrong
}

// refusal makes a problem's answer. code is the last part of its type, and part of the contract.
func refusal(status int, code, detail string) *answer {
	return problemAnswer(&problem{Type: problemSpace + code, Title: http.StatusText(status), Status: status, Detail: detail})
}

func problemAnswer(p *problem) *answer {
	body, err := json.Marshal(p)
	if err != nil { // strings and a number always marshal
		return crashed
	}
	return &answer{status: p.Status, body: body, problem: true}
}

func badField(err *FieldError) *answer {
	return problemAnswer(&problem{
		Type: problemSpace + "invalid-field", Title: http.StatusText(http.StatusBadRequest), Status: http.StatusBadRequest, Detail: err.Error(), Field: err.Field,
	})
}

//nolint:gochecknoglobals // tables, which nobody changes
var (
	v3NoCredentials = refusal(http.StatusUnauthorized, "no-credentials", "give the key as `Authorization: Bearer <key>` and the app as X-Campanile-App")
	v3InvalidKey    = refusal(http.StatusUnauthorized, "invalid-key", "no such key of that app")
	v3NoRoute       = refusal(http.StatusNotFound, "not-found", "there is nothing here; /api/v3/openapi.json lists what is")
	v3WrongMethod   = refusal(http.StatusMethodNotAllowed, "method-not-allowed", "/api/v3/openapi.json lists the methods of each path")
	v3NoBroadcast   = refusal(http.StatusNotFound, "no-broadcast", "no broadcast of yours has this id")
	v3NoToken       = refusal(http.StatusNotFound, "unknown-token", "no device of this app has the token")
	v3Ended         = refusal(http.StatusConflict, "broadcast-ended", "the broadcast has ended")
	v3Cancelled     = refusal(http.StatusConflict, "broadcast-cancelled", "the broadcast is cancelled, and that is final")
	v3OtherBody     = refusal(http.StatusConflict, "idempotency-conflict", "another request came under the same Idempotency-Key")
	v3BadIdemKey    = refusal(http.StatusBadRequest, "invalid-idempotency-key", "an Idempotency-Key is 1 to 255 printable ASCII characters")
	v3NotMyChannel  = refusal(http.StatusForbidden, "foreign-channel", "the key is bound to a site, and the channel is not that site's")
	v3NoReads       = refusal(http.StatusServiceUnavailable, "no-reads", "this process answers no questions about broadcasts")

	// v3Words are the answers of v1 and v2 that v3 gives another status or a name of its own.
	v3Words = map[*answer]*answer{
		appNameMissing: v3NoCredentials,
		appKeyMissing:  v3NoCredentials,
		invalidApp:     v3InvalidKey, // whether an app exists is nobody's business without a key
		invalidKey:     v3InvalidKey,

		pendingKey:      refusal(http.StatusForbidden, "pending-key", "the key waits for approval"),
		blockedIP:       refusal(http.StatusForbidden, "blocked-address", "the app refuses requests from this address"),
		mayNotCreate:    refusal(http.StatusForbidden, "no-permission", "the key may not register tokens"),
		mayNotDelete:    refusal(http.StatusForbidden, "no-permission", "the key may not remove tokens"),
		mayNotNotify:    refusal(http.StatusForbidden, "no-permission", "the key may not send notifications"),
		mayNotBroadcast: refusal(http.StatusForbidden, "no-permission", "the key may not send broadcasts, or not to this channel"),

		deadToken:          refusal(http.StatusNotFound, "dead-token", "the provider called the token dead, and it was not registered again"),
		unknownToken:       refusal(http.StatusNotFound, "unknown-token", "no device of this app has the token, and the key may not register it"),
		tokenNotThere:      v3NoToken,
		invalidToken:       refusal(http.StatusBadRequest, "invalid-field", "the token cannot be taken"),
		invalidChannel:     refusal(http.StatusBadRequest, "invalid-field", "a channel cannot be taken"),
		invalidEnvironment: badField(&FieldError{"environment", "must be production or sandbox"}),
		notAnObject:        refusal(http.StatusBadRequest, "invalid-body", "the body must be a JSON object"),
		bodyCut:            refusal(http.StatusBadRequest, "invalid-body", "the body ended early"),
		bodyTooLarge:       refusal(http.StatusRequestEntityTooLarge, "body-too-large", "the body is too large"),
		headerTooLarge:     refusal(http.StatusRequestHeaderFieldsTooLarge, "header-too-large", "the app's name or the key is too long"),
		crashed:            refusal(http.StatusInternalServerError, "internal", "the request met a mistake of ours"),
		cannotVerify:       refusal(http.StatusServiceUnavailable, "unavailable", "the key cannot be verified now, try again later"),
		storeBehind:        refusal(http.StatusServiceUnavailable, "unavailable", "the device cannot be looked up now, try again later"),
		logUnreachable:     refusal(http.StatusServiceUnavailable, "unavailable", "the log takes nothing now, try again later"),
	}
)

// asProblem is what v3 answers where v1 and v2 would answer a.
func asProblem(a *answer) *answer {
	if a.status < http.StatusBadRequest || a.problem {
		return a
	}
	p, ok := v3Words[a]
	if !ok {
		var old struct {
			Error string `json:"error"`
		}
		_ = json.Unmarshal(a.body, &old) // else there is no detail to give
		code := "invalid-body"
		if a.status >= http.StatusInternalServerError {
			code = "unavailable"
		}
		p = refusal(a.status, code, old.Error)
	}
	if a.retryAfter > 0 {
		later := *p
		later.retryAfter = a.retryAfter
		return &later
	}
	return p
}
