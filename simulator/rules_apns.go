package simulator

import (
	"strconv"
	"strings"
	"time"
)

// apnsRequest is a push as it came, before anything is believed of it. An absent header is "".
type apnsRequest struct {
	method, path   string
	authorization  string
	topic          string
	pushType       string
	priority       string
	expiration     string
	collapseID     string
	id             string
	knownID        [16]byte // id's bytes, where hasID: answerID has looked
	hasID          bool
	duplicate      bool // a header of Apple's stands twice
	body           []byte
	bodyTooLarge   bool // more than the reader was ready to take
	certificateFor string
	trusted        bool // set by authorize: the credentials are good
}

// apnsPush is what a valid request means.
type apnsPush struct {
	token      string // lower-case hex
	pushType   string
	priority   int
	expiration int64 // Unix seconds; -1: not given
	id         [16]byte
	hasID      bool
}

// Limits from "Sending notification requests to APNs" and "Generating a remote notification".
const (
	maxAPNSPayload = 4096 // bytes
	maxVoIPPayload = 5120 // bytes
	maxCollapseID  = 64   // bytes, not characters
	maxAPNSToken   = 200  // hex digits; Apple says not to assume a length, and has never issued longer ones
	minAPNSToken   = 16   // hex digits; shorter ones are typing errors
)

// pushTypes are the push types and what the topic must end with.
var pushTypes = map[string]string{ //nolint:gochecknoglobals // a table
	"alert":        "",
	"background":   "",
	"controls":     ".push-type.controls",
	"complication": ".complication",
	"fileprovider": ".pushkit.fileprovider",
	"liveactivity": ".push-type.liveactivity",
	"location":     ".location-query",
	"mdm":          "",
	"pushtotalk":   ".voip-ptt",
	"voip":         ".voip",
	"widgets":      ".push-type.widgets",
}

const devicePath = "/3/device/"

// checkAPNSPath checks what does not need to be authorized: method and path.
func checkAPNSPath(method, path string) (token, reason string) {
	token, ok := strings.CutPrefix(path, devicePath)
	switch {
	case !ok && path+"/" == devicePath:
		return "", "MissingDeviceToken"
	case !ok:
		return "", "BadPath"
	case method != "POST":
		return "", "MethodNotAllowed"
	case token == "":
		return "", "MissingDeviceToken"
	case strings.Contains(token, "/"):
		return "", "BadPath"
	}
	return token, ""
}

// checkAPNS checks a request whose provider was authorized. reason is "" for a valid one. Apple does not document the order of
// its checks; this one goes from the envelope to the content, and looks at the device last.
func checkAPNS(r *apnsRequest) (p apnsPush, reason string) {
	token, reason := checkAPNSPath(r.method, r.path)
	if reason != "" {
		return p, reason
	}
	if r.duplicate {
		return p, "DuplicateHeaders"
	}
	if r.id != "" {
		if p.id, p.hasID = r.knownID, r.hasID; !p.hasID {
			return p, "BadMessageId"
		}
	}
	if p.expiration, reason = parseExpiration(r.expiration); reason != "" {
		return p, reason
	}
	p.pushType = r.pushType
	if p.pushType == "" {
		p.pushType = "alert"
	}
	suffix, known := pushTypes[p.pushType]
	if !known {
		return p, "InvalidPushType"
	}
	if p.priority, reason = parsePriority(r.priority, p.pushType); reason != "" {
		return p, reason
	}
	if len(r.collapseID) > maxCollapseID {
		return p, "BadCollapseId"
	}
	if reason = checkTopic(r.topic, suffix, r.certificateFor); reason != "" {
		return p, reason
	}
	if reason = checkPayload(r.body, r.bodyTooLarge, p.pushType); reason != "" {
		return p, reason
	}
	if p.token = canonicalToken(token); p.token == "" {
		return p, "BadDeviceToken"
	}
	return p, ""
}

// parseUUID reads the canonical form: 32 lower-case digits in groups of 8-4-4-4-12.
func parseUUID(s string) (id [16]byte, ok bool) {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return id, false
	}
	var all byte
	for n, at := range uuidBytes {
		high, low := hexValues[s[at]], hexValues[s[at+1]]
		all |= high | low
		id[n] = high<<4 | low
	}
	return id, all&noDigit == 0
}

// uuidBytes are where the bytes of a UUID stand in its text.
var uuidBytes = [16]uint8{0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34} //nolint:gochecknoglobals // a table

// hexValues are those of lower-case digits; noDigit for everything else.
var hexValues = valueHex() //nolint:gochecknoglobals // a table

const noDigit = 0x80

func valueHex() (values [256]byte) {
	for c := range values {
		switch {
		case c >= '0' && c <= '9':
			values[c] = byte(c) - '0'
		case c >= 'a' && c <= 'f':
			values[c] = byte(c) - 'a' + 10
		default:
			values[c] = noDigit
		}
	}
	return values
}

func parseExpiration(s string) (int64, string) {
	if s == "" {
		return -1, ""
	}
	v, err := strconv.ParseInt(s, 10, 64)
	if err != nil || v < 0 || s[0] == '+' {
		return 0, "BadExpirationDate"
	}
	return v, ""
}

