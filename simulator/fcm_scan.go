package simulator

import (
	"strings"
	"time"
	"unicode/utf8"
)

// scanFCM reads the body of a send as checkFCM does, at a tenth of its time, where that is plain: a message to a token, every
// name as in the reference, none twice, and an id that is not a hash of the content. ok is false for everything else, right or
// wrong: then checkFCM decides. Where ok is true, both say the same; FuzzScanFCM compares them.
func scanFCM(body []byte, headerID string) (p fcmPush, ok bool) {
	if len(body) > maxFCMBody || !utf8.Valid(body) {
		return p, false
	}
	f := fcmScan{jsonScan: jsonScan{b: body}, push: fcmPush{ttl: -1, toToken: true}}
	if f.peek() != '{' || !f.object(scanRequest, atRequest) {
		return p, false
	}
	f.space()
	data := f.data
	if f.ownData {
		data = f.androidData
	}
	p = f.push
	p.id = firstText(headerID, f.campaignID, f.label)
	if f.i != len(body) || p.target == "" || p.id == "" || f.notification+f.androidNotification+data > maxFCMPayload {
		return fcmPush{}, false
	}
	return p, true
}

// fcmScan collects what matters of a message. Sizes are never smaller than checkFCM's.
type fcmScan struct {
	jsonScan

	push                              fcmPush
	campaignID, label                 string
	notification, androidNotification int
	data, androidData                 int
	ownData                           bool
}

// place is where in the message an object stands.
type place uint8

const (
	atElsewhere place = iota
	atRequest
	atMessage
	atNotification
	atOptions
	atAndroid
	atAndroidNotification
	atAPNS
)

// scanField is a field in a form for looking up: few enough to compare one by one.
type scanField struct {
	name string
	spec fieldSpec
	into []scanField
	at   place
}

// scanRequest is requestSchema in that form.
var scanRequest = scanFields(requestSchema, atRequest) //nolint:gochecknoglobals // a table

func scanFields(fields map[string]fieldSpec, at place) []scanField {
	var out []scanField
	for _, name := range sortedKeys(fields) {
		f := scanField{name: name, spec: fields[name]}
		if f.spec.kind == kindMessage {
			f.at = placeIn(at, name)
			f.into = scanFields(f.spec.fields, f.at)
		}
		out = append(out, f)
	}
	return out
}

func placeIn(at place, name string) place {
	switch {
	case at == atRequest && name == "message":
		return atMessage
	case at == atMessage && name == "notification":
		return atNotification
	case at == atMessage && name == "fcm_options":
		return atOptions
	case at == atMessage && name == "android":
		return atAndroid
	case at == atAndroid && name == "notification":
		return atAndroidNotification
	case at == atMessage && name == "apns":
		return atAPNS
	}
	return atElsewhere
}

// object takes one whose fields are known.
func (f *fcmScan) object(fields []scanField, at place) bool {
	if !f.next('{') {
		return false
	}
	if f.next('}') {
		return true
	}
	var seen uint64
	for {
		if f.peek() != '"' {
			return false
		}
		name, plain, ok := f.str()
		if !ok || !plain || !f.next(':') {
			return false
		}
		i := fieldIndex(fields, name)
		if i < 0 || i >= 64 || seen&(1<<i) != 0 {
			return false
		}
		seen |= 1 << i
		if !f.field(&fields[i], at) {
			return false
		}
		if f.next('}') {
			return true
		}
		if !f.next(',') {
			return false
		}
	}
}

func fieldIndex(fields []scanField, name []byte) int {
	for i := range fields {
		if string(name) == fields[i].name {
			return i
		}
	}
	return -1
}

// field takes a value, and keeps what matters of it.
func (f *fcmScan) field(field *scanField, at place) bool {
	c := f.peek()
	switch field.spec.kind {
	case kindString, kindEnum, kindDuration:
		if c != '"' {
			return false
		}
		raw, plain, ok := f.str()
		return ok && f.text(field, at, raw, plain)
	case kindBool:
		if c == 't' && f.word("true") {
			f.push.validateOnly = f.push.validateOnly || at == atRequest
			f.count(at, len(field.name))
			return true
		}
		f.count(at, len(field.name))
		return c == 'f' && f.word("false")
	case kindStringMap:
		return c == '{' && f.stringMap(at, field.name)
	case kindStruct:
		return at == atAPNS && c == '{' && f.payload()
	case kindMessage:
		f.count(at, len(field.name))
		return c == '{' && f.object(field.into, field.at)
	case kindInteger, kindNumber, kindStrings, kindDurations:
	}
	return false // rare: checkFCM's
}

// count adds to the size of the object.
func (f *fcmScan) count(at place, n int) {
	switch at {
	case atNotification:
		f.notification += n
	case atAndroidNotification:
		f.androidNotification += n
	default:
	}
}

func (f *fcmScan) text(field *scanField, at place, raw []byte, plain bool) bool {
	f.count(at, len(field.name)+len(raw)) // decoded it is no longer
	switch {
	case field.spec.kind == kindEnum:
		return plain && f.enum(field, at, raw)
	case field.spec.kind == kindDuration:
		return at == atAndroid && plain && f.seconds(raw)
	case at == atMessage && field.name == "token":
		f.push.target = string(raw)
		return plain && len(raw) > 0
	case at == atMessage && (field.name == "topic" || field.name == "condition"):
		return false
	case at == atOptions:
		f.label = string(raw)
		return plain && labelForm.Match(raw)
	}
	return true
}

func (f *fcmScan) enum(field *scanField, at place, raw []byte) bool {
	for _, v := range field.spec.values {
		if len(v) == len(raw) && strings.EqualFold(v, string(raw)) {
			if at == atAndroid && field.name == "priority" {
				f.push.priority = v
			}
			return true
		}
	}
	return false
}

// seconds takes a duration of whole seconds.
func (f *fcmScan) seconds(raw []byte) bool {
	n := len(raw) - 1
	if n < 1 || n > 7 || raw[n] != 's' {
		return false
	}
	v := 0
	for _, c := range raw[:n] {
		if c < '0' || c > '9' {
			return false
		}
		v = v*10 + int(c-'0')
	}
	f.push.ttl = time.Duration(v) * time.Second
	return f.push.ttl <= maxTTL
}

// stringMap takes an object of strings.
func (f *fcmScan) stringMap(at place, name string) bool {
	isData := name == "data" && (at == atMessage || at == atAndroid)
	f.i++
	total, done := 0, f.next('}')
	for !done {
		if f.peek() != '"' {
			return false
		}
		key, plainKey, ok := f.str()
		if !ok || !f.next(':') || f.peek() != '"' {
			return false
		}
		value, plain, ok := f.str()
		if !ok {
			return false
		}
		total += len(key) + len(value)
		if isData && (!plainKey || reservedKey(string(key))) {
			return false
		}
		if isData && at == atMessage && string(key) == "campanile_id" {
			if !plain || len(value) == 0 || f.campaignID != "" {
				return false
			}
			f.campaignID = string(value)
		}
		if done = f.next('}'); !done && !f.next(',') {
			return false
		}
	}
	switch {
	case isData && at == atMessage:
		f.data = total
	case isData:
		f.androidData, f.ownData = total, true
	}
	return true
}

// payload takes APNs' own.
func (f *fcmScan) payload() bool {
	from := f.i
	f.cost = 0
	ok, _ := f.value(0)
	return ok && f.i-from+f.cost <= maxAPNSPayload
}
