package simulator

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func FuzzAPNsRequest(f *testing.F) {
	f.Add("POST", "/3/device/00fc13adff785122b4ad28809a3420982341241421348097878e577c991de8f0", "org.example.app", "alert", "10", "0", "c", "123e4567-e89b-12d3-a456-426655440000", []byte(`{"aps":{}}`))
	f.Add("GET", "/3/device/", "", "voip", "", "-1", "", "x", []byte(nil))
	f.Fuzz(func(t *testing.T, method, path, topic, pushType, priority, expiration, collapse, id string, body []byte) {
		r := apnsRequest{
			method: method, path: path, topic: topic, pushType: pushType, priority: priority, expiration: expiration,
			collapseID: collapse, id: id, body: body,
		}
		r.knownID, r.hasID = parseUUID(r.id)
		p, reason := checkAPNS(&r)
		if reason != "" {
			if apnsStatus[reason] == 0 {
				t.Fatalf("%q is none of Apple's reasons", reason)
			}
			return
		}
		if method != "POST" || topic == "" || len(body) == 0 || len(body) > maxVoIPPayload || !json.Valid(body) || len(collapse) > maxCollapseID {
			t.Fatalf("accepted %+v", r)
		}
		if !strings.EqualFold(path, devicePath+p.token) || p.hasID != (id != "") || p.expiration < -1 {
			t.Fatalf("read %+v as %+v", r, p)
		}
		if p.hasID && string(appendUUID(nil, p.id)) != id {
			t.Fatalf("the id %q became %q", id, appendUUID(nil, p.id))
		}
	})
}

func FuzzFCMRequest(f *testing.F) {
	f.Add([]byte(`{"message":{"token":"a","data":{"campanile_id":"x"},"android":{"ttl":"1s","priority":"HIGH"}}}`), "")
	f.Add([]byte(`{"validateOnly":true,"message":{"topic":"t","fcmOptions":{"analyticsLabel":"l"}}}`), "id")
	f.Add([]byte(`{"message":{"token":"a","apns":{"payload":{"aps":[1,{"x":null}]}}}}`), "")
	f.Fuzz(func(t *testing.T, body []byte, id string) {
		p, problem := checkFCM(body, id)
		if problem == nil {
			if p.target == "" || !json.Valid(body) || id != "" && p.id != id {
				t.Fatalf("accepted %q as %+v", body, p)
			}
			return
		}
		if _, known := fcmErrors[problem.reason]; !known {
			t.Fatalf("%q is no reason", problem.reason)
		}
		if answer := appendFCMBody(nil, problem.reason, problem.message, problem.field); !json.Valid(answer) {
			t.Fatalf("the answer is no JSON: %s", answer)
		}
	})
}

func FuzzJWT(f *testing.F) {
	f.Add([]byte("eyJhbGciOiJFUzI1NiIsImtpZCI6IkEifQ.eyJpc3MiOiJUIiwiaWF0IjoxfQ.AAAA"))
	f.Add([]byte(".."))
	f.Add([]byte("e30.eyJpYXQiOjFlMzA4fQ."))
	ca, _, err := newAuthority()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		token, err := parseJWT(text)
		if err == nil {
			if token.es256(&ca.key.PublicKey) {
				t.Fatalf("%q carries the signature of a key that never signed", text)
			}
			_, _ = token.claims.issuedAt(), token.claims.expires()
		}
		auth := apnsAuth{}
		reason := auth.check("bearer "+string(text), Production, time.Unix(1, 0), apnsTimes{time.Hour, time.Hour}, func(string) *APNSKey {
			return &APNSKey{TeamID: "T", private: ca.key}
		})
		if apnsStatus[reason] != 403 {
			t.Fatalf("%q was answered with %q", text, reason)
		}
		if checkAccess([]byte("secret"), "Bearer "+accessPrefix+string(text), "p", time.Unix(1, 0)) == "" {
			t.Fatalf("%q is an access token", text)
		}
	})
}

func FuzzLedgerFile(f *testing.F) {
	whole := ledgerHeader()
	r := record{app: 1, service: serviceFCM, timeUS: 5, token: 6, id: [16]byte{7}, body: 8, unanswered: true}
	whole = r.append(r.append(whole))
	f.Add(whole)
	f.Add(whole[:len(whole)-5])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, text []byte) {
		n := 0
		size, damaged, err := readRecords(bytes.NewReader(text), func(r *record) {
			n++
			if again, ok := parseRecord(r.append(nil)); !ok || again != *r {
				t.Fatalf("%+v became %+v", *r, again)
			}
		})
		if err != nil {
			return
		}
		if size > int64(len(text)) || size%recordSize != 0 || size > 0 && size != int64(1+n+damaged)*recordSize {
			t.Fatalf("%d bytes, %d records, %d damaged: size %d", len(text), n, damaged, size)
		}
	})
}

func FuzzScenario(f *testing.F) {
	f.Add([]byte("mix: {dead: 0.1}\nrules: [{reason: dead, for: 1s}]\nlatency: uniform:1ms,2ms"))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := ParseScenario(text)
		if err != nil {
			return
		}
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var again Scenario
		if err := json.Unmarshal(b, &again); err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		if err := again.Validate(); err != nil && utf8.Valid(text) {
			t.Fatalf("a valid scenario is not valid in its JSON form %s: %v", b, err)
		}
	})
}

func FuzzMarker(f *testing.F) {
	f.Add("0badcafe041003")
	f.Add("sim:dead*3:x")
	f.Add("sim:dead*-3:x")
	f.Fuzz(func(t *testing.T, token string) {
		for _, p := range []Provider{APNS, FCM} {
			v, ok := marked(&Push{Provider: p, Token: token})
			if !ok {
				continue
			}
			if _, known := reasonAt(p, v.reason); !known || v.times < 0 {
				t.Fatalf("%s %q: %+v", p, token, v)
			}
		}
	})
}
