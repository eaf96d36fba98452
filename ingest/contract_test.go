package ingest_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/campanile-push/campanile/ingest"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

const (
	form   = "application/x-www-form-urlencoded"
	hexTok = "0123456789abcdef0123456789ABCDEF0123456789abcdef0123456789abcdef"
	fcmTok = "dQw4w9:APA91bF-x_Y0123456789"
)

// TestContract has one case for each row of AirNotifier's contract, in its words.
func TestContract(t *testing.T) {
	t.Parallel()
	h := setup(t, 1, nil)
	long := strings.Repeat("g", 65)
	for _, c := range []struct {
		says   string
		r      request
		status int
		body   string
	}{
		{"app-name header present", request{path: "/api/v2/push", app: "-", key: keyAll, body: "{}"}, 400, `{"error": "app name is required"}`},
		{"app-key header present", request{path: "/api/v2/push", app: appName, key: "-", body: "{}"}, 400, `{"error": "app key is required"}`},
		{"name comes before key", request{path: "/tokens/x", app: "-", key: "-"}, 400, `{"error": "app name is required"}`},
		{"argument token shorter than 64", request{path: "/api/v2/push?token=abc", app: "nobody", key: "k"}, 400, `{"error": "Invalid token"}`},
		{"argument token of 64, not hex", request{path: "/notification/", app: "nobody", key: "k", label: form, body: "token=" + strings.Repeat("z", 64)}, 400, `{"error": "Invalid token"}`},
		{"argument token with another device passes to the next check", request{path: "/api/v2/push?token=abc&device=fcm", app: "nobody", key: "k"}, 400, `{"error": "Invalid application name"}`},
		{"app exists", request{path: "/api/v2/push", app: "nobody", key: keyAll, body: "{}"}, 400, `{"error": "Invalid application name"}`},
		{"empty app name falls back to appname", request{path: "/tokens/" + fcmTok + "?appname=Com+Moodle+MoodleMobile&device=fcm", app: "", key: keyNone}, 403, `{"error": "No permission to create token"}`},
		{"key exists in that app", request{path: "/api/v2/push", app: appName, key: "99999999999999999999999999999999", body: "{}"}, 400, `{"error": "Invalid access key"}`},
		{"unknown key", request{path: "/tokens/testtoken", app: appName, key: "wrong"}, 400, `{"error": "Invalid access key"}`},
		{"empty key", request{path: "/tokens/testtoken", app: appName, key: ""}, 400, `{"error": "Invalid access key"}`},

		{"v1 register: no bit", request{path: "/tokens/" + fcmTok + "?device=fcm", app: appName, key: keyPush}, 403, `{"error": "No permission to create token"}`},
		{"v1 register: check page", request{path: "/tokens/testtoken", app: appName, key: keyAll, label: form}, 400, `{"error": "Invalid token"}`},
		{"v1 register: ios shorter than 64", request{path: "/tokens/abc", app: appName, key: keyAll, label: form, body: "device=iOS"}, 400, `{"error": "Invalid token"}`},
		{"v1 register: ios of 64 and no hex", request{path: "/tokens/" + strings.Repeat("z", 64), app: appName, key: keyAll, label: form, body: "device=ios"}, 400, `{"error": "Invalid token"}`},
		{"v1 register: ios, 64 hex", request{path: "/tokens/" + hexTok, app: appName, key: keyAll, label: form, body: "device=ios"}, 200, `{"status": "ok"}`},
		{"v1 register: ios, longer than 64", request{path: "/tokens/" + long, app: appName, key: keyAll, label: form, body: "device=iOS"}, 200, `{"status": "ok"}`},
		{"v1 register: no device, longer than 64", request{path: "/tokens/" + long + "2", app: appName, key: keyAll}, 200, `{"status": "ok"}`},
		{"v1 register: Android-fcm", request{path: "/tokens/" + fcmTok, app: appName, key: keyAll, label: form, body: "device=Android-fcm"}, 200, `{"status": "ok"}`},
		{"v1 register: again", request{path: "/tokens/" + fcmTok, app: appName, key: keyAll, label: form, body: "device=Android-fcm"}, 200, `{"status": "token exists"}`},
		{"v1 register: with a slash", request{path: "/tokens/" + fcmTok + "/", app: appName, key: keyAll, label: form, body: "device=Android-fcm"}, 200, `{"status": "token exists"}`},
		{"v1 register: junk platform is forced", request{path: "/tokens/junk", app: appName, key: keyAll, label: form, body: "device=Toaster"}, 200, `{"status": "ok"}`},
		{"v1 register: /tokens/ is not there", request{path: "/tokens/", app: appName, key: keyAll}, 404, ""},
		{"v1 register: /tokens is not there", request{path: "/tokens", app: appName, key: keyAll}, 404, ""},

		{"v1 delete: no bit", request{method: http.MethodDelete, path: "/tokens/junk", app: appName, key: keyPhone}, 403, `{"error": "No permission to delete token"}`},
		{"v1 delete", request{method: http.MethodDelete, path: "/tokens/junk", app: appName, key: keyAll}, 200, `{"status": "deleted"}`},
		{"v1 delete: not found", request{method: http.MethodDelete, path: "/tokens/junk", app: appName, key: keyAll}, 404, `{"status": "Token does't exist"}`},
		{"v2 delete", request{method: http.MethodDelete, path: "/api/v2/tokens/" + long, app: appName, key: keyAll}, 200, `{"status": "deleted"}`},
		{"v2 delete: not found", request{method: http.MethodDelete, path: "/api/v2/tokens/" + long + "/", app: appName, key: keyAll}, 404, `{"status": "Token does't exist"}`},

		{"v2 register", request{path: "/api/v2/tokens", app: appName, key: keyAll, body: `{"device":"fcm","token":"v2tok"}`}, 200, ""},
		{"v2 register: slash form of Reflect.UP, existing", request{path: "/api/v2/tokens/", app: appName, key: keyAll, body: `{"device":"fcm","token":"v2tok","channel":"c"}`}, 200, ""},
		{"v2 register: ios is strict", request{path: "/api/v2/tokens", app: appName, key: keyAll, body: `{"device":"ios","token":"` + long + `"}`}, 400, `{"error": "Invalid token"}`},
		{"v2 register: no token", request{path: "/api/v2/tokens", app: appName, key: keyAll, body: `{"device":"fcm"}`}, 400, `{"error": "Invalid token"}`},
		{"v2 register: no bit", request{path: "/api/v2/tokens", app: appName, key: keyNone, body: `{"device":"fcm","token":"nobit"}`}, 403, `{"error": "No permission to create token"}`},
		{"v2 register: bad JSON", request{path: "/api/v2/tokens", app: appName, key: keyAll, body: `{`}, 500, `{"error": "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"}`},

		{"push", request{path: "/api/v2/push/", app: appName, key: keyAll, label: form, body: `{"device":"fcm","token":"v2tok","alert":"hi"}`}, 202, ""},
		{"push without slash", request{path: "/api/v2/push", app: appName, key: keyAll, body: `{"device":"android","token":"v2tok","alert":"hi"}`}, 202, ""},
		{"push: bad JSON", request{path: "/api/v2/push", app: appName, key: keyAll, body: ""}, 500, `{"error": "Expecting value: line 1 column 1 (char 0)"}`},
		{"push: no object", request{path: "/api/v2/push", app: appName, key: keyAll, body: "[]"}, 400, `{"error": "The body must be a JSON object"}`},
		{"push: no bit", request{path: "/api/v2/push", app: appName, key: keyPhone, body: `{"device":"fcm","token":"v2tok"}`}, 403, `{"error": "No permission to send notification"}`},
		{"push: unknown processor", request{path: "/api/v2/push", app: appName, key: keyAll, body: `{"device":"fcm","token":"v2tok","extra":{"processor":"x"}}`}, 400, `{"error": "No module named 'hooks.x'"}`},
		{"push: token not stored and key lacks bit 1", request{path: "/api/v2/push", app: appName, key: keyPush, body: `{"device":"fcm","token":"never seen"}`}, 400, `{"error": "Unknow token and you have no permission to create"}`},
		{"push: token stored and key lacks bit 1", request{path: "/api/v2/push", app: appName, key: keyPush, body: `{"device":"fcm","token":"v2tok"}`}, 202, ""},
		{"push: wns", request{path: "/api/v2/push", app: appName, key: keyAll, body: `{"device":"wns","token":"v2tok"}`}, 400, `{"error": "Invalid device type"}`},
		{"push: junk platform", request{path: "/api/v2/push", app: appName, key: keyAll, body: `{"device":"Toaster","token":"v2tok"}`}, 400, `{"error": "Invalid device type"}`},
		{"push: no token", request{path: "/api/v2/push", app: appName, key: keyAll, body: `{"alert":"hi"}`}, 400, `{"error": "No token provided"}`},
		{"push: token in the query wins", request{path: "/api/v2/push?token=v2tok&device=fcm", app: appName, key: keyPush, body: `{"device":"fcm","token":"never seen"}`}, 202, ""},
		{"push: token= inside JSON under a form label survives", request{path: "/api/v2/push/", app: appName, key: keyAll, label: form, body: `{"device":"fcm","token":"v2tok","extra":{"contexturl":"https://m/x?a=1&token=abc&device=ios"}}`}, 202, ""},
		{"push: alert of another type", request{path: "/api/v2/push", app: appName, key: keyAll, body: `{"device":"fcm","token":"v2tok","alert":[1]}`}, 400, `{"error": "Invalid alert: a text, an object with title and body, or null"}`},

		{"notification", request{path: "/notification/", app: appName, key: keyAll, label: form, body: "token=v2tok&device=Android-fcm&alert=hi"}, 200, ""},
		{"notification without slash", request{path: "/notification", app: appName, key: keyAll, label: form, body: "token=v2tok&device=fcm&alert=hi"}, 200, ""},
		{"notification: no token", request{path: "/notification/", app: appName, key: keyAll, label: form, body: "alert=hi"}, 400, `{"error": "No token provided"}`},
		{"notification: no alert", request{path: "/notification/", app: appName, key: keyAll, label: form, body: "device=fcm&token=v2tok"}, 400, `{"error": "Missing argument alert"}`},
		{"notification: unknown", request{path: "/notification/", app: appName, key: keyPush, label: form, body: "device=fcm&token=never+seen&alert=hi"}, 400, `{"error": "Unknow token and you have no permission to create"}`},
		{"notification: device type", request{path: "/notification/", app: appName, key: keyAll, label: form, body: "device=sms&token=v2tok&alert=hi"}, 400, `{"error": "Invalid device type"}`},
		{"notification: no bit", request{path: "/notification/", app: appName, key: keyPhone, label: form, body: "device=fcm&token=v2tok&alert=hi"}, 403, `{"error": "No permission to send notification"}`},

		{"broadcast", request{path: "/broadcast/", app: appName, key: keyAll, label: form, body: "alert=hi&channel=c"}, 200, `{"status": "ok"}`},
		{"broadcast: no bit", request{path: "/broadcast", app: appName, key: keyPush, label: form, body: "alert=hi"}, 403, `{"error": "No permission to send broadcast"}`},
		{"broadcast: no alert", request{path: "/broadcast/", app: appName, key: keyAll, label: form, body: ""}, 400, `{"error": "Missing argument alert"}`},
		{"v2 broadcast", request{path: "/api/v2/broadcast", app: appName, key: keyAll, body: `{"alert":{"title":"t","body":"b"}}`}, 202, ""},
		{"v2 broadcast with a slash", request{path: "/api/v2/broadcast/", app: appName, key: keyAll, body: `{"alert":"a","device":"android"}`}, 202, ""},
		{"v2 broadcast: missing alert", request{path: "/api/v2/broadcast", app: appName, key: keyAll, body: `{}`}, 500, `{"error": "Missing argument alert"}`},
		{"v2 broadcast: no bit", request{path: "/api/v2/broadcast", app: appName, key: keyPhone, body: `{"alert":"a"}`}, 403, `{"error": "No permission to send broadcast"}`},

		{"v2 accesskeys: unknown processor", request{path: "/api/v2/accesskeys", app: appName, key: "none", body: `{"processor":"os"}`}, 403, `{"error": "No module named 'hooks.os'"}`},
		{"accesskeys: app must exist", request{path: "/accesskeys/", app: "nobody", key: "none", label: form, body: "url=https://m.example"}, 400, `{"error": "Invalid application name"}`},
		{"accesskeys: no URL", request{path: "/accesskeys/", app: appName, key: "none", label: form, body: "url=moodle"}, 403, `{"error": "url must be the address of the site, http or https"}`},

		{"check page", request{method: http.MethodGet, path: "/", app: "-", key: "-"}, 200, "*"},
		{"unknown path", request{method: http.MethodGet, path: "/nothing", app: "-", key: "-"}, 404, ""},
		{"api/v1 was never there", request{path: "/api/v1/push", app: appName, key: keyAll}, 404, ""},
		{"paths are not normalised", request{path: "//api/v2/push", app: appName, key: keyAll}, 404, ""},
		{"wrong method comes after the checks", request{method: http.MethodGet, path: "/api/v2/push", app: "-", key: "-"}, 400, `{"error": "app name is required"}`},
		{"wrong method", request{method: http.MethodGet, path: "/api/v2/push", app: appName, key: keyAll}, 405, "*"},
		{"post to the index", request{path: "/", app: "-", key: "-"}, 405, "*"},
		{"users", request{path: "/users", app: "-", key: "-"}, 410, "*"},
		{"users of v2", request{method: http.MethodGet, path: "/api/v2/users/", app: "-", key: "-"}, 410, "*"},
		{"objects", request{method: http.MethodPut, path: "/objects/notes/1", app: "-", key: "-"}, 410, "*"},
		{"objects of v2", request{method: http.MethodDelete, path: "/api/v2/objects/notes", app: "-", key: "-"}, 410, "*"},
	} {
		got := h.do(0, c.r)
		if got.status != c.status || c.body != "*" && got.body != c.body {
			t.Errorf("%s: want %d %q, got %d %q", c.says, c.status, c.body, got.status, got.body)
		}
		kind := got.header.Get("Content-Type")
		html := c.r.path == "/" || c.status == 404 && c.body == "" || c.status == 405
		if want := "application/json; charset=utf-8"; !html && kind != want {
			t.Errorf("%s: want the type %q also when empty, got %q", c.says, want, kind)
		}
		if got.status == 202 && got.header.Get("X-Campanile-Id") == "" {
			t.Errorf("%s: 202 without X-Campanile-Id", c.says)
		}
	}
}

