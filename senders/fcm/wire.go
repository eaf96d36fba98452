package fcm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/campanile-push/campanile/senders"
)

// batchKey names the batch in the context of its requests.
type batchKey struct{}

// batch are the pushes of one Send. Each is named to the SDK by its number, in place of its token.
type batch struct {
	jobs     []job
	answered []bool // by the wire; each place belongs to one of the SDK's workers
}

// wire stands between the SDK and the connection. It puts the rendered message in the place of the SDK's, answers a push as soon as
// its own answer is there (the SDK waits for the slowest of a batch), under the push's own context, and hides every failure behind
// status 599: the SDK would silently send again, up to four times, after a 503 or a broken connection, when the first message may
// have been taken.
type wire struct {
	p    *stock
	next http.RoundTripper
}

var errNoBatch = errors.New("fcm: request without a batch")

// Statuses that the SDK sees: it tries neither again.
const (
	seenAsDone   = http.StatusOK
	seenAsFailed = 599
)

// maxAnswer bounds what is read of an answer; FCM's are below 2 KB.
const maxAnswer = 64 << 10

// RoundTrip implements http.RoundTripper.
func (w wire) RoundTrip(req *http.Request) (*http.Response, error) {
	b, ok := req.Context().Value(batchKey{}).(*batch)
	if !ok {
		return nil, errNoBatch
	}
	i, err := number(req, len(b.jobs))
	if err != nil {
		return nil, err
	}
	j := b.jobs[i]
	b.answered[i] = true
	answer := w.push(req, j) //nolint:contextcheck // the push's own context is in the job
	w.p.answer(j, answer)
	if answer.Outcome == accepted {
		return sham(req, seenAsDone, `{"name":"-"}`), nil
	}
	return sham(req, seenAsFailed, `{}`), nil
}

// number reads which push of its batch the SDK's request stands for. The body is closed.
func number(req *http.Request, n int) (int, error) {
	if req.Body == nil {
		return 0, errNoBatch
	}
	body, err := io.ReadAll(req.Body)
	if err = errors.Join(err, req.Body.Close()); err != nil {
		return 0, err
	}
	var m struct {
		Message struct {
			Token string `json:"token"`
		} `json:"message"`
	}
	if err = json.Unmarshal(body, &m); err != nil {
		return 0, err
	}
	i, err := strconv.Atoi(m.Message.Token)
	if err != nil || i < 0 || i >= n {
		return 0, errNoBatch
	}
	return i, nil
}

func sham(req *http.Request, status int, body string) *http.Response {
	return &http.Response{
		Status: strconv.Itoa(status), StatusCode: status, Proto: "HTTP/2.0", ProtoMajor: 2, Request: req,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
	}
}

// push makes one attempt, and waits for its answer.
func (w wire) push(req *http.Request, j job) senders.Result {
	began := time.Now()
	if j.ctx.Err() != nil {
		return senders.Result{NoAttempt: true}
	}
	ctx, cancel := context.WithTimeout(j.ctx, w.p.timeout)
	defer cancel()
	ttl := int64(-1)
	if j.r.ExpiresUS > 0 {
		ttl = max((j.r.ExpiresUS-began.UnixMicro())/1e6, 0)
	}
	body := j.r.FCM.AppendBody(make([]byte, 0, j.r.FCM.Size()+len(j.r.Token)+64), j.r.Token, ttl)
	out := req.WithContext(ctx)
	out.Body = io.NopCloser(bytes.NewReader(body))
	out.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	out.ContentLength = int64(len(body))
	if w.p.named {
		out.Header.Set(sendIDHeader, j.r.SendID.String()) // out shares the header of oauth2's own copy of the request
	}

	res, err := w.next.RoundTrip(out)
	if err != nil {
		return failed(j.ctx, ctx, began)
	}
	text, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	_ = res.Body.Close()
	if err != nil && res.StatusCode != http.StatusOK {
		return failed(j.ctx, ctx, began)
	}
	answer := read(res.StatusCode, res.Header.Get("retry-after"), text, time.Now())
	answer.LatencyUS = time.Since(began).Microseconds()
	if answer.Has(senders.RefreshToken) {
		w.p.tokens.drop(strings.TrimPrefix(req.Header.Get("authorization"), "Bearer "))
	}
	return answer
}

// failed judges a push without an answer.
func failed(own, limited context.Context, began time.Time) senders.Result {
	if own.Err() != nil {
		return senders.Result{NoAttempt: true}
	}
	reason := senders.ReasonNetwork
	if limited.Err() != nil {
		reason = senders.ReasonTimeout
	}
	return senders.Result{Verdict: senders.Verdict{Outcome: unavailable}, Reason: reason, LatencyUS: time.Since(began).Microseconds()}
}
