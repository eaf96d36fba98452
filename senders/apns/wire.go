package apns

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/campanile-push/campanile/senders"
)

// callKey names the call in the context of its request.
type callKey struct{}

// call is what the wire needs of a push beyond apns2's request, and what it keeps of the answer beyond apns2's response.
type call struct {
	payload     []byte
	tryOnce     bool // apns-expiration: 0
	bearer      string
	status      int
	retryAfter  string
	reason      string
	timestampUS int64
}

// wire stands between apns2 and the connection, for what apns2 cannot do: send a payload as it is (it escapes '<', '>' and '&' to six
// bytes each, past the limit that we measured), send apns-expiration: 0 (it leaves zero out), keep the milliseconds of a 410 and the
// Retry-After header, and live with an answer that is no JSON (it would lose the status).
type wire struct{ next http.RoundTripper }

// errNoCall is a request that did not come from Provider.push.
var errNoCall = errors.New("apns: request without a call")

// maxAnswer bounds what is read of an answer; APNs' are below 100 bytes.
const maxAnswer = 16 << 10

// RoundTrip implements http.RoundTripper.
func (w wire) RoundTrip(req *http.Request) (*http.Response, error) {
	c, ok := req.Context().Value(callKey{}).(*call)
	if !ok {
		return nil, errNoCall
	}
	if req.Body != nil {
		_ = req.Body.Close() // apns2's rendering, which ours replaces
	}
	out := req.WithContext(req.Context())
	out.Body = io.NopCloser(bytes.NewReader(c.payload))
	out.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(c.payload)), nil }
	out.ContentLength = int64(len(c.payload))
	if c.tryOnce {
		out.Header.Set("apns-expiration", "0")
	}
	c.bearer = strings.TrimPrefix(out.Header.Get("authorization"), "bearer ")

	res, err := w.next.RoundTrip(out)
	if err != nil {
		return nil, err
	}
	c.read(res)
	res.Body = http.NoBody
	return res, nil
}

// CloseIdleConnections is what apns2 expects of its transport.
func (w wire) CloseIdleConnections() {
	if c, ok := w.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// read keeps an answer. Its body is closed.
func (c *call) read(res *http.Response) {
	c.status, c.retryAfter = res.StatusCode, res.Header.Get("retry-after")
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode == http.StatusOK {
		_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, maxAnswer)) // empty; to its end, so that the stream is free
		return
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	c.reason, c.timestampUS = readReason(body)
	if err != nil || c.reason == "" {
		c.reason = senders.ReasonNoBody
	}
}

// readReason reads the body of a refusal. The timestamp is in milliseconds on the wire, and in Unix microseconds here.
func readReason(body []byte) (reason string, timestampUS int64) {
	var answer struct {
		Reason    string `json:"reason"`
		Timestamp int64  `json:"timestamp"`
	}
	if json.Unmarshal(body, &answer) != nil {
		return "", 0
	}
	const most = 1 << 50 // ms: far beyond every date, and far below an overflow as µs
	if answer.Timestamp <= 0 || answer.Timestamp > most {
		answer.Timestamp = 0
	}
	const longest = 64 // a reason is a word
	if len(answer.Reason) > longest {
		answer.Reason = answer.Reason[:longest]
	}
	return strings.ToValidUTF8(answer.Reason, ""), answer.Timestamp * 1000
}

// withCall puts the call into ctx.
func withCall(ctx context.Context, c *call) context.Context {
	return context.WithValue(ctx, callKey{}, c)
}
