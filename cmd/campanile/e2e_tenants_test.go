package main

import (
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/campanile-push/campanile/bench"
)

const formLabel = "application/x-www-form-urlencoded"

// keyID is the id under which the log knows a key's value.
func keyID(value string) string {
	sum := sha256.Sum256([]byte(value))
	return hex.EncodeToString(sum[:16])
}

// claimOf is the channel of a key's claim, which nobody but the log knows.
func (w *world) claimOf(t *testing.T, app, key string) string {
	t.Helper()
	d, err := readDirectory(t.Context(), w.open(t))
	if err != nil {
		t.Fatal(err)
	}
	e, err := d.find(app)
	if err != nil {
		t.Fatal(err)
	}
	k, err := e.findKey(app, keyID(key))
	if err != nil {
		t.Fatal(err)
	}
	return k.Claim.GetChannel()
}

func asJSON(t *testing.T, v any) []byte {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// siteWorld is two sites of one app: the victim, whose claim is proven, and an attacker, who also asked for keys in the victim's name.
type siteWorld struct {
	*world
	u                  *up
	victimURL          string
	victim, attacker   bench.Moodle
	squatters          []bench.Moodle
	own, claimed, open []bench.Phone // the victim's, by how they came: through its key, by its channel's name, and a few to be shot at
	theirs             []bench.Phone // the attacker's
}

func newSiteWorld(t *testing.T) *siteWorld {
	t.Helper()
	w := newWorld(t)
	s := &siteWorld{world: w, u: w.up(t, withoutAnalytics), victimURL: "https://moodle.victim.example"}
	w.app(t, app, "--unproven-sites-may-broadcast")
	anybody := s.u.moodle(app, "none")
	claim := func(wwwroot, siteid string) bench.Moodle {
		key, err := anybody.RequestKey(t.Context(), wwwroot, siteid)
		if err != nil {
			t.Fatal(err)
		}
		return anybody.With(key)
	}
	// The attacker comes first, in the victim's name, spelt in several ways.
	s.squatters = []bench.Moodle{claim(s.victimURL, "guess"), claim("HTTPS://Moodle.Victim.Example/", "")}
	s.victim = claim(s.victimURL, "the site's own secret")
	w.run(t, "key", "approve", app, keyID(s.victim.Key))
	s.squatters = append(s.squatters, claim(s.victimURL+"/", "guess")) // and again, now that there is something to share in
	s.attacker = claim("https://moodle.attacker.example", "another secret")

	s.own, s.claimed, s.open, s.theirs = phones("own", 3), phones("claimed", 3), phones("open", 6), phones("theirs", 3)
	phone := anybody.With(w.key(t, app, "register"))
	register := func(m bench.Moodle, channel string, list []bench.Phone) {
		for _, p := range list {
			if err := m.Register(t.Context(), p.Token, p.Platform, channel); err != nil {
				t.Fatal(err)
			}
		}
	}
	register(s.victim, "", s.own)
	register(phone, siteMD5(s.victimURL), s.claimed)
	register(s.victim, "", s.open)
	register(s.attacker, "", s.theirs[:1])
	register(s.attacker, siteMD5(s.victimURL), s.theirs[1:2]) // to overhear the victim
	register(s.squatters[0], siteMD5(s.victimURL), s.theirs[2:])
	return s
}

// native asks the native API with a site's key.
func (s *siteWorld) native(t *testing.T, m bench.Moodle, method, path, body string) bench.Answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, m.BaseURL+"/api/v3"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+m.Key)
	r.Header.Set("X-Campanile-App", app)
	r.Header.Set("Content-Type", "application/json")
	res, err := m.Client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return bench.Answer{Status: res.StatusCode, ID: res.Header.Get("X-Campanile-Id"), Body: text}
}

func (s *siteWorld) nativeBroadcast(t *testing.T, m bench.Moodle, body string) (id string) {
	t.Helper()
	a := s.native(t, m, http.MethodPost, "/broadcasts", body)
	if a.Status != http.StatusAccepted {
		t.Fatalf("broadcast: %d %s", a.Status, a.Body)
	}
	return a.ID
}

// siteMD5 is the channel that a site's phones name.
func siteMD5(wwwroot string) string {
	sum := md5.Sum([]byte(wwwroot))
	return hex.EncodeToString(sum[:])
}

