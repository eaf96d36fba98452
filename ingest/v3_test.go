package ingest_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/campanile-push/campanile/ingest"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// v3 asks the native API with a key of the test app.
func (h *house) v3(door int, key, method, path, body string, header ...string) reply {
	h.t.Helper()
	r := request{
		method: method, path: "/api/v3" + path, app: "-", key: "-", label: "application/json", body: body,
		header: map[string]string{"Authorization": "Bearer " + key, "X-Campanile-App": appName},
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.header[header[i]] = header[i+1]
	}
	return h.do(door, r)
}

// wantProblem checks a refusal by its status and the last part of its type.
func (h *house) wantProblem(got reply, status int, code string) {
	h.t.Helper()
	var p struct {
		Type, Title, Detail string
		Status              int
	}
	err := json.Unmarshal([]byte(got.body), &p)
	if err != nil || got.status != status || p.Status != status || p.Type != "https://campanile-push.org/problems/"+code || p.Title == "" || p.Detail == "" ||
		got.header.Get("Content-Type") != "application/problem+json" {
		h.t.Fatalf("want %d %s, got %d %s %s", status, code, got.status, got.header.Get("Content-Type"), got.body)
	}
}

func (h *house) wantStatus(got reply, status int) reply {
	h.t.Helper()
	if got.status != status {
		h.t.Fatalf("want %d, got %d %s", status, got.status, got.body)
	}
	return got
}

func idOf(t *testing.T, got reply) string {
	t.Helper()
	var a struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal([]byte(got.body), &a); err != nil || a.ID == "" || a.ID != got.header.Get("X-Campanile-Id") {
		t.Fatalf("no id, or two: %s %v", got.body, got.header)
	}
	return a.ID
}

const hello = `{"channels": ["staff"], "message": {"text": "Hello"}}`

func TestV3KnowsItsCallers(t *testing.T) {
	t.Parallel()
	h := setup(t, 1, nil)
	post := func(app, key string, header map[string]string) reply {
		return h.do(0, request{path: "/api/v3/broadcasts", app: app, key: key, body: hello, header: header})
	}
	h.wantStatus(h.v3(0, keyAll, http.MethodPost, "/broadcasts", hello), 202)
	h.wantStatus(post(appName, keyAll, nil), 202)
	h.wantProblem(post("-", "-", nil), 401, "no-credentials")
	h.wantProblem(post(appName, "-", nil), 401, "no-credentials")
	h.wantProblem(post("-", "-", map[string]string{"Authorization": "Basic " + keyAll, "X-Campanile-App": appName}), 401, "no-credentials")
	got := post("noapp", keyAll, nil)
	h.wantProblem(got, 401, "invalid-key")
	if got.header.Get("WWW-Authenticate") != "Bearer" {
		t.Error("401 names no scheme")
	}
	h.wantProblem(post("otherapp", keyAll, nil), 401, "invalid-key")
	h.wantProblem(post(appName, keyPush, nil), 403, "no-permission")
	h.wantProblem(h.v3(0, keyPush, http.MethodPut, "/tokens/abc", ""), 403, "no-permission")
	h.wantProblem(h.v3(0, keyPhone, http.MethodDelete, "/tokens/abc", ""), 403, "no-permission")
	h.wantProblem(h.v3(0, keyPhone, http.MethodPost, "/notifications", `{"token":"a","message":{"text":"x"}}`), 403, "no-permission")
	h.wantProblem(h.v3(0, keyAll, http.MethodGet, "/nothing", ""), 404, "not-found")
	h.wantProblem(h.v3(0, keyAll, http.MethodPatch, "/broadcasts", ""), 405, "method-not-allowed")
	h.wantProblem(h.v3(0, keyAll, http.MethodGet, "/broadcasts", ""), 503, "no-reads")
}