func parsePriority(s, pushType string) (int, string) {
	switch s {
	case "":
		if pushType == "background" {
			return 5, "" // omitted means 10 elsewhere; Apple delivers such pushes all the same
		}
		return 10, ""
	case "1":
		return 1, ""
	case "5":
		return 5, ""
	case "10":
		if pushType == "background" {
			return 0, "BadPriority"
		}
		return 10, ""
	}
	return 0, "BadPriority"
}

// checkTopic allows a certificate to leave the topic out: it names its own.
func checkTopic(topic, suffix, certificateFor string) string {
	if topic == "" && certificateFor == "" {
		return "MissingTopic"
	}
	if topic == "" {
		topic = certificateFor + suffix
	}
	bundle := strings.TrimSuffix(topic, suffix)
	if len(topic) > 255 || bundle == "" || suffix != "" && bundle == topic {
		return "BadTopic"
	}
	for i := range len(topic) {
		c := topic[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '-' && c != '_' {
			return "BadTopic"
		}
	}
	if certificateFor != "" && bundle != certificateFor {
		return "TopicDisallowed"
	}
	return ""
}

// bundleOf is the bundle id of a topic.
func bundleOf(topic, pushType string) string { return strings.TrimSuffix(topic, pushTypes[pushType]) }

// checkPayload answers PayloadEmpty also to what is no JSON object: Apple's table has no reason of its own for that.
func checkPayload(body []byte, tooLarge bool, pushType string) string {
	limit := maxAPNSPayload
	if pushType == "voip" {
		limit = maxVoIPPayload
	}
	switch {
	case tooLarge || len(body) > limit:
		return "PayloadTooLarge"
	case len(body) == 0 || body[0] != '{' || !validJSON(body):
		return "PayloadEmpty"
	}
	return ""
}

// canonicalToken is the token in lower case; "" for what is none.
func canonicalToken(token string) string {
	if len(token) < minAPNSToken || len(token) > maxAPNSToken || len(token)%2 != 0 {
		return ""
	}
	var all byte
	for i := range len(token) {
		all |= hexDigits[token[i]]
	}
	switch {
	case all&notHex != 0:
		return ""
	case all&upperHex != 0:
		return strings.ToLower(token)
	}
	return token
}

// Classes of bytes in a token.
const (
	upperHex = 1
	notHex   = 2
)

var hexDigits = classifyHex() //nolint:gochecknoglobals // a table

func classifyHex() (classes [256]byte) {
	for c := range classes {
		switch {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'f':
		case c >= 'A' && c <= 'F':
			classes[c] = upperHex
		default:
			classes[c] = notHex
		}
	}
	return classes
}

// apnsAuth is what one connection has been trusted with. It belongs to the connection: Apple binds a connection to a team.
type apnsAuth struct {
	bearer   string // the header that was last found good
	key      *APNSKey
	issuedAt time.Time
	since    time.Time // when bearer was first seen here
}

// apnsTimes scales Apple's clock, so that a test need not wait an hour.
type apnsTimes struct {
	lifetime time.Duration // of a provider token: 1 hour
	update   time.Duration // at least between two tokens of a connection: 20 minutes
}

// check decides over the authorization header. On success it remembers the header, so that the signature of the next push with
// the same one is not computed again. find looks a key up by its id.
func (a *apnsAuth) check(header, environment string, now time.Time, times apnsTimes, find func(kid string) *APNSKey) (reason string) {
	if header == a.bearer && a.key != nil {
		if now.Sub(a.issuedAt) > times.lifetime {
			return "ExpiredProviderToken"
		}
		return ""
	}
	if header == "" {
		return "MissingProviderToken"
	}
	scheme, compact, ok := strings.Cut(header, " ")
	if !ok || !strings.EqualFold(scheme, "bearer") {
		return "InvalidProviderToken"
	}
	t, err := parseJWT([]byte(compact))
	if err != nil {
		return "InvalidProviderToken"
	}
	key := find(t.header.KeyID)
	issued := t.claims.issuedAt()
	switch {
	case key == nil, key.TeamID != t.claims.Issuer, !t.es256(&key.private.PublicKey):
		return "InvalidProviderToken"
	case t.claims.IssuedAt <= 0, issued.After(now.Add(clockSkew)):
		return "InvalidProviderToken"
	case now.Sub(issued) > times.lifetime:
		return "ExpiredProviderToken"
	case key.Environment != "" && key.Environment != environment:
		return "BadEnvironmentKeyInToken"
	case a.key != nil && a.key.TeamID != key.TeamID:
		return "InvalidProviderToken"
	case a.key != nil && a.key.KeyID != key.KeyID:
		return "UnrelatedKeyIdInToken"
	case a.key != nil && now.Sub(a.since) < times.update && now.Sub(a.issuedAt) < times.update:
		return "TooManyProviderTokenUpdates"
	}
	a.bearer, a.key, a.issuedAt, a.since = header, key, issued, now
	return ""
}
