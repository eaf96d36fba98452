package simulator

import (
	"slices"
	"sort"
	"strconv"
	"strings"
)

// Accept is the reason of a push that is accepted whatever the mix says.
const Accept = "ok"

// apnsStatus is the status of each reason, from Apple's table "Handling notification responses from APNs".
// BadEnvironmentKeyInToken is what the servers send where the documentation has BadEnvironmentKeyIdInToken.
var apnsStatus = map[string]int{ //nolint:gochecknoglobals // a table
	"BadCollapseId":               400,
	"BadDeviceToken":              400,
	"BadExpirationDate":           400,
	"BadMessageId":                400,
	"BadPriority":                 400,
	"BadTopic":                    400,
	"DeviceTokenNotForTopic":      400,
	"DuplicateHeaders":            400,
	"IdleTimeout":                 400,
	"InvalidPushType":             400,
	"MissingDeviceToken":          400,
	"MissingTopic":                400,
	"PayloadEmpty":                400,
	"TopicDisallowed":             400,
	"BadCertificate":              403,
	"BadCertificateEnvironment":   403,
	"BadEnvironmentKeyInToken":    403,
	"BadEnvironmentKeyIdInToken":  403,
	"ExpiredProviderToken":        403,
	"Forbidden":                   403,
	"InvalidProviderToken":        403,
	"MissingProviderToken":        403,
	"UnrelatedKeyIdInToken":       403,
	"BadPath":                     404,
	"MethodNotAllowed":            405,
	"ExpiredToken":                410,
	"Unregistered":                410,
	"PayloadTooLarge":             413,
	"TooManyProviderTokenUpdates": 429,
	"TooManyRequests":             429,
	"InternalServerError":         500,
	"ServiceUnavailable":          503,
	"Shutdown":                    503,
}

// fcmError is how FCM words a refusal.
type fcmError struct {
	code    int
	status  string // google.rpc.Code; "": an HTML page of the front end
	detail  string // FcmError.errorCode; "": no such detail
	message string
	field   string // of a google.rpc.BadRequest detail; "": none
}

// Reasons of FCM that are no FcmError codes: refusals that come without that detail, or need telling apart.
const (
	fcmInvalidToken    = "INVALID_TOKEN"
	fcmUnauthenticated = "UNAUTHENTICATED"
	fcmPermission      = "PERMISSION_DENIED"
	fcmNotFound        = "NOT_FOUND"
	fcmBadGateway      = "BAD_GATEWAY"
	fcmGatewayTimeout  = "GATEWAY_TIMEOUT"
	fcmInvalidArgument = "INVALID_ARGUMENT"
)

