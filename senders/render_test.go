package senders_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
	"github.com/campanile-push/campanile/senders"
)

var update = flag.Bool("update", false, "write the golden files anew")

func data(pairs ...string) (kv []*pushv1.KeyValue) {
	for i := 0; i < len(pairs); i += 2 {
		kv = append(kv, &pushv1.KeyValue{Key: pairs[i], Value: pairs[i+1]})
	}
	return kv
}

// contents are what the golden files show, in each provider's words.
func contents() map[string]*pushv1.Content {
	badge := int32(3)
	moodle := data("processor", "moodle", "notification", "1", "notif", "1", "component", "mod_quiz", "moodlecomponent", "mod_quiz",
		"site", "0c83f57c786a0b4a39efab23731c7ebc", "smallmessage", "Quiz \"1\" <b>opens</b> & closes\n", "sitefullname", "Campus", "encrypted", "0")
	return map[string]*pushv1.Content{
		"text":       {Alert: pushv1.Content_ALERT_TEXT, Text: "The bell <rings> & rings \u2028 \x01"},
		"title_body": {Alert: pushv1.Content_ALERT_TITLE_BODY, Title: "Campus", Body: "Exam in room 5", Badge: &badge, Sound: "bell.caf", CollapseId: "exam", ThreadId: "t", Category: "c"},
		"moodle":     {Alert: pushv1.Content_ALERT_TITLE_BODY, Title: "Campus", Body: "Quiz 1 opens", Data: moodle},
		"data_only":  {Data: data("site", "x", "from", "reserved", "google.a", "reserved", "aps", "no")},
		"encrypted":  {Encrypted: true, Data: data("processor", "moodle", "encrypted", "1", "smallmessage", "c2VhbGVk", "subject", "c2VhbGVk")},
		"callers_blocks": {
			Alert: pushv1.Content_ALERT_TITLE_BODY, Title: "T", Body: "B", Priority: pushv1.Priority_PRIORITY_NORMAL,
			FcmJson:  []byte(`{"android": {"ttl": "60s", "notification": {"channelId": "own", "icon": "<i>"}}, "apns": {"headers": {"apns-priority": "5"}}, "webpush": {"data": {"a": "b"}}}`),
			ApnsJson: []byte(`{"badge": null, "sound": "x.caf", "content-available": 1, "push_type": "alert", "interruption-level": "time-sensitive", "custom": {"k": [1, 2]}, "unknown": 1}`),
		},
		"voip": {Alert: pushv1.Content_ALERT_TEXT, Text: "call", PushType: "voip"},
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	got = append(got, '\n')
	if *update {
		if err := os.WriteFile(path, got, 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, got) {
		t.Errorf("%s:\nwant %s\ngot  %s", name, want, got)
	}
}

func TestContentIsRenderedAsTheGoldenFilesShow(t *testing.T) {
	t.Parallel()
	for name, c := range contents() {
		a, err := senders.RenderAPNS(c)
		if err != nil {
			t.Fatal(name, err)
		}
		head := "type=" + a.PushType + " suffix=" + a.TopicSuffix + " collapse=" + a.CollapseID + " priority=" + string(rune('0'+a.Priority/10)) + string(rune('0'+a.Priority%10)) + "\n"
		golden(t, name+".apns.golden", append([]byte(head), a.Payload...))
		f, err := senders.RenderFCM(c, 1_900_000_000_000_000)
		if err != nil {
			t.Fatal(name, err)
		}
		golden(t, name+".fcm.golden", f.AppendBody(nil, `tok"en`, 3600))
	}
}

func TestTimeToLiveIsFCMsOwnWhereNoneIsAsked(t *testing.T) {
	t.Parallel()
	m, err := senders.RenderFCM(&pushv1.Content{Alert: pushv1.Content_ALERT_TEXT, Text: "x"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if body := string(m.AppendBody(nil, "t", -1)); strings.Contains(body, "ttl") || strings.Contains(body, "apns-expiration") {
		t.Errorf("want no time to live, got %s", body)
	}
	if body := string(m.AppendBody(nil, "t", 1<<40)); !strings.Contains(body, `"ttl":"2419200s"`) {
		t.Errorf("want four weeks at most, got %s", body)
	}
}

// TestTrimmingFollowsItsOrder grows a Moodle message until each thing that can go is gone.
func TestTrimmingFollowsItsOrder(t *testing.T) {
	t.Parallel()
	fill := func(n int) string { return strings.Repeat("é<", n/3) }
	c := &pushv1.Content{Alert: pushv1.Content_ALERT_TITLE_BODY, Title: "Campus", Body: fill(600), Data: data(
		"notification", "1", "notif", "1", "userfromfullname", fill(300), "userfrom", fill(300), "siteurl", "https://own", "wwwroot", "https://other",
		"fullmessage", fill(600), "fullmessagehtml", fill(600), "contexturlname", fill(600),
		"replyto", fill(300), "replytoname", fill(300), "attachname", fill(600), "smallmessage", fill(600), "site", "keep")}
	left := func() map[string]any {
		t.Helper()
		m, err := senders.RenderAPNS(c)
		if err != nil {
			t.Fatal(err)
		}
		if len(m.Payload) > 4096 {
			t.Fatalf("want at most 4096 bytes, got %d", len(m.Payload))
		}
		var got map[string]any
		if err := json.Unmarshal(m.Payload, &got); err != nil {
			t.Fatal(err)
		}
		return got
	}
	gone := []string{"notif", "fullmessage", "fullmessagehtml", "contexturlname", "replytoname", "attachname"}
	next := 0
	for grow := 0; next < len(gone) && grow < 5000; grow += 100 {
		for _, d := range c.Data {
			if d.Key == "site" {
				d.Value = strings.Repeat("k", grow) // nothing takes this one
			}
		}
		if grow > 3000 {
			break
		}
		got := left()
		for next < len(gone) && got[gone[next]] == nil {
			next++
		}
		for _, key := range gone[next:] {
			if got[key] == nil {
				t.Errorf("at %d bytes: want %s still there, since %s is", grow, key, gone[next])
			}
		}
		if got["siteurl"] == nil {
			t.Error("want a copy that says something else kept")
		}
	}
	if next != len(gone) {
		t.Errorf("want all of %v gone in the end, got %v", gone, gone[:next])
	}
}

func TestWhatCannotBeMadeToFitIsRefused(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("x", 5000)
	for name, c := range map[string]*pushv1.Content{
		"encrypted":       {Encrypted: true, Data: data("smallmessage", big)},
		"nothing to drop": {Data: data("own", big)},
	} {
		if _, err := senders.RenderAPNS(c); !errors.Is(err, senders.ErrTooLarge) {
			t.Errorf("%s: want ErrTooLarge for APNs, got %v", name, err)
		}
		if _, err := senders.RenderFCM(c, 0); !errors.Is(err, senders.ErrTooLarge) {
			t.Errorf("%s: want ErrTooLarge for FCM, got %v", name, err)
		}
	}
	for _, c := range []*pushv1.Content{nil, {FcmJson: []byte(`[]`), ApnsJson: []byte(`"x"`)}, {FcmJson: []byte(`{"android":1}`), ApnsJson: []byte(`{`)}} {
		if _, err := senders.RenderAPNS(c); !errors.Is(err, senders.ErrBadContent) {
			t.Errorf("want ErrBadContent for APNs, got %v", err)
		}
		if _, err := senders.RenderFCM(c, 0); !errors.Is(err, senders.ErrBadContent) {
			t.Errorf("want ErrBadContent for FCM, got %v", err)
		}
	}
	full := &pushv1.Content{Encrypted: true, Data: data("smallmessage", strings.Repeat("x", 4000), "n", "1")}
	if _, err := senders.RenderFCM(full, 0); err != nil {
		t.Errorf("want 4013 bytes of keys and values taken, as Google counts them, got %v", err)
	}
}

func FuzzRender(f *testing.F) {
	f.Add("text", "title", "body", "k", "v", []byte(`{"android":{}}`), []byte(`{"badge":1}`), byte(2), false)
	f.Add(strings.Repeat("\x01", 2000), "", strings.Repeat("é", 3000), "smallmessage", strings.Repeat("\"", 4000), []byte(nil), []byte(nil), byte(1), false)
	f.Add("", "", "", "smallmessage", strings.Repeat("x", 5000), []byte(nil), []byte(nil), byte(0), true)
	f.Add("\xff\xfe", "a", "b", "aps", "c", []byte(`{"apns":{"payload":{}},"webpush":null}`), []byte(`{"custom":{"a":null},"alert":{"x":"<"}}`), byte(1), false)
	f.Fuzz(func(t *testing.T, text, title, body, key, value string, fcm, apns []byte, alert byte, encrypted bool) {
		c := &pushv1.Content{
			Alert: pushv1.Content_Alert(alert % 3), Text: text, Title: title, Body: body, Data: data(key, value, "n", "1"),
			FcmJson: fcm, ApnsJson: apns, Encrypted: encrypted,
		}
		if a, err := senders.RenderAPNS(c); err == nil {
			if !json.Valid(a.Payload) || !utf8.Valid(a.Payload) && utf8.Valid(apns) || len(a.Payload) > 4096 {
				t.Errorf("want valid JSON of at most 4096 bytes, got %d: %q", len(a.Payload), a.Payload)
			}
		} else if !errors.Is(err, senders.ErrTooLarge) && !errors.Is(err, senders.ErrBadContent) {
			t.Errorf("want a known error, got %v", err)
		}
		if m, err := senders.RenderFCM(c, 7); err == nil {
			if got := m.AppendBody(nil, value, 5); !json.Valid(got) {
				t.Errorf("want valid JSON, got %q", got)
			}
		} else if !errors.Is(err, senders.ErrTooLarge) && !errors.Is(err, senders.ErrBadContent) {
			t.Errorf("want a known error, got %v", err)
		}
	})
}
