package ingest

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"time"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// defaultChannel is where a device goes that names none.
const defaultChannel = "default"

// registration is what a request registers.
type registration struct {
	device   schemas.Device
	platform string
	channel  string
	keyID    string
	atUS     int64
}

// say writes the registration and its subscription; both or neither are asked for in one append.
func (r *registration) say(out *schemas.Out) {
	out.TokenRegistered(&pushv1.TokenRegistered{
		App: r.device.App, Transport: r.device.Transport, Environment: r.device.Environment, Token: r.device.Token,
		Platform: r.platform, KeyId: r.keyID, RegisteredAtUs: r.atUS,
	})
	out.ChannelSubscribed(&pushv1.ChannelSubscribed{
		App: r.device.App, Transport: r.device.Transport, Environment: r.device.Environment, Token: r.device.Token,
		Channel: r.channel, KeyId: r.keyID, SubscribedAtUs: r.atUS,
	})
}

// registerV1 is POST /tokens/<t>.
func (c *call) registerV1() *answer {
	if refused := c.admit(needsKey, true); refused != nil {
		return refused
	}
	token, refused := c.pathToken()
	if refused != nil {
		return refused
	}
	b := pushBody{token: token, device: c.form.get("device"), channel: c.form.get("channel"), environment: c.form.get("environment")}
	return c.register(&b, registerV1, okStatus, tokenExists)
}

// registerV2 is POST /api/v2/tokens.
func (c *call) registerV2() *answer {
	if refused := c.admit(needsKey, false); refused != nil {
		return refused
	}
	members, refused := c.json()
	if refused != nil {
		if !c.grant.may(bitCreate) {
			return mayNotCreate
		}
		return refused
	}
	b := readPush(members)
	if b.environment == "" {
		b.environment = c.form.get("environment")
	}
	return c.register(&b, registerV2, okEmpty, okEmpty)
}

// register answers a registration. A key that may not register is told that the token exists if it is there: a Moodle site
// pushes only to devices that it could register, also where phones register themselves. A site key's token is checked before its
// right, so that Moodle's settings page, which registers `testtoken`, sees that the key is good.
func (c *call) register(b *pushBody, rule leniency, fresh, exists *answer) *answer {
	r, refused := c.registration(b, rule)
	if c.grant.may(bitCreate) {
		if refused != nil {
			return refused
		}
		return c.keep(&r, fresh, exists)
	}
	switch {
	case refused != nil && c.grant.claim() != nil:
		return refused
	case refused != nil:
		return mayNotCreate
	}
	h := c.server.devices.hash(r.device)
	if _, known := c.server.devices.look(h); known {
		return exists
	}
	f := c.server.proof.about(c.gin.Request.Context(), r.device, c.server.options.RegisterPatience)
	switch {
	case !f.proven:
		return storeBehind
	case !f.state.Known:
		return mayNotCreate
	}
	return exists
}

// registration decides what a request would register.
func (c *call) registration(b *pushBody, rule leniency) (registration, *answer) {
	to, refused := targetOf(b.device, b.token, rule)
	if refused != nil {
		return registration{}, refused
	}
	env, refused := environmentOf(b.environment, to.transport)
	if refused != nil {
		return registration{}, refused
	}
	channel, refused := c.grant.joins(b.channel)
	if refused != nil {
		return registration{}, refused
	}
	return registration{
		device:   schemas.Device{App: c.grant.app, Transport: to.transport, Environment: env, Token: b.token},
		platform: cutPlatform(to.platform), channel: channel, keyID: c.grant.keyID(), atUS: c.now.UnixMicro(),
	}, nil
}

// joins is the channel that a device registered through this key joins: a site's own, whatever the request names.
func (g *grant) joins(named string) (string, *answer) {
	if site := g.claim(); site != nil {
		return site.channel, nil
	}
	if named == "" {
		return defaultChannel, nil
	}
	if schemas.CheckChannel(named) != nil {
		return "", invalidChannel
	}
	return named, nil
}

