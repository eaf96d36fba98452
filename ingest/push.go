package ingest

import (
	"strings"

	"github.com/campanile-push/campanile/schemas"
)

// push is POST /api/v2/push.
func (c *call) push() *answer {
	if refused := c.admit(needsKey, false); refused != nil {
		return refused
	}
	if !c.grant.may(bitNotify) {
		return mayNotNotify
	}
	members, refused := c.json()
	if refused != nil {
		return refused
	}
	b := readPush(members)
	if token, there := c.form.lookup("token"); there {
		b.token = token
	}
	if b.environment == "" {
		b.environment = c.form.get("environment")
	}
	if b.token == "" {
		return noToken
	}
	to, refused := targetOf(b.device, b.token, pushAnything)
	if refused != nil {
		return refused
	}
	p := toFCM
	if to.transport == schemas.APNS {
		p = toAPNs
	}
	if refused := c.content.ofPush(&b, p); refused != nil {
		return refused
	}
	c.markRepeats()
	if refused := c.request(to, &b, deadToken); refused != nil {
		return refused
	}
	return acceptedEmpty
}

// notify is POST /notification/, which Moodle 2.7 uses. A dead token is answered as v1 did.
func (c *call) notify() *answer {
	if refused := c.admit(needsKey, true); refused != nil {
		return refused
	}
	if !c.grant.may(bitNotify) {
		return mayNotNotify
	}
	b := pushBody{
		token: c.form.get("token"), device: c.form.get("device"), channel: c.form.get("channel"), environment: c.form.get("environment"),
	}
	if b.token == "" {
		return noToken
	}
	if _, there := c.form.lookup("alert"); !there {
		return noAlert
	}
	if b.device == "" && !isAPNsToken(b.token) {
		b.device = "fcm" // the clients of 2012 name no device; a token that is not of APNs is of Google's
	}
	to, refused := targetOf(b.device, b.token, pushAnything)
	if refused != nil {
		return refused
	}
	if refused := c.content.ofForm(&c.form); refused != nil {
		return refused
	}
	c.markRepeats()
	if refused := c.request(to, &b, nil); refused != nil {
		return refused
	}
	return okEmpty
}

// request accepts a push to one device, or says why not: the negative answers only with the proof of the prover. dead is the answer about
// a dead token; nil is v1's.
func (c *call) request(to target, b *pushBody, dead *answer) *answer {
	if refused := c.full(); refused != nil {
		return refused
	}
	s, ctx := c.server, c.gin.Request.Context()
	env, refused := environmentOf(b.environment, to.transport)
	if refused != nil {
		return refused
	}
	channel, refused := c.grant.joins(b.channel)
	if refused != nil {
		return refused
	}
	d := schemas.Device{App: c.grant.app, Transport: to.transport, Environment: env, Token: b.token}
	h := s.devices.hash(d)
	asOf, known := s.devices.look(h)
	mayCreate := c.grant.may(bitCreate)

	n := &c.notification
	n.RequestedAtUs = c.now.UnixMicro()
	n.RegisteredAtUs = n.RequestedAtUs
	if asOf != 0 || !mayCreate && !known {
		f := s.proof.about(ctx, d, s.options.ProofPatience)
		switch judge(&f, mayCreate) {
		case isDead:
			s.metrics.dead.Inc()
			if dead == nil {
				return notRegistered(b.token)
			}
			return dead
		case isUnknown:
			return unknownToken
		case inDoubt:
			s.metrics.doubts.Inc()
			n.InDoubt, n.DoubtEnd = true, f.end
		case isAlive:
			known = true
			n.RegisteredAtUs = f.state.RegisteredAtUS
			s.devices.learn(h)
		case isNew:
			known = false
		}
	}

	id := c.wantedID
	if id.IsZero() {
		id = schemas.NewID()
	}
	c.requestID = id
	n.RequestId = c.requestID[:]
	n.App, n.KeyId, n.Platform, n.MayCreate = d.App, c.grant.keyID(), cutPlatform(to.platform), mayCreate
	n.Transport, n.Environment, n.Token = d.Transport, d.Environment, d.Token
	n.Content = &c.content.c
	if err := s.log.Append(ctx, c.say); err != nil {
		return c.failed(err)
	}
	c.id = id.String()
	if mayCreate && !known {
		d.Token = strings.Clone(d.Token) // the rest of the body need not stay for it
		s.creator.offer(h, registration{d, strings.Clone(n.Platform), strings.Clone(channel), n.KeyId, n.RequestedAtUs})
	}
	return nil
}

// verdict is what a finding means for a push.
type verdict int

const (
	isAlive verdict = iota
	isNew           // unknown, and the key may create it
	isUnknown
	isDead
	inDoubt
)

// judge decides a push by what the store said.
func judge(f *finding, mayCreate bool) verdict {
	switch {
	case !f.proven:
		return inDoubt
	case f.state.Known && f.state.Alive:
		return isAlive
	case f.state.Known:
		return isDead
	case mayCreate:
		return isNew
	}
	return isUnknown
}
