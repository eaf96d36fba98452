package simulator_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/campanile-push/campanile/simulator"
)

func TestFCMAnswersEachWrongMessageWithItsError(t *testing.T) {
	t.Parallel()
	r := setup(t)
	big := strings.Repeat("x", 4096)
	msg := func(rest string) string { return `{"message":{"token":"` + fcmToken + `"` + rest + `}}` }
	for _, c := range []struct {
		name, body string
		status     int
		reason     string
		field      string // of the BadRequest detail
	}{
		{"token alone", msg(""), 200, "", ""},
		{"everything", msg(`,"notification":{"title":"a","body":"b","image":"https://x/y"},"data":{"k":"v"},"fcm_options":{"analytics_label":"l"},
			"android":{"collapse_key":"c","priority":"high","ttl":"3600s","restricted_package_name":"p","data":{"k":"v"},"direct_boot_ok":true,"notification":{"channel_id":"c","sound":"default","notification_count":3,"sticky":true,"title_loc_args":["x"],"vibrate_timings":["0.5s"],"visibility":"PUBLIC"}},
			"apns":{"headers":{"apns-priority":"10"},"payload":{"aps":{"badge":1}}},"webpush":{"headers":{"TTL":"1"},"notification":{"title":"x"}}`), 200, "", ""},
		{"lowerCamelCase", msg(`,"android":{"collapseKey":"c","notification":{"channelId":"c"}},"fcmOptions":{"analyticsLabel":"l"}`), 200, "", ""},
		{"null is the default", msg(`,"notification":null`), 200, "", ""},
		{"topic", `{"message":{"topic":"news"}}`, 200, "", ""},
		{"condition", `{"message":{"condition":"'a' in topics && 'b' in topics"}}`, 200, "", ""},
		{"no JSON", `{"message":`, 400, "INVALID_ARGUMENT", ""},
		{"two JSON texts", msg("") + "{}", 400, "INVALID_ARGUMENT", ""},
		{"a list", `[]`, 400, "INVALID_ARGUMENT", ""},
		{"no message", `{}`, 400, "INVALID_ARGUMENT", "message"},
		{"unknown field of the request", `{"messages":{}}`, 400, "INVALID_ARGUMENT", ""},
		{"unknown field of the message", msg(`,"sound":"x"`), 400, "INVALID_ARGUMENT", "message"},
		{"unknown field of android", msg(`,"android":{"sound":"x"}`), 400, "INVALID_ARGUMENT", "message.android"},
		{"no target", `{"message":{"data":{}}}`, 400, "INVALID_ARGUMENT", "message"},
		{"empty token", `{"message":{"token":""}}`, 400, "INVALID_ARGUMENT", "message"},
		{"two targets", msg(`,"topic":"news"`), 400, "INVALID_ARGUMENT", "message"},
		{"topic with a space", `{"message":{"topic":"a b"}}`, 400, "INVALID_ARGUMENT", "message.topic"},
		{"token of no token", `{"message":{"token":"a b"}}`, 400, "INVALID_ARGUMENT", "message.token"},
		{"token of a number", `{"message":{"token":1}}`, 400, "INVALID_ARGUMENT", "message.token"},
		{"data of a number", msg(`,"data":{"k":1}`), 400, "INVALID_ARGUMENT", "message.data[0].value"},
		{"data of a bool", msg(`,"data":{"a":"x","k":true}`), 400, "INVALID_ARGUMENT", "message.data[1].value"},
		{"data of null", msg(`,"data":{"k":null}`), 400, "INVALID_ARGUMENT", "message.data[0].value"},
		{"data of a list", msg(`,"data":[]`), 400, "INVALID_ARGUMENT", "message.data"},
		{"reserved key from", msg(`,"data":{"from":"x"}`), 400, "INVALID_ARGUMENT", "message.data"},
		{"reserved key google.", msg(`,"android":{"data":{"google.x":"x"}}`), 400, "INVALID_ARGUMENT", "message.android.data"},
		{"ttl of a number", msg(`,"android":{"ttl":3600}`), 400, "INVALID_ARGUMENT", "message.android.ttl"},
		{"ttl without a unit", msg(`,"android":{"ttl":"3600"}`), 400, "INVALID_ARGUMENT", "message.android.ttl"},
		{"ttl below 0", msg(`,"android":{"ttl":"-1s"}`), 400, "INVALID_ARGUMENT", "message.android.ttl"},
		{"ttl of 28 days", msg(`,"android":{"ttl":"2419200s"}`), 200, "", ""},
		{"ttl beyond 28 days", msg(`,"android":{"ttl":"2419201s"}`), 400, "INVALID_ARGUMENT", "message.android.ttl"},
		{"priority of no kind", msg(`,"android":{"priority":"urgent"}`), 400, "INVALID_ARGUMENT", "message.android.priority"},
		{"label with a space", msg(`,"fcm_options":{"analytics_label":"a b"}`), 400, "INVALID_ARGUMENT", "message.fcm_options.analytics_label"},
		{"4096 bytes of data", msg(`,"data":{"k":"` + big[1:] + `"}`), 200, "", ""},
		{"4097 bytes of data", msg(`,"data":{"k":"` + big + `"}`), 400, "INVALID_ARGUMENT", "message"},
		{"2049 bytes to a topic", `{"message":{"topic":"news","data":{"k":"` + big[:2048] + `"}}}`, 400, "INVALID_ARGUMENT", "message"},
		{"APNs payload too big", msg(`,"apns":{"payload":{"k":"` + big + `"}}`), 400, "INVALID_ARGUMENT", "message.apns.payload"},
		{"a body too big", msg(`,"data":{"k":"` + strings.Repeat("x", 70<<10) + `"}`), 400, "INVALID_ARGUMENT", ""},
		{"too deep", msg(`,"webpush":{"notification":` + strings.Repeat(`{"a":`, 100) + `1` + strings.Repeat(`}`, 100) + `}`), 400, "INVALID_ARGUMENT", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got := r.send(c.body)
			if got.status != c.status || got.reason != c.reason {
				t.Fatalf("want %d %s, got %d %s", c.status, c.reason, got.status, got.body)
			}
			if field := fieldOf(t, got.body); field != c.field {
				t.Errorf("want the field %q, got %s", c.field, got.body)
			}
			if c.status == 200 && !strings.Contains(got.body, `"name": "projects/`+simulator.DefaultProject+`/messages/`) {
				t.Errorf("want a name, got %s", got.body)
			}
		})
	}
}