func TestABlockedAddressIsAnswered423(t *testing.T) {
	t.Parallel()
	h := setup(t, 1, nil)
	h.configure(&pushv1.AppConfigured{BlockedNetworks: []string{"", "nonsense", "10.0.0.1\n\n127.0.0.0/8", "::1"}})
	h.want(h.post("wrong", "/api/v2/push", "{}"), 423, `{"error": "Blocked IP"}`)
	h.want(h.post("none", "/accesskeys/", ""), 423, `{"error": "Blocked IP"}`)
	h.configure(&pushv1.AppConfigured{BlockedNetworks: []string{"10.0.0.0/8"}})
	h.want(h.post("wrong", "/api/v2/push", "{}"), 400, `{"error": "Invalid access key"}`)
}

func TestForwardedAddressesCountOnlyFromTrustedProxies(t *testing.T) {
	t.Parallel()
	ask := request{path: "/api/v2/push", app: appName, key: keyAll, body: "{}", header: map[string]string{"X-Forwarded-For": "10.1.2.3"}}
	for _, c := range []struct {
		proxies []string
		status  int
	}{{nil, 400}, {[]string{"192.0.2.1"}, 400}, {[]string{"127.0.0.1"}, 423}} {
		h := setup(t, 1, func(o *ingest.Options) { o.TrustedProxies = c.proxies })
		h.configure(&pushv1.AppConfigured{BlockedNetworks: []string{"10.0.0.0/8"}})
		if got := h.do(0, ask); got.status != c.status {
			t.Errorf("trusting %v: want %d, got %d %s", c.proxies, c.status, got.status, got.body)
		}
	}
}

