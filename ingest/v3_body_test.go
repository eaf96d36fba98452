package ingest

import (
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func TestABroadcastBodyBecomesItsRequest(t *testing.T) {
	t.Parallel()
	body := `{"channels": ["staff", "all", "staff"], "platforms": ["iOS", "Android-fcm"], "send_at": "2026-11-23T13:00:00+00:00",
		"expires_at": "2026-11-23T14:00:00Z", "rate": 12.5, "spread_seconds": 600, "dry_run": null,
		"message": {"title": "Fire", "body": "drill", "data": {"b": "1", "a": "2"}, "sound": "bell", "badge": 3, "category": "c", "thread_id": "t",
			"collapse_id": "k", "priority": "normal", "content_available": true, "mutable_content": true, "push_type": "alert",
			"fcm": {"android": {"ttl": "3s"}}, "apns": {"interruption-level": "critical"}}}`
	got, dryRun, err := BroadcastFromJSON("moodle", []byte(body), noon)
	if err != nil || dryRun {
		t.Fatal(dryRun, err)
	}
	badge := int32(3)
	want := &pushv1.BroadcastRequested{
		App: "moodle", Channels: []string{"all", "staff"}, Platforms: []string{"android-fcm", "ios", "ios-fcm"}, RequestedAtUs: noon.UnixMicro(),
		SendAtUs: noon.Add(time.Hour).UnixMicro(), ExpiresAtUs: noon.Add(2 * time.Hour).UnixMicro(), Rate: 12.5, SpreadSeconds: 600,
		Content: &pushv1.Content{
			Alert: pushv1.Content_ALERT_TITLE_BODY, Title: "Fire", Body: "drill", Data: []*pushv1.KeyValue{{Key: "b", Value: "1"}, {Key: "a", Value: "2"}},
			Sound: "bell", Badge: &badge, Category: "c", ThreadId: "t", CollapseId: "k", Priority: pushv1.Priority_PRIORITY_NORMAL,
			ContentAvailable: true, MutableContent: true, PushType: "alert", FcmJson: []byte(`{"android":{"ttl":"3s"}}`), ApnsJson: []byte(`{"interruption-level":"critical"}`),
		},
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWhatABodyMayNotHoldIsNamed(t *testing.T) {
	t.Parallel()
	message := `"message": {"text": "x"}`
	for body, field := range map[string]string{
		`{}`:                                                "message",
		`{"message": 1}`:                                    "message",
		`{"message": {}}`:                                   "message",
		`{"message": {"text": 1}}`:                          "message.text",
		`{"message": {"text": "a", "body":"b"}}`:            "message.text",
		`{"message": {"texts": "a"}}`:                       `"message.texts"`,
		`{"message": {"data": {"a": 1}}}`:                   "message.data",
		`{"message": {"data": []}}`:                         "message.data",
		`{"message": {"badge": -1}}`:                        "message.badge",
		`{"message": {"badge": 1.5}}`:                       "message.badge",
		`{"message": {"text": "a", "priority": "urgent"}}`:  "message.priority",
		`{"message": {"text": "a", "push_type": "Alert!"}}`: "message.push_type",
		`{"message": {"text": "a", "collapse_id": "` + strings.Repeat("k", 65) + `"}}`:               "message.collapse_id",
		`{"message": {"text": "a", "fcm": {"token": {}}}}`:                                           `"message.fcm.token"`,
		`{"message": {"text": "a", "fcm": {"android": "x"}}}`:                                        "message.fcm.android",
		`{"message": {"text": "a", "apns": []}}`:                                                     "message.apns",
		`{"message": {"text": "a", "content_available": "yes"}}`:                                     "message.content_available",
		`{` + message + `, "channels": "staff"}`:                                                     "channels",
		`{` + message + `, "channels": [1]}`:                                                         "channels",
		`{` + message + `, "channels": [""]}`:                                                        "channels",
		`{` + message + `, "channels": ["a\u0000b"]}`:                                                "channels",
		`{` + message + `, "send_at": "tomorrow"}`:                                                   "send_at",
		`{` + message + `, "send_at": "2099-01-01T00:00:00Z"}`:                                       "send_at",
		`{` + message + `, "expires_at": "2026-11-23T11:00:00Z"}`:                                    "expires_at",
		`{` + message + `, "send_at": "2026-11-24T00:00:00Z", "expires_at": "2026-11-23T13:00:00Z"}`: "expires_at",
		`{` + message + `, "rate": -1}`:                                                              "rate",
		`{` + message + `, "rate": "fast"}`:                                                          "rate",
		`{` + message + `, "rate": 1e300}`:                                                           "rate",
		`{` + message + `, "spread_seconds": 1.5}`:                                                   "spread_seconds",
		`{` + message + `, "dry_run": 1}`:                                                            "dry_run",
		`{` + message + `, "colour": "red"}`:                                                         `"colour"`,
	} {
		_, _, err := BroadcastFromJSON("moodle", []byte(body), noon)
		if wrong, ok := errors.AsType[*FieldError](err); !ok || wrong.Field != field {
			t.Errorf("%s: want a complaint about %s, got %v", body, field, err)
		}
	}
	for _, body := range []string{``, `[]`, `{`, "{\"message\": {\"text\": \"\xff\"}}"} {
		if _, _, err := BroadcastFromJSON("moodle", []byte(body), noon); err == nil {
			t.Errorf("%q was taken", body)
		}
	}
}

func TestADeviceIsNamedByTransportOrGuessed(t *testing.T) {
	t.Parallel()
	apns := strings.Repeat("a1", 32)
	for _, c := range []struct {
		body deviceBody
		want target
		bad  string
	}{
		{deviceBody{token: apns}, target{schemas.APNS, "ios"}, ""},
		{deviceBody{token: "x:y"}, target{schemas.FCM, "fcm"}, ""},
		{deviceBody{token: apns, transport: "fcm"}, target{schemas.FCM, "fcm"}, ""},
		{deviceBody{token: apns, transport: "apns", platform: "iOS"}, target{schemas.APNS, "iOS"}, ""},
		{deviceBody{token: "x", transport: "apns"}, target{}, "token"},
		{deviceBody{token: "x", transport: "wns"}, target{}, "transport"},
		{deviceBody{token: "x", platform: "toaster"}, target{}, "platform"},
		{deviceBody{}, target{}, "token"},
	} {
		got, wrong := c.body.target()
		if wrong != nil {
			if wrong.Field != c.bad {
				t.Errorf("%+v: want %q, got %v", c.body, c.bad, wrong)
			}
			continue
		}
		if got != c.want || c.bad != "" {
			t.Errorf("%+v: want %v, got %v", c.body, c.want, got)
		}
	}
}

func FuzzV3Bodies(f *testing.F) {
	f.Add(`{"channels":["a"],"message":{"title":"t","data":{"k":"v"},"fcm":{"android":{}},"apns":{"a":1}},"rate":1e3,"send_at":"2026-11-23T13:00:00Z"}`)
	f.Add(`{"token":"x","transport":"fcm","message":{"text":"hi"},"expires_at":"2026-11-24T00:00:00Z"}`)
	f.Add(`{"platform":"ios","channels":[ "a" , "b" ],"replaces":"old","locale":"de"}`)
	f.Add(`{"reason":"typo","rate":0}`)
	f.Fuzz(func(t *testing.T, body string) {
		if !utf8.ValidString(body) {
			return
		}
		members, ok, syntax := parseObject(body, nil)
		if syntax != nil || !ok {
			return
		}
		var content contentBuilder
		if b, err := readBroadcast(members, noon, &content); err == nil {
			if len(b.channels) > maxChannels || b.rate < 0 || b.rate > maxRate || b.spread > maxSpread {
				t.Errorf("out of its limits: %+v", b)
			}
			for _, c := range b.channels {
				if schemas.CheckChannel(c) != nil {
					t.Errorf("channel %q", c)
				}
			}
			if b.expiresAt != 0 && b.expiresAt <= noon.UnixMicro() {
				t.Error("expired already")
			}
			if !utf8.ValidString(content.c.Text + content.c.Title + content.c.Body) {
				t.Error("not UTF-8")
			}
		}
		if b, err := readNotification(members, noon, &content); err == nil {
			if to, err := b.target(); err == nil && (to.transport == 0 || to.platform == "") {
				t.Errorf("no target: %+v", to)
			}
		}
		if b, err := readToken(members, "token"); err == nil && (b.token != "token" || len(b.channels) > maxChannels) {
			t.Errorf("%+v", b)
		}
		if b, err := readControl(members, "rate"); err == nil && (b.rate < 0 || b.rate > maxRate) {
			t.Errorf("rate %v", b.rate)
		}
		_, _ = readControl(members, "pause")
	})
}
