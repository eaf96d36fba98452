package simulator

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"
)

// apnsHTTP speaks APNs through net/http, for one environment.
type apnsHTTP struct {
	core        *core
	identity    *identity
	environment string
	service     service
	logger      *slog.Logger
}

// apnsHeaders are Apple's request headers, each allowed once.
var apnsHeaders = []string{"Authorization", "Apns-Id", "Apns-Expiration", "Apns-Priority", "Apns-Topic", "Apns-Collapse-Id", "Apns-Push-Type"} //nolint:gochecknoglobals // a table

// Apple's own values of what a scenario may scale.
const (
	providerTokenLife   = time.Hour
	providerTokenUpdate = 20 * time.Minute
)

// ServeHTTP answers one push.
func (h *apnsHTTP) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor != 2 {
		http.Error(w, "APNs speaks HTTP/2", http.StatusHTTPVersionNotSupported)
		return
	}
	h.core.stats.begin()
	defer h.core.stats.end()
	id := r.Header.Get("Apns-Id")
	if _, ok := parseUUID(id); !ok {
		id = uuid.NewString()
	}
	w.Header().Set("Apns-Id", id)
	p, reason := h.read(r, id)
	if reason != "" {
		h.refuse(w, reason, h.core.now().UnixMilli())
		return
	}
	a, err := h.core.take(p)
	if err != nil {
		h.logger.Error("push could not be recorded", "error", err)
		h.refuse(w, "InternalServerError", 0)
		return
	}
	if !sustain(r.Context(), w, a, h.core.stats, h.service) {
		return
	}
	if a.retryAfter > 0 {
		setRetryAfter(w, a, h.core.now())
	}
	if a.reason != "" {
		h.refuse(w, a.reason, a.deadMS)
		return
	}
	if h.environment == Sandbox {
		w.Header().Set("Apns-Unique-Id", uuid.NewString())
	}
	h.core.stats.answered(h.service, http.StatusOK, "")
	w.WriteHeader(http.StatusOK)
}

// read turns a request into a valid push, or says why it is none.
func (h *apnsHTTP) read(r *http.Request, id string) (*Push, string) {
	if _, reason := checkAPNSPath(r.Method, r.URL.Path); reason != "" {
		return nil, reason
	}
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
	topics, reason := h.authorize(r, &request)
	if reason != "" {
		return nil, reason
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxVoIPPayload+1))
	if err != nil {
		return nil, "PayloadEmpty" // the client broke off: it will not read this
	}
	request.body, request.bodyTooLarge = body, len(body) > maxVoIPPayload
	valid, reason := checkAPNS(&request)
	if reason != "" {
		return nil, reason
	}
	topic := request.topic
	if topic == "" {
		topic = request.certificateFor + pushTypes[valid.pushType]
	}
	for _, allowed := range [][]string{topics, h.core.state.Load().scenario.APNS.Topics} {
		if len(allowed) > 0 && !slices.Contains(allowed, bundleOf(topic, valid.pushType)) {
			return nil, "TopicDisallowed"
		}
	}
	p := &Push{
		Provider: APNS, Environment: h.environment, App: topic, Token: valid.token, ID: id, PushType: valid.pushType,
		Priority: strconv.Itoa(valid.priority), CollapseID: request.collapseID, Body: body,
	}
	if valid.expiration >= 0 {
		p.Expiration = &valid.expiration
	}
	p.id, _ = parseUUID(id)
	return p, ""
}

// authorize trusts a provider token, or a certificate where there is none. topics is what the key is limited to.
func (h *apnsHTTP) authorize(r *http.Request, request *apnsRequest) (topics []string, reason string) {
	if request.authorization == "" && r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		bundle, ok := h.identity.ca.bundleFor(r.TLS.PeerCertificates[0])
		if !ok {
			return nil, "BadCertificate"
		}
		request.certificateFor = bundle
		return nil, ""
	}
	s := h.core.state.Load().scenario.APNS
	times := apnsTimes{lifetime: s.TokenLifetime.D(), update: s.TokenUpdate.D()}
	if times.lifetime == 0 {
		times.lifetime = providerTokenLife
	}
	if times.update == 0 {
		times.update = providerTokenUpdate
	}
	c := connOf(r.Context())
	c.mu.Lock()
	defer c.mu.Unlock()
	if reason := c.auth.check(request.authorization, h.environment, h.core.now(), times, h.identity.key); reason != "" {
		return nil, reason
	}
	return c.auth.key.Topics, ""
}

func (h *apnsHTTP) refuse(w http.ResponseWriter, reason string, deadMS int64) {
	status := apnsStatus[reason]
	h.core.stats.answered(h.service, status, reason)
	w.Header().Set("Content-Type", "application/json")
	if reason == "Shutdown" {
		w.Header().Set("Connection", "close") // net/http makes a GOAWAY of it
	}
	w.WriteHeader(status)
	_, _ = w.Write(appendAPNSBody(nil, reason, deadMS))
}

// sustain waits as long as the answer takes, and breaks what is to be broken. It reports whether there is an answer to give.
// A broken stream or connection ends the handler here.
func sustain(ctx context.Context, w http.ResponseWriter, a answer, s *stats, at service) bool {
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
	case "":
		return true
	case FaultGoAway:
		w.Header().Set("Connection", "close") // net/http makes a GOAWAY of it
		return true
	case FaultReset, FaultResetAfter:
		c.reset()
	case FaultFreeze:
		c.freeze()
		<-ctx.Done()
	case FaultBlackhole:
		<-ctx.Done()
	case FaultRST:
	}
	s.answered(at, 0, string(a.fault))
	panic(http.ErrAbortHandler) // net/http's word for ending a stream without an answer
}

// setRetryAfter writes the header in either form of RFC 9110, section 10.2.3.
func setRetryAfter(w http.ResponseWriter, a answer, now time.Time) {
	seconds := int64((a.retryAfter + time.Second - 1) / time.Second)
	if a.asDate {
		w.Header().Set("Retry-After", now.Add(time.Duration(seconds)*time.Second).UTC().Format(http.TimeFormat))
		return
	}
	w.Header().Set("Retry-After", strconv.FormatInt(seconds, 10))
}
