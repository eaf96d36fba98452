package ingest_test

import (
	"bytes"
	"errors"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/campanile-push/campanile/ingest"
	"github.com/campanile-push/campanile/ingest/contracttest"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

const (
	form   = "application/x-www-form-urlencoded"
	hexTok = "0123456789abcdef0123456789ABCDEF0123456789abcdef0123456789abcdef"
	fcmTok = "dQw4w9:APA91bF-x_Y0123456789"
)

// TestContract asks what contracttest/contract.json holds: a case for each row of AirNotifier's contract.
func TestContract(t *testing.T) {
	t.Parallel()
	c, err := contracttest.Load()
	if err != nil {
		t.Fatal(err)
	}
	check := httptest.NewServer(c.SiteCheck())
	defer check.Close()
	h := setup(t, 1, func(o *ingest.Options) { o.TrustedProxies, o.SiteCheckURL = c.TrustedProxies, check.URL })
	h.say(c.Say)
	h.settle()
	kept := map[string]string{}
	claim := func(name string) string { return h.issued(kept[name]).Claim.Channel }
	for _, one := range c.Cases() {
		name := one.Section() + ": " + one.Says
		r := c.Request(one)
		got, err := r.Send(t.Context(), h.doors[0].url, kept)
		if err == nil {
			err = one.Check(got)
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if one.Pushes != nil {
			if err := one.CheckPush(h.push(got.ID)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if one.Sends != nil {
			if err := one.CheckBroadcast(h.lastBroadcast(), claim); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if one.Grants != nil {
			if k := h.issued(kept[one.Keep]); int(k.Permissions) != one.Grants.May {
				t.Errorf("%s: want permission %d, got %d", name, one.Grants.May, k.Permissions)
			}
		}
		if one.Device != nil {
			want := *one.Device
			want.Channels = contracttest.Channels(want.Channels, claim)
			var holds contracttest.Device
			h.eventually(name, func() bool { // a push creates beside its answer
				holds = h.holds(c.App, want.Token)
				return reflect.DeepEqual(holds, want) || t.Context().Err() != nil
			})
		}
	}
}

// push is an accepted push in the log, by the id of its answer; the last one where the answer has none to tell.
func (h *house) push(id string) (last *pushv1.NotificationRequested) {
	h.t.Helper()
	for _, e := range h.log.events(h.t, schemas.Notifications) {
		n, ok := e.(*pushv1.NotificationRequested)
		if !ok {
			continue
		}
		if made, err := schemas.ParseID(id); err == nil && bytes.Equal(made[:], n.RequestId) {
			return n
		}
		if id == "" && (last == nil || bytes.Compare(n.RequestId, last.RequestId) > 0) {
			last = n
		}
	}
	return last
}

// holds is a token of an app in the store.
func (h *house) holds(app, token string) contracttest.Device {
	h.t.Helper()
	holds := contracttest.Device{Token: token, Channels: []string{}}
	found, err := h.store.FindToken(h.t.Context(), app, token, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	if len(found) > 1 {
		h.t.Fatalf("%d devices have one token", len(found))
	}
	if len(found) == 1 {
		states, err := h.store.Lookup(h.t.Context(), found, nil)
		if err != nil {
			h.t.Fatal(err)
		}
		holds.Transport, holds.Platform = found[0].Transport.Word(), states[0].Platform
		holds.Channels = append(holds.Channels, states[0].Channels...)
	}
	return holds
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

// TestNothingHangsWithTheLog: a log that neither takes nor answers anything costs a request its patience and no more. Moodle has no
// limit of its own for a registration.
func TestNothingHangsWithTheLog(t *testing.T) {
	t.Parallel()
	h := setup(t, 1, func(o *ingest.Options) { o.AppendPatience = 50 * time.Millisecond })
	h.settle()
	h.want(h.post(keyAll, "/tokens/known?device=fcm", ""), 200, `{"status": "ok"}`)
	h.log.hang()
	for ask, body := range map[string]string{
		"POST /tokens/tok?device=fcm": "", "POST /api/v2/tokens": `{"device":"fcm","token":"t"}`, "DELETE /tokens/known": "",
		"POST /api/v2/push": `{"device":"fcm","token":"known","alert":"a"}`, "POST /notification/": "device=fcm&token=known&alert=a",
		"POST /broadcast/": "alert=a", "POST /api/v2/broadcast": `{"alert":"a"}`, "POST /accesskeys/": "url=https://m.example",
	} {
		method, path, _ := strings.Cut(ask, " ")
		got := h.do(0, request{method: method, path: path, app: appName, key: keyAll, label: form, body: body})
		if got.status != 503 || got.header.Get("Retry-After") == "" || got.body != `{"error": "The log takes nothing now, try again later"}` {
			t.Errorf("%s: want 503 with Retry-After and a word why, got %d %s", ask, got.status, got.body)
		}
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
