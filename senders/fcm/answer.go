package fcm

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/campanile-push/campanile/senders"
)

// failure is the body of an error of FCM HTTP v1.
type failure struct {
	Error struct {
		Message string `json:"message"`
		Status  string `json:"status"`
		Details []struct {
			Type       string `json:"@type"`
			ErrorCode  string `json:"errorCode"`
			Violations []struct {
				Field       string `json:"field"`
				Description string `json:"description"`
			} `json:"fieldViolations"`
		} `json:"details"`
	} `json:"error"`
}

const fcmError = "type.googleapis.com/google.firebase.fcm.v1.FcmError"

// badToken is what FCM says of a malformed token where it names no field.
const badToken = "not a valid FCM registration token"

// read judges an answer.
func read(status int, retryAfter string, body []byte, now time.Time) senders.Result {
	r := senders.Result{Status: status, RetryAfter: senders.ReadRetryAfter(retryAfter, now)}
	if status == http.StatusOK { // it was taken, whatever the body
		r.Verdict = senders.FCMVerdict(status, "", false)
		return r
	}
	var f failure
	if json.Unmarshal(body, &f) != nil { // the HTML of a proxy
		f = failure{}
	}
	code, blames := "", strings.Contains(f.Error.Message, badToken)
	for _, d := range f.Error.Details {
		if d.Type == fcmError && code == "" {
			code = d.ErrorCode
		}
		for _, v := range d.Violations {
			blames = blames || v.Field == "message.token" || strings.Contains(v.Description, badToken)
		}
	}
	r.Verdict = senders.FCMVerdict(status, code, blames)
	switch {
	case code != "":
		r.Reason = word(code)
	case f.Error.Status != "":
		r.Reason = word(f.Error.Status)
	default:
		r.Reason = senders.ReasonNoBody
	}
	return r
}

// word bounds what a server calls a reason.
func word(s string) string {
	const longest = 64
	return strings.ToValidUTF8(s[:min(len(s), longest)], "")
}
