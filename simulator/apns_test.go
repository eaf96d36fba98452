package simulator_test

import (
	"bytes"
	"crypto/tls"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/campanile-push/campanile/simulator"
)

func TestAPNsAnswersEachWrongRequestWithItsReason(t *testing.T) {
	t.Parallel()
	r := setup(t, with(simulator.Scenario{APNS: simulator.APNSScenario{Topics: []string{topic}}}))
	path := func(p string) func(req *http.Request) { return func(req *http.Request) { req.URL.Path = p } }
	without := func(name string) func(req *http.Request) { return func(req *http.Request) { req.Header.Del(name) } }
	typed := func(pushType, suffix string) func(req *http.Request) {
		return func(req *http.Request) {
			req.Header.Set("Apns-Push-Type", pushType)
			req.Header.Set("Apns-Topic", topic+suffix)
		}
	}
	sized := func(n int) func(req *http.Request) {
		return setBody([]byte(`{"aps":"` + strings.Repeat("x", n-10) + `"}`))
	}
	both := func(a, b func(req *http.Request)) func(req *http.Request) {
		return func(req *http.Request) { a(req); b(req) }
	}
	for _, c := range []struct {
		name   string
		token  string
		change func(req *http.Request)
		status int
		reason string
	}{
		{"a plain alert", goodHex, newID(), 200, ""},
		{"upper-case token", strings.ToUpper(goodHex), newID(), 200, ""},
		{"no push type", goodHex, without("Apns-Push-Type"), 200, ""},
		{"another method", goodHex, func(req *http.Request) { req.Method = http.MethodPut }, 405, "MethodNotAllowed"},
		{"another path", goodHex, path("/2/device/" + goodHex), 404, "BadPath"},
		{"a path too long", goodHex, path("/3/device/" + goodHex + "/x"), 404, "BadPath"},
		{"no token", "", path("/3/device/"), 400, "MissingDeviceToken"},
		{"no token, no slash", "", path("/3/device"), 400, "MissingDeviceToken"},
		{"token of no hex", "zz" + goodHex[2:], newID(), 400, "BadDeviceToken"},
		{"token of odd length", goodHex[1:], newID(), 400, "BadDeviceToken"},
		{"token too short", "00ff", newID(), 400, "BadDeviceToken"},
		{"token too long", strings.Repeat("00", 101), newID(), 400, "BadDeviceToken"},
		{"no topic", goodHex, without("Apns-Topic"), 400, "MissingTopic"},
		{"topic with a space", goodHex, setHeader("Apns-Topic", "a b"), 400, "BadTopic"},
		{"topic of nobody", goodHex, setHeader("Apns-Topic", "org.example.other"), 400, "TopicDisallowed"},
		{"unknown push type", goodHex, setHeader("Apns-Push-Type", "shout"), 400, "InvalidPushType"},
		{"voip without its suffix", goodHex, typed("voip", ""), 400, "BadTopic"},
		{"voip", goodHex, typed("voip", ".voip"), 200, ""},
		{"complication", goodHex, typed("complication", ".complication"), 200, ""},
		{"file provider", goodHex, typed("fileprovider", ".pushkit.fileprovider"), 200, ""},
		{"location", goodHex, typed("location", ".location-query"), 200, ""},
		{"live activity", goodHex, typed("liveactivity", ".push-type.liveactivity"), 200, ""},
		{"live activity without its suffix", goodHex, typed("liveactivity", ""), 400, "BadTopic"},
		{"push to talk", goodHex, typed("pushtotalk", ".voip-ptt"), 200, ""},
		{"widgets", goodHex, typed("widgets", ".push-type.widgets"), 200, ""},
		{"controls", goodHex, typed("controls", ".push-type.controls"), 200, ""},
		{"mdm", goodHex, typed("mdm", ""), 200, ""},
		{"background at 5", goodHex, both(typed("background", ""), setHeader("Apns-Priority", "5")), 200, ""},
		{"background at 10", goodHex, both(typed("background", ""), setHeader("Apns-Priority", "10")), 400, "BadPriority"},
		{"priority 1", goodHex, setHeader("Apns-Priority", "1"), 200, ""},
		{"priority 7", goodHex, setHeader("Apns-Priority", "7"), 400, "BadPriority"},
		{"expiration 0", goodHex, setHeader("Apns-Expiration", "0"), 200, ""},
		{"expiration of words", goodHex, setHeader("Apns-Expiration", "soon"), 400, "BadExpirationDate"},
		{"expiration below 0", goodHex, setHeader("Apns-Expiration", "-1"), 400, "BadExpirationDate"},
		{"expiration with a fraction", goodHex, setHeader("Apns-Expiration", "1.5"), 400, "BadExpirationDate"},
		{"collapse id of 64 bytes", goodHex, setHeader("Apns-Collapse-Id", strings.Repeat("c", 64)), 200, ""},
		{"collapse id of 65 bytes", goodHex, setHeader("Apns-Collapse-Id", strings.Repeat("c", 65)), 400, "BadCollapseId"},
		{"collapse id of 33 letters and 66 bytes", goodHex, setHeader("Apns-Collapse-Id", strings.Repeat("é", 33)), 400, "BadCollapseId"},
		{"id of no UUID", goodHex, setHeader("Apns-Id", "42"), 400, "BadMessageId"},
		{"id in capitals", goodHex, setHeader("Apns-Id", strings.ToUpper(goodID)), 400, "BadMessageId"},
		{"a header twice", goodHex, func(req *http.Request) { req.Header["Apns-Priority"] = []string{"5", "5"} }, 400, "DuplicateHeaders"},
		{"no payload", goodHex, setBody(nil), 400, "PayloadEmpty"},
		{"payload of no JSON", goodHex, setBody([]byte("{hi}")), 400, "PayloadEmpty"},
		{"payload of 4096 bytes", goodHex, sized(4096), 200, ""},
		{"payload of 4097 bytes", goodHex, sized(4097), 413, "PayloadTooLarge"},
		{"voip payload of 5120 bytes", goodHex, both(typed("voip", ".voip"), sized(5120)), 200, ""},
		{"voip payload of 5121 bytes", goodHex, both(typed("voip", ".voip"), sized(5121)), 413, "PayloadTooLarge"},
		{"a megabyte of payload", goodHex, setBody(bytes.Repeat([]byte{'x'}, 1<<20)), 413, "PayloadTooLarge"},
		{"no authorization", goodHex, without("Authorization"), 403, "MissingProviderToken"},
		{"authorization of another scheme", goodHex, setHeader("Authorization", "basic eDp5"), 403, "InvalidProviderToken"},
		{"authorization of no JWT", goodHex, setHeader("Authorization", "bearer x.y"), 403, "InvalidProviderToken"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got := r.push(c.token, c.change)
			if got.status != c.status || got.reason != c.reason {
				t.Fatalf("want %d %s, got %d %s", c.status, c.reason, got.status, got.body)
			}
			if c.status == 200 && got.body != "" {
				t.Errorf("want no body, got %q", got.body)
			}
			if want := `{"reason":"` + c.reason + `"}`; c.status != 200 && got.body != want {
				t.Errorf("want %s, got %s", want, got.body)
			}
			if id := got.header.Get("Apns-Id"); len(id) != 36 {
				t.Errorf("want an apns-id, got %q", id)
			}
		})
	}
}

