package ingest

import (
	"strconv"
	"strings"
	"unicode/utf8"

	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

const (
	maxData       = 1024 // members of extra; Moodle sends about 30
	maxCollapseID = 64   // bytes; APNs, apns-collapse-id
)

// pushBody is a push or a broadcast as v2 sends it, unread but for its texts. Absent members are zero values.
type pushBody struct {
	token, device, channel, environment string

	alert                    value
	extra, fcm, apns         value
	sound, badge, category   value
	contentAvailable, custom value
	collapseKey, threadID    value
	alertThere, extraWrong   bool
}

// readPush picks the members that we know. Where a name stands twice the last one counts.
func readPush(members []member) (b pushBody) {
	for i := range members {
		v := members[i].value
		switch members[i].name {
		case "token":
			b.token = v.text()
		case "device":
			b.device = v.text()
		case "channel":
			b.channel = v.text()
		case "environment":
			b.environment = v.text()
		case "alert":
			b.alert, b.alertThere = v, true
		case "extra":
			b.extra, b.extraWrong = v, v.kind() != '{' && !v.isNull()
		case "fcm":
			b.fcm = v
		case "apns":
			b.apns = v
		case "sound":
			b.sound = v
		case "badge":
			b.badge = v
		case "category":
			b.category = v
		case "content":
			b.contentAvailable = v
		case "custom":
			b.custom = v
		case "collapse_key":
			b.collapseKey = v
		case "thread-id":
			b.threadID = v
		}
	}
	return b
}

// contentBuilder makes a Content and keeps its memory from one request to the next.
type contentBuilder struct {
	c    pushv1.Content
	kvs  []*pushv1.KeyValue // those up to len(c.Data) are in use
	at   map[string]int     // key to place in c.Data, once there are many
	full bool
	// alertObject is the caller's alert where it says more than title and body: APNs has words for a subtitle and translations.
	alertObject string
}

// few is the number of keys up to which walking them is cheaper than a map.
const few = 48

func (b *contentBuilder) reset() {
	data := b.c.Data[:0]
	b.c.Reset()
	b.c.Data, b.full, b.alertObject = data, false, ""
	clear(b.at)
}

// find is the place of a key in the data, or -1.
func (b *contentBuilder) find(key string) int {
	if len(b.c.Data) > few {
		if i, ok := b.at[key]; ok {
			return i
		}
		return -1
	}
	for i, kv := range b.c.Data {
		if kv.Key == key {
			return i
		}
	}
	return -1
}

// set puts a value under a key; a key keeps the place where it first stood.
func (b *contentBuilder) set(key, val string) {
	if i := b.find(key); i >= 0 {
		b.c.Data[i].Value = val
		return
	}
	n := len(b.c.Data)
	if n >= maxData {
		b.full = true
		return
	}
	if n == len(b.kvs) {
		b.kvs = append(b.kvs, &pushv1.KeyValue{})
	}
	kv := b.kvs[n]
	kv.Key, kv.Value = key, val
	b.c.Data = append(b.c.Data, kv)
	if n+1 <= few {
		return
	}
	if b.at == nil {
		b.at = make(map[string]int)
	}
	if n == few {
		for i, kv := range b.c.Data {
			b.at[kv.Key] = i
		}
	}
	b.at[key] = n
}

// copyIfAbsent puts a copy of one key's value under another that is not there.
func (b *contentBuilder) copyIfAbsent(to, from string) {
	if i := b.find(from); i >= 0 && b.find(to) < 0 {
		b.set(to, b.c.Data[i].Value)
	}
}

// setObject puts an object's members into the data, typed as FCM wants them. Nulls are left out.
func (b *contentBuilder) setObject(v value) {
	for name, member := range v.members() {
		if s, ok := member.typed(); ok && name != "" {
			b.set(name, s)
		}
	}
}

// what a v2 body is for.
type purpose int

const (
	toFCM  purpose = iota // one device of FCM
	toAPNs                // one device of APNs
	toAll                 // a broadcast
)

// ofPush builds the content of a v2 push or broadcast: a pure function of the body (contract, section 3).
func (b *contentBuilder) ofPush(body *pushBody, p purpose) *answer {
	b.reset()
	if body.extraWrong {
		return invalidExtra
	}
	b.setObject(body.extra)
	processor, refused := b.processor()
	if refused != nil {
		return refused
	}
	b.setObject(body.custom)
	moodle := processor == processorMoodle
	if moodle {
		b.moodleCopies()
	}
	if refused := b.alert(body, moodle); refused != nil {
		return refused
	}
	if p != toAPNs && !moodle { // the processor replaces what the caller sent for FCM, as in AirNotifier
		b.fcm(body.fcm)
	}
	if p != toFCM {
		b.apns(body.apns)
	}
	b.looks(body)
	if b.full {
		return tooManyFields
	}
	return nil
}

// alert reads `alert`: null, or nothing, is data only; absent under the processor moodle is filled from extra.
func (b *contentBuilder) alert(body *pushBody, moodle bool) *answer {
	if !body.alertThere {
		if moodle && !b.c.Encrypted {
			b.moodleAlert()
		}
		return nil
	}
	switch body.alert.kind() {
	case 'n':
		return nil
	case '"':
		b.alertText(body.alert.text())
		return nil
	case '{':
		for name, v := range body.alert.members() {
			s, _ := v.typed()
			switch name {
			case "title":
				b.c.Title = s
			case "body":
				b.c.Body = s
			default:
				b.alertObject = body.alert.compact()
			}
			b.c.Alert = pushv1.Content_ALERT_TITLE_BODY // an empty object is no alert, as in Python
		}
		return nil
	case '[', 't', 'f':
		return invalidAlert
	}
	b.alertText(decimal(string(body.alert)))
	return nil
}

func (b *contentBuilder) alertText(s string) {
	if s != "" {
		b.c.Alert, b.c.Text = pushv1.Content_ALERT_TEXT, s
	}
}

// fcm takes data and the three blocks that FCM knows from the caller's `fcm`.
func (b *contentBuilder) fcm(v value) {
	var blocks []byte
	for name, member := range v.members() {
		if member.kind() != '{' {
			continue
		}
		switch name {
		case "data":
			b.setObject(member)
		case "android", "apns", "webpush":
			if blocks == nil {
				blocks = append(blocks, '{')
			} else {
				blocks = append(blocks, ',')
			}
			blocks = append(append(append(append(blocks, '"'), name...), `":`...), member.compact()...)
		}
	}
	if blocks != nil {
		b.c.FcmJson = append(blocks, '}')
	}
}

// apns keeps the caller's `apns` as it is, for the aps dictionary, but for push_type, which is a header.
func (b *contentBuilder) apns(v value) {
	var rest []byte
	put := func(name, text string) {
		sep := byte(',')
		if rest == nil {
			sep = '{'
		}
		rest = append(append(append(append(rest, sep), quote(name)...), ':'), text...)
	}
	for name, member := range v.members() {
		switch {
		case member.isNull():
			continue
		case name == "push_type":
			b.c.PushType = pushType(member.text())
			continue
		case name == "content":
			b.c.ContentAvailable = member.truthy() // Reflect.UP's word for content-available
			continue
		case name == "alert":
			b.alertObject = ""
		}
		put(name, member.compact())
	}
	if b.alertObject != "" {
		put("alert", b.alertObject)
	}
	if rest != nil {
		b.c.ApnsJson = append(rest, '}')
	}
}

// pushType lets through only what can stand in the header apns-push-type.
func pushType(s string) string {
	if len(s) > 32 || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz-") != "" {
		return ""
	}
	return s
}

