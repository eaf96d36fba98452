package fcm

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

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
		r.Verdict, r.Name = senders.FCMVerdict(status, "", false), readName(body)
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

// readName reads the name in {"name": "projects/…/messages/…"}. The usual answer, one field without escapes, is read without
// encoding/json, which costs more than the rest of an answer.
func readName(body []byte) string {
	t := blankless(body)
	if t, ok := bytes.CutPrefix(t, []byte{'{'}); ok {
		if t, ok = bytes.CutPrefix(blankless(t), []byte(`"name"`)); ok {
			if t, ok = bytes.CutPrefix(blankless(t), []byte{':'}); ok {
				if t, ok = bytes.CutPrefix(blankless(t), []byte{'"'}); ok {
					name, rest, ok := bytes.Cut(t, []byte{'"'})
					if ok && string(blankless(rest)) == "}" && plain(name) {
						return string(name)
					}
				}
			}
		}
	}
	var sent struct {
		Name string `json:"name"`
	}
	_ = json.Unmarshal(body, &sent)
	return sent.Name
}

// blankless is b without JSON's white space at its ends.
func blankless(b []byte) []byte { return bytes.Trim(b, " \t\r\n") }

// plain reports whether JSON reads b as it stands.
func plain(b []byte) bool {
	return !bytes.ContainsFunc(b, func(c rune) bool { return c < ' ' || c == '\\' || c >= utf8.RuneSelf })
}

// word bounds what a server calls a reason.
func word(s string) string {
	const longest = 64
	return strings.ToValidUTF8(s[:min(len(s), longest)], "")
}