// TestOneSiteReachesNothingOfAnother tries the ways in which a site of the same app could get at another's phones: by names of channels,
// by keys in other places, by asking for keys in its name, and by deleting.
func TestOneSiteReachesNothingOfAnother(t *testing.T) {
	t.Parallel()
	s := newSiteWorld(t)
	md5, claim := siteMD5(s.victimURL), s.claimOf(t, app, s.victim.Key)
	if claim == "" || claim == s.claimOf(t, app, s.attacker.Key) {
		t.Fatalf("the victim's claim has the channel %q", claim)
	}
	alert := func(more string) string { return `{"alert":"evil"` + more + `}` }
	type attack struct {
		name, method, path, label, body string
		header                          map[string]string
		want                            []int // statuses that are right
	}
	reachesOwn, refused := []int{http.StatusAccepted, http.StatusOK}, []int{http.StatusForbidden}
	badRequest := []int{http.StatusBadRequest}
	either := slices.Concat(reachesOwn, refused, badRequest)
	const broadcast, jsonLabel = "/api/v2/broadcast/", "application/json"
	attacks := []attack{
		{"its channel", "POST", broadcast, jsonLabel, alert(`,"channel":"` + md5 + `"`), nil, refused},
		{"its channel in capitals", "POST", broadcast, jsonLabel, alert(`,"channel":"` + strings.ToUpper(md5) + `"`), nil, refused},
		{"its channel with a blank", "POST", broadcast, jsonLabel, alert(`,"channel":" ` + md5 + ` "`), nil, slices.Concat(refused, badRequest)},
		{"its claim's channel", "POST", broadcast, jsonLabel, alert(`,"channel":"` + claim + `"`), nil, refused},
		{"its channel said twice", "POST", broadcast, jsonLabel, alert(`,"channel":"default","channel":"` + md5 + `"`), nil, either},
		{"its channel said first", "POST", broadcast, jsonLabel, alert(`,"channel":"` + md5 + `","channel":"default"`), nil, either},
		{"a list of channels", "POST", broadcast, jsonLabel, alert(`,"channel":["` + md5 + `","` + claim + `"]`), nil, either},
		{"channels", "POST", broadcast, jsonLabel, alert(`,"channels":["` + md5 + `"]`), nil, either},
		{"its channel in the query", "POST", broadcast + "?channel=" + md5, jsonLabel, alert(""), nil, either},
		{"its channel in extra", "POST", broadcast, jsonLabel, alert(`,"extra":{"channel":"` + md5 + `","wwwroot":"` + s.victimURL + `"}`), nil, either},
		{"a wildcard", "POST", broadcast, jsonLabel, alert(`,"channel":"*"`), nil, refused},
		{"SQL's wildcard", "POST", broadcast, jsonLabel, alert(`,"channel":"%"`), nil, refused},
		{"the default channel", "POST", broadcast, jsonLabel, alert(`,"channel":"default"`), nil, reachesOwn},
		{"no channel", "POST", broadcast, jsonLabel, alert(""), nil, reachesOwn},
		{"v1, its channel", "POST", "/broadcast/", formLabel, "alert=evil&channel=" + md5, nil, refused},
		{"v1, its claim's channel", "POST", "/broadcast/", formLabel, "alert=evil&channel=" + claim, nil, refused},
		{"v1, its channel said twice", "POST", "/broadcast/", formLabel, "alert=evil&channel=default&channel=" + md5, nil, either},
		{"v1, its channel in the query", "POST", "/broadcast/?channel=" + md5, formLabel, "alert=evil", nil, either},
		{"its key in the query", "POST", broadcast + "?X-AN-APP-KEY=" + s.victim.Key + "&key=" + s.victim.Key, jsonLabel, alert(""), map[string]string{"X-AN-APP-KEY": "none"}, badRequest},
		{"its key in the body", "POST", "/broadcast/", formLabel, "alert=evil&key=" + s.victim.Key + "&accesskey=" + s.victim.Key, map[string]string{"X-AN-APP-KEY": "none"}, badRequest},
		{"its key's id for the key", "POST", broadcast, jsonLabel, alert(""), map[string]string{"X-AN-APP-KEY": keyID(s.victim.Key)}, badRequest},
		{"its channel for the key", "POST", broadcast, jsonLabel, alert(""), map[string]string{"X-AN-APP-KEY": claim}, badRequest},
		{"no app", "POST", broadcast, jsonLabel, alert(""), map[string]string{"X-AN-APP-NAME": "nosuchapp"}, badRequest},
		{"two names of apps", "POST", broadcast + "?appname=" + app, jsonLabel, alert(""), map[string]string{"X-AN-APP-NAME": app + "," + app}, badRequest},
	}
	// The native API: its own channel is all that a site's key reaches there, too.
	later := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	waits := s.nativeBroadcast(t, s.victim, `{"message":{"text":"later"},"send_at":"`+later+`"}`)
	notFound := []int{http.StatusNotFound}
	victims, mine := url.PathEscape(s.own[0].Token), url.PathEscape(s.theirs[0].Token)
	attacks = append(attacks, []attack{
		{"v3, its channel", "POST", "/api/v3/broadcasts", jsonLabel, `{"channels":["` + md5 + `"],"message":{"text":"evil"}}`, nil, refused},
		{"v3, its channels beside its own", "POST", "/api/v3/broadcasts", jsonLabel, `{"channels":["default","` + claim + `"],"message":{"text":"evil"}}`, nil, refused},
		{"v3, no channel", "POST", "/api/v3/broadcasts", jsonLabel, `{"message":{"text":"evil"}}`, nil, reachesOwn},
		{"v3, join its channel", "PUT", "/api/v3/channels/" + md5 + "/tokens/" + mine, jsonLabel, "", nil, refused},
		{"v3, join its claim's channel", "PUT", "/api/v3/channels/" + claim + "/tokens/" + mine, jsonLabel, "", nil, refused},
		{"v3, take its phone out of its channel", "DELETE", "/api/v3/channels/" + claim + "/tokens/" + victims, "", "", nil, refused},
		{"v3, delete its phone", "DELETE", "/api/v3/tokens/" + victims, "", "", nil, notFound},
		{"v3, register into its channel", "PUT", "/api/v3/tokens/evil:v3", jsonLabel, `{"transport":"fcm","channels":["` + md5 + `"]}`, nil, refused},
		{"v3, cancel its broadcast", "POST", "/api/v3/broadcasts/" + waits + "/cancel", jsonLabel, "", nil, notFound},
		{"v3, pause its broadcast", "POST", "/api/v3/broadcasts/" + waits + "/pause", jsonLabel, "", nil, notFound},
		{"v3, slow its broadcast down", "POST", "/api/v3/broadcasts/" + waits + "/rate", jsonLabel, `{"rate":1}`, nil, notFound},
		{"v3, read its broadcast", "GET", "/api/v3/broadcasts/" + waits, "", "", nil, notFound},
		{"v3, follow its broadcast", "GET", "/api/v3/broadcasts/" + waits + "/progress", "", "", nil, notFound},
	}...)
	for _, p := range append(slices.Clone(s.own), s.claimed...) { // what it says of a token that is not its own is 404, or 200 where it has it too
		token := url.PathEscape(p.Token)
		attacks = append(attacks,
			attack{"delete a token", "DELETE", "/tokens/" + token, "", "", nil, []int{http.StatusNotFound}},
			attack{"v2, delete a token", "DELETE", "/api/v2/tokens/" + token, "", "", nil, []int{http.StatusNotFound}},
			attack{"delete with its channel", "DELETE", "/tokens/" + token + "?channel=" + md5, "", "", nil, []int{http.StatusNotFound}},
		)
	}
	for _, m := range append([]bench.Moodle{s.attacker}, s.squatters...) {
		for _, a := range attacks {
			r, err := http.NewRequestWithContext(t.Context(), a.method, m.BaseURL+a.path, strings.NewReader(a.body))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", a.label)
			r.Header["X-AN-APP-NAME"], r.Header["X-AN-APP-KEY"] = []string{app}, []string{m.Key}
			if strings.HasPrefix(a.path, "/api/v3/") {
				r.Header.Set("Authorization", "Bearer "+m.Key)
				r.Header.Set("X-Campanile-App", app)
			}
			for name, value := range a.header {
				r.Header[name] = []string{value}
			}
			res, err := m.Client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			if !slices.Contains(a.want, res.StatusCode) {
				t.Errorf("%s: want one of %v, got %d", a.name, a.want, res.StatusCode)
			}
		}
	}
	// The victim's broadcast waits still, for its own word. What it would have sent does not count below.
	if got := s.native(t, s.victim, "POST", "/broadcasts/"+waits+"/cancel", ""); got.Status != http.StatusAccepted {
		t.Errorf("the victim cancels its broadcast: %d %s", got.Status, got.Body)
	}
	// Of what was accepted, nothing reached the victim.
	s.settled(t, time.Minute)
	for name, list := range map[string][]bench.Phone{"own": s.own, "claimed": s.claimed, "open": s.open} {
		for i, got := range s.pushes(t, list...) {
			if got != 0 {
				t.Errorf("the attacker reached the victim's phone %s/%d: %d pushes", name, i, got)
			}
		}
	}
	// Of what the victim says, nothing reaches the attacker, and nothing of the victim was deleted.
	before := s.pushes(t, s.theirs...)
	if _, err := s.victim.Broadcast(t.Context(), "", "to the whole site"); err != nil {
		t.Fatal(err)
	}
	want := int64(len(s.own) + len(s.claimed) + len(s.open))
	delivered := s.reconcile(t).Delivered
	eventually(t, time.Minute, "the victim's broadcast is delivered", func() bool {
		got := 0
		for _, n := range s.pushes(t, slices.Concat(s.own, s.claimed, s.open)...) {
			got += n
		}
		return int64(got) >= want
	})
	s.settled(t, time.Minute)
	for i, got := range s.pushes(t, slices.Concat(s.own, s.claimed, s.open)...) {
		if got != 1 {
			t.Errorf("the victim's phone %d got %d pushes of its site's broadcast, want 1", i, got)
		}
	}
	if after := s.pushes(t, s.theirs...); !slices.Equal(before, after) {
		t.Errorf("the attacker overheard the victim: %v pushes before its broadcast, %v after (%d delivered before)", before, after, delivered)
	}
	s.u.stop(t)
}

