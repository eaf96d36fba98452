package router_test

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/campanile-push/campanile/router"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
	"github.com/campanile-push/campanile/vault"
)

// devices is a device store that has applied some of the log.
type devices struct {
	mu      sync.Mutex
	states  map[schemas.Device]schemas.DeviceState
	applied []int64
	away    error
	calls   int
}

// Lookup implements router.Store.
func (s *devices) Lookup(_ context.Context, list []schemas.Device, need schemas.Watermark) ([]schemas.DeviceState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if s.away != nil {
		return nil, s.away
	}
	if !need.Reached(s.applied) {
		return nil, schemas.ErrBehind
	}
	states := make([]schemas.DeviceState, 0, len(list))
	for _, d := range list {
		states = append(states, s.states[d])
	}
	return states, nil
}

var layout3 = schemas.Layout{Partitions: 3}

// notifications builds a batch as the log would hold it.
func notifications(t *testing.T, requests ...*pushv1.NotificationRequested) schemas.Batch {
	t.Helper()
	in := schemas.Batch{Topic: schemas.Notifications}
	for i, e := range requests {
		if e.RequestId == nil {
			id := schemas.NewID()
			e.RequestId = id[:]
		}
		in.Records = append(in.Records, schemas.Record{
			Topic: schemas.Notifications, Offset: int64(100 + i), Key: e.RequestId, Value: schemas.AppendEvent(nil, e),
		})
	}
	return in
}

type said struct {
	topic     schemas.Topic
	partition int32
	key       []byte
	event     schemas.Event
}

func listOut(t *testing.T, out *schemas.Out) (list []said) {
	t.Helper()
	out.Each(func(topic schemas.Topic, p int32, key, value []byte) {
		e, err := schemas.Decode(value)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, said{topic, p, append([]byte(nil), key...), e})
	})
	return list
}

func push(token string, change ...func(e *pushv1.NotificationRequested)) *pushv1.NotificationRequested {
	e := &pushv1.NotificationRequested{
		App: "app", Transport: schemas.APNS, Environment: schemas.Sandbox, Token: token, Platform: "ios",
		Content: &pushv1.Content{Text: "hello", Data: []*pushv1.KeyValue{{Key: "k", Value: "v"}}}, RequestedAtUs: 77, ExpiresAtUs: 1 << 60,
	}
	for _, f := range change {
		f(e)
	}
	return e
}

func inDoubt(end int64) func(e *pushv1.NotificationRequested) {
	return func(e *pushv1.NotificationRequested) { e.InDoubt, e.DoubtEnd = true, end }
}

func hasher(t *testing.T) vault.Hasher {
	t.Helper()
	h, err := vault.ParseHasher("AAECAwQFBgcICQoLDA0ODw==")
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestANotificationBecomesOneSendWithADerivedID(t *testing.T) {
	t.Parallel()
	store := &devices{}
	d := router.NewDirect(router.DirectOptions{}, store, hasher(t), quiet())
	e := push("token-1")
	in := notifications(t, e)
	for range 2 { // the same batch once more, as after a crash
		out := schemas.NewOut(layout3)
		if err := d.Handle(t.Context(), in, out); err != nil {
			t.Fatal(err)
		}
		list := listOut(t, out)
		if len(list) != 1 {
			t.Fatalf("want one send, got %d records", len(list))
		}
		send, ok := list[0].event.(*pushv1.SendRequested)
		if !ok || list[0].topic != "sends.apns.direct" {
			t.Fatalf("want a send in sends.apns.direct, got a %T in %s", list[0].event, list[0].topic)
		}
		if want := layout3.Of(schemas.DeviceOf(e)); list[0].partition != want {
			t.Errorf("want partition %d, got %d", want, list[0].partition)
		}
		id := schemas.DirectSendID(schemas.IDFrom(e.RequestId))
		if schemas.IDFrom(send.SendId) != id || string(send.RequestId) != string(e.RequestId) {
			t.Errorf("want the derived id %v, got %x", id, send.SendId)
		}
		if send.Token != "token-1" || send.App != "app" || send.Platform != "ios" || send.Environment != schemas.Sandbox ||
			send.RequestedAtUs != 77 || send.ExpiresAtUs != 1<<60 || send.RegisteredAtUs != 77 {
			t.Errorf("the send lost something on its way: %v", send)
		}
		if send.Content.GetText() != "hello" || len(send.Content.Data) != 1 || send.Content.Data[0].Value != "v" {
			t.Errorf("the content changed: %v", send.Content)
		}
	}
	if store.calls != 0 {
		t.Errorf("nobody doubted, and the store was asked %d times", store.calls)
	}
}

func TestARefusalIsAFinishedDelivery(t *testing.T) {
	t.Parallel()
	dead := push("dead", inDoubt(5))
	device := schemas.DeviceOf(dead)
	store := &devices{applied: []int64{9, 9, 9}, states: map[schemas.Device]schemas.DeviceState{device: {Known: true}}}
	d := router.NewDirect(router.DirectOptions{}, store, hasher(t), quiet())
	in := notifications(t, push("alive"), dead, push("stranger", inDoubt(5)), push("stranger", inDoubt(5), func(e *pushv1.NotificationRequested) { e.MayCreate = true }))
	out := schemas.NewOut(layout3)
	if err := d.Handle(t.Context(), in, out); err != nil {
		t.Fatal(err)
	}
	list := listOut(t, out)
	if len(list) != 4 {
		t.Fatalf("want one record for each request, got %d", len(list))
	}
	if list[0].topic != "sends.apns.direct" || list[3].topic != "sends.apns.direct" {
		t.Errorf("want the first and the last sent, got %s and %s", list[0].topic, list[3].topic)
	}
	for i, want := range map[int]struct {
		outcome schemas.Outcome
		reason  string
	}{1: {pushv1.Outcome_OUTCOME_TOKEN_INVALID, "Unregistered token"}, 2: {pushv1.Outcome_OUTCOME_REJECTED, "unknown token"}} {
		e, ok := list[i].event.(*pushv1.DeliveryFinished)
		if !ok {
			t.Fatalf("request %d: want a finished delivery, got %T", i, list[i].event)
		}
		if e.Outcome != want.outcome || e.Reason != want.reason || !e.First || e.Attempt != 0 ||
			e.Source.Lane != schemas.ByRouter || e.Source.Tier != 0 || e.Source.Offset != int64(100+i) || e.Generation != 0 {
			t.Errorf("request %d: got %v", i, e)
		}
	}
	if want := layout3.Of(device); list[1].partition != want {
		t.Errorf("want the device's partition %d, got %d", want, list[1].partition)
	}
	if want := hasher(t).Hash(device.AppendKey(nil)); binary.BigEndian.Uint64(list[1].key) != want {
		t.Errorf("want the keyed hash of the device as the key")
	}
}

func TestDoubtWaitsForTheStoreAndThenSends(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		appliedAfter time.Duration
		away         error
		wantSent     bool
		most         time.Duration
	}{
		"applied in time":     {appliedAfter: 400 * time.Millisecond, most: 600 * time.Millisecond},
		"behind for too long": {appliedAfter: time.Hour, wantSent: true, most: time.Second},
		"away":                {away: errors.New("connection refused"), wantSent: true, most: 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				e := push("dead", inDoubt(5))
				store := &devices{away: c.away, states: map[schemas.Device]schemas.DeviceState{schemas.DeviceOf(e): {Known: true}}}
				d := router.NewDirect(router.DirectOptions{}, store, hasher(t), quiet())
				if c.appliedAfter < time.Minute {
					time.AfterFunc(c.appliedAfter, func() {
						store.mu.Lock()
						store.applied = []int64{9, 9, 9}
						store.mu.Unlock()
					})
				}
				start := time.Now()
				out := schemas.NewOut(layout3)
				if err := d.Handle(t.Context(), notifications(t, e), out); err != nil {
					t.Fatal(err)
				}
				took := time.Since(start)
				_, sent := listOut(t, out)[0].event.(*pushv1.SendRequested)
				if sent != c.wantSent || took > c.most {
					t.Errorf("want sent=%v within %v, got %v after %v", c.wantSent, c.most, sent, took)
				}
				if !c.wantSent {
					return
				}
				// A store that was behind a moment ago does not hold up the next batch as long.
				start = time.Now()
				out.Reset()
				if err := d.Handle(t.Context(), notifications(t, e), out); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(start); took > 50*time.Millisecond {
					t.Errorf("the next batch waited %v", took)
				}
			})
		})
	}
}

