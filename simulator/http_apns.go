package simulator

import (
	"context"
	"crypto/x509"
	"io"
	"net/http"
	"time"
)

// apnsHTTP speaks APNs through net/http, for one environment.
type apnsHTTP struct{ *apnsDoor }

// apnsHeaders are Apple's request headers, each allowed once.
var apnsHeaders = []string{"Authorization", "Apns-Id", "Apns-Expiration", "Apns-Priority", "Apns-Topic", "Apns-Collapse-Id", "Apns-Push-Type"} //nolint:gochecknoglobals // a table

// ServeHTTP answers one push.
func (h *apnsHTTP) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor != 2 {
		http.Error(w, "APNs speaks HTTP/2", http.StatusHTTPVersionNotSupported)
		return
	}
	h.core.stats.begin()
	defer h.core.stats.end()
	request := readAPNSHeaders(r)
	id := h.answerID(&request)
	var out reply
	var p Push
	c := connOf(r.Context())
	// Read before anything is said, so that no body is left over on the connection.
	body, err := io.ReadAll(io.LimitReader(r.Body, maxVoIPPayload+1))
	if err != nil {
		body = nil // the client broke off: it will not read the answer
	}
	request.body, request.bodyTooLarge = body, len(body) > maxVoIPPayload
	var certificate *x509.Certificate
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		certificate = r.TLS.PeerCertificates[0]
	}
	if reason := h.read(&request, id, c, certificate, h.core.now(), &p); reason != "" {
		h.refusal(&out, id, reason)
		h.say(w, c, &out)
		return
	}
	a, err := h.core.take(&p)
	if err != nil {
		h.logger.Error("push could not be recorded", "error", err)
		h.refusal(&out, id, "InternalServerError")
		h.say(w, c, &out)
		return
	}
	if !sustain(r.Context(), a, h.core.stats, h.service) {
		return
	}
	h.fill(&out, id, &a)
	h.say(w, c, &out)
}

func (h *apnsHTTP) say(w http.ResponseWriter, c *conn, out *reply) {
	h.core.stats.answered(h.service, out.status, out.reason)
	if c.badToken(out.reason, h.core.state.Load().scenario.APNS.Connections.BadTokens) {
		out.end = true
	}
	out.write(w)
}

// readAPNSHeaders reads everything but the body.
func readAPNSHeaders(r *http.Request) apnsRequest {
	request := apnsRequest{
		method: r.Method, path: r.URL.Path,
		authorization: r.Header.Get("Authorization"),
		topic:         r.Header.Get("Apns-Topic"),
		pushType:      r.Header.Get("Apns-Push-Type"),
		priority:      r.Header.Get("Apns-Priority"),
		expiration:    r.Header.Get("Apns-Expiration"),
		collapseID:    r.Header.Get("Apns-Collapse-Id"),
		id:            r.Header.Get("Apns-Id"),
	}
	for _, name := range apnsHeaders {
		request.duplicate = request.duplicate || len(r.Header[name]) > 1
	}
	return request
}

// sustain waits as long as the answer takes, and breaks what is to be broken. It reports whether there is an answer to give.
// A broken stream or connection ends the handler here.
func sustain(ctx context.Context, a answer, s *stats, at service) bool {
	s.delayed(a.delay, 1)
	if a.delay > 0 {
		t := time.NewTimer(a.delay) // net/http gives every stream a goroutine: only its timer is added
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			s.answered(at, 0, "client_gone")
			return false
		}
	}
	c := connOf(ctx)
	switch a.fault {
	case FaultReset, FaultResetAfter:
		c.reset()
	case FaultFreeze:
		c.freeze()
		<-ctx.Done()
	case FaultBlackhole:
		<-ctx.Done()
	case FaultRST, FaultRSTAfter:
	case FaultDrip:
		c.drip(a.pause)
		return true
	case FaultSlowRead:
		c.slowRead(a.pause)
		return true
	default:
		return true
	}
	s.answered(at, 0, string(a.fault))
	panic(http.ErrAbortHandler) // net/http's word for ending a stream without an answer
}
