package ingest_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// TestRawRequestsAreAnsweredAsTheContractSays sends the bytes that Moodle and the other clients send, in the order of the files' names,
// each over a connection of its own as Moodle does.
func TestRawRequestsAreAnsweredAsTheContractSays(t *testing.T) {
	t.Parallel()
	h := setup(t, 1, nil)
	dead := fcmDevice("DEAD:APA91bF-dead")
	h.want(h.post(keyAll, "/tokens/"+dead.Token+"?device=Android-fcm", ""), 200, `{"status": "ok"}`)
	states, err := h.store.Lookup(t.Context(), []schemas.Device{dead}, nil)
	if err != nil {
		t.Fatal(err)
	}
	h.invalidate(dead, states[0].RegisteredAtUS)

	files, err := filepath.Glob("testdata/replay/*.http")
	if err != nil || len(files) < 19 {
		t.Fatalf("want at least 19 requests, got %d, %v", len(files), err)
	}
	for _, name := range files {
		status, body := replay(t, h.doors[0].url, name)
		wanted, err := os.ReadFile(strings.TrimSuffix(name, ".http") + ".want")
		if err != nil {
			t.Fatal(err)
		}
		code, text, _ := strings.Cut(string(wanted), "\n")
		pattern := "^" + strings.NewReplacer("<key>", "[0-9a-f]{32}", "<page>", "(?s:.+)").Replace(regexp.QuoteMeta(text)) + "$"
		if code != fmt.Sprint(status) || !regexp.MustCompile(pattern).MatchString(body) {
			t.Errorf("%s: want %s %s, got %d %s", name, code, text, status, body)
		}
	}

	var sealed, plain *pushv1.NotificationRequested
	for _, e := range h.log.events(t, schemas.Notifications) {
		n, ok := e.(*pushv1.NotificationRequested)
		switch {
		case ok && n.Content.Encrypted:
			sealed = n
		case ok && data(n.Content, "savedmessageid") == "42":
			plain = n
		}
	}
	if sealed == nil || sealed.Content.Alert != pushv1.Content_ALERT_NONE || data(sealed.Content, "smallmessage") != "c2VhbGVk+/bWVzc2FnZQ==" {
		t.Errorf("want the sealed push byte for byte and without an alert, got %v", sealed)
	}
	if plain == nil || plain.Content.Title != "Campus" || plain.Content.Body != "Anne posted in Timetable" || plain.Platform != "Android-fcm" {
		t.Errorf("want title and body filled from extra, got %v", plain)
	}
}

func data(c *pushv1.Content, key string) string {
	for _, kv := range c.Data {
		if kv.Key == key {
			return kv.Value
		}
	}
	return ""
}

// replay writes a file to a fresh connection and reads the answer.
func replay(t *testing.T, url, file string) (int, string) {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
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
		t.Fatalf("%s: %v", file, err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}
