package ingest_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/campanile-push/campanile/ingest"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// twoSites is a victim, whose claim is proven, and an attacker in the same app, which waives the proof for broadcasts: the worst case.
type twoSites struct {
	*house
	wwwroot          string
	victim, attacker string // keys
	claim, md5       string // the victim's channels
	device           schemas.Device
}

func newTwoSites(t *testing.T) *twoSites {
	t.Helper()
	s := &twoSites{house: setup(t, 1, func(o *ingest.Options) { o.KeysPerAddress, o.KeysPerURL = 1000, 1000 }), wwwroot: "https://moodle.victim.example", device: fcmDevice("victims:phone")}
	s.configure(&pushv1.AppConfigured{UnprovenSitesMayBroadcast: true})
	s.victim = s.siteKey(0, s.wwwroot, "the site's own secret")
	s.claim, s.md5 = s.prove(s.victim).Claim.Channel, md5Hex(s.wwwroot)
	s.attacker = s.siteKey(0, "https://moodle.attacker.example", "another secret")
	s.want(s.post(s.victim, "/tokens/"+s.device.Token, "device=Android-fcm"), 200, `{"status": "ok"}`)
	s.want(s.post(keyPhone, "/tokens/"+s.device.Token, "device=Android-fcm&channel="+s.md5), 200, `{"status": "token exists"}`)
	return s
}

