package simulator

import (
	"crypto/x509"
	"log/slog"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"
)

// apnsDoor is what both servers know of APNs, for one environment. Safe for concurrent use.
type apnsDoor struct {
	core        *core
	identity    *identity
	environment string
	service     service
	logger      *slog.Logger
}

// Apple's own values of what a scenario may scale.
const (
	providerTokenLife   = time.Hour
	providerTokenUpdate = 20 * time.Minute
)

// answerID is the id that stands in the answer: the request's, or a fresh one where it has none that is valid. It must come first.
func (d *apnsDoor) answerID(request *apnsRequest) string {
	if request.knownID, request.hasID = parseUUID(request.id); request.hasID {
		return request.id
	}
	return uuid.NewString()
}

// read turns a request into a valid push, or says why it is none. id is answerID's. certificate is the client's, nil without one.
func (d *apnsDoor) read(request *apnsRequest, id string, c *conn, certificate *x509.Certificate, now time.Time, p *Push) (reason string) {
	if _, reason := checkAPNSPath(request.method, request.path); reason != "" {
		return reason
	}
	topics, reason := d.authorize(request, c, certificate, now)
	if reason != "" {
		return reason
	}
	valid, reason := checkAPNS(request)
	if reason != "" {
		return reason
	}
	topic := request.topic
	if topic == "" {
		topic = request.certificateFor + pushTypes[valid.pushType]
	}
	known := d.core.state.Load().scenario.APNS.Topics
	if len(topics) > 0 || len(known) > 0 {
		bundle := bundleOf(topic, valid.pushType)
		if len(topics) > 0 && !slices.Contains(topics, bundle) || len(known) > 0 && !slices.Contains(known, bundle) {
			return "TopicDisallowed"
		}
	}
	*p = Push{
		Provider: APNS, Environment: d.environment, App: topic, Token: valid.token, ID: id, PushType: valid.pushType,
		Priority: strconv.Itoa(valid.priority), CollapseID: request.collapseID, Body: request.body, id: valid.id, conn: c.number,
	}
	if !valid.hasID {
		p.id, _ = parseUUID(id)
	}
	if at := valid.expiration; at >= 0 {
		p.Expiration = &at
	}
	return ""
}

// authorize trusts a provider token, or a certificate where there is none. topics is what the key is limited to.
func (d *apnsDoor) authorize(request *apnsRequest, c *conn, certificate *x509.Certificate, now time.Time) (topics []string, reason string) {
	if request.authorization == "" && certificate != nil {
		bundle, ok := d.identity.ca.bundleFor(certificate)
		if !ok {
			return nil, "BadCertificate"
		}
		request.certificateFor, request.trusted = bundle, true
		return nil, ""
	}
	s := &d.core.state.Load().scenario.APNS
	times := apnsTimes{lifetime: s.TokenLifetime.D(), update: s.TokenUpdate.D()}
	if times.lifetime == 0 {
		times.lifetime = providerTokenLife
	}
	if times.update == 0 {
		times.update = providerTokenUpdate
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if reason := c.auth.check(request.authorization, d.environment, now, times, d.identity.key); reason != "" {
		return nil, reason
	}
	request.trusted = true
	return c.auth.key.Topics, ""
}

// fill makes the answer to a push that the core has decided.
func (d *apnsDoor) fill(r *reply, id string, a *answer) {
	r.reset()
	r.set("apns-id", id)
	r.end = a.fault == FaultGoAway
	if a.retryAfter > 0 {
		r.retryAfter(a.retryAfter, a.asDate, d.core.now())
	}
	if a.reason != "" {
		d.refuse(r, a.reason, a.deadMS)
		return
	}
	if d.environment == Sandbox {
		r.set("apns-unique-id", uuid.NewString())
	}
	r.status = 200
}

// refusal makes the answer to what is no valid push.
func (d *apnsDoor) refusal(r *reply, id, reason string) {
	r.reset()
	r.set("apns-id", id)
	d.refuse(r, reason, d.core.now().UnixMilli())
}

func (d *apnsDoor) refuse(r *reply, reason string, deadMS int64) {
	r.status, r.reason = apnsStatus[reason], reason
	r.set("content-type", "application/json")
	r.end = r.end || reason == "Shutdown"
	r.body = appendAPNSBody(r.body, reason, deadMS)
}
