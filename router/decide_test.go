package router

import (
	"testing"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

func TestDecideRefusesOnlyWhatIsProven(t *testing.T) {
	t.Parallel()
	const now = 1_000
	dead := proof{given: true, state: schemas.DeviceState{Known: true, RegisteredAtUS: 5}}
	alive := proof{given: true, state: schemas.DeviceState{Known: true, Alive: true, RegisteredAtUS: 7}}
	unknown := proof{given: true}
	doubtful := func(change func(e *pushv1.NotificationRequested)) *pushv1.NotificationRequested {
		e := &pushv1.NotificationRequested{Transport: schemas.FCM, Content: &pushv1.Content{}, RequestedAtUs: 900, InDoubt: true}
		change(e)
		return e
	}
	same := func(*pushv1.NotificationRequested) {}
	for name, c := range map[string]struct {
		e     *pushv1.NotificationRequested
		proof proof
		want  verdict
	}{
		"in doubt and proven dead":             {doubtful(same), dead, verdict{pushv1.Outcome_OUTCOME_TOKEN_INVALID, "Unregistered token", 0}},
		"in doubt and no answer in time":       {doubtful(same), proof{}, verdict{registeredAtUS: 900}},
		"in doubt and alive":                   {doubtful(same), alive, verdict{registeredAtUS: 7}},
		"in doubt and unknown, may not create": {doubtful(same), unknown, verdict{pushv1.Outcome_OUTCOME_REJECTED, "unknown token", 0}},
		"in doubt and unknown, may create": {
			doubtful(func(e *pushv1.NotificationRequested) { e.MayCreate = true }), unknown, verdict{registeredAtUS: 900},
		},
		"dead, but nobody doubted it": {
			doubtful(func(e *pushv1.NotificationRequested) { e.InDoubt = false }), dead, verdict{registeredAtUS: 900},
		},
		"the row's registration is carried": {
			doubtful(func(e *pushv1.NotificationRequested) { e.InDoubt, e.RegisteredAtUs = false, 3 }), proof{}, verdict{registeredAtUS: 3},
		},
		"expired": {
			doubtful(func(e *pushv1.NotificationRequested) { e.ExpiresAtUs = now }), alive,
			verdict{pushv1.Outcome_OUTCOME_EXPIRED, reasonExpired, 0},
		},
		"expires later": {
			doubtful(func(e *pushv1.NotificationRequested) { e.ExpiresAtUs = now + 1 }), alive, verdict{registeredAtUS: 7},
		},
		"a transport without senders": {
			doubtful(func(e *pushv1.NotificationRequested) { e.Transport = pushv1.Transport_TRANSPORT_WNS }), alive,
			verdict{pushv1.Outcome_OUTCOME_REJECTED, reasonUnsupported, 0},
		},
		"nothing to say": {
			doubtful(func(e *pushv1.NotificationRequested) { e.Content = nil }), alive, verdict{pushv1.Outcome_OUTCOME_REJECTED, reasonNoContent, 0},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := decide(c.e, c.proof, now); got != c.want {
				t.Errorf("want %+v, got %+v", c.want, got)
			}
		})
	}
}