// untouched fails where the victim's phone is not what it was, or a broadcast of the attacker's goes to one of its channels.
func (s *twoSites) untouched(after string) {
	s.t.Helper()
	own := []string{s.claim, s.md5}
	slices.Sort(own)
	states, err := s.store.Lookup(s.t.Context(), []schemas.Device{s.device}, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, channel := range own {
		if !states[0].Known || !states[0].Alive || !slices.Contains(states[0].Channels, channel) {
			s.t.Errorf("%s: the victim's phone is %+v", after, states[0])
		}
	}
	victims := s.issued(s.victim).KeyId
	for _, e := range s.log.events(s.t, schemas.Broadcasts) {
		b, ok := e.(*pushv1.BroadcastRequested)
		if ok && b.KeyId != victims && (slices.Contains(b.Channels, s.claim) || slices.Contains(b.Channels, s.md5)) {
			s.t.Errorf("%s: a broadcast to %v", after, b.Channels)
		}
	}
	s.owns(after)
}

// owns fails where the victim cannot reach all that is its own, and nothing else.
func (s *twoSites) owns(after string) {
	s.t.Helper()
	own := []string{s.claim, s.md5}
	slices.Sort(own)
	got := s.post(s.victim, "/api/v2/broadcast/", `{"alert":"to my phones"}`)
	if got.status != 202 {
		s.t.Errorf("%s: the victim may no longer broadcast: %d %s", after, got.status, got.body)
		return
	}
	if b := s.broadcastOf(got.header.Get("X-Campanile-Id")); b == nil || !slices.Equal(b.Channels, own) {
		s.t.Errorf("%s: the victim broadcasts to %v", after, b.GetChannels())
	}
}

func (h *house) broadcastOf(id string) *pushv1.BroadcastRequested {
	h.t.Helper()
	want, err := schemas.ParseID(id)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, e := range h.log.events(h.t, schemas.Broadcasts) {
		if b, ok := e.(*pushv1.BroadcastRequested); ok && schemas.ID(b.BroadcastId) == want {
			return b
		}
	}
	return nil
}

// TestNoSpellingTakesASiteOver asks for keys in the victim's name, spelt in every way that a parser could read as the same.
func TestNoSpellingTakesASiteOver(t *testing.T) {
	t.Parallel()
	s := newTwoSites(t)
	for i, spelling := range []string{
		s.wwwroot, s.wwwroot + "/", s.wwwroot + "///", "HTTPS://MOODLE.VICTIM.EXAMPLE", " " + s.wwwroot + " ", "http://moodle.victim.example",
		s.wwwroot + ":443", s.wwwroot + ":443/", s.wwwroot + ".", s.wwwroot + "/.", s.wwwroot + "/x/..", s.wwwroot + "/%2e", s.wwwroot + "//",
		s.wwwroot + "?", s.wwwroot + "#", s.wwwroot + "?a=b", s.wwwroot + "#a", "https://moodle.victim.example@moodle.attacker.example",
		"https://moodle.attacker.example@moodle.victim.example", "https://moodle.victim.example\\@moodle.attacker.example", "//moodle.victim.example",
		"https:moodle.victim.example", "https:///moodle.victim.example", "https://%6doodle.victim.example", "https://mоodle.victim.example",
		"https://moodle.victim.example\x00", "https://moodle.victim.example\n", s.wwwroot + "\t", "https://moodle.victim。example", s.md5, s.claim,
	} {
		for _, siteid := range []string{"", "guess", s.md5, s.claim, s.victim} {
			for _, how := range []string{"/accesskeys/", "/api/v2/accesskeys/"} {
				body := url.Values{"url": {spelling}, "siteid": {siteid}, "description": {s.wwwroot}, "contact": {"admin@victim.example"}, "channel": {s.md5}, "permission": {"31"}}.Encode()
				if strings.Contains(how, "v2") {
					text, err := json.Marshal(map[string]any{
						"processor": "moodle", "url": spelling, "siteid": siteid, "description": s.wwwroot, "channel": s.claim, "permission": 31, "proven": true,
					})
					if err != nil {
						t.Fatal(err)
					}
					body = string(text)
				}
				key := s.keyFor(how, body)
				if key == "" {
					continue
				}
				k := s.issued(key)
				if k.Claim.Proven || k.Claim.Channel == s.claim || k.Claim.Channel == s.md5 || k.Permissions&^15 != 0 {
					t.Errorf("%q, %q: %v", spelling, siteid, k)
				}
				if i == 0 && siteid == "guess" { // the claims that are most alike try everything
					s.attack(key)
				}
				s.want(s.post(key, "/api/v2/broadcast/", `{"alert":"evil"}`), 202, "")
			}
		}
		s.untouched("keys for " + strings.ToValidUTF8(spelling, "?"))
	}
}

// keyFor asks for a key; empty where it is refused.
func (s *twoSites) keyFor(path, body string) string {
	s.t.Helper()
	got := s.do(0, request{path: path, app: appName, key: "none", label: form, body: body})
	if got.status != 200 && got.status != 403 {
		s.t.Fatalf("%d %s", got.status, got.body)
	}
	var answer struct {
		AccessKey string `json:"accesskey"`
	}
	if got.status == 200 && json.Unmarshal([]byte(got.body), &answer) != nil {
		s.t.Fatalf("%d %s", got.status, got.body)
	}
	s.settle() // that a key works before that is another test's
	return answer.AccessKey
}

// TestNoEndpointReachesAnotherSite tries every endpoint and every field of the three APIs on the victim's phone and channels.
func TestNoEndpointReachesAnotherSite(t *testing.T) {
	t.Parallel()
	s := newTwoSites(t)
	s.attack(s.attacker)
	s.untouched("every endpoint")
}

// attack tries them with one key. What may be answered with a success is named; everything else must be refused.
func (s *twoSites) attack(key string) {
	s.t.Helper()
	later := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	mine := idOf(s.t, s.wantStatus(s.v3(0, s.victim, http.MethodPost, "/broadcasts", `{"message":{"text":"later"},"send_at":"`+later+`"}`), 202))
	if err := s.doors[0].casts.catchUp(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	token, md5, claim := s.device.Token, s.md5, s.claim
	const ok, no = true, false
	for _, a := range []struct {
		ask, body string
		may       bool // be answered with a success, which must reach nothing of the victim's
	}{
		// v1
		{"DELETE /tokens/" + token, "", no},
		{"DELETE /tokens/" + token + "?channel=" + md5, "", no},
		{"DELETE /tokens/" + url.PathEscape(token) + "/", "", no},
		{"POST /broadcast/", "alert=evil&channel=" + md5, no},
		{"POST /broadcast/", "alert=evil&channel=" + claim, no},
		{"POST /broadcast/?channel=" + md5, "alert=evil", no},
		{"POST /broadcast/", "alert=evil&channel=default&channel=" + claim, no},
		{"POST /broadcast/", "alert=evil&device=android&wwwroot=" + url.QueryEscape(s.wwwroot) + "&channels=" + md5, ok},
		{"POST /tokens/evil:1", "device=Android-fcm&channel=" + md5, ok},
		{"POST /tokens/evil:2?channel=" + claim, "device=Android-fcm", ok},
		{"POST /tokens/evil:3", "device=Android-fcm&channel=" + claim + "&wwwroot=" + url.QueryEscape(s.wwwroot), ok},
		{"POST /tokens/" + token, "device=iOS-fcm&channel=x", ok}, // a second registration leaves what there was
		{"POST /notification/", "token=" + token + "&device=Android-fcm&alert=x&channel=" + md5, ok},
		{"POST /notification/", "token=evil:4&device=Android-fcm&alert=x&channel=" + md5, ok},
		// v2
		{"DELETE /api/v2/tokens/" + token, "", ok}, // its own subscription, of the second registration above
		{"DELETE /api/v2/tokens/" + token + "/?channel=" + claim, "", no},
		{"POST /api/v2/broadcast/", `{"alert":"evil","channel":"` + md5 + `"}`, no},
		{"POST /api/v2/broadcast/", `{"alert":"evil","channel":"` + claim + `","device":"android"}`, no},
		{"POST /api/v2/broadcast/?channel=" + md5, `{"alert":"evil"}`, ok},
		{"POST /api/v2/broadcast/", `{"alert":"evil","channel":"default","channel":"` + md5 + `"}`, no},
		{"POST /api/v2/broadcast/", `{"alert":"evil","channels":["` + md5 + `"],"extra":{"processor":"moodle","wwwroot":"` + s.wwwroot + `"}}`, ok},
		{"POST /api/v2/broadcast/", `{"alert":"evil","channel":["` + md5 + `"]}`, ok}, // no channel's name: its own
		{"POST /api/v2/broadcast/", `{"alert":"evil","channel":{"a":"` + md5 + `"}}`, ok},
		{"POST /api/v2/tokens/", `{"device":"fcm","token":"evil:5","channel":"` + md5 + `"}`, ok},
		{"POST /api/v2/tokens/", `{"device":"fcm","token":"` + token + `","channel":"x"}`, ok},
		{"POST /api/v2/push/", `{"device":"fcm","token":"evil:6","channel":"` + claim + `","alert":"x","extra":{"processor":"moodle","wwwroot":"` + s.wwwroot + `"}}`, ok},
		{"POST /api/v2/push/", `{"device":"fcm","token":"` + token + `","alert":"x","fcm":{"topic":"all","condition":"true"}}`, ok},
		// v3
		{"DELETE /api/v3/tokens/" + token, "", ok}, // as above
		{"DELETE /api/v3/tokens/" + token, "", no},
		{"DELETE /api/v3/channels/" + claim + "/tokens/" + token, "", no},
		{"DELETE /api/v3/channels/" + md5 + "/tokens/" + token, "", no},
		{"PUT /api/v3/channels/" + md5 + "/tokens/evil:1", "", no},
		{"PUT /api/v3/channels/" + claim + "/tokens/evil:1", "", no},
		{"PUT /api/v3/tokens/evil:7", `{"transport":"fcm","channels":["` + md5 + `"]}`, no},
		{"PUT /api/v3/tokens/evil:8", `{"transport":"fcm","channels":["` + claim + `"]}`, no},
		{"PUT /api/v3/tokens/evil:9", `{"transport":"fcm","replaces":"` + token + `"}`, ok},
		{"POST /api/v3/broadcasts", `{"channels":["` + md5 + `"],"message":{"text":"evil"}}`, no},
		{"POST /api/v3/broadcasts", `{"channels":["` + claim + `","` + md5 + `"],"message":{"text":"evil"}}`, no},
		{"POST /api/v3/broadcasts", `{"channels":["default","` + md5 + `"],"message":{"text":"evil"}}`, no},
		{"POST /api/v3/broadcasts", `{"message":{"text":"evil"}}`, ok},
		{"POST /api/v3/broadcasts/" + mine + "/cancel", "", no},
		{"POST /api/v3/broadcasts/" + mine + "/pause", "", no},
		{"POST /api/v3/broadcasts/" + mine + "/resume", "", no},
		{"POST /api/v3/broadcasts/" + mine + "/rate", `{"rate":1}`, no},
	} {
		method, path, _ := strings.Cut(a.ask, " ")
		r := request{method: method, path: path, app: appName, key: key, label: form, body: a.body}
		if strings.HasPrefix(path, "/api/v3") {
			r.app, r.key, r.label = "-", "-", "application/json"
			r.header = map[string]string{"Authorization": "Bearer " + key, "X-Campanile-App": appName}
		}
		if got := s.do(0, r); got.status >= 500 || got.status < 300 && !a.may {
			s.t.Errorf("%s %s: %d %s", a.ask, a.body, got.status, got.body)
		}
	}
	// What the attacker registered hears nothing of the victim.
	for n := range 10 {
		for _, channel := range s.channelsOf(fcmDevice("evil:" + string(rune('0'+n)))) {
			if channel == md5 || channel == claim {
				s.t.Errorf("evil:%d is in the victim's channel %s", n, channel)
			}
		}
	}
	for _, e := range s.log.events(s.t, schemas.Broadcasts) {
		switch e.(type) {
		case *pushv1.BroadcastCancelled, *pushv1.BroadcastPaused, *pushv1.BroadcastResumed, *pushv1.BroadcastRateChanged:
			s.t.Errorf("the victim's broadcast was steered: %v", e)
		}
	}
}

// TestOneSitesIdempotencyKeyIsNotAnothers: the same Idempotency-Key of two sites are two requests.
func TestOneSitesIdempotencyKeyIsNotAnothers(t *testing.T) {
	t.Parallel()
	s := newTwoSites(t)
	const again = "01890000-0000-7000-8000-000000000001"
	ids := map[string]bool{}
	for _, key := range []string{s.attacker, s.victim} {
		ids[idOf(t, s.wantStatus(s.v3(0, key, http.MethodPost, "/broadcasts", `{"message":{"text":"x"}}`, "Idempotency-Key", again), 202))] = true
		if err := s.doors[0].casts.catchUp(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if len(ids) != 2 {
		t.Errorf("two sites' broadcasts are one: %v", ids)
	}
	s.untouched("the same Idempotency-Key")
}