// TestTokensStandInThePathAsTheyAre lists tokens that a router could spoil.
func TestTokensStandInThePathAsTheyAre(t *testing.T) {
	t.Parallel()
	h := setup(t, 1, nil)
	for path, token := range map[string]string{
		"dQ:APA91b-x_Y": "dQ:APA91b-x_Y", "a+b": "a+b", "A%2BB": "A+B", "a%2Fb": "a/b", "a%20b": "a b", "A.b..c": "A.b..c", "%C3%A9": "é",
		"a%25b": "a%b", "a;b=c,d": "a;b=c,d", "..%2F..": "../..", "~!$&'()*": "~!$&'()*",
	} {
		h.want(h.post(keyAll, "/tokens/"+path+"?device=fcm", ""), 200, `{"status": "ok"}`)
		found, err := h.store.FindToken(t.Context(), appName, token, nil)
		if err != nil || len(found) != 1 {
			t.Errorf("%s: want the token %q, found %v, %v", path, token, found, err)
		}
	}
	h.want(h.post(keyAll, "/tokens/a%00b?device=fcm", ""), 400, `{"error": "Invalid token"}`)
	h.want(h.post(keyAll, "/tokens/%ff?device=fcm", ""), 400, `{"error": "Invalid token"}`)
	h.want(h.post(keyAll, "/tokens/"+strings.Repeat("a", 1025)+"?device=fcm", ""), 400, `{"error": "Invalid token"}`)
}