func fieldOf(t *testing.T, body string) string {
	t.Helper()
	var e struct {
		Error struct {
			Details []struct {
				FieldViolations []struct{ Field string } `json:"fieldViolations"`
			}
		}
	}
	if err := json.Unmarshal([]byte(body), &e); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	for _, d := range e.Error.Details {
		for _, v := range d.FieldViolations {
			return v.Field
		}
	}
	return ""
}

func TestFCMWordsItsErrorsAsGoogleDoes(t *testing.T) {
	t.Parallel()
	r := setup(t)
	got := r.send(messageTo("sim:dead:x", goodID))
	want := `{
  "error": {
    "code": 404,
    "message": "Requested entity was not found.",
    "status": "NOT_FOUND",
    "details": [
      {
        "@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError",
        "errorCode": "UNREGISTERED"
      }
    ]
  }
}
`
	if got.status != 404 || got.body != want {
		t.Fatalf("want %s, got %s", want, got.body)
	}
	for _, c := range []struct {
		reason string
		status int
		code   string
	}{
		{"SENDER_ID_MISMATCH", 403, "SENDER_ID_MISMATCH"},
		{"QUOTA_EXCEEDED", 429, "QUOTA_EXCEEDED"},
		{"UNAVAILABLE", 503, "UNAVAILABLE"},
		{"INTERNAL", 500, "INTERNAL"},
		{"THIRD_PARTY_AUTH_ERROR", 401, "THIRD_PARTY_AUTH_ERROR"},
		{"INVALID_TOKEN", 400, "INVALID_ARGUMENT"},
		{"UNAUTHENTICATED", 401, "UNAUTHENTICATED"},
		{"NOT_FOUND", 404, "NOT_FOUND"},
		{"BAD_GATEWAY", 502, ""},
		{"GATEWAY_TIMEOUT", 504, ""},
	} {
		got := r.send(messageTo("sim:"+c.reason+":x", goodID))
		if got.status != c.status || got.reason != c.code {
			t.Errorf("%s: want %d %s, got %d %s", c.reason, c.status, c.code, got.status, got.body)
		}
		if html := strings.HasPrefix(got.header.Get("Content-Type"), "text/html"); html != (c.code == "") {
			t.Errorf("%s: content type %q", c.reason, got.header.Get("Content-Type"))
		}
	}
}