// keep appends a registration. Whether the token was there is told as far as it is known in time; Moodle takes either answer.
func (c *call) keep(r *registration, fresh, exists *answer) *answer {
	if refused := c.full(); refused != nil {
		return refused
	}
	s, ctx := c.server, c.gin.Request.Context()
	h := s.devices.hash(r.device)
	asOf, there := s.devices.look(h)
	if !there {
		there = s.glance.about(ctx, r.device, s.options.ProofPatience).state.Known
	}
	// Whoever registers a token says that it lives now, after all that is known against it, also where clocks differ a little.
	r.atUS = max(r.atUS, asOf+1)
	if err := s.log.Append(ctx, r.say); err != nil {
		return c.failed(err)
	}
	s.devices.learn(h)
	if there {
		return exists
	}
	return fresh
}

// cutPlatform bounds what was sent as a platform.
func cutPlatform(p string) string {
	if schemas.CheckChannel(p) != nil { // the same alphabet and length will do
		return "unknown"
	}
	return p
}

// pathToken is the token in the path, with its escapes undone and nothing else.
func (c *call) pathToken() (string, *answer) {
	token, err := url.PathUnescape(c.gin.Param("token"))
	if err != nil {
		return "", invalidToken
	}
	return token, nil
}

// unregister is DELETE /tokens/<t>, on v1 and v2: everything of that token in the app, by an operator's key; the site's own
// subscriptions alone, by a site's.
func (c *call) unregister() *answer {
	if refused := c.admit(needsKey, false); refused != nil {
		return refused
	}
	if !c.grant.may(bitDelete) {
		return mayNotDelete
	}
	return c.remove()
}

// remove takes the token in the path away, as far as the key reaches.
func (c *call) remove() *answer {
	token, refused := c.pathToken()
	if refused != nil || schemas.CheckToken(token) != nil {
		return tokenNotThere
	}
	if refused := c.full(); refused != nil {
		return refused
	}
	ctx, s := c.gin.Request.Context(), c.server
	need, err := s.log.Ends(ctx, schemas.Devices)
	if err != nil {
		return c.failed(err)
	}
	devices, err := s.findToken(ctx, c.grant.app, token, need)
	if site := c.grant.claim(); err == nil && site != nil {
		devices, err = s.subscribed(ctx, devices, site.channel, need)
	}
	switch {
	case err != nil:
		s.slog.Warn("token could not be looked up", "error", err, "app", c.grant.app)
		return storeBehind
	case len(devices) == 0:
		return tokenNotThere
	}
	if err := s.log.Append(ctx, c.removal(devices)); err != nil {
		return c.failed(err)
	}
	if c.grant.claim() == nil {
		for _, d := range devices {
			s.devices.forget(s.devices.hash(d))
		}
	}
	return tokenDeleted
}

// removal says that the devices are gone, for this key.
func (c *call) removal(devices []schemas.Device) func(*schemas.Out) {
	site, keyID, at := c.grant.claim(), c.grant.keyID(), c.now.UnixMicro()
	return func(out *schemas.Out) {
		for _, d := range devices {
			if site != nil {
				out.ChannelUnsubscribed(&pushv1.ChannelUnsubscribed{
					App: d.App, Transport: d.Transport, Environment: d.Environment, Token: d.Token,
					Channel: site.channel, KeyId: keyID, UnsubscribedAtUs: at,
				})
				continue
			}
			out.TokenUnregistered(&pushv1.TokenUnregistered{
				App: d.App, Transport: d.Transport, Environment: d.Environment, Token: d.Token, KeyId: keyID, UnregisteredAtUs: at,
			})
		}
	}
}

// findToken waits for the store as long as a registration may.
func (s *Server) findToken(ctx context.Context, app, token string, need schemas.Watermark) ([]schemas.Device, error) {
	ctx, cancel := context.WithTimeout(ctx, s.options.RegisterPatience)
	defer cancel()
	pause := firstPause
	for {
		devices, err := s.store.FindToken(ctx, app, token, need)
		if !errors.Is(err, schemas.ErrBehind) {
			return devices, err
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, err
		case <-timer.C:
		}
		pause = min(longestPause, 2*pause)
	}
}

// subscribed keeps the devices that are in a channel. The store had applied need already.
func (s *Server) subscribed(ctx context.Context, devices []schemas.Device, channel string, need schemas.Watermark) ([]schemas.Device, error) {
	if len(devices) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.options.RegisterPatience)
	defer cancel()
	states, err := s.store.Lookup(ctx, devices, need)
	if err != nil {
		return nil, err
	}
	var in []schemas.Device
	for i, d := range devices {
		if i < len(states) && slices.Contains(states[i].Channels, channel) {
			in = append(in, d)
		}
	}
	return in, nil
}