func TestV3ErrorsAreProblems(t *testing.T) {
	t.Parallel()
	h := setup(t, 1, func(o *ingest.Options) { o.MaxBody = 1000 })
	h.wantProblem(h.v3(0, keyAll, http.MethodPost, "/broadcasts", `{`), 400, "invalid-body")
	h.wantProblem(h.v3(0, keyAll, http.MethodPost, "/broadcasts", `[]`), 400, "invalid-body")
	h.wantProblem(h.v3(0, keyAll, http.MethodPost, "/broadcasts", ""), 400, "invalid-body")
	h.wantProblem(h.v3(0, keyAll, http.MethodPost, "/broadcasts", `{"message":{"text":"x"},"colour":1}`), 400, "invalid-field")
	h.wantProblem(h.v3(0, keyAll, http.MethodPost, "/broadcasts", strings.Repeat(" ", 1001)), 413, "body-too-large")
	h.wantProblem(h.v3(0, keyAll, http.MethodPost, "/broadcasts", hello, "Idempotency-Key", strings.Repeat("k", 256)), 400, "invalid-idempotency-key")
	h.wantProblem(h.v3(0, keyAll, http.MethodPut, "/tokens/%00", ""), 400, "invalid-field")
	h.log.fail(errAway)
	got := h.v3(0, keyAll, http.MethodPost, "/broadcasts", hello)
	h.wantProblem(got, 503, "unavailable")
	if got.header.Get("Retry-After") == "" {
		t.Error("503 without Retry-After")
	}
}

func TestV3BroadcastIsTheRequestThatV2Makes(t *testing.T) {
	t.Parallel()
	h := setup(t, 1, nil)
	h.register(0, fcmDevice("phone"))
	got := h.wantStatus(h.v3(0, keyAll, http.MethodPost, "/broadcasts", `{"channels":["default","staff"],"rate":5,"spread_seconds":60,"message":{"text":"Hello"}}`), 202)
	id := idOf(t, got)
	e := h.lastBroadcast()
	if schemas.IDFrom(e.BroadcastId).String() != id || got.header.Get("Location") != "/api/v3/broadcasts/"+id {
		t.Errorf("the log has %x, the answer says %s at %s", e.BroadcastId, id, got.header.Get("Location"))
	}
	ends, _ := h.log.Ends(t.Context(), schemas.Devices)
	if diff := cmp.Diff(ends, e.Watermark.GetEnds()); diff != "" {
		t.Errorf("watermark (-want +got):\n%s", diff)
	}
	if !slices.Equal(e.Channels, []string{"default", "staff"}) || e.Rate != 5 || e.SpreadSeconds != 60 || e.Ranges != 1 || e.AudienceEstimate != 1 ||
		e.Content.Text != "Hello" || len(e.BodyHash) != 32 || e.KeyId == "" {
		t.Errorf("got %+v", e)
	}
}

func TestV3DryRunSendsNothing(t *testing.T) {
	t.Parallel()
	h := setup(t, 1, nil)
	h.register(0, fcmDevice("phone"))
	got := h.v3(0, keyAll, http.MethodPost, "/broadcasts", `{"channels":["default"],"dry_run":true}`)
	h.want(got, 200, `{"status":"dry_run","channels":["default"],"audience_estimate":1,"dry_run":true}`)
	if n := len(h.log.events(t, schemas.Broadcasts)); n != 0 {
		t.Errorf("%d records of broadcasts", n)
	}
	h.store.set(func(s *memStore) { s.away = true })
	h.wantProblem(h.v3(0, keyAll, http.MethodPost, "/broadcasts", `{"dry_run":true}`), 503, "unavailable")
}

