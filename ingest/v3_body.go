package ingest

import (
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// Limits of v3's bodies.
const (
	maxChannels  = 100                  // of one broadcast or registration
	maxPlatforms = 20                   // of one broadcast
	maxRate      = 1e9                  // pushes a second
	maxSpread    = 7 * 24 * 60 * 60     // seconds
	maxAhead     = 366 * 24 * time.Hour // of send_at and expires_at
	maxReason    = 255                  // bytes
)

// FieldError is a member of a v3 body that cannot be taken. Its text quotes names that the caller sent, and no values.
type FieldError struct{ Field, Problem string }

func (e *FieldError) Error() string { return e.Field + " " + e.Problem }

// fields reads members strictly and keeps the first complaint. null is absent.
type fields struct{ err *FieldError }

func (f *fields) fail(field, problem string) {
	if f.err == nil {
		f.err = &FieldError{field, problem}
	}
}

func (f *fields) unknown(name string) {
	if len(name) > 64 {
		name = strings.ToValidUTF8(name[:64], "")
	}
	f.fail(strconv.Quote(name), "is not known here")
}

func (f *fields) text(field string, v value, most int) string {
	switch {
	case v.isNull():
		return ""
	case v.kind() != '"':
		f.fail(field, "must be a string")
		return ""
	}
	s := v.text()
	if len(s) > most {
		f.fail(field, fmt.Sprintf("is longer than %d bytes", most))
	}
	return s
}

func (f *fields) flag(field string, v value) bool {
	switch v.kind() {
	case 't':
		return true
	case 'f', 'n':
		return false
	}
	f.fail(field, "must be true or false")
	return false
}

func (f *fields) number(field string, v value, most float64) float64 {
	if v.isNull() {
		return 0
	}
	if v.kind() != '-' && !isDigit(v.kind()) {
		f.fail(field, "must be a number")
		return 0
	}
	n, err := strconv.ParseFloat(string(v), 64)
	if err != nil || n < 0 || n > most || math.IsNaN(n) {
		f.fail(field, "must be from 0 to "+strconv.FormatFloat(most, 'f', -1, 64))
		return 0
	}
	return n
}

func (f *fields) whole(field string, v value, most int64) int64 {
	n := f.number(field, v, float64(most))
	if n != math.Trunc(n) {
		f.fail(field, "must be a whole number")
	}
	return int64(n)
}

// moment reads an RFC 3339 time as Unix microseconds; it must be after now, and not absurdly so.
func (f *fields) moment(field string, v value, now time.Time) int64 {
	s := f.text(field, v, 64)
	if s == "" {
		return 0
	}
	at, err := time.Parse(time.RFC3339, s)
	switch {
	case err != nil:
		f.fail(field, "must be a time such as 2026-11-23T08:00:00Z (RFC 3339)")
		return 0
	case at.After(now.Add(maxAhead)):
		f.fail(field, "is more than a year ahead")
		return 0
	}
	return at.UnixMicro()
}

// list reads an array of strings, each valid and unique, sorted.
func (f *fields) list(field string, v value, most int, check func(string) error) []string {
	if v.isNull() {
		return nil
	}
	if v.kind() != '[' {
		f.fail(field, "must be an array of strings")
		return nil
	}
	list := []string{}
	for item := range v.items() {
		if item.kind() != '"' {
			f.fail(field, "must be an array of strings")
			return nil
		}
		s := item.text()
		if err := check(s); err != nil {
			f.fail(field, "holds what cannot be taken: "+err.Error())
			return nil
		}
		if len(list) > 4*most {
			break
		}
		list = append(list, s)
	}
	slices.Sort(list)
	if list = slices.Compact(list); len(list) > most {
		f.fail(field, fmt.Sprintf("has more than %d entries", most))
	}
	return list
}

// object checks that a member is an object, and reports whether it is there.
func (f *fields) object(field string, v value) bool {
	if v.kind() != '{' && !v.isNull() {
		f.fail(field, "must be an object")
	}
	return v.kind() == '{'
}

// items walks an array in a checked document; anything else has none.
func (v value) items() iter.Seq[value] {
	return func(yield func(value) bool) {
		if v.kind() != '[' {
			return
		}
		s := string(v)
		for i := 1; ; {
			for strings.IndexByte(" \t\r\n,", s[i]) >= 0 {
				i++
			}
			if s[i] == ']' {
				return
			}
			end := skip(s, i)
			if !yield(value(s[i:end])) {
				return
			}
			i = end
		}
	}
}

// ofMessage builds the content of a v3 message: a pure function of the body.
func (b *contentBuilder) ofMessage(f *fields, v value) {
	b.reset()
	if !f.object("message", v) {
		f.fail("message", "is missing")
		return
	}
	c := &b.c
	for name, m := range v.members() {
		field := "message." + name
		switch name {
		case "text":
			c.Text = f.text(field, m, math.MaxInt)
		case "title":
			c.Title = f.text(field, m, math.MaxInt)
		case "body":
			c.Body = f.text(field, m, math.MaxInt)
		case "data":
			b.strings(f, field, m)
		case "sound":
			c.Sound = f.text(field, m, 255)
		case "badge":
			if !m.isNull() {
				n := int32(f.whole(field, m, math.MaxInt32))
				c.Badge = &n
			}
		case "category":
			c.Category = f.text(field, m, 255)
		case "thread_id":
			c.ThreadId = f.text(field, m, 255)
		case "collapse_id":
			c.CollapseId = f.text(field, m, maxCollapseID)
		case "priority":
			c.Priority = priority(f, field, m)
		case "content_available":
			c.ContentAvailable = f.flag(field, m)
		case "mutable_content":
			c.MutableContent = f.flag(field, m)
		case "push_type":
			s := f.text(field, m, 32)
			if c.PushType = pushType(s); c.PushType != s {
				f.fail(field, "must be a push type of APNs, such as alert or background")
			}
		case "fcm":
			b.fcmBlocks(f, field, m)
		case "apns":
			if f.object(field, m) && m.compact() != "{}" {
				c.ApnsJson = []byte(m.compact())
			}
		default:
			f.unknown(field)
		}
	}
	switch {
	case c.Text != "" && (c.Title != "" || c.Body != ""):
		f.fail("message.text", "cannot stand beside title and body")
	case c.Text != "":
		c.Alert = pushv1.Content_ALERT_TEXT
	case c.Title != "" || c.Body != "":
		c.Alert = pushv1.Content_ALERT_TITLE_BODY
	case len(c.Data) == 0 && !c.ContentAvailable && c.Badge == nil && c.ApnsJson == nil && c.FcmJson == nil:
		f.fail("message", "says nothing: give text, title and body, or data")
	}
}

// strings reads data, whose values are strings at both providers.
func (b *contentBuilder) strings(f *fields, field string, v value) {
	f.object(field, v)
	for name, m := range v.members() {
		if name == "" || m.kind() != '"' {
			f.fail(field, "must be an object of strings")
			return
		}
		b.set(name, m.text())
	}
	if b.full {
		f.fail(field, fmt.Sprintf("has more than %d members", maxData))
	}
}

func (b *contentBuilder) fcmBlocks(f *fields, field string, v value) {
	f.object(field, v)
	some := false
	for name, m := range v.members() {
		switch name {
		case "android", "apns", "webpush":
			f.object(field+"."+name, m)
			some = some || !m.isNull()
		default:
			f.unknown(field + "." + name)
		}
	}
	if some {
		b.fcm(v)
	}
}

func priority(f *fields, field string, v value) pushv1.Priority {
	switch f.text(field, v, 16) {
	case "", "high":
		return pushv1.Priority_PRIORITY_HIGH
	case "normal":
		return pushv1.Priority_PRIORITY_NORMAL
	}
	f.fail(field, "must be high or normal")
	return pushv1.Priority_PRIORITY_HIGH
}

// broadcastBody is a v3 broadcast as it was sent.
type broadcastBody struct {
	channels, platforms []string
	sendAt, expiresAt   int64 // Unix microseconds
	rate                float64
	spread              uint32
	dryRun              bool
}

func readBroadcast(members []member, now time.Time, content *contentBuilder) (b broadcastBody, err *FieldError) {
	var f fields
	var message value
	for i := range members {
		v := members[i].value
		switch name := members[i].name; name {
		case "channels":
			b.channels = f.list(name, v, maxChannels, schemas.CheckChannel)
		case "platforms":
			for _, p := range f.list(name, v, maxPlatforms, schemas.CheckChannel) {
				b.platforms = append(b.platforms, platformFilter(p)...)
			}
			slices.Sort(b.platforms)
			b.platforms = slices.Compact(b.platforms)
		case "message":
			message = v
		case "send_at":
			b.sendAt = f.moment(name, v, now)
		case "expires_at":
			b.expiresAt = f.moment(name, v, now)
		case "rate":
			b.rate = f.number(name, v, maxRate)
		case "spread_seconds":
			b.spread = uint32(f.whole(name, v, maxSpread))
		case "dry_run":
			b.dryRun = f.flag(name, v)
		default:
			f.unknown(name)
		}
	}
	if message != "" || !b.dryRun { // an audience can be counted before there is anything to say
		content.ofMessage(&f, message)
	}
	if b.expiresAt > 0 && b.expiresAt <= max(now.UnixMicro(), b.sendAt) {
		f.fail("expires_at", "must be later than now, and than send_at")
	}
	return b, f.err
}

// event is the request of a broadcast, without its ids, its audience's size and its watermark.
func (b *broadcastBody) event(app string, channels []string, now time.Time, content *pushv1.Content) *pushv1.BroadcastRequested {
	return &pushv1.BroadcastRequested{
		App: app, Channels: channels, Platforms: b.platforms, Content: content, RequestedAtUs: now.UnixMicro(),
		SendAtUs: b.sendAt, ExpiresAtUs: b.expiresAt, Rate: b.rate, SpreadSeconds: b.spread,
	}
}

// BroadcastFromJSON reads the body of POST /api/v3/broadcasts on behalf of an operator, whom no key binds: the request as ingest
// appends it, but for its ids, the audience's size and ranges, and the watermark. It returns a *FieldError for what a body may not
// hold. dryRun says that nothing is to be sent.
func BroadcastFromJSON(app string, body []byte, now time.Time) (e *pushv1.BroadcastRequested, dryRun bool, err error) {
	if !utf8.Valid(body) {
		return nil, false, errors.New("the body is not UTF-8")
	}
	members, isObject, syntax := parseObject(string(body), nil)
	switch {
	case syntax != nil:
		return nil, false, syntax
	case !isObject:
		return nil, false, errors.New("the body must be a JSON object")
	}
	var content contentBuilder
	b, fieldErr := readBroadcast(members, now, &content)
	if fieldErr != nil {
		return nil, false, fieldErr
	}
	if len(b.channels) == 0 {
		b.channels = []string{defaultChannel}
	}
	return b.event(app, b.channels, now, &content.c), b.dryRun, nil
}

// notificationBody is a v3 notification as it was sent.
type notificationBody struct {
	deviceBody
	expiresAt int64
}

// deviceBody names a device.
type deviceBody struct{ token, transport, platform, environment string }

// take reads a member that names a device, and reports whether it is one.
func (d *deviceBody) take(f *fields, name string, v value) bool {
	switch name {
	case "token":
		d.token = f.text(name, v, schemas.MaxToken)
	case "transport":
		d.transport = f.text(name, v, 16)
	case "platform":
		d.platform = f.text(name, v, schemas.MaxChannel)
	case "environment":
		d.environment = f.text(name, v, 16)
	default:
		return false
	}
	return true
}

// target chooses the transport: as it is named, or else by platform and token, as on v2.
func (d *deviceBody) target() (target, *FieldError) {
	if err := schemas.CheckToken(d.token); err != nil {
		return target{}, &FieldError{"token", "cannot be taken: " + err.Error()}
	}
	if d.transport == "" {
		to, refused := targetOf(d.platform, d.token, pushAnything)
		if refused != nil {
			return target{}, &FieldError{"platform", "is not known, or does not fit the token; name the transport, apns or fcm"}
		}
		return to, nil
	}
	t, err := schemas.ParseTransport(d.transport)
	switch {
	case err != nil:
		return target{}, &FieldError{"transport", "must be apns or fcm"}
	case t == schemas.APNS && !isAPNsToken(d.token):
		return target{}, &FieldError{"token", "of APNs is 64 hexadecimal digits"}
	}
	to := target{t, d.platform}
	if to.platform == "" {
		to.platform = map[schemas.Transport]string{schemas.APNS: "ios", schemas.FCM: "fcm"}[t]
	}
	return to, nil
}

func readNotification(members []member, now time.Time, content *contentBuilder) (b notificationBody, err *FieldError) {
	var f fields
	var message value
	for i := range members {
		v := members[i].value
		switch name := members[i].name; {
		case b.take(&f, name, v):
		case name == "message":
			message = v
		case name == "expires_at":
			if b.expiresAt = f.moment(name, v, now); b.expiresAt > 0 && b.expiresAt <= now.UnixMicro() {
				f.fail(name, "must be later than now")
			}
		default:
			f.unknown(name)
		}
	}
	content.ofMessage(&f, message)
	return b, f.err
}

// tokenBody is a v3 registration as it was sent.
type tokenBody struct {
	deviceBody
	appVersion, locale, timeZone, userID string
	channels                             []string // nil: none named
	replaces                             string
}

func readToken(members []member, token string) (b tokenBody, err *FieldError) {
	var f fields
	for i := range members {
		v := members[i].value
		switch name := members[i].name; name {
		case "app_version":
			b.appVersion = f.text(name, v, 64)
		case "locale":
			b.locale = f.text(name, v, 64)
		case "time_zone":
			b.timeZone = f.text(name, v, 64)
		case "user_id":
			b.userID = f.text(name, v, 255)
		case "channels":
			b.channels = f.list(name, v, maxChannels, schemas.CheckChannel)
		case "replaces":
			if b.replaces = f.text(name, v, schemas.MaxToken); b.replaces != "" && schemas.CheckToken(b.replaces) != nil {
				f.fail(name, "is no token")
			}
		default:
			if name == "token" || !b.take(&f, name, v) { // the token stands in the path
				f.unknown(name)
			}
		}
	}
	b.token = token
	if b.replaces == token {
		b.replaces = ""
	}
	return b, f.err
}

// controlBody is what a control of a broadcast may carry.
type controlBody struct {
	reason string
	rate   float64
}

func readControl(members []member, verb string) (b controlBody, err *FieldError) {
	var f fields
	withRate, there := verb == "rate", false
	for i := range members {
		v := members[i].value
		switch name := members[i].name; {
		case name == "reason" && (verb == "pause" || verb == "cancel"):
			b.reason = f.text(name, v, maxReason)
		case name == "rate" && withRate:
			b.rate, there = f.number(name, v, maxRate), !v.isNull()
		default:
			f.unknown(name)
		}
	}
	if withRate && !there {
		f.fail("rate", "is missing: pushes a second, 0 for no limit")
	}
	return b, f.err
}

// idempotencyKey checks a key as a header may carry it; ok is false for what is too long or not printable ASCII.
func idempotencyKey(s string) (ok bool) {
	return len(s) <= 255 && strings.IndexFunc(s, func(r rune) bool { return r < 0x20 || r > 0x7e }) < 0
}