// TestAKeyWorksAtOnceAtEveryIngest: however a key comes to be, the other ingest takes it in the very next request.
func TestAKeyWorksAtOnceAtEveryIngest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.process(t)
	second := p.secondDoor(t)
	eventually(t, time.Minute, "both ingests have read the log", func() bool { return len(p.health.snapshot()) == 0 })
	w.app(t, app)
	w.app(t, "manual", "--access-keys", "manual")
	door := func(url, app, key string) bench.Moodle {
		return bench.Moodle{BaseURL: url, App: app, Key: key, Client: bench.NewClient(8)}
	}
	doors := []string{p.apiURL(), second}
	tests := func(url, app, key string) string { // Moodle's check page
		a, err := door(url, app, key).Do(t.Context(), http.MethodPost, "/tokens/testtoken", formLabel, nil)
		if err != nil {
			t.Fatal(err)
		}
		return a.Field("error")
	}
	for i := range 20 {
		key, err := door(doors[i%2], app, "none").RequestKey(t.Context(), "https://site"+strconv.Itoa(i)+".example", "secret")
		if err != nil {
			t.Fatal(err)
		}
		if got := tests(doors[(i+1)%2], app, key); got != "Invalid token" {
			t.Errorf("key %d at the other ingest: %s", i, got)
		}
	}
	for _, args := range [][]string{{}, {"--site", "https://vouched.example"}, {"--permissions", "all"}} {
		key := w.run(t, append([]string{"key", "create", app}, args...)...)
		for _, url := range doors {
			if got := tests(url, app, key); got != "Invalid token" {
				t.Errorf("key create %v: %s", args, got)
			}
		}
	}
	key, err := door(doors[0], "manual", "none").RequestKey(t.Context(), "https://waits.example", "secret")
	if err != nil {
		t.Fatal(err)
	}
	for _, url := range doors {
		if got := tests(url, "manual", key); got != "Access key waits for approval" {
			t.Errorf("before it is approved: %s", got)
		}
	}
	if list := w.run(t, "key", "list", "manual"); !strings.Contains(list, "waits for approval") || !strings.Contains(list, "https://waits.example") {
		t.Errorf("the list does not show the request:\n%s", list)
	}
	w.run(t, "key", "approve", "manual", keyID(key))
	for _, url := range doors {
		if got := tests(url, "manual", key); got != "Invalid token" {
			t.Errorf("approved: %s", got)
		}
		if _, err := door(url, "manual", key).Broadcast(t.Context(), "", "to the site"); err != nil {
			t.Errorf("approved: %v", err)
		}
	}
}