func TestV3TheSameKeyIsTheSameBroadcastAtEveryIngest(t *testing.T) {
	t.Parallel()
	h := setup(t, 2, nil)
	key := []string{"Idempotency-Key", "monday"}
	first := h.wantStatus(h.v3(0, keyAll, http.MethodPost, "/broadcasts", hello, key...), 202)
	for door := range 2 {
		again := h.wantStatus(h.v3(door, keyAll, http.MethodPost, "/broadcasts", hello, key...), 202)
		if again.body != first.body || again.header.Get("Idempotent-Replayed") != "true" || again.header.Get("Location") != first.header.Get("Location") {
			t.Errorf("door %d: want %s again, got %s %v", door, first.body, again.body, again.header)
		}
		h.wantProblem(h.v3(door, keyAll, http.MethodPost, "/broadcasts", `{"message":{"text":"Other"}}`, key...), 409, "idempotency-conflict")
	}
	if n := len(h.log.events(t, schemas.Broadcasts)); n != 1 {
		t.Errorf("%d records of broadcasts, want 1", n)
	}
	other := h.v3(0, keyAll, http.MethodPost, "/broadcasts", hello, "Idempotency-Key", "tuesday")
	if idOf(t, other) == idOf(t, first) {
		t.Error("another key gave the same broadcast")
	}
}

func TestV3AFailedRequestLeavesItsKeyFree(t *testing.T) {
	t.Parallel()
	h := setup(t, 1, nil)
	body := `{"token":"phone","transport":"fcm","message":{"text":"Hello"}}`
	h.log.fail(errAway)
	h.wantProblem(h.v3(0, keyAll, http.MethodPost, "/notifications", body, "Idempotency-Key", "k"), 503, "unavailable")
	h.log.fail(nil)
	first := h.wantStatus(h.v3(0, keyAll, http.MethodPost, "/notifications", body, "Idempotency-Key", "k"), 202)
	again := h.wantStatus(h.v3(0, keyAll, http.MethodPost, "/notifications", body, "Idempotency-Key", "k"), 202)
	if again.body != first.body || again.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("want %s again, got %s", first.body, again.body)
	}
	h.wantProblem(h.v3(0, keyAll, http.MethodPost, "/notifications", strings.Replace(body, "Hello", "Bye", 1), "Idempotency-Key", "k"), 409, "idempotency-conflict")
	if n := len(h.log.events(t, schemas.Notifications)); n != 1 {
		t.Errorf("%d notifications, want 1", n)
	}
	if e := h.lastPush(); schemas.IDFrom(e.RequestId).String() != idOf(t, first) || e.Content.Text != "Hello" {
		t.Errorf("got %+v", e)
	}
}

func TestV3NotificationsProveWhatTheyRefuse(t *testing.T) {
	t.Parallel()
	h := setup(t, 1, nil)
	send := `{"token":"phone","transport":"fcm","message":{"text":"x"}}`
	h.wantProblem(h.v3(0, keyPush, http.MethodPost, "/notifications", send), 404, "unknown-token")
	d := fcmDevice("phone")
	h.wantStatus(h.v3(0, keyAll, http.MethodPut, "/tokens/phone", `{"transport":"fcm"}`), 201)
	h.wantStatus(h.v3(0, keyPush, http.MethodPost, "/notifications", send), 202)
	h.invalidate(d, h.registeredAt(d))
	h.wantProblem(h.v3(0, keyPush, http.MethodPost, "/notifications", send), 404, "dead-token")
	h.wantStatus(h.v3(0, keyAll, http.MethodPut, "/tokens/phone", `{"transport":"fcm"}`), 200)
	h.wantStatus(h.v3(0, keyPush, http.MethodPost, "/notifications", send), 202)
	h.invalidate(d, h.registeredAt(d))
	h.store.set(func(s *memStore) { s.frozen = true })
	h.say(func(out *schemas.Out) { // which the store does not see
		out.TokenRegistered(&pushv1.TokenRegistered{App: appName, Transport: schemas.FCM, Token: "phone", Platform: "fcm", RegisteredAtUs: h.registeredAt(d) + 1})
	})
	h.wantStatus(h.v3(0, keyPush, http.MethodPost, "/notifications", send), 202)
	if e := h.lastPush(); !e.InDoubt {
		t.Errorf("nothing was proven, and it is not in doubt: %+v", e)
	}
}