func TestLimitsAreAnsweredClearly(t *testing.T) {
	t.Parallel()
	h := setup(t, 1, func(o *ingest.Options) { o.MaxBody = 1000 })
	h.want(h.post(keyAll, "/api/v2/push", `{"x":"`+strings.Repeat("a", 1000)+`"}`), 413, `{"error": "The body is too large"}`)
	h.want(h.do(0, request{path: "/api/v2/push", app: appName, key: strings.Repeat("k", 2000)}), 431, `{"error": "The app name or key is too long"}`)
	h.want(h.post(keyAll, "/api/v2/push", strings.Repeat("[", 200)), 500, `{"error": "Nested too deep: line 1 column 65 (char 64)"}`)
	h.want(h.do(0, request{path: "/tokens/x", app: appName, key: keyAll, label: "multipart/form-data; boundary=b", body: "no part"}), 400, `{"error": "Malformed form"}`)
	h.want(h.do(0, request{path: "/tokens/x", app: appName, key: keyAll, label: "multipart/form-data", body: "no boundary"}), 400, `{"error": "Malformed form"}`)
	h2 := setup(t, 1, nil)
	h2.want(h2.post(keyAll, "/notification/", strings.Repeat("a=b&", 2000)), 400, `{"error": "Too many fields"}`)
}

