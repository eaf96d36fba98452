package migrate

import (
	"strings"
	"testing"
	"time"

	"github.com/campanile-push/campanile/schemas"
)

func word(s string) value { return value{kind: text, text: s} }

func TestPlatformsChooseTheTransport(t *testing.T) {
	t.Parallel()
	hex64, fcm := strings.Repeat("aF", 32), strings.Repeat("x", 22)+":APA91b"+strings.Repeat("y", 134)
	for _, c := range []struct {
		name          string
		device, token value
		transport     schemas.Transport
		platform      string
		reason        string
	}{
		{"no platform, 64 hex", value{}, word(hex64), schemas.APNS, "ios", ""},
		{"null platform, 64 hex", value{kind: null}, word(hex64), schemas.APNS, "ios", ""},
		{"empty platform, short", word(""), word("abc"), 0, "", iosTooShort},
		{"no platform, long: the newer app at an older site", value{}, word(fcm), schemas.FCM, "fcm", ""},
		{"iOS in any case", word("iOS"), word(hex64), schemas.APNS, "iOS", ""},
		{"ios, 64 that are not hex", word("ios"), word("g" + hex64[1:]), 0, "", iosNoHex},
		{"ios, 63", word("ios"), word(hex64[1:]), 0, "", iosTooShort},
		{"ios, long", word("ios"), word(fcm), schemas.FCM, "fcm", ""},
		{"fcm", word("fcm"), word(fcm), schemas.FCM, "fcm", ""},
		{"fcm takes any token", word("fcm"), word("short"), schemas.FCM, "fcm", ""},
		{"as the app sends it", word("Android-fcm"), word(fcm), schemas.FCM, "Android-fcm", ""},
		{"whatever ends in fcm", word("toasterfcm"), word(fcm), schemas.FCM, "toasterfcm", ""},
		{"android with a token of FCM", word("android"), word(fcm), schemas.FCM, "android", ""},
		{"android with an id of GCM", word("android"), word("APA91bHun4MxP5egoKMwt2KZFBaFUH"), 0, "", gcmID},
		{"wns", word("wns"), word("https://x"), 0, "", noTransport + "wns"},
		{"mpns", word("MPNS"), word("https://x"), 0, "", noTransport + "mpns"},
		{"sms", word("sms"), word("+4912345"), 0, "", noTransport + "sms"},
		{"junk", word("toaster"), word(fcm), 0, "", unknownDevice},
		{"a number for a platform", value{kind: number, number: 1}, word(fcm), 0, "", platformNoText},
		{"no token", word("fcm"), value{}, 0, "", noToken},
		{"null token", word("fcm"), value{kind: null}, 0, "", noToken},
		{"blank token", word("fcm"), word("  "), 0, "", noToken},
		{"a number for a token", word("fcm"), value{kind: number, number: 1}, 0, "", tokenNoText},
		{"a token with NUL", word("fcm"), word("a\x00b"), 0, "", tokenUnusable},
		{"a token with what was no UTF-8", word("fcm"), word("a\uFFFDb"), 0, "", tokenUnusable},
		{"a token beyond the limit", word("fcm"), word(strings.Repeat("a", schemas.MaxToken+1)), 0, "", tokenUnusable},
	} {
		got, reason := targetOf(c.device, c.token)
		if reason != c.reason || got.transport != c.transport || got.platform != c.platform {
			t.Errorf("%s: want %v %q %q, got %v %q %q", c.name, c.transport, c.platform, c.reason, got.transport, got.platform, reason)
		}
	}
}

func TestChannelsThatCannotBeGoIntoDefault(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		v      value
		want   string
		usable bool
	}{
		{value{}, "default", true},
		{value{kind: null}, "default", true},
		{word(""), "default", true},
		{word("course-7"), "course-7", true},
		{word("a\x01"), "default", false},
		{word(strings.Repeat("c", 256)), "default", false},
		{value{kind: number, number: 7}, "default", false},
	} {
		if got, usable := channelOf(c.v); got != c.want || usable != c.usable {
			t.Errorf("%+v: want %q %v, got %q %v", c.v, c.want, c.usable, got, usable)
		}
	}
}

func TestKeysAreReadAsAirNotifierStoredThem(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		doc         string
		permissions uint32
		site        string
		issued      int64
		reason      string
	}{
		{`{"key":"a","permission":15,"description":"https://campus.example.org","created":1400000000}`, 15, "https://campus.example.org", 1400000000, ""},
		{`{"key":"a","permission":{"$numberInt":"5"},"description":"HTTP://Campus.Example.org/moodle/"}`, 5, "HTTP://Campus.Example.org/moodle/", now.Unix(), ""},
		{`{"key":"a"}`, 0, "", now.Unix(), ""},
		{`{"key":"a","permission":255,"description":"monitoring","created":1}`, 31, "", now.Unix(), ""},
		{`{"key":"a","permission":1,"description":"https://campus.example.org?x=1"}`, 1, "", now.Unix(), ""},
		{`{"permission":15}`, 0, "", 0, noKey},
		{`{"key":""}`, 0, "", 0, noKey},
		{`{"key":7}`, 0, "", 0, keyUnusable},
		{`{"key":" a"}`, 0, "", 0, keyUnusable},
		{`{"key":"a\nb"}`, 0, "", 0, keyUnusable},
		{`{"key":"a","permission":"lots"}`, 0, "", 0, badPermission},
		{`{"key":"a","permission":1.5}`, 0, "", 0, badPermission},
	} {
		e, reason := readKey("demo", []byte(c.doc), false, now)
		if reason != c.reason {
			t.Errorf("%s: want %q, got %q", c.doc, c.reason, reason)
			continue
		}
		if reason == "" && (e.Permissions != c.permissions || e.Claim.GetUrl() != c.site || e.IssuedAtUs != c.issued*1e6) {
			t.Errorf("%s: got %v", c.doc, e)
		}
	}
}

func FuzzTokenRecord(f *testing.F) {
	f.Add([]byte(`{"device":"ios","token":"aa","channel":null,"appname":"demo"}`))
	f.Add([]byte(`{"device":{"$numberInt":"1"},"token":"a:b"}`))
	a := &airNotifier{importer: newImporter(nil, NewState(), Options{})}
	f.Fuzz(func(t *testing.T, b []byte) {
		doc, err := newDocuments(strings.NewReader(string(b))).next()
		if err != nil {
			return
		}
		r := a.tokenRecord(File{App: "demo"}, doc)
		to, reason := targetOf(r.device, r.token)
		if reason == "" && (schemas.CheckToken(r.token.text) != nil || schemas.CheckChannel(to.platform) != nil || to.transport == 0) {
			t.Fatalf("%q becomes %+v", doc, to)
		}
		if channel, _ := channelOf(r.channel); schemas.CheckChannel(channel) != nil {
			t.Fatalf("%q joins %q", doc, channel)
		}
		if e, reason := readKey("demo", doc, false, time.Unix(1.7e9, 0)); reason == "" && (len(e.ValueHash) != 32 || e.Claim != nil && e.Claim.Channel == "") {
			t.Fatalf("%q becomes %v", doc, e)
		}
	})
}
