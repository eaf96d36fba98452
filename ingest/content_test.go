package ingest

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// describe writes a content in short, for tables.
func describe(c *pushv1.Content) string {
	var b strings.Builder
	switch c.Alert {
	case pushv1.Content_ALERT_NONE:
		b.WriteString("silent")
	case pushv1.Content_ALERT_TEXT:
		fmt.Fprintf(&b, "text(%s)", c.Text)
	case pushv1.Content_ALERT_TITLE_BODY:
		fmt.Fprintf(&b, "alert(%s|%s)", c.Title, c.Body)
	}
	for _, kv := range c.Data {
		fmt.Fprintf(&b, " %s=%s", kv.Key, kv.Value)
	}
	if c.FcmJson != nil {
		fmt.Fprintf(&b, " fcm:%s", c.FcmJson)
	}
	if c.ApnsJson != nil {
		fmt.Fprintf(&b, " apns:%s", c.ApnsJson)
	}
	if c.Badge != nil {
		fmt.Fprintf(&b, " badge:%d", *c.Badge)
	}
	for name, v := range map[string]string{"sound": c.Sound, "type": c.PushType} {
		if v != "" {
			fmt.Fprintf(&b, " %s:%s", name, v)
		}
	}
	if c.ContentAvailable {
		b.WriteString(" available")
	}
	if c.Encrypted {
		b.WriteString(" encrypted")
	}
	return b.String()
}

func TestABodyBecomesContent(t *testing.T) {
	t.Parallel()
	const moodle = `"extra":{"processor":"moodle","smallmessage":"hi","sitefullname":"S","notification":1,"component":"mod_quiz","wwwroot":"https:\/\/m","userfromfullname":"A","n":null,"encrypted":`
	const moodleData = " processor=moodle smallmessage=hi sitefullname=S notification=1 component=mod_quiz wwwroot=https://m userfromfullname=A encrypted="
	const copies = " notif=1 moodlecomponent=mod_quiz siteurl=https://m userfrom=A"
	for _, c := range []struct {
		says string
		p    purpose
		body string
		want string
	}{
		{"absent alert, no processor", toFCM, `{}`, "silent"},
		{"alert null", toFCM, `{"alert":null}`, "silent"},
		{"alert empty", toFCM, `{"alert":""}`, "silent"},
		{"alert text", toFCM, `{"alert":"a\u0062"}`, "text(ab)"},
		{"alert object", toFCM, `{"alert":{"title":"t","body":"b"}}`, "alert(t|b)"},
		{"alert empty object", toFCM, `{"alert":{}}`, "silent"},
		{"alert number", toFCM, `{"alert":5}`, "text(5)"},
		{"the last of two counts", toFCM, `{"alert":"a","alert":"b"}`, "text(b)"},
		{"moodle, absent alert: filled from extra", toFCM, `{` + moodle + `false}}`, "alert(S|hi)" + moodleData + "0" + copies},
		{"moodle for APNs: the same", toAPNs, `{` + moodle + `false}}`, "alert(S|hi)" + moodleData + "0" + copies},
		{"moodle, alert null: data only", toFCM, `{"alert":null,` + moodle + `false}}`, "silent" + moodleData + "0" + copies},
		{"moodle, sealed: data only", toFCM, `{"alert":null,` + moodle + `true}}`, "silent" + moodleData + "1" + copies + " encrypted"},
		{"moodle, sealed, alert absent: nothing visible", toFCM, `{` + moodle + `true}}`, "silent" + moodleData + "1" + copies + " encrypted"},
		{"moodle, alert present: untouched", toFCM, `{"alert":"x",` + moodle + `false}}`, "text(x)" + moodleData + "0" + copies},
		{"moodle, fullmessage where smallmessage is empty", toFCM, `{"extra":{"processor":"moodle","smallmessage":"","fullmessage":"f"}}`, "alert(Notification|f) processor=moodle smallmessage= fullmessage=f"},
		{"moodle replaces fcm", toFCM, `{"fcm":{"data":{"a":1},"android":{}},"extra":{"processor":"moodle","smallmessage":"m"}}`, "alert(Notification|m) processor=moodle smallmessage=m"},
		{"a copy that is there stays", toFCM, `{"alert":null,"extra":{"processor":"moodle","siteurl":"u","wwwroot":"w"}}`, "silent processor=moodle siteurl=u wwwroot=w"},
		{"data typing", toFCM, `{"fcm":{"data":{"t":true,"f":false,"n":null,"i":12,"d":1.5,"o":{"a": [1, null]},"l":[1, "x"],"s":"é"}}}`, `silent t=1 f=0 i=12 d=1.5 o={"a":[1,null]} l=[1,"x"] s=é`},
		{"fcm blocks", toFCM, `{"alert":"a","fcm":{"android":{"priority": "high"},"apns":{"payload":{}},"webpush":{},"x":{},"data":5}}`, `text(a) fcm:{"android":{"priority":"high"},"apns":{"payload":{}},"webpush":{}}`},
		{"fcm is not for APNs", toAPNs, `{"alert":"a","fcm":{"data":{"x":1},"android":{}}}`, "text(a)"},
		{"apns is not for FCM", toFCM, `{"alert":"a","apns":{"badge":1}}`, "text(a)"},
		{"apns", toAPNs, `{"alert":"a","apns":{"badge":1,"sound":"s","thread-id":"t","push_type":"alert","n":null}}`, `text(a) apns:{"badge":1,"sound":"s","thread-id":"t"} type:alert`},
		{"a push type that is no header", toAPNs, `{"apns":{"push_type":"a\r\nb: c"}}`, "silent"},
		{"apns content of Reflect.UP", toAll, `{"alert":"a","badge":2,"sound":"d","apns":{"content":1}}`, "text(a) badge:2 sound:d available"},
		{"an alert with more than title and body, for APNs", toAPNs, `{"alert":{"title":"t","subtitle":"s"}}`, `alert(t|) apns:{"alert":{"title":"t","subtitle":"s"}}`},
		{"apns.alert stands over it", toAPNs, `{"alert":{"title":"t","subtitle":"s"},"apns":{"alert":"x"}}`, `alert(t|) apns:{"alert":"x"}`},
		{"extra without a processor", toFCM, `{"alert":"a","extra":{"k":"v"},"fcm":{"data":{"k":"w","z":1}}}`, "text(a) k=w z=1"},
		{"custom of v1", toAPNs, `{"alert":"a","custom":{"k":1}}`, "text(a) k=1"},
		{"badge as text", toAPNs, `{"alert":"a","badge":"3"}`, "text(a) badge:3"},
		{"badge that is none", toAPNs, `{"alert":"a","badge":"many"}`, "text(a)"},
		{"extra null", toFCM, `{"alert":"a","extra":null}`, "text(a)"},
		{"extra.processor null", toFCM, `{"alert":"a","extra":{"processor":null}}`, "text(a)"},
	} {
		var b contentBuilder
		for range 2 { // the second time on used memory
			doc, ok, err := parseObject(c.body, nil)
			if err != nil || !ok {
				t.Fatalf("%s: %v", c.says, err)
			}
			body := readPush(doc)
			if refused := b.ofPush(&body, c.p); refused != nil {
				t.Errorf("%s: refused: %s", c.says, refused.body)
				continue
			}
			if got := describe(&b.c); got != c.want {
				t.Errorf("%s:\nwant %s\ngot  %s", c.says, c.want, got)
			}
		}
	}
}