func TestFCMValidateOnlySendsNothing(t *testing.T) {
	t.Parallel()
	r := setup(t)
	got := r.send(`{"validate_only":true,"message":{"token":"` + fcmToken + `"}}`)
	if got.status != 200 || !strings.Contains(got.body, "fake_message_id") {
		t.Fatalf("want a fake name, got %d %s", got.status, got.body)
	}
	if s := r.Ledger().Summary(); s.Accepted != 0 {
		t.Fatalf("want an empty ledger, got %+v", s)
	}
}

func TestFCMSpeaksHTTP1(t *testing.T) {
	t.Parallel()
	r := setup(t)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: r.RootCAs(), MinVersion: tls.VersionTLS12}}
	t.Cleanup(transport.CloseIdleConnections)
	got, err := r.trySend(&http.Client{Transport: transport}, messageTo(fcmToken, goodID))
	if err != nil || got.status != 200 {
		t.Fatalf("want 200, got %+v, %v", got, err)
	}
}

func TestFCMTrustsOnlyItsAccessTokens(t *testing.T) {
	t.Parallel()
	r := setup(t)
	good, other := r.accessToken(simulator.DefaultProject), r.accessToken("another-project")
	for _, c := range []struct {
		name, header string
		status       int
	}{
		{"good", "Bearer " + good, 200},
		{"none", "", 401},
		{"another scheme", "Basic " + good, 401},
		{"made up", "Bearer ya29.x", 401},
		{"changed", "Bearer " + good[:len(good)-2] + "xx", 401},
		{"another project's", "Bearer " + other, 403},
	} {
		got := r.send(messageTo(fcmToken, goodID), setHeader("Authorization", c.header))
		if got.status != c.status {
			t.Errorf("%s: want %d, got %d %s", c.name, c.status, got.status, got.body)
		}
		if got.status == 401 && (got.reason != "UNAUTHENTICATED" || strings.Contains(got.body, "FcmError")) {
			t.Errorf("%s: want a 401 without FcmError, got %s", c.name, got.body)
		}
	}
	got := r.send(messageTo(fcmToken, goodID), func(req *http.Request) { req.URL.Path = "/v1/projects/x/messages:batchSend" })
	if got.status != 404 || got.reason != "" {
		t.Errorf("want a plain 404 for another method, got %d %s", got.status, got.body)
	}
}

func TestFCMAccessTokensEnd(t *testing.T) {
	t.Parallel()
	r := setup(t, with(simulator.Scenario{FCM: simulator.FCMScenario{TokenLifetime: 1}}))
	if got := r.send(messageTo(fcmToken, goodID)); got.status != 401 {
		t.Fatalf("want 401 for a token that has ended, got %d %s", got.status, got.body)
	}
}

func TestFCMTokenEndpointRefusesWhatIsForged(t *testing.T) {
	t.Parallel()
	r := setup(t)
	account, err := r.ServiceAccount(simulator.DefaultProject)
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Email    string `json:"client_email"`
		Key      string `json:"private_key"`
		TokenURI string `json:"token_uri"`
	}
	if err := json.Unmarshal(account, &file); err != nil {
		t.Fatal(err)
	}
	key, err := jwt.ParseRSAPrivateKeyFromPEM([]byte(file.Key))
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	const grant = "urn:ietf:params:oauth:grant-type:jwt-bearer"
	now := time.Now()
	claims := func(change func(c jwt.MapClaims)) jwt.MapClaims {
		c := jwt.MapClaims{
			"iss": file.Email, "aud": file.TokenURI, "scope": "https://www.googleapis.com/auth/firebase.messaging",
			"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
		}
		if change != nil {
			change(c)
		}
		return c
	}
	set := func(name string, v any) func(c jwt.MapClaims) { return func(c jwt.MapClaims) { c[name] = v } }
	for _, c := range []struct {
		name, grant string
		method      jwt.SigningMethod
		key         any
		claims      jwt.MapClaims
		problem     string
	}{
		{"good", grant, jwt.SigningMethodRS256, key, claims(nil), ""},
		{"several scopes", grant, jwt.SigningMethodRS256, key, claims(set("scope", "https://www.googleapis.com/auth/cloud-platform x")), ""},
		{"another grant", "password", jwt.SigningMethodRS256, key, claims(nil), "unsupported_grant_type"},
		{"a stranger's signature", grant, jwt.SigningMethodRS256, stranger, claims(nil), "invalid_grant"},
		{"unsigned", grant, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, claims(nil), "invalid_grant"},
		{"HMAC with the public words", grant, jwt.SigningMethodHS256, []byte(file.Email), claims(nil), "invalid_grant"},
		{"Google's audience", grant, jwt.SigningMethodRS256, key, claims(set("aud", "https://oauth2.googleapis.com/token")), "invalid_grant"},
		{"another scope", grant, jwt.SigningMethodRS256, key, claims(set("scope", "openid")), "invalid_scope"},
		{"another issuer", grant, jwt.SigningMethodRS256, key, claims(set("iss", "me@example.org")), "invalid_grant"},
		{"ended", grant, jwt.SigningMethodRS256, key, claims(set("exp", now.Add(-time.Second).Unix())), "invalid_grant"},
		{"two hours long", grant, jwt.SigningMethodRS256, key, claims(set("exp", now.Add(2*time.Hour).Unix())), "invalid_grant"},
		{"from the future", grant, jwt.SigningMethodRS256, key, claims(set("iat", now.Add(10*time.Minute).Unix())), "invalid_grant"},
		{"without times", grant, jwt.SigningMethodRS256, key, claims(func(c jwt.MapClaims) { delete(c, "iat"); delete(c, "exp") }), "invalid_grant"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			signed, err := jwt.NewWithClaims(c.method, c.claims).SignedString(c.key)
			if err != nil {
				t.Fatal(err)
			}
			form := url.Values{"grant_type": {c.grant}, "assertion": {signed}}
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, file.TokenURI, strings.NewReader(form.Encode()))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			got, err := r.do(r.fcm, req)
			if err != nil {
				t.Fatal(err)
			}
			var answer struct {
				Error     string
				ExpiresIn int    `json:"expires_in"`
				Type      string `json:"token_type"`
			}
			if err := json.Unmarshal([]byte(got.body), &answer); err != nil {
				t.Fatal(err)
			}
			if answer.Error != c.problem || (got.status == 200) != (c.problem == "") {
				t.Fatalf("want %q, got %d %s", c.problem, got.status, got.body)
			}
			if c.problem == "" && (answer.Type != "Bearer" || answer.ExpiresIn != 3599) {
				t.Errorf("want a bearer for 3599 s, got %s", got.body)
			}
		})
	}
}