func TestOneSlowPartitionDoesNotSpoilTheProofOfAnother(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &devices{applied: []int64{9, 0, 0}, states: map[schemas.Device]schemas.DeviceState{}}
		var requests []*pushv1.NotificationRequested
		for _, token := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
			e := push(token, inDoubt(5))
			store.states[schemas.DeviceOf(e)] = schemas.DeviceState{Known: true}
			requests = append(requests, e)
		}
		d := router.NewDirect(router.DirectOptions{}, store, hasher(t), quiet())
		out := schemas.NewOut(layout3)
		if err := d.Handle(t.Context(), notifications(t, requests...), out); err != nil {
			t.Fatal(err)
		}
		refused := 0
		for i, s := range listOut(t, out) {
			_, isRefusal := s.event.(*pushv1.DeliveryFinished)
			if want := layout3.Of(schemas.DeviceOf(requests[i])) == 0; isRefusal != want {
				t.Errorf("%s: want refused=%v, got %v", requests[i].Token, want, isRefusal)
			}
			if isRefusal {
				refused++
			}
		}
		if refused == 0 || refused == len(requests) {
			t.Errorf("the tokens must lie in several partitions: %d of %d refused", refused, len(requests))
		}
	})
}

func TestWhatCannotBeReadIsAnError(t *testing.T) {
	t.Parallel()
	d := router.NewDirect(router.DirectOptions{}, &devices{}, hasher(t), quiet())
	for name, c := range map[string]struct {
		value []byte
		want  error
	}{
		"a newer event": {[]byte{120, 1}, schemas.ErrUnknownType},
		"another event": {schemas.AppendEvent(nil, &pushv1.SendRequested{}), schemas.ErrMalformed},
		"torn":          {[]byte{32, 0xff}, schemas.ErrMalformed},
		"nothing":       {nil, schemas.ErrMalformed},
	} {
		in := notifications(t, push("a"))
		in.Records[0].Value = c.value
		if err := d.Handle(t.Context(), in, schemas.NewOut(layout3)); !errors.Is(err, c.want) {
			t.Errorf("%s: want %v, got %v", name, c.want, err)
		}
	}
}

func TestACancelledWaitIsAnErrorAndNoSend(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	d := router.NewDirect(router.DirectOptions{}, &devices{}, hasher(t), quiet())
	out := schemas.NewOut(layout3)
	if err := d.Handle(ctx, notifications(t, push("a", inDoubt(5))), out); !errors.Is(err, context.Canceled) || out.Len() != 0 {
		t.Errorf("want context.Canceled and nothing said, got %v and %d records", err, out.Len())
	}
}