// looks reads the members of v1 that still stand at the top of some callers' bodies.
func (b *contentBuilder) looks(body *pushBody) {
	b.c.Sound = body.sound.text()
	if s, ok := body.badge.typed(); ok {
		b.badge(s)
	}
	b.c.Category = body.category.text()
	b.c.ThreadId = body.threadID.text()
	b.c.CollapseId = collapseID(body.collapseKey.text())
	if body.contentAvailable.truthy() {
		b.c.ContentAvailable = true
	}
}

func (b *contentBuilder) badge(s string) {
	if n, err := strconv.ParseInt(s, 10, 32); err == nil && n >= 0 {
		badge := int32(n)
		b.c.Badge = &badge
	}
}

// collapseID cuts what is too long for APNs, on a character.
func collapseID(s string) string {
	if len(s) <= maxCollapseID {
		return s
	}
	end := maxCollapseID
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end]
}

// formFields are those of /notification/ and /broadcast/ that are not the device's data.
//
//nolint:gochecknoglobals // a table
var formFields = map[string]bool{
	"token": true, "alert": true, "device": true, "channel": true, "sound": true, "badge": true, "collapse_key": true,
	"appname": true, "environment": true,
}

// ofForm builds the content of v1's /notification/ and /broadcast/: the line ends of alert are dropped, and what we do not know
// goes to the device as it is.
func (b *contentBuilder) ofForm(f *form) *answer {
	b.reset()
	b.alertText(strings.NewReplacer("\r", "", "\n", "").Replace(f.get("alert")))
	for _, field := range f.fields {
		if field.name != "" && !formFields[field.name] {
			b.set(field.name, field.value)
		}
	}
	b.c.Sound = f.get("sound")
	b.badge(f.get("badge"))
	b.c.CollapseId = collapseID(f.get("collapse_key"))
	if b.full {
		return tooManyFields
	}
	return nil
}

// release lets go of a request's texts; what was large is not kept.
func (b *contentBuilder) release() {
	if len(b.c.Data) > 4*few {
		b.kvs, b.at, b.c.Data = nil, nil, nil
	}
	for _, kv := range b.c.Data {
		kv.Key, kv.Value = "", ""
	}
	b.reset()
}