func TestBodiesThatAreRefused(t *testing.T) {
	t.Parallel()
	var many strings.Builder
	for i := range maxData + 1 {
		fmt.Fprintf(&many, `,"k%d":1`, i)
	}
	for body, want := range map[string]*answer{
		`{"extra":{"processor":"../../x"}}`:        noProcessor(400, "../../x"),
		`{"extra":[1]}`:                            invalidExtra,
		`{"extra":"x"}`:                            invalidExtra,
		`{"alert":true}`:                           invalidAlert,
		`{"extra":{"a":1` + many.String() + `}}`:   tooManyFields,
		`{"extra":{"processor":{"moodle":"yes"}}}`: noProcessor(400, `{"moodle":"yes"}`),
	} {
		doc, ok, err := parseObject(body, nil)
		if err != nil || !ok {
			t.Fatal(err)
		}
		var b contentBuilder
		read := readPush(doc)
		if got := b.ofPush(&read, toFCM); got == nil || string(got.body) != string(want.body) {
			t.Errorf("%.60s: want %s, got %v", body, want.body, got)
		}
	}
}

func TestManyKeysStayUnique(t *testing.T) {
	t.Parallel()
	var b contentBuilder
	for range 3 {
		b.reset()
		for i := range 3 * 200 {
			b.set(fmt.Sprint("k", i%200), fmt.Sprint(i))
		}
		if len(b.c.Data) != 200 || b.c.Data[7].Key != "k7" || b.c.Data[7].Value != "407" {
			t.Fatalf("got %d keys, %v", len(b.c.Data), b.c.Data[7])
		}
	}
}