// TestASuccessIsInTheLogFirst lets the log refuse: nothing is answered with a success then.
func TestASuccessIsInTheLogFirst(t *testing.T) {
	t.Parallel()
	h := setup(t, 1, nil)
	h.settle()
	h.log.fail(errors.New("no leader"))
	for path, body := range map[string]string{
		"/tokens/tok?device=fcm": "", "/api/v2/tokens": `{"device":"fcm","token":"t"}`,
		"/api/v2/push": `{"device":"fcm","token":"t","alert":"a"}`, "/notification/": "device=fcm&token=t&alert=a",
		"/broadcast/": "alert=a", "/api/v2/broadcast": `{"alert":"a"}`, "/accesskeys/": "url=https://m.example",
	} {
		got := h.post(keyAll, path, body)
		if got.status != 503 || got.header.Get("Retry-After") == "" || got.body != `{"error": "The log takes nothing now, try again later"}` {
			t.Errorf("%s: want 503 with Retry-After and a word why, got %d %s", path, got.status, got.body)
		}
	}
	h.log.fail(nil)
	if got := h.log.events(t, schemas.Notifications); len(got) != 0 {
		t.Errorf("want nothing in the log, got %v", got)
	}
}

func TestAFullLogIsAnswered503WithTheReason(t *testing.T) {
	t.Parallel()
	h := setup(t, 1, func(o *ingest.Options) {
		o.Full = func() error { return errors.New("the disk under the data directory is low") }
	})
	got := h.post(keyAll, "/api/v2/push", `{"device":"fcm","token":"t","alert":"a"}`)
	h.want(got, 503, `{"error": "the disk under the data directory is low"}`)
	if got.header.Get("Retry-After") == "" {
		t.Error("want Retry-After")
	}
}
