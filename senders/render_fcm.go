package senders

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// FCMMessage is content in FCM's words. Only the token and the time to live differ from device to device. They stand first, so that
// all else is one piece that every request shares.
type FCMMessage struct {
	// Tail is a request's body but for its Start.
	Tail     []byte
	timeless bool // the caller set a time to live of its own
}

const (
	fcmToken   = `{"message":{"token":`
	fcmAndroid = `,"android":{`
)

// AppendBody appends the request's whole body for one token: AppendStart and Tail.
func (m *FCMMessage) AppendBody(b []byte, token string, ttlSeconds int64) []byte {
	return append(m.AppendStart(b, token, ttlSeconds), m.Tail...)
}

// AppendStart appends what stands before Tail. ttl is what is left of the message's life; negative: the provider's default.
func (m *FCMMessage) AppendStart(b []byte, token string, ttlSeconds int64) []byte {
	b = append(b, fcmToken...)
	b = appendString(b, token)
	b = append(b, fcmAndroid...)
	if ttlSeconds >= 0 && !m.timeless {
		b = append(b, `"ttl":"`...)
		b = strconv.AppendInt(b, min(ttlSeconds, maxTTL), 10)
		b = append(b, `s",`...)
	}
	return b
}

// Size is the number of bytes of a body but for token and time to live.
func (m *FCMMessage) Size() int { return len(fcmAndroid) + len(m.Tail) }

// maxTTL is FCM's longest time to live: four weeks, in seconds.
const maxTTL = 2_419_200

// moodleChannel is the Android channel of Moodle's app.
const moodleChannel = "PushPluginChannel"

// RenderFCM renders content as an FCM message, trimmed to FCM's limit where that is needed and allowed. expiresUS is the request's
// expiry (zero: none). It returns ErrTooLarge or ErrBadContent, wrapped.
func RenderFCM(c *pushv1.Content, expiresUS int64) (*FCMMessage, error) {
	if c == nil {
		return nil, fmt.Errorf("no content: %w", ErrBadContent)
	}
	trim := trimmer{c: c}
	for {
		m, err := renderFCM(c, expiresUS)
		if err != nil {
			return nil, err
		}
		over := m.Size() - maxPayload
		if over <= 0 {
			return m, nil
		}
		smaller := trim.next(over)
		if smaller == nil {
			// Google counts keys and values, we counted their JSON: what may fit by that count is Google's to judge.
			if lean(c) <= maxPayload {
				return m, nil
			}
			return nil, fmt.Errorf("%d bytes over %d: %w", over, maxPayload, ErrTooLarge)
		}
		c = smaller
	}
}

// lean is the least that the message can count: its texts, keys and values, and the caller's own blocks.
func lean(c *pushv1.Content) int {
	n := len(c.Title) + len(c.Body) + 2*len(c.Text) + len(c.FcmJson)
	for _, d := range c.Data {
		n += len(d.Key) + len(d.Value)
	}
	return n
}

func renderFCM(c *pushv1.Content, expiresUS int64) (*FCMMessage, error) {
	given, err := readObject(c.FcmJson)
	if err != nil {
		return nil, fmt.Errorf("fcm: %w: %w", err, ErrBadContent)
	}
	android, err := androidBlock(given, c)
	if err != nil {
		return nil, fmt.Errorf("fcm: %w: %w", err, ErrBadContent)
	}
	apns, err := given.child("apns")
	if err != nil {
		return nil, fmt.Errorf("fcm: %w: %w", err, ErrBadContent)
	}
	if apns == nil {
		apns = apnsBlock(c, expiresUS)
	}

	// android always has its priority, so that a comma fits between a time to live and the rest of it.
	tail := android.append(nil)[1:]
	if n := notification(c); n != nil {
		tail = n.append(append(tail, `,"notification":`...))
	}
	if data := fcmData(c); len(data) > 0 {
		tail = data.append(append(tail, `,"data":`...))
	}
	if len(apns) > 0 {
		tail = apns.append(append(tail, `,"apns":`...))
	}
	webpush, err := given.child("webpush")
	if err != nil {
		return nil, fmt.Errorf("fcm: %w: %w", err, ErrBadContent)
	}
	if len(webpush) > 0 {
		tail = webpush.append(append(tail, `,"webpush":`...))
	}
	return &FCMMessage{Tail: append(tail, "}}"...), timeless: android.has("ttl")}, nil
}