func TestAPNsEchoesTheID(t *testing.T) {
	t.Parallel()
	r := setup(t)
	got := r.push(goodHex, setHeader("Apns-Id", goodID))
	if got.header.Get("Apns-Id") != goodID || got.header.Get("Apns-Unique-Id") != "" {
		t.Fatalf("want %s and no unique id, got %v", goodID, got.header)
	}
	sandbox, err := r.tryPush(r.apns, r.SandboxURL(), goodHex)
	if err != nil || sandbox.status != 200 || sandbox.header.Get("Apns-Unique-Id") == "" {
		t.Fatalf("want a unique id in the sandbox, got %+v, %v", sandbox, err)
	}
	if s := r.Ledger().Summary(); len(s.Apps) != 2 || s.Apps[0].Environment != simulator.Production || s.Apps[1].Environment != simulator.Sandbox {
		t.Fatalf("want one push in each environment, got %+v", s.Apps)
	}
}

func TestAPNsTrustsOnlyWhatItsKeysSigned(t *testing.T) {
	t.Parallel()
	r := setup(t)
	now := time.Now()
	key := r.APNSKey()
	another := setup(t).APNSKey()
	sign := func(method jwt.SigningMethod, secret any, kid string, claims jwt.MapClaims) string {
		token := jwt.NewWithClaims(method, claims)
		token.Header["kid"] = kid
		s, err := token.SignedString(secret)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	private, err := jwt.ParseECPrivateKeyFromPEM([]byte(key.P8))
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := jwt.ParseECPrivateKeyFromPEM([]byte(another.P8))
	if err != nil {
		t.Fatal(err)
	}
	claims := func(iat any) jwt.MapClaims { return jwt.MapClaims{"iss": key.TeamID, "iat": iat} }
	good := providerToken(t, key, now)
	sandboxKey, err := r.NewAPNSKey(simulator.APNSKey{TeamID: key.TeamID, Environment: simulator.Sandbox})
	if err != nil {
		t.Fatal(err)
	}
	topicKey, err := r.NewAPNSKey(simulator.APNSKey{TeamID: key.TeamID, Topics: []string{"org.example.other"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, token, reason string
	}{
		{"good", good, ""},
		{"55 minutes old", providerToken(t, key, now.Add(-55*time.Minute)), ""},
		{"61 minutes old", providerToken(t, key, now.Add(-61*time.Minute)), "ExpiredProviderToken"},
		{"from the future", providerToken(t, key, now.Add(10*time.Minute)), "InvalidProviderToken"},
		{"without iat", sign(jwt.SigningMethodES256, private, key.KeyID, jwt.MapClaims{"iss": key.TeamID}), "InvalidProviderToken"},
		{"absurd iat", sign(jwt.SigningMethodES256, private, key.KeyID, claims(1e300)), "ExpiredProviderToken"},
		{"unknown key id", sign(jwt.SigningMethodES256, private, "ABCDE12345", claims(now.Unix())), "InvalidProviderToken"},
		{"another team", sign(jwt.SigningMethodES256, private, key.KeyID, jwt.MapClaims{"iss": "TEAMTEAM12", "iat": now.Unix()}), "InvalidProviderToken"},
		{"a stranger's signature", sign(jwt.SigningMethodES256, stranger, key.KeyID, claims(now.Unix())), "InvalidProviderToken"},
		{"HMAC with the public words", sign(jwt.SigningMethodHS256, []byte(key.KeyID), key.KeyID, claims(now.Unix())), "InvalidProviderToken"},
		{"unsigned", sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, key.KeyID, claims(now.Unix())), "InvalidProviderToken"},
		{"signature cut", good[:len(good)-4], "InvalidProviderToken"},
		{"key of the other environment", providerToken(t, sandboxKey, now), "BadEnvironmentKeyInToken"},
		{"key of another topic", providerToken(t, topicKey, now), "TopicDisallowed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := r.tryPush(r.client(), r.APNSURL(), goodHex, setHeader("Authorization", "bearer "+c.token))
			if err != nil || got.reason != c.reason {
				t.Fatalf("want %q, got %d %q, %v", c.reason, got.status, got.body, err)
			}
		})
	}
}

func TestAPNsBindsAConnectionToATeamAndAKey(t *testing.T) {
	t.Parallel()
	r := setup(t)
	now := time.Now()
	first := r.APNSKey()
	sister, err := r.NewAPNSKey(simulator.APNSKey{TeamID: first.TeamID})
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := r.NewAPNSKey(simulator.APNSKey{TeamID: "OTHERTEAM1"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, first, second, reason string }{
		{"the same token", r.bearer[7:], r.bearer[7:], ""},
		{"another key", providerToken(t, first, now), providerToken(t, sister, now), "UnrelatedKeyIdInToken"},
		{"another team", providerToken(t, first, now), providerToken(t, foreign, now), "InvalidProviderToken"},
		{"a new token at once", providerToken(t, first, now), providerToken(t, first, now.Add(-time.Minute)), "TooManyProviderTokenUpdates"},
		{"a new token after 21 minutes", providerToken(t, first, now.Add(-21*time.Minute)), providerToken(t, first, now), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			client := r.client()
			for i, step := range []struct{ token, reason string }{{c.first, ""}, {c.second, c.reason}, {c.first, ""}} {
				if i == 2 && c.reason == "" {
					break
				}
				got, err := r.tryPush(client, r.APNSURL(), goodHex, setHeader("Authorization", "bearer "+step.token))
				if err != nil || got.reason != step.reason {
					t.Fatalf("step %d: want %q, got %d %q, %v", i, step.reason, got.status, got.body, err)
				}
			}
		})
	}
}

func TestAPNsTakesACertificateForItsBundleOnly(t *testing.T) {
	t.Parallel()
	r := setup(t)
	client := func(owner *rig) *http.Client {
		certificate, key, err := owner.APNSCertificate(topic)
		if err != nil {
			t.Fatal(err)
		}
		pair, err := tls.X509KeyPair(certificate, key)
		if err != nil {
			t.Fatal(err)
		}
		return r.clientWith(&tls.Config{
			RootCAs: r.RootCAs(), MinVersion: tls.VersionTLS12,
			// A certificate of another authority is sent all the same, as a client with the wrong file would.
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil },
		})
	}
	ours, theirs := client(r), client(setup(t))
	for _, c := range []struct {
		name   string
		client *http.Client
		topic  string
		reason string
	}{
		{"its bundle", ours, topic, ""},
		{"no topic", ours, "", ""},
		{"another bundle", ours, "org.example.other", "TopicDisallowed"},
		{"another authority", theirs, topic, "BadCertificate"},
	} {
		got, err := r.tryPush(c.client, r.APNSURL(), goodHex, func(req *http.Request) {
			req.Header.Del("Authorization")
			req.Header.Del("Apns-Topic")
			if c.topic != "" {
				req.Header.Set("Apns-Topic", c.topic)
			}
		})
		if err != nil || got.reason != c.reason {
			t.Errorf("%s: want %q, got %d %q, %v", c.name, c.reason, got.status, got.body, err)
		}
	}
}

func TestAPNsRefusesHTTP1(t *testing.T) {
	t.Parallel()
	r := setup(t)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: r.RootCAs(), MinVersion: tls.VersionTLS12}}
	t.Cleanup(transport.CloseIdleConnections)
	got, err := r.tryPush(&http.Client{Transport: transport}, r.APNSURL(), goodHex)
	if err == nil && got.status != http.StatusHTTPVersionNotSupported {
		t.Fatalf("want no HTTP/1.1, got %+v", got)
	}
	if s := r.Ledger().Summary(); s.Accepted != 0 {
		t.Fatalf("want an empty ledger, got %+v", s)
	}
}