func TestV3RegistrationsCarryWhatTheySay(t *testing.T) {
	t.Parallel()
	h := setup(t, 1, nil)
	got := h.v3(0, keyPhone, http.MethodPut, "/tokens/a%2Fb",
		`{"transport":"fcm","platform":"Android-fcm","app_version":"4.5","locale":"de-CH","time_zone":"Europe/Zurich","user_id":"u1","channels":["x","y"]}`)
	h.want(got, 201, `{"status":"registered","channels":["x","y"]}`)
	d := fcmDevice("a/b")
	if diff := cmp.Diff([]string{"x", "y"}, h.channelsOf(d)); diff != "" {
		t.Errorf("channels (-want +got):\n%s", diff)
	}
	for _, e := range h.log.events(t, schemas.Devices) {
		if r, ok := e.(*pushv1.TokenRegistered); ok && (r.AppVersion != "4.5" || r.Locale != "de-CH" || r.TimeZone != "Europe/Zurich" || r.UserId != "u1" || r.Platform != "Android-fcm") {
			t.Errorf("got %+v", r)
		}
	}
	h.want(h.v3(0, keyPhone, http.MethodPut, "/tokens/plain", `{"transport":"fcm"}`), 201, `{"status":"registered","channels":["default"]}`)
	h.want(h.v3(0, keyPhone, http.MethodPut, "/tokens/alone", `{"transport":"fcm","channels":[]}`), 201, `{"status":"registered","channels":[]}`)
}

func TestV3RotationKeepsChannels(t *testing.T) {
	t.Parallel()
	h := setup(t, 1, nil)
	h.wantStatus(h.v3(0, keyAll, http.MethodPut, "/tokens/old", `{"transport":"fcm","channels":["a","b"]}`), 201)
	for range 2 { // whoever got no answer asks again
		got := h.v3(0, keyAll, http.MethodPut, "/tokens/new", `{"transport":"fcm","channels":["c"],"replaces":"old"}`)
		if got.status >= 300 {
			t.Fatalf("got %d %s", got.status, got.body)
		}
		if diff := cmp.Diff([]string{"a", "b", "c"}, h.channelsOf(fcmDevice("new"))); diff != "" {
			t.Errorf("channels (-want +got):\n%s", diff)
		}
	}
	states, err := h.store.Lookup(t.Context(), []schemas.Device{fcmDevice("old")}, nil)
	if err != nil || states[0].Known {
		t.Errorf("the old token is there still: %+v %v", states, err)
	}
	h.wantProblem(h.v3(0, keyPhone, http.MethodPut, "/tokens/newer", `{"transport":"fcm","replaces":"new"}`), 403, "no-permission")
}