func TestPlatformsChooseTransports(t *testing.T) {
	t.Parallel()
	hex := strings.Repeat("0aF9", 16)
	odd, long := strings.Repeat("z", 64), strings.Repeat("a", 65)
	const bad = "Invalid token"
	const badType = "Invalid device type"
	for _, c := range []struct{ device, token, v1, v2, push string }{
		{"", "testtoken", bad, "fcm fcm", "fcm fcm"},
		{"", hex, "apns ios", "apns ios", "apns ios"},
		{"", odd, bad, "fcm fcm", "fcm fcm"},
		{"", long, "fcm fcm", "fcm fcm", "fcm fcm"},
		{"iOS", "abc", bad, bad, bad},
		{"iOS", hex, "apns iOS", "apns iOS", "apns iOS"},
		{"ios", odd, bad, bad, bad},
		{"ios", long, "fcm fcm", bad, "fcm fcm"},
		{"Android-fcm", "abc", "fcm Android-fcm", "fcm Android-fcm", "fcm Android-fcm"},
		{"iOS-fcm", hex, "fcm iOS-fcm", "fcm iOS-fcm", "fcm iOS-fcm"},
		{"ANDROID", "abc", "fcm ANDROID", "fcm ANDROID", "fcm ANDROID"},
		{"fcm", "abc", "fcm fcm", "fcm fcm", "fcm fcm"},
		{"wns", "abc", "fcm wns", badType, badType},
		{"sms", "abc", "fcm sms", badType, badType},
		{"Toaster", "abc", "fcm Toaster", badType, badType},
		{"fcm", "", bad, bad, bad},
		{"fcm", "a\x00b", bad, bad, bad},
		{"fcm", strings.Repeat("a", schemas.MaxToken+1), bad, bad, bad},
	} {
		for rule, want := range map[leniency]string{registerV1: c.v1, registerV2: c.v2, pushAnything: c.push} {
			to, refused := targetOf(c.device, c.token, rule)
			got := to.transport.Word() + " " + to.platform
			if refused != nil {
				got = refused.text()
			}
			if got != want {
				t.Errorf("device %q, token of %d, rule %d: want %q, got %q", c.device, len(c.token), rule, want, got)
			}
		}
	}
}

// text is an answer's error.
func (a *answer) text() string {
	var e struct{ Error string }
	if err := json.Unmarshal(a.body, &e); err != nil {
		return err.Error()
	}
	return e.Error
}

// FuzzPush: no body panics, and what comes out survives the wire.
func FuzzPush(f *testing.F) {
	f.Add(`{"device":"Android-fcm","token":"t","extra":{"processor":"moodle","smallmessage":"m","notification":1,"encrypted":false}}`)
	f.Add(`{"alert":{"title":"t","x":[1]},"apns":{"alert":1,"badge":null},"fcm":{"data":{"a":{}},"android":{}},"custom":{"":1}}`)
	f.Add(`{"alert":null,"extra":{"encrypted":"1","processor":"moodle"},"badge":-1,"sound":5}`)
	f.Fuzz(func(t *testing.T, body string) {
		doc, ok, err := parseObject(strings.ToValidUTF8(body, "\uFFFD"), nil)
		if err != nil || !ok {
			return
		}
		read := readPush(doc)
		var b contentBuilder
		for _, p := range []purpose{toFCM, toAPNs, toAll} {
			if refused := b.ofPush(&read, p); refused != nil {
				if !json.Valid(refused.body) {
					t.Fatalf("answer %q", refused.body)
				}
				continue
			}
			for _, block := range [][]byte{b.c.FcmJson, b.c.ApnsJson} {
				if block != nil && !json.Valid(block) {
					t.Fatalf("block %q", block)
				}
			}
			seen := map[string]bool{}
			for _, kv := range b.c.Data {
				if seen[kv.Key] {
					t.Fatalf("%q twice", kv.Key)
				}
				seen[kv.Key] = true
			}
			if _, err := proto.Marshal(&b.c); err != nil { // which also refuses what is not UTF-8
				t.Fatal(err)
			}
		}
		for _, rule := range []leniency{registerV1, registerV2, pushAnything} {
			if to, refused := targetOf(read.device, read.token, rule); refused == nil && schemas.CheckToken(read.token) != nil {
				t.Fatalf("%v takes %q", to, read.token)
			}
		}
	})
}

// FuzzForm: no body panics, whatever its label; fields are text.
func FuzzForm(f *testing.F) {
	f.Add("multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data; name=\"device\"\r\n\r\nAndroid-fcm\r\n--b--\r\n")
	f.Add("application/x-www-form-urlencoded", "token=a%3Ab&alert=x+y&alert=%zz&=&&q")
	f.Add("multipart/form-data; boundary=", "--")
	f.Add("application/x-www-form-urlencoded; charset", "a=%ff")
	f.Fuzz(func(t *testing.T, label, body string) {
		var fields form
		if err := fields.addBody(label, body); err != nil {
			return
		}
		var b contentBuilder
		if refused := b.ofForm(&fields); refused == nil {
			if _, err := proto.Marshal(&b.c); err != nil {
				t.Fatal(err)
			}
		}
		if len(fields.fields) > maxFields {
			t.Fatal("too many fields were taken")
		}
	})
}

// FuzzSite: what is taken for a site's address is one, and stays the same when read again.
func FuzzSite(f *testing.F) {
	for _, s := range []string{"https://m.example", "http://M.example:8080/a/?x", " https://é.example/ ", "//x", "ftp://x", "https://u:p@x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, ok := schemas.SiteURL(s)
		if !ok {
			return
		}
		if again, ok := schemas.SiteURL(u); !ok || again != u {
			t.Fatalf("%q became %q, and that %q", s, u, again)
		}
	})
}