// fcmErrors has every FcmError.ErrorCode of the reference of FCM's HTTP v1 API, and the refusals without one.
var fcmErrors = map[string]fcmError{ //nolint:gochecknoglobals // a table
	"UNREGISTERED":           {404, "NOT_FOUND", "UNREGISTERED", "Requested entity was not found.", ""},
	fcmInvalidArgument:       {400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", "Request contains an invalid argument.", "message"},
	fcmInvalidToken:          {400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", "The registration token is not a valid FCM registration token", "message.token"},
	"SENDER_ID_MISMATCH":     {403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH", "SenderId mismatch", ""},
	"QUOTA_EXCEEDED":         {429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", "Quota exceeded for quota metric 'Requests' and limit 'Requests per minute' of service 'fcm.googleapis.com'.", ""},
	"UNAVAILABLE":            {503, "UNAVAILABLE", "UNAVAILABLE", "The service is currently unavailable.", ""},
	"INTERNAL":               {500, "INTERNAL", "INTERNAL", "Internal error encountered.", ""},
	"THIRD_PARTY_AUTH_ERROR": {401, "UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR", "Auth error from APNS or Web Push Service", ""},
	fcmUnauthenticated:       {401, "UNAUTHENTICATED", "", "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid authentication credential. See https://developers.google.com/identity/sign-in/web/devconsole-project.", ""},
	fcmPermission:            {403, "PERMISSION_DENIED", "", "Permission 'cloudmessaging.messages.create' denied on resource.", ""},
	fcmNotFound:              {404, "NOT_FOUND", "", "Requested entity was not found.", ""},
	fcmBadGateway:            {502, "", "", "Bad Gateway", ""},
	fcmGatewayTimeout:        {504, "", "", "Gateway Timeout", ""},
}

// words are reasons that mean the same at both providers.
var words = map[string]struct{ apns, fcm string }{ //nolint:gochecknoglobals // a table
	Accept:        {Accept, Accept},
	"dead":        {"Unregistered", "UNREGISTERED"},
	"bad_token":   {"BadDeviceToken", fcmInvalidToken},
	"mismatch":    {"DeviceTokenNotForTopic", "SENDER_ID_MISMATCH"},
	"throttled":   {"TooManyRequests", "QUOTA_EXCEEDED"},
	"unavailable": {"ServiceUnavailable", "UNAVAILABLE"},
	"internal":    {"InternalServerError", "INTERNAL"},
}

// apnsMarkers are the four digits behind 0badcafe in a token that says its own fate. The status code, and a first digit that
// tells reasons of one status apart.
var apnsMarkers = map[string]string{ //nolint:gochecknoglobals // a table
	"0200": Accept,
	"0410": "Unregistered",
	"1410": "ExpiredToken",
	"0400": "BadDeviceToken",
	"1400": "DeviceTokenNotForTopic",
	"2400": "BadTopic",
	"0403": "Forbidden",
	"1403": "InvalidProviderToken",
	"2403": "ExpiredProviderToken",
	"0413": "PayloadTooLarge",
	"0429": "TooManyRequests",
	"0500": "InternalServerError",
	"0503": "ServiceUnavailable",
	"1503": "Shutdown",
}

const apnsMarker = "0badcafe"

// transient reports whether a word or reason heals: in a mix, such a token fails once or twice and is then accepted.
func transient(reason string) bool {
	switch reason {
	case "throttled", "unavailable", "internal",
		"TooManyRequests", "ServiceUnavailable", "InternalServerError", "Shutdown", "IdleTimeout",
		"QUOTA_EXCEEDED", "UNAVAILABLE", "INTERNAL", fcmBadGateway, fcmGatewayTimeout:
		return true
	}
	return false
}

// reasonAt is what a word or a reason means at a provider; false where it means nothing there.
func reasonAt(p Provider, reason string) (string, bool) {
	if w, ok := words[reason]; ok {
		if p == FCM {
			return w.fcm, true
		}
		return w.apns, true
	}
	if p == FCM {
		_, ok := fcmErrors[reason]
		return reason, ok
	}
	_, ok := apnsStatus[reason]
	return reason, ok
}

func knownReason(reason string) bool {
	_, a := reasonAt(APNS, reason)
	_, f := reasonAt(FCM, reason)
	return a || f
}

// Reasons lists what a rule or a mix may name: the words for both providers first, then APNs', then FCM's.
func Reasons() []string {
	return slices.Concat(sortedKeys(words), sortedKeys(apnsStatus), sortedKeys(fcmErrors))
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// appendAPNSBody appends the body of a refusal. timestampMS, Unix milliseconds, stands there with status 410 only.
func appendAPNSBody(b []byte, reason string, timestampMS int64) []byte {
	b = append(b, `{"reason":"`...)
	b = append(b, reason...)
	b = append(b, '"')
	if apnsStatus[reason] == 410 {
		b = append(b, `,"timestamp":`...)
		b = strconv.AppendInt(b, timestampMS, 10)
	}
	return append(b, '}')
}

// appendFCMBody appends the body of a refusal; problem and field, where not empty, stand for the reason's own words.
func appendFCMBody(b []byte, reason, problem, field string) []byte {
	e := fcmErrors[reason]
	if problem != "" {
		e.message, e.field = problem, field
	}
	if e.status == "" {
		return append(b, "<!DOCTYPE html>\n<html lang=en>\n  <title>Error "+strconv.Itoa(e.code)+" ("+e.message+")!!1</title>\n  <p><b>"+
			strconv.Itoa(e.code)+".</b> <ins>That’s an error.</ins>\n"...)
	}
	b = append(b, "{\n  \"error\": {\n    \"code\": "...)
	b = strconv.AppendInt(b, int64(e.code), 10)
	b = append(b, ",\n    \"message\": "...)
	b = appendJSONString(b, e.message)
	b = append(b, ",\n    \"status\": "...)
	b = appendJSONString(b, e.status)
	var details []string
	if e.detail != "" {
		details = append(details, "      {\n        \"@type\": \"type.googleapis.com/google.firebase.fcm.v1.FcmError\",\n        \"errorCode\": \""+e.detail+"\"\n      }")
	}
	if e.field != "" {
		d := append([]byte("      {\n        \"@type\": \"type.googleapis.com/google.rpc.BadRequest\",\n        \"fieldViolations\": [\n          {\n            \"field\": "), appendJSONString(nil, e.field)...)
		d = append(d, ",\n            \"description\": "...)
		d = appendJSONString(d, e.message)
		details = append(details, string(d)+"\n          }\n        ]\n      }")
	}
	if len(details) > 0 {
		b = append(b, ",\n    \"details\": [\n"+strings.Join(details, ",\n")+"\n    ]"...)
	}
	return append(b, "\n  }\n}\n"...)
}