func TestFCMQuotaCountsRefusalsToo(t *testing.T) {
	t.Parallel()
	r := setup(t, with(simulator.Scenario{FCM: simulator.FCMScenario{QuotaPerMinute: 3}}))
	for i, want := range []int{200, 404, 400, 429, 429} {
		body := []string{messageTo(fcmToken, goodID), messageTo("sim:dead:x", goodID), `{}`, messageTo(fcmToken, goodID), messageTo(fcmToken, goodID)}[i]
		got := r.send(body)
		if got.status != want {
			t.Fatalf("request %d: want %d, got %d %s", i, want, got.status, got.body)
		}
		if want == 429 && got.header.Get("Retry-After") == "" {
			t.Errorf("request %d: want Retry-After", i)
		}
	}
}

func TestFCMNamesAPushByWhatTheSenderGave(t *testing.T) {
	t.Parallel()
	r := setup(t)
	body := func(label, data string) string {
		return `{"message":{"token":"` + fcmToken + `","fcm_options":{"analytics_label":"` + label + `"},"data":{` + data + `}}}`
	}
	const second, third = "223e4567-e89b-12d3-a456-426655440000", "323e4567-e89b-12d3-a456-426655440000"
	r.send(body(third, `"campanile_id":"`+second+`"`), setHeader(simulator.SendIDHeader, goodID))
	r.send(body(third, `"campanile_id":"`+second+`"`))
	r.send(body(third, ""))
	noID := func(ttl string) string {
		return `{"message":{"token":"` + fcmToken + `","android":{"ttl":"` + ttl + `"}}}`
	}
	r.send(noID("3600s"))
	r.send(noID("3599s"))
	pushes := r.Pushes(simulator.PushFilter{Provider: simulator.FCM})
	if len(pushes) != 5 {
		t.Fatalf("want 5 pushes, got %d", len(pushes))
	}
	for i, want := range []string{goodID, second, third} {
		if pushes[i].ID != want {
			t.Errorf("push %d: want %s, got %s", i, want, pushes[i].ID)
		}
	}
	if pushes[3].ID != pushes[4].ID || pushes[3].ID == third {
		t.Errorf("want the message's hash twice, whatever its ttl, got %s and %s", pushes[3].ID, pushes[4].ID)
	}
	if s := r.Ledger().Summary(); s.Accepted != 5 || s.Unique != 4 || s.Repeats != 1 || s.Tokens != 1 {
		t.Errorf("want 5 accepted, 4 unique, 1 repeat, 1 token, got %+v", s)
	}
}
