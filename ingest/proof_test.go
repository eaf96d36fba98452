package ingest_test

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/campanile-push/campanile/ingest"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

func (h *house) register(door int, d schemas.Device) {
	h.t.Helper()
	got := h.do(door, request{path: "/tokens/" + d.Token + "?device=Android-fcm", app: d.App, key: keyAll})
	if got.status != 200 {
		h.t.Fatalf("register: %d %s", got.status, got.body)
	}
}

func (h *house) pushTo(door int, key, token string) reply {
	h.t.Helper()
	return h.do(door, request{path: "/api/v2/push/", app: appName, key: key, body: `{"device":"Android-fcm","token":"` + token + `","alert":"hi"}`})
}

func (h *house) registeredAt(d schemas.Device) int64 {
	h.t.Helper()
	states, err := h.store.Lookup(context.Background(), []schemas.Device{d}, nil)
	if err != nil || !states[0].Known {
		h.t.Fatalf("%v is not there: %v", d, err)
	}
	return states[0].RegisteredAtUS
}

// lastPush is the notification in the log that was asked for last.
func (h *house) lastPush() *pushv1.NotificationRequested {
	h.t.Helper()
	var last *pushv1.NotificationRequested
	for _, e := range h.log.events(h.t, schemas.Notifications) {
		if n, ok := e.(*pushv1.NotificationRequested); ok && (last == nil || n.RequestedAtUs > last.RequestedAtUs) {
			last = n
		}
	}
	return last
}

func TestADeadTokenIsAnswered404(t *testing.T) {
	t.Parallel()
	h := setup(t, 1, nil)
	d := fcmDevice("dies")
	h.register(0, d)
	h.want(h.pushTo(0, keyAll, d.Token), 202, "")
	h.invalidate(d, h.registeredAt(d))
	h.want(h.pushTo(0, keyAll, d.Token), 404, `{"error": "Unregistered token"}`)
	h.want(h.pushTo(0, keyPush, d.Token), 404, `{"error": "Unregistered token"}`)
	h.want(h.post(keyAll, "/notification/", "device=fcm&alert=a&token=dies"), 400, `{"error": "Not Registered", "regids": ["dies"]}`)
	// Moodle pushes, and so learns of the death, only where it could register.
	h.want(h.post(keyAll, "/tokens/dies?device=Android-fcm", ""), 200, `{"status": "token exists"}`)
	h.settle()
	h.want(h.pushTo(0, keyAll, d.Token), 202, "")
}

// TestATokenThatIsDeadStillIsFoundDeadAgain registers a dead token, which the provider then refuses once more.
func TestATokenThatIsDeadStillIsFoundDeadAgain(t *testing.T) {
	t.Parallel()
	h := setup(t, 1, nil)
	d := fcmDevice("dead for good")
	h.say(func(out *schemas.Out) {
		out.TokenRegistered(&pushv1.TokenRegistered{App: d.App, Transport: d.Transport, Token: d.Token, RegisteredAtUs: 5})
	})
	h.invalidate(d, 5)
	h.register(0, schemas.Device{App: appName, Transport: schemas.FCM, Token: "dead%20for%20good"})
	h.settle()
	h.want(h.pushTo(0, keyAll, d.Token), 202, "")
	h.invalidate(d, h.registeredAt(d))
	h.want(h.pushTo(0, keyAll, d.Token), 404, `{"error": "Unregistered token"}`)
}

func TestAnInvalidationOfAnOlderRegistrationKillsNobody(t *testing.T) {
	t.Parallel()
	h := setup(t, 1, nil)
	d := fcmDevice("lives")
	h.register(0, d)
	h.invalidate(d, h.registeredAt(d)-1)
	h.want(h.pushTo(0, keyAll, d.Token), 202, "")
	if n := h.lastPush(); n.InDoubt || n.RegisteredAtUs != h.registeredAt(d) {
		t.Errorf("want the row's registration and no doubt, got %v", n)
	}
}

