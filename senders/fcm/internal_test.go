package fcm

import (
	"testing"
	"time"

	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
	"github.com/campanile-push/campanile/senders"
)

func TestAnswersAreReadByDetailNotByStatusAlone(t *testing.T) {
	t.Parallel()
	const fcm = `{"@type":"` + fcmError + `","errorCode":"`
	for _, c := range []struct {
		name    string
		status  int
		body    string
		outcome pushv1.Outcome
		actions senders.Action
		reason  string
	}{
		{"404 with detail", 404, `{"error":{"status":"NOT_FOUND","details":[` + fcm + `UNREGISTERED"}]}}`, pushv1.Outcome_OUTCOME_TOKEN_INVALID, senders.Invalidate, "UNREGISTERED"},
		{"404 without", 404, `{"error":{"status":"NOT_FOUND"}}`, misconfigured, senders.Park, "NOT_FOUND"},
		{"bad message", 400, `{"error":{"status":"INVALID_ARGUMENT","details":[` + fcm + `INVALID_ARGUMENT"}]}}`, pushv1.Outcome_OUTCOME_REJECTED, 0, "INVALID_ARGUMENT"},
		{
			"bad token by its text", 400, `{"error":{"status":"INVALID_ARGUMENT","message":"The registration token is not a valid FCM registration token"}}`,
			pushv1.Outcome_OUTCOME_TOKEN_INVALID, senders.Invalidate | senders.Suspect, "INVALID_ARGUMENT",
		},
		{"another violation", 400, `{"error":{"status":"INVALID_ARGUMENT","details":[{"fieldViolations":[{"field":"message.data"}]}]}}`, pushv1.Outcome_OUTCOME_REJECTED, 0, "INVALID_ARGUMENT"},
		{"HTML", 502, `<html>`, unavailable, 0, senders.ReasonNoBody},
		{"third party", 401, `{"error":{"details":[` + fcm + `THIRD_PARTY_AUTH_ERROR"}]}}`, misconfigured, 0, "THIRD_PARTY_AUTH_ERROR"},
	} {
		got := read(c.status, "", []byte(c.body), time.Now())
		if got.Outcome != c.outcome || got.Actions != c.actions || got.Reason != c.reason {
			t.Errorf("%s: want %s %b %q, got %+v", c.name, c.outcome.Word(), c.actions, c.reason, got)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(404, []byte(`{"error":{"status":"NOT_FOUND","details":[{"@type":"`+fcmError+`","errorCode":"UNREGISTERED"}]}}`))
	f.Add(200, []byte(`{"name":"projects/p/messages/1"}`))
	f.Add(200, []byte(` { "name" : "a\\u00e9\\"b" }`))
	f.Add(200, []byte(`{"name":"a","name":"b"}`))
	f.Add(502, []byte(`<html>`))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		got := read(status, "", body, time.Unix(0, 0))
		if got.Outcome == 0 || len(got.Reason) > 64 || (got.Reason == "") != (got.Outcome == accepted) {
			t.Errorf("want an outcome, and a bounded reason for all but accepted, got %+v", got)
		}
	})
}
