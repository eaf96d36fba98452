package ingest_test

import (
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/campanile-push/campanile/ingest"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// siteKey asks for a key as Moodle does.
func (h *house) siteKey(door int, wwwroot, siteid string) string {
	h.t.Helper()
	got := h.do(door, request{
		path: "/accesskeys/", app: appName, key: "none", label: form,
		body: url.Values{"url": {wwwroot}, "siteid": {siteid}, "contact": {"admin@example.org"}, "description": {wwwroot}}.Encode(),
	})
	var answer struct {
		AccessKey string `json:"accesskey"`
	}
	if err := json.Unmarshal([]byte(got.body), &answer); err != nil || got.status != 200 || len(answer.AccessKey) != 32 {
		h.t.Fatalf("want a key, got %d %s", got.status, got.body)
	}
	return answer.AccessKey
}

// issued is the record of a key.
func (h *house) issued(value string) *pushv1.AccessKeyIssued {
	h.t.Helper()
	sum := sha256.Sum256([]byte(value))
	var last *pushv1.AccessKeyIssued
	for _, e := range h.log.events(h.t, schemas.Apps) {
		if k, ok := e.(*pushv1.AccessKeyIssued); ok && k.KeyId == hex.EncodeToString(sum[:16]) {
			last = k
		}
	}
	if last == nil {
		h.t.Fatal("the key is not in the log")
	}
	return last
}

// prove is what an operator's approval does.
func (h *house) prove(value string) *pushv1.AccessKeyIssued {
	k := h.issued(value)
	k.Claim.Proven, k.Pending = true, false
	k.Permissions |= 8
	h.say(func(out *schemas.Out) { out.AccessKeyIssued(k) })
	h.settle()
	return k
}

func (h *house) channelsOf(d schemas.Device) []string {
	h.t.Helper()
	states, err := h.store.Lookup(h.t.Context(), []schemas.Device{d}, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	return states[0].Channels
}

func (h *house) lastBroadcast() *pushv1.BroadcastRequested {
	h.t.Helper()
	var last *pushv1.BroadcastRequested
	for _, e := range h.log.events(h.t, schemas.Broadcasts) {
		if b, ok := e.(*pushv1.BroadcastRequested); ok && (last == nil || b.RequestedAtUs > last.RequestedAtUs) {
			last = b
		}
	}
	return last
}

func md5Hex(s string) string {
	sum := md5.Sum([]byte(s))
	return hex.EncodeToString(sum[:])
}

func TestASiteKeyWorksAtOnceEverywhere(t *testing.T) {
	t.Parallel()
	h := setup(t, 2, nil)
	key := h.siteKey(0, "https://moodle.example.org", "0cc175b9")
	got := h.do(1, request{path: "/tokens/tok?device=Android-fcm", app: appName, key: key})
	h.want(got, 200, `{"status": "ok"}`)
	k := h.issued(key)
	if k.Permissions != 7 || k.Claim.Proven || k.Pending || k.Contact != "admin@example.org" || strings.Contains(fmt.Sprint(k), key) {
		t.Errorf("want an unproven claim that registers, notifies and deletes, and no value in the log, got %v", k)
	}
	if got := h.channelsOf(fcmDevice("tok")); !slices.Equal(got, []string{k.Claim.Channel}) {
		t.Errorf("want the claim's channel %s, got %v", k.Claim.Channel, got)
	}
	h.want(h.do(1, request{path: "/tokens/testtoken", app: appName, key: key}), 400, `{"error": "Invalid token"}`)
	h.want(h.post(key, "/broadcast/", "alert=a"), 403, `{"error": "No permission to send broadcast"}`)
}

// TestOneTenantNeverReachesAnother is promise 7: by key, by channel, by URL, by app, and by DELETE.
func TestOneTenantNeverReachesAnother(t *testing.T) {
	t.Parallel()
	h := setup(t, 1, nil)
	h.configure(&pushv1.AppConfigured{UnprovenSitesMayBroadcast: true})
	mine, theirs := h.siteKey(0, "https://mine.example", "a"), h.siteKey(0, "https://theirs.example", "b")
	squat := h.siteKey(0, "https://theirs.example", "guess")
	same := h.siteKey(0, "https://theirs.example/", "b")
	a, b, s := h.issued(mine).Claim.Channel, h.issued(theirs).Claim.Channel, h.issued(squat).Claim.Channel
	if a == b || b == s || a == s {
		t.Fatalf("claims share channels: %s %s %s", a, b, s)
	}
	if h.issued(same).Claim.Channel != b {
		t.Error("want the same claim to keep its channel")
	}
	anonymous, anonymous2 := h.siteKey(0, "https://theirs.example", ""), h.siteKey(0, "https://theirs.example", "")
	if h.issued(anonymous).Claim.Channel == h.issued(anonymous2).Claim.Channel {
		t.Error("want claims without a siteid to share nothing")
	}

	// Registering names another's channel, in vain.
	h.want(h.post(theirs, "/tokens/phone", "device=Android-fcm"), 200, `{"status": "ok"}`)
	h.want(h.post(mine, "/tokens/spy", "device=Android-fcm&channel="+b), 200, `{"status": "ok"}`)
	h.want(h.post(mine, "/api/v2/tokens", `{"device":"fcm","token":"spy2","channel":"`+md5Hex("https://theirs.example")+`"}`), 200, "")
	for _, token := range []string{"spy", "spy2"} {
		if got := h.channelsOf(fcmDevice(token)); !slices.Equal(got, []string{a}) {
			t.Errorf("want %s in %s alone, got %v", token, a, got)
		}
	}
	// A push that creates says wwwroot of another, in vain.
	h.want(h.post(mine, "/api/v2/push", `{"device":"fcm","token":"spy3","channel":"`+b+`","extra":{"processor":"moodle","wwwroot":"https://theirs.example"}}`), 202, "")
	h.eventually("created", func() bool { return slices.Equal(h.channelsOf(fcmDevice("spy3")), []string{a}) })

	// Broadcasts reach the key's own channel, and only a waiver allows that; another's channel is refused.
	for _, channel := range []string{b, s, md5Hex("https://theirs.example"), md5Hex("https://mine.example"), "anything"} {
		h.want(h.post(mine, "/broadcast/", "alert=a&channel="+channel), 403, `{"error": "No permission to send broadcast"}`)
		h.want(h.post(mine, "/api/v2/broadcast", `{"alert":"a","channel":"`+channel+`"}`), 403, `{"error": "No permission to send broadcast"}`)
	}
	if got := h.log.events(t, schemas.Broadcasts); len(got) != 0 {
		t.Errorf("want no broadcast in the log, got %v", got)
	}
	for _, body := range []string{`{"alert":"a"}`, `{"alert":"a","channel":"default"}`, `{"alert":"a","channel":"` + a + `"}`} {
		h.want(h.post(mine, "/api/v2/broadcast", body), 202, "")
		if got := h.lastBroadcast().Channels; !slices.Equal(got, []string{a}) {
			t.Errorf("%s: want %s alone, got %v", body, a, got)
		}
	}

	// DELETE takes the claim's own subscription, and finds nothing of another's.
	remove := func(key, token string) reply {
		return h.do(0, request{method: http.MethodDelete, path: "/tokens/" + token, app: appName, key: key})
	}
	h.want(remove(mine, "phone"), 404, `{"status": "Token does't exist"}`)
	h.want(h.post(mine, "/tokens/phone", "device=Android-fcm"), 200, `{"status": "token exists"}`)
	h.want(remove(mine, "phone"), 200, `{"status": "deleted"}`)
	if got := h.channelsOf(fcmDevice("phone")); !slices.Equal(got, []string{b}) {
		t.Errorf("want the other site's subscription to stay, got %v", got)
	}

	// A key of one app is nothing in another.
	h.want(h.do(0, request{path: "/api/v2/push", app: "otherapp", key: mine, body: `{"device":"fcm","token":"phone","alert":"a"}`}), 400, `{"error": "Invalid access key"}`)
	h.want(h.do(0, request{path: "/tokens/phone?device=fcm", app: "otherapp", key: "99999999999999999999999999999999"}), 200, `{"status": "ok"}`)
	h.want(h.do(0, request{method: http.MethodDelete, path: "/tokens/phone", app: "otherapp", key: "99999999999999999999999999999999"}), 200, `{"status": "deleted"}`)
	if got := h.channelsOf(fcmDevice("phone")); !slices.Equal(got, []string{b}) {
		t.Errorf("want the other app's deletion to leave this one's device, got %v", got)
	}
}

func TestAProvenSiteOwnsItsURL(t *testing.T) {
	t.Parallel()
	h := setup(t, 1, nil)
	const www = "https://moodle.example.org/campus"
	key, squat := h.siteKey(0, www, "a"), h.siteKey(0, www, "b")
	k := h.prove(key)
	own := []string{md5Hex(www), k.Claim.Channel}
	slices.Sort(own)
	h.want(h.post(key, "/broadcast/", "alert=a"), 200, `{"status": "ok"}`)
	if got := h.lastBroadcast().Channels; !slices.Equal(got, own) {
		t.Errorf("want both channels, got %v", got)
	}
	h.want(h.post(key, "/broadcast/", "alert=a&channel="+md5Hex(www)), 200, `{"status": "ok"}`)
	if got := h.lastBroadcast().Channels; !slices.Equal(got, own) {
		t.Errorf("a site that names itself means all its phones: want both channels, got %v", got)
	}
	h.want(h.post(key, "/broadcast/", "alert=a&channel="+k.Claim.Channel), 200, `{"status": "ok"}`)
	if got := h.lastBroadcast().Channels; !slices.Equal(got, own[slices.Index(own, k.Claim.Channel):][:1]) {
		t.Errorf("want the named one, got %v", got)
	}
	h.want(h.post(squat, "/broadcast/", "alert=a"), 403, `{"error": "No permission to send broadcast"}`)

	// The same claim again is proven from the start; another one that is proven later takes the URL.
	again := h.siteKey(0, www, "a")
	h.settle()
	if k := h.issued(again); !k.Claim.Proven || k.Permissions != 15 {
		t.Errorf("want the same claim proven again, got %v", k)
	}
	h.want(h.post(again, "/broadcast/", "alert=a"), 200, `{"status": "ok"}`)
	later := h.issued(squat)
	later.IssuedAtUs = time.Now().Add(time.Hour).UnixMicro()
	h.say(func(out *schemas.Out) { out.AccessKeyIssued(later) })
	h.prove(squat)
	h.want(h.post(key, "/broadcast/", "alert=a"), 403, `{"error": "No permission to send broadcast"}`)
	h.want(h.post(squat, "/broadcast/", "alert=a"), 200, `{"status": "ok"}`)
	// Revoked, it gives the URL back.
	h.say(func(out *schemas.Out) {
		out.AccessKeyRevoked(&pushv1.AccessKeyRevoked{App: appName, KeyId: later.KeyId})
	})
	h.settle()
	h.want(h.post(squat, "/broadcast/", "alert=a"), 400, `{"error": "Invalid access key"}`)
	h.want(h.post(key, "/broadcast/", "alert=a"), 200, `{"status": "ok"}`)
}

// TestSitesThatMayNotRegisterStillSeeTheirTokens is the original design: phones register themselves.
func TestSitesThatMayNotRegisterStillSeeTheirTokens(t *testing.T) {
	t.Parallel()
	h := setup(t, 1, nil)
	key := h.siteKey(0, "https://moodle.example.org", "a")
	h.configure(&pushv1.AppConfigured{SiteKeysCannotRegister: true})
	h.want(h.post(key, "/tokens/tok", "device=Android-fcm"), 403, `{"error": "No permission to create token"}`)
	h.want(h.post(key, "/tokens/testtoken", ""), 400, `{"error": "Invalid token"}`)
	h.want(h.post(keyPhone, "/tokens/tok", "device=Android-fcm&channel="+md5Hex("https://moodle.example.org")), 200, `{"status": "ok"}`)
	h.want(h.post(key, "/tokens/tok", "device=Android-fcm"), 200, `{"status": "token exists"}`)
	h.want(h.post(key, "/api/v2/push", `{"device":"fcm","token":"tok","alert":"a"}`), 202, "")
	h.want(h.post(key, "/api/v2/push", `{"device":"fcm","token":"unknown","alert":"a"}`), 400, `{"error": "Unknow token and you have no permission to create"}`)
	if got := h.channelsOf(fcmDevice("tok")); !slices.Equal(got, []string{md5Hex("https://moodle.example.org")}) {
		t.Errorf("want the phone's own channel alone, got %v", got)
	}
}

func TestPoliciesDecideWhoGetsAKey(t *testing.T) {
	t.Parallel()
	asked := make(chan url.Values, 10)
	answer := "7"
	check := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.URL.Query()
		if answer == "redirect" {
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
			return
		}
		_, _ = fmt.Fprint(w, answer)
	}))
	defer check.Close()
	h := setup(t, 1, func(o *ingest.Options) { o.SiteCheckURL, o.MaxPendingKeys = check.URL+"/check?v=1", 2 })
	body := func(u string) string { return url.Values{"url": {u}, "siteid": {"s&x=1"}}.Encode() }

	h.configure(&pushv1.AppConfigured{
		AccessKeyPolicy: pushv1.AccessKeyPolicy_ACCESS_KEY_POLICY_ALLOW_LIST, AllowedSites: []string{"https://Good.example/moodle/"},
	})
	h.want(h.post("none", "/accesskeys/", body("https://bad.example")), 403, `{"error": "Site not registered on moodle.net"}`)
	if k := h.issued(h.siteKey(0, "https://good.example/moodle", "s")); k.Claim.Proven {
		t.Error("want a place on the list to prove nothing of who asks")
	}

	h.configure(&pushv1.AppConfigured{AccessKeyPolicy: pushv1.AccessKeyPolicy_ACCESS_KEY_POLICY_REMOTE_CHECK})
	key := h.siteKey(0, "https://checked.example", "s&x=1")
	if k := h.issued(key); !k.Claim.Proven || k.Permissions != 15 {
		t.Errorf("want a proven claim, got %v", k)
	}
	if q := <-asked; q.Get("siteid") != "s&x=1" || q.Get("url") != "https://checked.example" || q.Get("v") != "1" {
		t.Errorf("want escaped values beside the operator's own, got %v", q)
	}
	h.want(h.post(key, "/broadcast/", "alert=a"), 200, `{"status": "ok"}`)
	answer = "0"
	h.want(h.post("none", "/accesskeys/", body("https://unknown.example")), 403, `{"error": "Site not registered on moodle.net"}`)
	for _, answer = range []string{"<html>", "redirect", ""} {
		got := h.post("none", "/accesskeys/", body("https://unsaid.example"))
		h.want(got, 503, `{"error": "The site cannot be checked now, try again later"}`)
	}

	h.configure(&pushv1.AppConfigured{AccessKeyPolicy: pushv1.AccessKeyPolicy_ACCESS_KEY_POLICY_MANUAL})
	waits := h.siteKey(0, "https://waits.example", "s")
	h.want(h.post(waits, "/tokens/tok", "device=fcm"), 403, `{"error": "Access key waits for approval"}`)
	h.settle()
	h.siteKey(0, "https://waits2.example", "s")
	h.settle()
	h.want(h.post("none", "/accesskeys/", body("https://waits3.example")), 429, `{"error": "Too many keys wait for approval"}`)
	h.prove(waits)
	h.want(h.post(waits, "/tokens/tok", "device=fcm"), 200, `{"status": "ok"}`)
}