// TestDeadAndRegisteredAgainIsNever404 is promise 8 by two ingests: while the store lags behind, a device dies, is registered at one
// ingest and pushed to at the other at once.
func TestDeadAndRegisteredAgainIsNever404(t *testing.T) {
	t.Parallel()
	h := setup(t, 2, nil)
	h.settle()
	h.store.set(func(s *memStore) { s.lazy = 3 })
	const phones, rounds = 20, 50
	refused := make([]int, phones)
	var all sync.WaitGroup
	for phone := range phones {
		all.Go(func() {
			d := fcmDevice(fmt.Sprint("phone-", phone))
			for i := range rounds {
				reg, push := i%2, (i+1)%2
				h.register(reg, d)
				h.invalidate(d, h.latestRegistration(d))
				if h.pushTo(push, keyAll, d.Token).status == http.StatusNotFound {
					refused[phone]++
				}
				h.register(reg, d)
				if got := h.pushTo(push, keyAll, d.Token); got.status != 202 {
					t.Errorf("round %d: want 202, got %d %s", i, got.status, got.body)
				}
			}
		})
	}
	all.Wait()
	sum := 0
	for _, n := range refused {
		sum += n
	}
	if sum < phones*rounds/2 { // else the rounds prove nothing
		t.Errorf("want most dead devices refused, got %d of %d", sum, phones*rounds)
	}
}

// latestRegistration is the time of a device's last registration in the log, whatever the store knows.
func (h *house) latestRegistration(d schemas.Device) int64 {
	h.t.Helper()
	records := h.log.from(schemas.Devices, h.log.layout.Of(d), 0)
	for i := len(records) - 1; i >= 0; i-- {
		var e pushv1.TokenRegistered
		if records[i].Type() == e.EventType() && records[i].Into(&e) == nil && e.Token == d.Token {
			return e.RegisteredAtUs
		}
	}
	h.t.Fatalf("%v was never registered", d)
	return 0
}

// TestWithoutProofInTimeAPushIsAcceptedInDoubt lets the store stand still, then go away.
func TestWithoutProofInTimeAPushIsAcceptedInDoubt(t *testing.T) {
	t.Parallel()
	h := setup(t, 1, func(o *ingest.Options) { o.ProofPatience = 30 * time.Millisecond })
	d := fcmDevice("doubtful")
	h.register(0, d)
	h.invalidate(d, h.registeredAt(d))
	h.store.set(func(s *memStore) { s.frozen = true })
	h.say(func(out *schemas.Out) {
		out.TokenInvalidated(&pushv1.TokenInvalidated{App: d.App, Transport: d.Transport, Token: d.Token, AsOfUs: 1})
	})
	ends, err := h.log.Ends(t.Context(), schemas.Devices)
	if err != nil {
		t.Fatal(err)
	}
	h.want(h.pushTo(0, keyAll, d.Token), 202, "")
	want := ends[h.log.layout.Of(d)]
	if n := h.lastPush(); !n.InDoubt || n.DoubtEnd != want || !n.MayCreate {
		t.Errorf("want a doubt up to %d, got %v", want, n)
	}
	h.store.set(func(s *memStore) { s.away = true })
	h.want(h.pushTo(0, keyPush, "never seen"), 202, "")
	if n := h.lastPush(); !n.InDoubt || n.MayCreate || n.Token != "never seen" {
		t.Errorf("want a doubt about a token that the key may not create, got %v", n)
	}
	h.want(h.post(keyAll, "/tokens/fresh?device=fcm", ""), 200, `{"status": "ok"}`)
	h.store.set(func(s *memStore) { s.away, s.frozen = false, false })
	h.want(h.pushTo(0, keyAll, d.Token), 404, `{"error": "Unregistered token"}`)
}

