package senders

import (
	"encoding/json"
	"fmt"
	"maps"
	"strconv"

	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// APNSMessage is content in APNs' words, the same for every device.
type APNSMessage struct {
	Payload     []byte // JSON, at most 4096 bytes
	PushType    string // apns-push-type
	TopicSuffix string // what follows the bundle id in apns-topic
	CollapseID  string // apns-collapse-id; "": none
	Priority    int    // apns-priority: 10, 5 or 1
}

// placeholderTitle is shown if the app does not replace it: the true text of an encrypted message can only be read on the phone.
const placeholderTitle = "New notification"

// apsKeys are the keys of the aps dictionary that a caller may set ("Generating a remote notification").
var apsKeys = []string{
	"alert", "badge", "sound", "thread-id", "category", "content-available", "mutable-content", "target-content-id",
	"interruption-level", "relevance-score", "filter-criteria", "stale-date", "content-state", "timestamp", "event",
	"dismissal-date", "attributes-type", "attributes", "url-args",
}

// topicSuffixes are what apns-topic needs behind the bundle id, by push type.
var topicSuffixes = map[string]string{
	"location": ".location-query", "voip": ".voip", "complication": ".complication", "fileprovider": ".pushkit.fileprovider",
	"liveactivity": ".push-type.liveactivity", "pushtotalk": ".voip-ptt", "widgets": ".push-type.widgets", "controls": ".push-type.controls",
}

// RenderAPNS renders content as an APNs payload, trimmed to APNs' limit where that is needed and allowed. It returns ErrTooLarge
// or ErrBadContent, wrapped.
func RenderAPNS(c *pushv1.Content) (*APNSMessage, error) {
	if c == nil {
		return nil, fmt.Errorf("no content: %w", ErrBadContent)
	}
	trim := trimmer{c: c}
	for {
		m, err := renderAPNS(c)
		if err != nil {
			return nil, err
		}
		over := len(m.Payload) - maxPayload
		if over <= 0 {
			return m, nil
		}
		if c = trim.next(over); c == nil {
			return nil, fmt.Errorf("%d bytes over %d: %w", over, maxPayload, ErrTooLarge)
		}
	}
}

func renderAPNS(c *pushv1.Content) (*APNSMessage, error) {
	given, err := readObject(c.ApnsJson)
	if err != nil {
		return nil, fmt.Errorf("apns: %w: %w", err, ErrBadContent)
	}
	custom, err := given.child("custom") // the word of AirNotifier 1 for top-level keys
	if err != nil {
		return nil, fmt.Errorf("apns: %w: %w", err, ErrBadContent)
	}
	aps := object{}
	for _, k := range apsKeys {
		if given.has(k) {
			aps[k] = given[k]
		}
	}
	fillAPS(aps, c)

	m := &APNSMessage{PushType: c.PushType, CollapseID: c.CollapseId, Priority: 10}
	if m.PushType == "" {
		m.PushType = given.text("push_type")
	}
	if m.PushType == "" {
		m.PushType = "background"
		if aps.has("alert") || aps.has("sound") || aps.has("badge") {
			m.PushType = "alert"
		}
	}
	m.TopicSuffix = topicSuffixes[m.PushType]
	if m.PushType == "background" { // APNs refuses 10 here, and wakes nobody without content-available
		aps.setDefault("1", "content-available")
		m.Priority = 5
	} else if c.Priority == pushv1.Priority_PRIORITY_NORMAL {
		m.Priority = 5
	}

	top := object{}
	maps.Copy(top, custom)
	for _, d := range c.Data {
		top[d.Key] = json.RawMessage(quoted(d.Value))
	}
	delete(top, "aps")
	m.Payload = aps.append([]byte(`{"aps":`))
	rest := top.append(nil)
	if len(rest) > len(`{}`) {
		m.Payload = append(m.Payload, ',')
	}
	m.Payload = append(m.Payload, rest[1:]...)
	return m, nil
}

// fillAPS adds to the aps dictionary what the content says and the caller's own fields do not.
func fillAPS(aps object, c *pushv1.Content) {
	switch c.Alert {
	case pushv1.Content_ALERT_TEXT:
		aps.setDefault(quoted(c.Text), "alert")
	case pushv1.Content_ALERT_TITLE_BODY:
		aps.setDefault(string(titleBody(c).raw()), "alert")
	case pushv1.Content_ALERT_NONE:
		if c.Encrypted { // nothing wakes the app's extension but an alert that it may change
			aps.setDefault(string(object{"title": json.RawMessage(quoted(placeholderTitle))}.raw()), "alert")
			aps.setDefault("1", "mutable-content")
		}
	}
	switch {
	case c.Sound != "":
		aps.setDefault(quoted(c.Sound), "sound")
	case aps.has("alert"):
		aps.setDefault(`"default"`, "sound")
	}
	if c.Badge != nil {
		aps.setDefault(strconv.Itoa(int(*c.Badge)), "badge")
	}
	if c.Category != "" {
		aps.setDefault(quoted(c.Category), "category")
	}
	if c.ThreadId != "" {
		aps.setDefault(quoted(c.ThreadId), "thread-id")
	}
	if c.ContentAvailable {
		aps.setDefault("1", "content-available")
	}
	if c.MutableContent {
		aps.setDefault("1", "mutable-content")
	}
}

// titleBody is the alert's dictionary, empty parts left out.
func titleBody(c *pushv1.Content) object {
	o := object{}
	if c.Title != "" {
		o["title"] = json.RawMessage(quoted(c.Title))
	}
	if c.Body != "" {
		o["body"] = json.RawMessage(quoted(c.Body))
	}
	return o
}
