package ingest_test

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/campanile-push/campanile/ingest"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

const repeated = `{"device":"Android-fcm","token":"phone","alert":"The door is open"}`

// pushes are the notifications in the order in which they were asked for.
func (h *house) pushes() (all []*pushv1.NotificationRequested) {
	h.t.Helper()
	for _, e := range h.log.events(h.t, schemas.Notifications) {
		if n, ok := e.(*pushv1.NotificationRequested); ok {
			all = append(all, n)
		}
	}
	slices.SortFunc(all, func(a, b *pushv1.NotificationRequested) int { return cmp.Compare(a.RequestedAtUs, b.RequestedAtUs) })
	return all
}

// TestAPushIsItsOwnUnlessRepeatsAreDropped: as at AirNotifier, two pushes that look alike are two.
func TestAPushIsItsOwnUnlessRepeatsAreDropped(t *testing.T) {
	t.Parallel()
	h := setup(t, 1, nil)
	for range 2 {
		h.wantStatus(h.post(keyAll, "/api/v2/push", repeated), 202)
		h.wantStatus(h.post(keyAll, "/api/v2/broadcast", repeated), 202)
	}
	for _, e := range h.pushes() {
		if len(e.RepeatKey) != 0 || len(e.BodyHash) != 0 {
			t.Errorf("marked as a repeat of something: %+v", e)
		}
	}
	if n := len(h.log.events(t, schemas.Broadcasts)); n != 2 {
		t.Errorf("%d broadcasts, want 2", n)
	}
}

// TestRepeatsShareTheirKeyAtEveryIngest: what one key says twice has one repeat key, wherever it is taken, and one partition.
func TestRepeatsShareTheirKeyAtEveryIngest(t *testing.T) {
	t.Parallel()
	h := setup(t, 2, func(o *ingest.Options) { o.RepeatWithin = 30 * time.Second })
	ask := func(door int, key, path, body string) {
		t.Helper()
		h.wantStatus(h.do(door, request{path: path, app: appName, key: key, body: body}), 202)
	}
	ask(0, keyAll, "/api/v2/push", repeated)
	ask(1, keyAll, "/api/v2/push/", repeated)
	ask(0, keyAll, "/api/v2/push", repeated+" ")
	ask(1, keyPush, "/api/v2/push", repeated)
	all := h.pushes()
	if len(all) != 4 {
		t.Fatalf("%d pushes", len(all))
	}
	for i, e := range all {
		if same := bytes.Equal(e.RepeatKey, all[0].RepeatKey); len(e.RepeatKey) != 16 || same != (i < 2) || e.RepeatWithinUs != 30_000_000 {
			t.Errorf("push %d: repeat key %x within %d µs, the first has %x", i, e.RepeatKey, e.RepeatWithinUs, all[0].RepeatKey)
		}
	}
	if bytes.Equal(all[0].RequestId, all[1].RequestId) {
		t.Error("two pushes share an id")
	}
}

// TestARepeatedBroadcastIsTheFirstOne: asked again within the time, also where it spans two of them, and at another ingest.
func TestARepeatedBroadcastIsTheFirstOne(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 8, 0, 29, 0, time.UTC) // a second before a span ends
	h := setup(t, 2, func(o *ingest.Options) {
		o.RepeatWithin, o.Now = 30*time.Second, func() time.Time { return now }
	})
	ask := func(door int, body string) string {
		t.Helper()
		got := h.wantStatus(h.do(door, request{path: "/api/v2/broadcast", app: appName, key: keyAll, body: body}), 202)
		return got.header.Get("X-Campanile-Id")
	}
	const body, other = `{"alert":"No school today"}`, `{"alert":"No school tomorrow"}`
	first := ask(0, body)
	now = now.Add(2 * time.Second)
	if again := ask(1, body); again != first {
		t.Errorf("two seconds later it is %s, and was %s", again, first)
	}
	if ask(1, other) == first {
		t.Error("another broadcast is taken for the first one")
	}
	now = now.Add(29 * time.Second)
	if ask(0, body) == first {
		t.Error("31 seconds later it is still taken for a repeat")
	}
	if n := len(h.log.events(t, schemas.Broadcasts)); n != 3 {
		t.Errorf("%d broadcasts, want 3", n)
	}
}

// TestANotificationUnderAKeyCarriesItsBodysHash, which is how the router tells a retry from another request.
func TestANotificationUnderAKeyCarriesItsBodysHash(t *testing.T) {
	t.Parallel()
	h := setup(t, 1, nil)
	const body = `{"token":"phone","transport":"fcm","message":{"text":"Hello"}}`
	h.wantStatus(h.v3(0, keyAll, http.MethodPost, "/notifications", body, "Idempotency-Key", "k"), 202)
	h.wantStatus(h.v3(0, keyAll, http.MethodPost, "/notifications", body), 202)
	all := h.pushes()
	want := sha256.Sum256([]byte("/api/v3/notifications\n" + body))
	if len(all) != 2 || !bytes.Equal(all[0].BodyHash, want[:]) || len(all[1].BodyHash) != 0 || len(all[0].RepeatKey) != 0 {
		t.Errorf("got %v", all)
	}
}