// TestOneSlowPartitionHoldsUpItsOwnDevicesAlone freezes the store, and asks about a partition that is applied and one that is not.
func TestOneSlowPartitionHoldsUpItsOwnDevicesAlone(t *testing.T) {
	t.Parallel()
	h := setup(t, 1, func(o *ingest.Options) { o.ProofPatience = 2 * time.Second })
	var fast, slow schemas.Device
	for i := 0; slow.Token == ""; i++ {
		d := fcmDevice(fmt.Sprint("tok", i))
		if fast.Token == "" {
			fast = d
		} else if h.log.layout.Of(d) != h.log.layout.Of(fast) {
			slow = d
		}
	}
	if _, err := h.store.Lookup(t.Context(), []schemas.Device{fast}, nil); err != nil {
		t.Fatal(err)
	}
	h.store.set(func(s *memStore) { s.frozen = true })
	h.say(func(out *schemas.Out) {
		out.TokenRegistered(&pushv1.TokenRegistered{App: slow.App, Transport: slow.Transport, Token: slow.Token, RegisteredAtUs: 9})
	})
	answers := make(chan reply, 1)
	go func() { answers <- h.pushTo(0, keyPush, slow.Token) }()
	h.want(h.pushTo(0, keyPush, fast.Token), 400, `{"error": "Unknow token and you have no permission to create"}`)
	h.store.set(func(s *memStore) { s.frozen = false })
	h.want(<-answers, 202, "")
}

func TestQuestionsShareLookups(t *testing.T) {
	t.Parallel()
	h := setup(t, 1, func(o *ingest.Options) { o.ProofPatience = 5 * time.Second })
	h.settle()
	h.store.mu.Lock() // the first lookup waits here, and the others gather
	before := h.store.lookups
	const many = 64
	var asking sync.WaitGroup
	for i := range many {
		asking.Go(func() {
			if got := h.pushTo(0, keyPush, fmt.Sprint("unknown", i)); got.status != 400 {
				t.Errorf("want 400, got %d", got.status)
			}
		})
	}
	released := make(chan struct{})
	go func() {
		defer close(released)
		timer := time.NewTimer(300 * time.Millisecond) // what has not gathered by then makes a lookup more
		defer timer.Stop()
		<-timer.C
		h.store.mu.Unlock()
	}()
	<-released
	asking.Wait()
	h.store.set(func(s *memStore) {
		if got := s.lookups - before; got > many/4 {
			t.Errorf("want %d questions in few lookups, got %d", many, got)
		}
	})
}

// TestAPushCreatesWhatItsKeyMay covers auto-create: the registration carries the request's time and the key's channel.
func TestAPushCreatesWhatItsKeyMay(t *testing.T) {
	t.Parallel()
	h := setup(t, 1, nil)
	got := h.do(0, request{path: "/api/v2/push", app: appName, key: keyAll, body: `{"device":"iOS-fcm","token":"newcomer","alert":"a","channel":"c1"}`})
	h.want(got, 202, "")
	d := fcmDevice("newcomer")
	h.eventually("registered", func() bool {
		states, err := h.store.Lookup(t.Context(), []schemas.Device{d}, nil)
		return err == nil && states[0].Known && len(states[0].Channels) == 1 && states[0].Channels[0] == "c1" && states[0].Platform == "iOS-fcm"
	})
	if n := h.lastPush(); h.registeredAt(d) != n.RequestedAtUs || n.RegisteredAtUs != n.RequestedAtUs || n.InDoubt || !n.MayCreate {
		t.Errorf("want a registration at the request's time %d, got %d", n.RequestedAtUs, h.registeredAt(d))
	}
	// Once it is known, further pushes register nothing.
	count := len(h.log.events(t, schemas.Devices))
	for range 10 {
		h.want(h.pushTo(0, keyAll, d.Token), 202, "")
	}
	h.want(h.pushTo(0, keyAll, "another"), 202, "")
	h.eventually("the other is registered", func() bool { return len(h.log.events(t, schemas.Devices)) == count+2 })
	// Deleted, and pushed to: it comes back.
	h.want(h.do(0, request{method: http.MethodDelete, path: "/tokens/newcomer", app: appName, key: keyAll}), 200, `{"status": "deleted"}`)
	h.want(h.pushTo(0, keyAll, d.Token), 202, "")
	h.eventually("registered again", func() bool {
		states, err := h.store.Lookup(t.Context(), []schemas.Device{d}, nil)
		return err == nil && states[0].Known
	})
}