func TestPendingKeysExpire(t *testing.T) {
	t.Parallel()
	h := setup(t, 1, func(o *ingest.Options) { o.MaxPendingKeys = 1 })
	h.configure(&pushv1.AppConfigured{AccessKeyPolicy: pushv1.AccessKeyPolicy_ACCESS_KEY_POLICY_MANUAL})
	old := h.issued(h.siteKey(0, "https://old.example", "s"))
	old.IssuedAtUs = time.Now().Add(-31 * 24 * time.Hour).UnixMicro()
	h.say(func(out *schemas.Out) { out.AccessKeyIssued(old) })
	h.settle()
	h.siteKey(0, "https://new.example", "s")
	revoked := 0
	for _, e := range h.log.events(t, schemas.Apps) {
		if r, ok := e.(*pushv1.AccessKeyRevoked); ok && r.KeyId == old.KeyId {
			revoked++
		}
	}
	if revoked != 1 {
		t.Errorf("want the old request cleared away once, got %d", revoked)
	}
}

func TestKeyRequestsAreLimited(t *testing.T) {
	t.Parallel()
	now := time.Unix(1800000000, 0)
	h := setup(t, 1, func(o *ingest.Options) {
		o.KeysPerAddress, o.KeysPerURL = 4, 2
		o.Now = func() time.Time { return now }
	})
	h.siteKey(0, "https://one.example", "a")
	h.siteKey(0, "https://ONE.example/", "b")
	got := h.post("none", "/accesskeys/", "url=https://one.example&siteid=c")
	h.want(got, 429, `{"error": "Too many key requests, try again later"}`)
	if got.header.Get("Retry-After") == "" {
		t.Error("want Retry-After")
	}
	h.siteKey(0, "https://two.example", "a")
	h.want(h.post("none", "/accesskeys/", "url=https://three.example"), 429, `{"error": "Too many key requests, try again later"}`)
	now = now.Add(time.Minute)
	h.siteKey(0, "https://three.example", "a")
}

