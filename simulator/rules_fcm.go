package simulator

import (
	"bytes"
	"encoding/json"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"
)

// fcmPush is what a valid request means.
type fcmPush struct {
	target       string // the token; "/topics/<name>" or the condition where the message went to those
	toToken      bool
	validateOnly bool
	id           string // the notification's id as text; "" where the message names none
	content      []byte // what is hashed where id is ""
	priority     string
	ttl          time.Duration // -1: not given
}

// fcmProblem is a refusal before any device is looked at.
type fcmProblem struct {
	reason, message, field string
}

// Limits of FCM: "About FCM messages" and the reference of AndroidConfig.
const (
	maxFCMPayload  = 4096 // bytes of notification and data
	maxTopicBytes  = 2048 // the same, to a topic or condition
	maxTTL         = 28 * 24 * time.Hour
	maxFCMToken    = 4096 // bytes; real ones have about 160
	maxFCMBody     = 64 << 10
	maxJSONNesting = 64
)

var (
	durationForm = regexp.MustCompile(`^([0-9]{1,12})(\.[0-9]{1,9})?s$`)
	topicForm    = regexp.MustCompile(`^(/topics/)?[a-zA-Z0-9\-_.~%]+$`)
	labelForm    = regexp.MustCompile(`^[a-zA-Z0-9\-_.~%]{0,50}$`)
)

// checkFCM reads the body of a send. A nil problem means that the push is valid. headerID is the header's id, "" without one.
func checkFCM(body []byte, headerID string) (p fcmPush, problem *fcmProblem) {
	request, problem := parseFCM(body)
	if problem != nil {
		return p, problem
	}
	if problem = checkFields("", request, requestSchema); problem != nil {
		return p, problem
	}
	p.validateOnly, _ = get(request, "validate_only").(bool)
	m, ok := get(request, "message").(map[string]any)
	if !ok {
		return p, invalid("Invalid value at 'message' (Message), message is not set.", "message")
	}
	if problem = p.checkTarget(m); problem != nil {
		return p, problem
	}
	if problem = p.checkOptions(m); problem != nil {
		return p, problem
	}
	if problem = checkSize(m, p.toToken); problem != nil {
		return p, problem
	}
	data, _ := get(m, "data").(map[string]any)
	options, _ := get(m, "fcm_options").(map[string]any)
	p.id = firstText(headerID, textOf(data["campanile_id"]), textOf(get(options, "analytics_label")))
	if p.id == "" {
		p.content = contentOf(m)
	}
	return p, nil
}

// contentOf is the message in one order and without its time to live: a second attempt has less of that left, and is the same
// push.
func contentOf(m map[string]any) []byte {
	if android, _ := get(m, "android").(map[string]any); android != nil {
		delete(android, "ttl")
	}
	text, err := json.Marshal(m)
	if err != nil {
		panic("simulator: a decoded message has no JSON form: " + err.Error()) // what json made, json writes
	}
	return text
}

func invalid(message, field string) *fcmProblem {
	return &fcmProblem{fcmInvalidArgument, message, field}
}