// TestAVouchedKeyIsTheSites: a key that the operator makes for a site owns the site's channels, a second one shares them, and the claim of
// whoever else asks for a key in the site's name gets nothing of it.
func TestAVouchedKeyIsTheSites(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	u := w.up(t, withoutAnalytics)
	w.app(t, app)
	const site = "https://moodle.example.org/campus"
	first, again := w.run(t, "key", "create", app, "--site", site), w.run(t, "key", "create", app, "--site", "HTTPS://Moodle.Example.org/campus/")
	if a, b := w.claimOf(t, app, first), w.claimOf(t, app, again); a == "" || a != b {
		t.Errorf("two keys of one site have the channels %q and %q", a, b)
	}
	squatter, err := u.moodle(app, "none").RequestKey(t.Context(), site, "guess")
	if err != nil {
		t.Fatal(err)
	}
	if w.claimOf(t, app, squatter) == w.claimOf(t, app, first) {
		t.Error("a stranger shares the site's claim")
	}
	own, phone, theirs := phones("own", 2), phones("phone", 2), phones("theirs", 2)
	for _, who := range []struct {
		key, channel string
		list         []bench.Phone
	}{{first, "", own}, {w.key(t, app, "register"), siteMD5(site), phone}, {squatter, "", theirs}} {
		for _, p := range who.list {
			if err := u.moodle(app, who.key).Register(t.Context(), p.Token, p.Platform, who.channel); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := u.moodle(app, squatter).Broadcast(t.Context(), "", "evil"); err == nil {
		t.Error("a stranger broadcasts in the site's name")
	}
	if _, err := u.moodle(app, again).Broadcast(t.Context(), "", "to the site"); err != nil {
		t.Fatal(err)
	}
	w.accounts(t, time.Minute, 4)
	if got := w.pushes(t, slices.Concat(own, phone, theirs)...); !slices.Equal(got, []int{1, 1, 1, 1, 0, 0}) {
		t.Errorf("the site's phones, those that named its channel, and the stranger's: %v", got)
	}
	if _, err := command(t, w.dir, w.env(), "key", "create", app, "--site", "moodle"); err == nil || !strings.Contains(err.Error(), "https://moodle.example.org") {
		t.Errorf("a site that is none: %v", err)
	}
	u.stop(t)
}

// TestABadBodyKillsNoDevice: whatever a site sends to another's token, and whatever the provider says of it, the device lives.
func TestABadBodyKillsNoDevice(t *testing.T) {
	t.Parallel()
	s := newSiteWorld(t)
	long := strings.Repeat("x", 20_000)
	bodies := []map[string]any{
		{"alert": map[string]any{"title": 1, "body": []int{2}}},
		{"alert": "x", "fcm": map[string]any{"android": map[string]any{"ttl": "soon", "priority": "wild"}}},
		{"alert": "x", "fcm": map[string]any{"data": map[string]any{"from": "me", "google.x": "y"}}},
		{"alert": "x", "fcm": map[string]any{"token": "another", "topic": "all", "condition": "true"}},
		{"alert": "x", "fcm": map[string]any{"apns": map[string]any{"payload": long}, "nosuchfield": true}},
		{"alert": "x", "apns": map[string]any{"push_type": "nosuchtype", "badge": "many", "sound": map[string]any{}}},
		{"alert": "x", "apns": map[string]any{"topic": "org.example.other", "alert": long}},
		{"alert": long},
		{"alert": nil, "extra": map[string]any{"processor": "moodle", "fullmessage": long, "customdata": long}},
		{"alert": "\x00\xff", "badge": -1},
		{"alert": "x", "environment": "sandbox"},
		{"alert": "x", "device": "wns"},
		{"alert": "x", "device": "android-fcm"},
		{"alert": "x", "device": "ios"},
		{"alert": "x", "collapse_key": long},
	}
	for _, p := range s.open {
		for _, body := range bodies {
			all := map[string]any{"device": p.Platform, "token": p.Token}
			maps.Copy(all, body)
			a, err := s.attacker.Do(t.Context(), http.MethodPost, "/api/v2/push/", formLabel, asJSON(t, all))
			if err != nil {
				t.Fatal(err)
			}
			if a.Status >= 500 || a.Status == http.StatusNotFound {
				t.Errorf("%s: %d %s", p.Platform, a.Status, a.Body)
			}
		}
	}
	r := s.settled(t, time.Minute)
	if r.Rejected == 0 {
		t.Errorf("the providers refused none of the bodies: nothing is shown; %+v", r)
	}
	before := s.pushes(t, s.open...)
	for i, p := range s.open {
		a, err := s.victim.Push(t.Context(), p.Token, p.Platform, "still there?")
		if err != nil || a.Status != http.StatusAccepted {
			t.Errorf("the victim's push to phone %d (%s): %d %s, %v", i, p.Platform, a.Status, a.Body, err)
		}
	}
	s.settled(t, time.Minute)
	if _, err := s.victim.Broadcast(t.Context(), "", "and to all"); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "the broadcast reaches the phones that never were shot at", func() bool {
		return slices.Min(s.pushes(t, slices.Concat(s.own, s.claimed)...)) == 1
	})
	s.settled(t, time.Minute)
	after := s.pushes(t, s.open...)
	for i := range after {
		if after[i] != before[i]+2 {
			t.Errorf("phone %d (%s): %d pushes before, %d after the victim's two", i, s.open[i].Platform, before[i], after[i])
		}
	}
	s.u.stop(t)
}
