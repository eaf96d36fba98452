package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/campanile-push/campanile/bench"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// What the raw requests name.
const (
	rawKey  = "31bde27540b03bb221f14a815a690582"
	rawFCM  = "dQw4w9WgXcQ:APA91bF-x_Y8kL2mN3oP4qR5sT6uV7wX8yZ9aB0cD1eF2gH3iJ4kL5mN6oP7qR8sT9uV0wX1yZ2"
	rawAPNs = "0f744707bebcf74f9b7c25d48e3358945f6aa01da5ddb387462c7eaf61bbad78"
	rawDead = "DEAD:APA91bF-dead"
)

// TestRawRequestsAgainstTheBinary replays byte for byte what Moodle and other clients send, each on a TCP connection of its own, and
// follows what was accepted to the providers.
func TestRawRequestsAgainstTheBinary(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	u := w.up(t)
	w.app(t, app)
	hash := sha256.Sum256([]byte(rawKey))
	err := w.open(t).Append(t.Context(), func(out *schemas.Out) {
		out.AccessKeyIssued(&pushv1.AccessKeyIssued{
			App: app, KeyId: hex.EncodeToString(hash[:16]), ValueHash: hash[:], Permissions: allPermissions, IssuedAtUs: time.Now().UnixMicro(),
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	dead := bench.Phone{Token: rawDead, Platform: "Android-fcm"}
	m := u.moodle(app, rawKey)
	if err := m.Register(t.Context(), dead.Token, dead.Platform, "elsewhere"); err != nil {
		t.Fatal(err)
	}
	w.die(t, []bench.Phone{dead})
	eventually(t, time.Minute, "the dead token is known as dead", func() bool {
		a, err := m.Push(t.Context(), dead.Token, dead.Platform, "gone?")
		return err == nil && a.Status == http.StatusNotFound
	})
	before := w.settled(t, time.Minute)

	files, err := filepath.Glob("../../ingest/testdata/replay/*.http")
	if err != nil || len(files) < 19 {
		t.Fatalf("want at least 19 requests, got %d, %v", len(files), err)
	}
	pushed := map[string]int{} // by token, as far as the answers say
	for _, name := range files {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		wanted, err := os.ReadFile(strings.TrimSuffix(name, ".http") + ".want")
		if err != nil {
			t.Fatal(err)
		}
		status, header, body := sendRaw(t, u.info.API, raw)
		code, text, _ := strings.Cut(string(wanted), "\n")
		pattern := "^" + strings.NewReplacer("<key>", "[0-9a-f]{32}", "<page>", "(?s:.+)").Replace(regexp.QuoteMeta(text)) + "$"
		if code != strconv.Itoa(status) || !regexp.MustCompile(pattern).MatchString(body) {
			t.Errorf("%s: want %s %s, got %d %s", filepath.Base(name), code, text, status, body)
		}
		if got := header.Get("Content-Type"); !bytes.HasPrefix(raw, []byte("GET / ")) && got != "application/json; charset=utf-8" {
			t.Errorf("%s: the answer is labelled %q", filepath.Base(name), got)
		}
		asks := bytes.Contains(raw[:bytes.IndexByte(raw, '\n')], []byte("push")) || bytes.HasPrefix(raw, []byte("POST /notification"))
		if asks && status < 300 {
			for _, token := range []string{rawFCM, rawAPNs} {
				if bytes.Contains(raw, []byte(token)) || bytes.Contains(raw, []byte(strings.ReplaceAll(token, ":", "%3A"))) {
					pushed[token]++
				}
			}
		}
	}
	if pushed[rawFCM] != 6 || pushed[rawAPNs] != 1 {
		t.Fatalf("accepted pushes by token: %v", pushed)
	}

	// One more for each phone: the broadcast to the default channel, which both had joined when it was asked for.
	want := before.Accepted + 6 + 1 + 2
	eventually(t, time.Minute, "every accepted push is accounted for", func() bool { return w.reconcile(t).Accepted >= want })
	if r := w.settled(t, time.Minute); r.Accepted != want || r.Delivered != want-before.Invalid {
		t.Errorf("want %d accepted and all but %d delivered, got %+v", want, before.Invalid, r)
	}
	got := w.pushes(t, bench.Phone{Token: rawFCM}, bench.Phone{Token: rawAPNs, Platform: "ios"}, dead)
	if got[0] != 7 || got[1] != 2 || got[2] != 0 {
		t.Errorf("pushes to the Android phone, the iPhone and the dead one: want 7, 2 and 0, got %v", got)
	}
	u.stop(t)
}

// sendRaw writes raw to a connection of its own and reads the answer.
func sendRaw(t *testing.T, url string, raw []byte) (status int, header http.Header, body string) {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.Copy(conn, bytes.NewReader(raw)); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, res.Header, string(text)
}