func parseFCM(body []byte) (map[string]any, *fcmProblem) {
	if len(body) > maxFCMBody {
		return nil, bodyTooLarge()
	}
	if nesting(body) > maxJSONNesting {
		return nil, invalid("Invalid JSON payload received. Nesting is too deep.", "")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var request map[string]any
	if err := d.Decode(&request); err != nil || request == nil {
		return nil, invalid("Invalid JSON payload received. Unexpected token.", "")
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, invalid("Invalid JSON payload received. Unexpected token.", "")
	}
	return request, nil
}

func bodyTooLarge() *fcmProblem {
	return &fcmProblem{fcmInvalidArgument, "Request payload size exceeds the limit: " + strconv.Itoa(maxFCMBody) + " bytes.", ""}
}

func (p *fcmPush) checkTarget(m map[string]any) *fcmProblem {
	token, topic, condition := textOf(m["token"]), textOf(m["topic"]), textOf(m["condition"])
	targets := 0
	for _, t := range []string{token, topic, condition} {
		if t != "" {
			targets++
		}
	}
	switch {
	case targets == 0:
		return invalid("Recipient of the message is not set.", "message")
	case targets > 1:
		return invalid("Invalid value at 'message' (oneof), oneof field 'target' is already set. Cannot set more than one recipient.", "message")
	case topic != "" && !topicForm.MatchString(topic):
		return invalid("Invalid topic name.", "message.topic")
	}
	p.toToken = token != ""
	p.target = firstText(token, condition)
	if topic != "" {
		p.target = "/topics/" + strings.TrimPrefix(topic, "/topics/")
	}
	return nil
}

func (p *fcmPush) checkOptions(m map[string]any) *fcmProblem {
	p.ttl = -1
	android, _ := get(m, "android").(map[string]any)
	p.priority = strings.ToUpper(textOf(get(android, "priority")))
	if v := get(android, "ttl"); v != nil {
		ttl, _ := parseProtoDuration(v)
		if ttl > maxTTL {
			return invalid("Invalid TTL: want 0 to 2419200 seconds.", "message.android.ttl")
		}
		p.ttl = ttl
	}
	for _, at := range [][2]string{{"", "data"}, {"android", "data"}} {
		holder, path := m, "message."
		if at[0] != "" {
			holder, _ = get(m, at[0]).(map[string]any)
			path += at[0] + "."
		}
		data, _ := get(holder, at[1]).(map[string]any)
		for _, key := range sortedKeys(data) {
			if reservedKey(key) {
				return invalid("Invalid data payload key: "+key, path+at[1])
			}
		}
	}
	options, _ := get(m, "fcm_options").(map[string]any)
	if !labelForm.MatchString(textOf(get(options, "analytics_label"))) {
		return invalid("Invalid analytics label: want up to 50 of a-z, A-Z, 0-9, '-', '_', '.', '~' and '%'.", "message.fcm_options.analytics_label")
	}
	return nil
}

// reservedKey follows the reference of Message.data: no "from", "message_type", "google." or "gcm." words.
func reservedKey(key string) bool {
	return key == "from" || key == "message_type" || strings.HasPrefix(key, "google.") || strings.HasPrefix(key, "gcm.")
}

// checkSize counts what travels to the device: the texts of notification and data, of android's where it overrides them, and
// APNs' payload against its own limit.
func checkSize(m map[string]any, toToken bool) *fcmProblem {
	limit := maxFCMPayload
	if !toToken {
		limit = maxTopicBytes
	}
	android, _ := get(m, "android").(map[string]any)
	data := m["data"]
	if own := get(android, "data"); own != nil {
		data = own
	}
	if textBytes(m["notification"])+textBytes(get(android, "notification"))+textBytes(data) > limit {
		return invalid("Message too big", "message")
	}
	apns, _ := get(m, "apns").(map[string]any)
	if payload := get(apns, "payload"); payload != nil {
		if b, err := json.Marshal(payload); err != nil || len(b) > maxAPNSPayload {
			return invalid("APNs payload too big", "message.apns.payload")
		}
	}
	return nil
}

// textBytes is the bytes of all names and strings in a JSON value.
func textBytes(v any) (n int) {
	switch v := v.(type) {
	case string:
		return len(v)
	case map[string]any:
		for key, value := range v {
			n += len(key) + textBytes(value)
		}
	case []any:
		for _, value := range v {
			n += textBytes(value)
		}
	}
	return n
}

func textOf(v any) string {
	s, _ := v.(string)
	return s
}

func firstText(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}

// validFCMToken accepts what a registration token is made of. Real ones are longer than ours have to be.
func validFCMToken(token string) bool {
	if token == "" || len(token) > maxFCMToken {
		return false
	}
	var bad byte // of eight at a time: a branch for each would cost more
	for len(token) >= 8 {
		bad |= fcmTokenBytes[token[0]] | fcmTokenBytes[token[1]] | fcmTokenBytes[token[2]] | fcmTokenBytes[token[3]] |
			fcmTokenBytes[token[4]] | fcmTokenBytes[token[5]] | fcmTokenBytes[token[6]] | fcmTokenBytes[token[7]]
		token = token[8:]
	}
	for i := range len(token) {
		bad |= fcmTokenBytes[token[i]]
	}
	return bad == 0
}

// fcmTokenBytes is 0 for what may stand in a token.
var fcmTokenBytes = allowBytes("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_:.*") //nolint:gochecknoglobals // a table

func allowBytes(allowed string) (table [256]byte) {
	for i := range table {
		table[i] = 1
	}
	for i := range len(allowed) {
		table[allowed[i]] = 0
	}
	return table
}

// ledgerID makes the 16 bytes of the ledger: a UUID's own, or a hash of another id, or of the content.
func (p *fcmPush) ledgerID() [16]byte {
	if id, ok := parseUUID(p.id); ok {
		return id
	}
	if p.id == "" {
		return hash128(p.content)
	}
	return hash128([]byte(p.id))
}

func hash128(b []byte) (id [16]byte) {
	h := xxhash.Sum64(b)
	second := mix(h ^ uint64(len(b)))
	for i := range 8 {
		id[i], id[8+i] = byte(h>>(8*i)), byte(second>>(8*i))
	}
	return id
}

// appendJSONString appends s as a JSON string.
func appendJSONString(b []byte, s string) []byte {
	text, err := json.Marshal(s)
	if err != nil {
		return append(b, `""`...) // cannot be: a string always has a JSON form
	}
	return append(b, text...)
}