func notification(c *pushv1.Content) object {
	switch c.Alert {
	case pushv1.Content_ALERT_TEXT:
		text := json.RawMessage(quoted(c.Text))
		return object{"title": text, "body": text}
	case pushv1.Content_ALERT_TITLE_BODY:
		return titleBody(c)
	case pushv1.Content_ALERT_NONE:
	}
	return nil
}

// fcmData is the data that FCM takes: it refuses a message with a reserved key, so those are left out.
func fcmData(c *pushv1.Content) object {
	data := make(object, len(c.Data))
	for _, d := range c.Data {
		if d.Key != "" && !reserved(d.Key) {
			data[d.Key] = json.RawMessage(quoted(d.Value))
		}
	}
	return data
}

func reserved(key string) bool {
	return key == "from" || key == "message_type" || strings.HasPrefix(key, "google") || strings.HasPrefix(key, "gcm")
}

func androidBlock(given object, c *pushv1.Content) (object, error) {
	android, err := given.child("android")
	if err != nil {
		return nil, err
	}
	if android == nil {
		android = object{}
	}
	priority := `"HIGH"`
	if c.Priority == pushv1.Priority_PRIORITY_NORMAL {
		priority = `"NORMAL"`
	}
	android.setDefault(priority, "priority")
	if c.CollapseId != "" {
		android.setDefault(quoted(c.CollapseId), "collapse_key", "collapseKey")
	}
	if c.Alert == pushv1.Content_ALERT_NONE {
		return android, nil
	}
	shown, err := android.child("notification")
	if err != nil {
		return nil, err
	}
	if shown == nil {
		shown = object{}
	}
	sound := c.Sound
	if sound == "" {
		sound = "default"
	}
	shown.setDefault(quoted(sound), "sound")
	if processor, _ := value(c, "processor"); processor == "moodle" {
		shown.setDefault(quoted(moodleChannel), "channel_id", "channelId")
	}
	if c.Badge != nil {
		shown.setDefault(strconv.Itoa(int(*c.Badge)), "notification_count", "notificationCount")
	}
	android["notification"] = shown.raw()
	return android, nil
}

// apnsBlock is what an iPhone behind FCM gets, where the caller gave no block of its own.
func apnsBlock(c *pushv1.Content, expiresUS int64) object {
	aps, headers := object{}, object{}
	fillAPS(aps, c)
	if c.Alert != pushv1.Content_ALERT_NONE {
		delete(aps, "alert") // FCM makes it of the notification
		aps.setDefault(`"default"`, "sound")
	} else if !c.Encrypted {
		aps.setDefault("1", "content-available") // or a message of data alone never reaches the app
		headers["apns-push-type"] = json.RawMessage(`"background"`)
		headers["apns-priority"] = json.RawMessage(`"5"`)
	}
	if c.Priority == pushv1.Priority_PRIORITY_NORMAL {
		headers["apns-priority"] = json.RawMessage(`"5"`)
	}
	if c.CollapseId != "" {
		headers["apns-collapse-id"] = json.RawMessage(quoted(c.CollapseId))
	}
	if expiresUS > 0 {
		headers["apns-expiration"] = json.RawMessage(`"` + strconv.FormatInt(expiresUS/1e6, 10) + `"`)
	}
	block := object{"payload": object{"aps": aps.raw()}.raw()}
	if len(headers) > 0 {
		block["headers"] = headers.raw()
	}
	return block
}