func TestV3SitesMoveTheirOwnChannelAlone(t *testing.T) {
	t.Parallel()
	h := setup(t, 1, nil)
	site := h.siteKey(0, "https://a.example.org", "s1")
	own := h.issued(site).Claim.Channel
	h.wantStatus(h.v3(0, keyAll, http.MethodPut, "/tokens/old", `{"transport":"fcm","channels":["foreign"]}`), 201)
	h.wantStatus(h.v3(0, site, http.MethodPut, "/tokens/old", `{"transport":"fcm"}`), 200)
	h.wantProblem(h.v3(0, site, http.MethodPut, "/tokens/old", `{"transport":"fcm","channels":["foreign"]}`), 403, "foreign-channel")
	h.wantStatus(h.v3(0, site, http.MethodPut, "/tokens/new", `{"transport":"fcm","replaces":"old"}`), 201)
	if diff := cmp.Diff([]string{own}, h.channelsOf(fcmDevice("new"))); diff != "" {
		t.Errorf("the new token's channels (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"foreign"}, h.channelsOf(fcmDevice("old"))); diff != "" {
		t.Errorf("the old token's channels (-want +got):\n%s", diff)
	}
	h.wantProblem(h.v3(0, site, http.MethodPut, "/channels/foreign/tokens/new", ""), 403, "foreign-channel")
	h.wantProblem(h.v3(0, site, http.MethodDelete, "/channels/foreign/tokens/old", ""), 403, "foreign-channel")
	h.wantStatus(h.v3(0, site, http.MethodDelete, "/channels/"+own+"/tokens/new", ""), 204)
	h.wantProblem(h.v3(0, site, http.MethodDelete, "/tokens/old", ""), 404, "unknown-token")
}

func TestV3SubscriptionsAndDeletions(t *testing.T) {
	t.Parallel()
	h := setup(t, 1, nil)
	h.wantProblem(h.v3(0, keyAll, http.MethodPut, "/channels/staff/tokens/phone", ""), 404, "unknown-token")
	h.wantProblem(h.v3(0, keyAll, http.MethodDelete, "/tokens/phone", ""), 404, "unknown-token")
	h.wantStatus(h.v3(0, keyAll, http.MethodPut, "/tokens/phone", `{"transport":"fcm","channels":[]}`), 201)
	h.wantStatus(h.v3(0, keyAll, http.MethodPut, "/channels/staff%20room/tokens/phone", ""), 204)
	if diff := cmp.Diff([]string{"staff room"}, h.channelsOf(fcmDevice("phone"))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	h.wantProblem(h.v3(0, keyPhone, http.MethodDelete, "/channels/staff%20room/tokens/phone", ""), 403, "no-permission")
	h.wantStatus(h.v3(0, keyAll, http.MethodDelete, "/channels/staff%20room/tokens/phone", ""), 204)
	if got := h.channelsOf(fcmDevice("phone")); len(got) != 0 {
		t.Errorf("channels %q", got)
	}
	h.wantStatus(h.v3(0, keyAll, http.MethodDelete, "/tokens/phone", ""), 204)
	h.wantProblem(h.v3(0, keyAll, http.MethodDelete, "/tokens/phone", ""), 404, "unknown-token")
}

func TestV3ControlsAreEvents(t *testing.T) {
	t.Parallel()
	h := setup(t, 2, nil)
	id := idOf(t, h.v3(0, keyAll, http.MethodPost, "/broadcasts", hello))
	steer := func(verb, body string) reply { // at the ingest that did not take it
		return h.v3(1, keyAll, http.MethodPost, "/broadcasts/"+id+"/"+verb, body)
	}
	h.want(steer("pause", `{"reason":"typo"}`), 202, `{"id":"`+id+`","status":"paused"}`)
	h.want(steer("resume", ""), 202, `{"id":"`+id+`","status":"resumed"}`)
	h.want(steer("rate", `{"rate":12.5}`), 202, `{"id":"`+id+`","status":"rate_changed","rate":12.5}`)
	h.wantProblem(steer("rate", `{}`), 400, "invalid-field")
	h.wantProblem(steer("rate", `{"rate":-1}`), 400, "invalid-field")
	h.wantProblem(steer("pause", `{"why":"typo"}`), 400, "invalid-field")
	h.want(steer("cancel", ""), 202, `{"id":"`+id+`","status":"cancelled"}`)
	var words []string
	for _, e := range h.log.events(t, schemas.Broadcasts) {
		switch e := e.(type) {
		case *pushv1.BroadcastPaused:
			words = append(words, "pause "+e.Reason)
			if !strings.HasPrefix(e.PausedBy, "key ") || e.PausedAtUs == 0 {
				t.Errorf("paused by %q at %d", e.PausedBy, e.PausedAtUs)
			}
		case *pushv1.BroadcastResumed:
			words = append(words, "resume")
		case *pushv1.BroadcastRateChanged:
			words = append(words, "rate")
		case *pushv1.BroadcastCancelled:
			words = append(words, "cancel")
		}
	}
	if diff := cmp.Diff([]string{"pause typo", "resume", "rate", "cancel"}, words); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, d := range h.doors {
		if err := d.casts.catchUp(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	h.wantProblem(steer("resume", ""), 409, "broadcast-cancelled")
	h.wantStatus(steer("cancel", ""), 202)
	ended, _ := schemas.ParseID(id)
	h.say(func(out *schemas.Out) {
		out.BroadcastEnded(&pushv1.BroadcastEnded{BroadcastId: ended[:], App: appName, Cancelled: true})
	})
	if err := h.doors[1].casts.catchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.wantProblem(steer("cancel", ""), 409, "broadcast-ended")
	h.wantProblem(h.v3(0, keyAll, http.MethodPost, "/broadcasts/01890000-0000-7000-8000-000000000000/pause", ""), 404, "no-broadcast")
	h.wantProblem(h.v3(0, keyAll, http.MethodPost, "/broadcasts/nonsense/pause", ""), 404, "no-broadcast")
}

func TestV3ASiteSteersAndSeesItsOwnBroadcastsAlone(t *testing.T) {
	t.Parallel()
	type seen struct {
		app  string
		mine func(string) bool
	}
	var last seen
	h := setup(t, 1, func(o *ingest.Options) {
		o.Reads = func(w http.ResponseWriter, _ *http.Request, app string, mine func(string) bool) {
			last = seen{app, mine}
			w.WriteHeader(http.StatusNoContent)
		}
	})
	a, b := h.siteKey(0, "https://a.example.org", "s1"), h.siteKey(0, "https://b.example.org", "s2")
	again := h.siteKey(0, "https://a.example.org", "s1") // the same claim, another key
	for _, k := range []string{a, b, again} {
		h.prove(k)
	}
	body := `{"message":{"text":"x"}}`
	own := idOf(t, h.wantStatus(h.v3(0, a, http.MethodPost, "/broadcasts", body), 202))
	operators := idOf(t, h.wantStatus(h.v3(0, keyAll, http.MethodPost, "/broadcasts", body), 202))
	if err := h.doors[0].casts.catchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.wantProblem(h.v3(0, b, http.MethodPost, "/broadcasts/"+own+"/cancel", ""), 404, "no-broadcast")
	h.wantProblem(h.v3(0, a, http.MethodPost, "/broadcasts/"+operators+"/cancel", ""), 404, "no-broadcast")
	h.wantProblem(h.v3(0, "99999999999999999999999999999999", http.MethodPost, "/broadcasts/"+own+"/cancel", "", "X-Campanile-App", "otherapp"), 404, "no-broadcast")
	h.wantProblem(h.v3(0, a, http.MethodPost, "/broadcasts", `{"channels":["foreign"],"message":{"text":"x"}}`), 403, "no-permission")
	h.wantStatus(h.v3(0, a, http.MethodPost, "/broadcasts/"+own+"/pause", ""), 202)
	h.wantStatus(h.v3(0, again, http.MethodPost, "/broadcasts/"+own+"/resume", ""), 202)
	h.wantStatus(h.v3(0, keyAll, http.MethodPost, "/broadcasts/"+own+"/cancel", ""), 202)

	h.wantStatus(h.v3(0, a, http.MethodGet, "/broadcasts", ""), 204)
	if last.app != appName || last.mine == nil || !last.mine(h.issued(a).KeyId) || !last.mine(h.issued(again).KeyId) || last.mine(h.issued(b).KeyId) || last.mine("") {
		t.Errorf("a site sees what is not its own, or not what is")
	}
	h.wantStatus(h.v3(0, keyAll, http.MethodGet, "/broadcasts/"+own+"/progress", ""), 204)
	if last.mine != nil {
		t.Error("an operator's key sees a part only")
	}
	h.wantProblem(h.v3(0, keyPush, http.MethodGet, "/broadcasts", ""), 403, "no-permission")
}