// TestNobodyUsesUpAnothersAllowance: a stranger asks for keys in a site's name until it is refused, and the site gets its own.
func TestNobodyUsesUpAnothersAllowance(t *testing.T) {
	t.Parallel()
	h := setup(t, 1, func(o *ingest.Options) {
		o.TrustedProxies = []string{"127.0.0.1"}
		now := time.Unix(1800000000, 0)
		o.Now = func() time.Time { return now }
	})
	ask := func(from string) int {
		return h.do(0, request{
			path: "/accesskeys/", app: appName, key: "none", label: form, body: "url=https://site.example&siteid=s", header: map[string]string{"X-Forwarded-For": from},
		}).status
	}
	for i := range 100 {
		if ask("192.0.2.66") == http.StatusTooManyRequests {
			break
		}
		if i == 99 {
			t.Fatal("a stranger is never refused")
		}
	}
	if got := ask("198.51.100.1"); got != http.StatusOK {
		t.Errorf("the site itself: want its key, got %d", got)
	}
}

func TestAnApprovedKeyWorksAtOnceEverywhere(t *testing.T) {
	t.Parallel()
	h := setup(t, 2, nil)
	h.configure(&pushv1.AppConfigured{AccessKeyPolicy: pushv1.AccessKeyPolicy_ACCESS_KEY_POLICY_MANUAL})
	key := h.siteKey(0, "https://m.example", "s")
	register := func(door int) reply {
		return h.do(door, request{path: "/tokens/tok?device=Android-fcm", app: appName, key: key})
	}
	for door := range h.doors {
		h.want(register(door), 403, `{"error": "Access key waits for approval"}`)
	}
	k := h.issued(key)
	k.Claim.Proven, k.Pending = true, false
	h.say(func(out *schemas.Out) { out.AccessKeyIssued(k) }) // and no door is told to read
	h.want(register(1), 200, `{"status": "ok"}`)
	h.want(register(0), 200, `{"status": "token exists"}`)
}

func TestAV2KeyWithoutProcessorPermitsNothing(t *testing.T) {
	t.Parallel()
	h := setup(t, 1, nil)
	h.configure(&pushv1.AppConfigured{UnprovenSitesMayBroadcast: true})
	got := h.post("none", "/api/v2/accesskeys/", `{"url":"https://m.example"}`)
	var answer struct{ AccessKey string }
	if err := json.Unmarshal([]byte(got.body), &answer); err != nil || got.status != 200 {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	h.want(h.post(answer.AccessKey, "/tokens/t?device=fcm", ""), 403, `{"error": "No permission to create token"}`)
	h.want(h.post(answer.AccessKey, "/api/v2/broadcast", `{"alert":"a"}`), 403, `{"error": "No permission to send broadcast"}`)
	got = h.post("none", "/api/v2/accesskeys", `{"processor":"moodle","url":"https://m.example","siteid":"1"}`)
	if err := json.Unmarshal([]byte(got.body), &answer); err != nil || got.status != 200 {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	h.want(h.post(answer.AccessKey, "/tokens/t?device=fcm", ""), 200, `{"status": "ok"}`)
	h.want(h.post("none", "/api/v2/accesskeys", `{`), 403, `{"error": "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"}`)
}