// TestAPushNeverWakesADeadDevice: the creator asks with proof, so that what the store has not applied is not taken for missing.
func TestAPushNeverWakesADeadDevice(t *testing.T) {
	t.Parallel()
	h := setup(t, 2, nil)
	d := fcmDevice("dead and unapplied")
	h.store.set(func(s *memStore) { s.frozen = true })
	h.say(func(out *schemas.Out) {
		out.TokenRegistered(&pushv1.TokenRegistered{App: d.App, Transport: d.Transport, Token: d.Token, RegisteredAtUs: 5})
		out.TokenInvalidated(&pushv1.TokenInvalidated{App: d.App, Transport: d.Transport, Token: d.Token, AsOfUs: 5})
	})
	h.want(h.pushTo(0, keyAll, d.Token), 202, "") // this ingest has not heard of the death
	h.store.set(func(s *memStore) { s.frozen = false })
	h.want(h.pushTo(0, keyAll, "after it"), 202, "") // the creator works in order
	h.eventually("the later one is registered", func() bool {
		states, err := h.store.Lookup(t.Context(), []schemas.Device{fcmDevice("after it")}, nil)
		return err == nil && states[0].Known
	})
	states, err := h.store.Lookup(t.Context(), []schemas.Device{d}, nil)
	if err != nil || states[0].Alive || states[0].RegisteredAtUS != 5 {
		t.Errorf("want it dead since 5, got %+v, %v", states, err)
	}
}

// TestASandboxTokenIsAnotherDevice keeps APNs' environments apart.
func TestASandboxTokenIsAnotherDevice(t *testing.T) {
	t.Parallel()
	h := setup(t, 1, nil)
	h.want(h.post(keyAll, "/tokens/"+hexTok, "device=ios&environment=sandbox"), 200, `{"status": "ok"}`)
	push := func(query, field string) reply {
		return h.post(keyPush, "/api/v2/push"+query, `{"device":"ios","token":"`+hexTok+`","alert":"a"`+field+`}`)
	}
	h.want(push("", ""), 400, `{"error": "Unknow token and you have no permission to create"}`)
	h.want(push("?environment=sandbox", ""), 202, "")
	h.want(push("", `,"environment":"sandbox"`), 202, "")
	if n := h.lastPush(); n.Environment != schemas.Sandbox || n.Transport != schemas.APNS {
		t.Errorf("want APNs' sandbox, got %v", n)
	}
	h.want(push("?environment=moon", ""), 400, `{"error": "Invalid environment: production or sandbox"}`)
}

// TestABroadcastCoversWhatWasAnsweredBefore compares the watermark with the ends at the time.
func TestABroadcastCoversWhatWasAnsweredBefore(t *testing.T) {
	t.Parallel()
	h := setup(t, 2, nil)
	for i := range 20 {
		h.register(i%2, fcmDevice(fmt.Sprint("p", i)))
		ends, err := h.log.Ends(t.Context(), schemas.Devices)
		if err != nil {
			t.Fatal(err)
		}
		got := h.do((i+1)%2, request{path: "/api/v2/broadcast", app: appName, key: keyAll, body: `{"alert":"a","device":"Android","sound":"s"}`})
		h.want(got, 202, "")
		var b *pushv1.BroadcastRequested
		for _, e := range h.log.events(t, schemas.Broadcasts) {
			if r, ok := e.(*pushv1.BroadcastRequested); ok && schemas.IDFrom(r.BroadcastId).String() == got.header.Get("X-Campanile-Id") {
				b = r
			}
		}
		if b == nil || !schemas.Watermark(ends).Reached(b.Watermark.Ends) {
			t.Fatalf("want a watermark of at least %v, got %v", ends, b)
		}
		if b.Ranges != 1 || b.AudienceEstimate != int64(i+1) || len(b.Platforms) != 2 || b.Channels[0] != "default" || b.Content.Text != "a" {
			t.Errorf("got %v", b)
		}
	}
}
