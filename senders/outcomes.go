package senders

import (
	"net/http"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// Outcomes, by their short names.
const (
	accepted      = pushv1.Outcome_OUTCOME_ACCEPTED
	tokenInvalid  = pushv1.Outcome_OUTCOME_TOKEN_INVALID
	rejected      = pushv1.Outcome_OUTCOME_REJECTED
	throttled     = pushv1.Outcome_OUTCOME_THROTTLED
	unavailable   = pushv1.Outcome_OUTCOME_UNAVAILABLE
	misconfigured = pushv1.Outcome_OUTCOME_MISCONFIGURED
	expired       = pushv1.Outcome_OUTCOME_EXPIRED
	cancelled     = pushv1.Outcome_OUTCOME_CANCELLED
)

// Action is what an answer asks for beyond the fate of its own send.
type Action uint8

// The actions.
const (
	// Invalidate: the token is dead for this app.
	Invalidate Action = 1 << iota
	// Suspect: the same answer comes when credentials and environment are wrong, so a flood of it is not about phones.
	Suspect
	// Park: no push of this app can succeed until its credentials change.
	Park
	// RefreshToken: the bearer token is to be made anew, once.
	RefreshToken
	// HoldToken: bearer tokens were made too often; none for 20 minutes.
	HoldToken
	// Reconnect: this connection is of no more use.
	Reconnect
	// SlowDown: the app's whole rate is too high, not this device's.
	SlowDown
)

// Verdict is what an answer means.
type Verdict struct {
	Outcome schemas.Outcome
	Actions Action
}

// Has reports whether the verdict asks for a.
func (v Verdict) Has(a Action) bool { return v.Actions&a != 0 }

// apnsReasons is Apple's table of reasons ("Handling notification responses from APNs"), with those that its servers send and
// the page does not have.
var apnsReasons = map[string]Verdict{
	// 400
	"BadDeviceToken":         {tokenInvalid, Invalidate | Suspect},
	"DeviceTokenNotForTopic": {tokenInvalid, Invalidate | Suspect},
	"BadCollapseId":          {rejected, 0},
	"BadExpirationDate":      {rejected, 0},
	"BadMessageId":           {rejected, 0},
	"BadPriority":            {rejected, 0},
	"BadTopic":               {misconfigured, Park}, // the topic is part of the credentials
	"DuplicateHeaders":       {rejected, 0},
	"InvalidPushType":        {rejected, 0},
	"MissingTopic":           {misconfigured, Park},
	"PayloadEmpty":           {rejected, 0},
	"MissingDeviceToken":     {rejected, 0},
	"IdleTimeout":            {unavailable, Reconnect},
	"TopicDisallowed":        {misconfigured, Park},
	// 403
	"BadCertificate":             {misconfigured, Park | Reconnect},
	"BadCertificateEnvironment":  {misconfigured, Park | Reconnect},
	"ExpiredProviderToken":       {unavailable, RefreshToken},
	"Forbidden":                  {misconfigured, Park},
	"InvalidProviderToken":       {misconfigured, Park | Reconnect},
	"MissingProviderToken":       {misconfigured, Park | Reconnect},
	"UnrelatedKeyIdInToken":      {unavailable, Reconnect},
	"BadEnvironmentKeyIdInToken": {misconfigured, Park},
	"BadEnvironmentKeyInToken":   {misconfigured, Park}, // what servers really send
	// 404, 405: our own mistakes
	"BadPath":          {rejected, 0},
	"MethodNotAllowed": {rejected, 0},
	// 410. Apple counts these as no error.
	"Unregistered": {tokenInvalid, Invalidate},
	"ExpiredToken": {tokenInvalid, Invalidate},
	// 413
	"PayloadTooLarge": {rejected, 0},
	// 429
	"TooManyRequests":             {throttled, 0}, // of this one device
	"TooManyProviderTokenUpdates": {throttled, HoldToken},
	// 5xx
	"InternalServerError": {unavailable, 0},
	"ServiceUnavailable":  {unavailable, 0},
	"Shutdown":            {unavailable, Reconnect},
}

// APNSVerdict reads APNs' answer. A reason unknown to us is judged by its status: a token is never called dead, and an app never
// parked, for a word that we do not know.
func APNSVerdict(status int, reason string) Verdict {
	if status == http.StatusOK {
		return Verdict{accepted, 0}
	}
	if v, ok := apnsReasons[reason]; ok {
		return v
	}
	return byStatus(status)
}

// byStatus judges an answer whose reason says nothing.
func byStatus(status int) Verdict {
	switch {
	case status == http.StatusTooManyRequests:
		return Verdict{throttled, 0}
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return Verdict{misconfigured, Park}
	case status == http.StatusRequestTimeout, status < 400, status >= 500:
		return Verdict{unavailable, 0}
	}
	return Verdict{rejected, 0}
}

// fcmCodes is the table of FCM's error codes (FcmError.errorCode of HTTP v1).
var fcmCodes = map[string]Verdict{
	"UNREGISTERED":           {tokenInvalid, Invalidate},
	"SENDER_ID_MISMATCH":     {tokenInvalid, Invalidate | Suspect},
	"QUOTA_EXCEEDED":         {throttled, SlowDown},
	"UNAVAILABLE":            {unavailable, 0},
	"INTERNAL":               {unavailable, 0},
	"THIRD_PARTY_AUTH_ERROR": {misconfigured, 0}, // the project's APNs key: pushes to Android are well, so the app is not parked
	"APNS_AUTH_ERROR":        {misconfigured, 0}, // its older name
}

// FCMVerdict reads FCM's answer: the HTTP status, the FcmError code ("" where the body has none), and whether the answer blames the
// token (a violation of message.token).
func FCMVerdict(status int, code string, blamesToken bool) Verdict {
	if status == http.StatusOK {
		return Verdict{accepted, 0}
	}
	if code == "INVALID_ARGUMENT" || code == "" && status == http.StatusBadRequest {
		if blamesToken {
			return Verdict{tokenInvalid, Invalidate | Suspect}
		}
		return Verdict{rejected, 0}
	}
	if v, ok := fcmCodes[code]; ok {
		return v
	}
	switch status {
	case http.StatusUnauthorized: // the access token, not the credentials: those show at the token endpoint
		return Verdict{unavailable, RefreshToken}
	case http.StatusNotFound: // no FcmError: a wrong project or path, and no word on the token
		return Verdict{misconfigured, Park}
	case http.StatusTooManyRequests:
		return Verdict{throttled, SlowDown}
	}
	return byStatus(status)
}
