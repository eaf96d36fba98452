package ingest

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// registered answers a registration.
type registered struct {
	Status   string   `json:"status"` // registered, or exists as far as it is known
	Channels []string `json:"channels"`
}

// putToken is PUT /api/v3/tokens/<token>: it registers a device, or says again that it lives.
func (c *call) putToken() *answer {
	if refused := c.admitV3(bitCreate); refused != nil {
		return refused
	}
	token, refused := c.pathToken()
	if refused != nil {
		return refused
	}
	members, refused := c.bodyV3(true)
	if refused != nil {
		return refused
	}
	b, wrong := readToken(members, token)
	if wrong != nil {
		return badField(wrong)
	}
	to, wrong := b.target()
	if wrong != nil {
		return badField(wrong)
	}
	env, refused := environmentOf(b.environment, to.transport)
	if refused != nil {
		return refused
	}
	channels, refused := c.grant.joinsAll(b.channels)
	if refused != nil {
		return refused
	}
	if refused := c.full(); refused != nil {
		return refused
	}
	d := schemas.Device{App: c.grant.app, Transport: to.transport, Environment: env, Token: token}
	if b.replaces != "" {
		return c.rotate(d, &b, to, channels)
	}
	return c.putDevice(d, &b, to, channels)
}

// joinsAll is the channels that a registration joins: those named, or the default; a site's own, whatever the request names, which may
// be nothing else.
func (g *grant) joinsAll(named []string) ([]string, *answer) {
	site := g.claim()
	switch {
	case site == nil && named == nil:
		return []string{defaultChannel}, nil
	case site == nil:
		return named, nil
	}
	for _, n := range named {
		if n != site.channel {
			return nil, v3NotMyChannel
		}
	}
	return []string{site.channel}, nil
}

// putDevice appends a registration and its subscriptions.
func (c *call) putDevice(d schemas.Device, b *tokenBody, to target, channels []string) *answer {
	s, ctx := c.server, c.gin.Request.Context()
	h := s.devices.hash(d)
	asOf, there := s.devices.look(h)
	if !there {
		there = s.glance.about(ctx, d, s.options.ProofPatience).state.Known
	}
	at, keyID := max(c.now.UnixMicro(), asOf+1), c.grant.keyID()
	err := s.log.Append(ctx, func(out *schemas.Out) {
		out.TokenRegistered(&pushv1.TokenRegistered{
			App: d.App, Transport: d.Transport, Environment: d.Environment, Token: d.Token, Platform: cutPlatform(to.platform),
			AppVersion: b.appVersion, Locale: b.locale, TimeZone: b.timeZone, UserId: b.userID, KeyId: keyID, RegisteredAtUs: at,
		})
		for _, channel := range channels {
			out.ChannelSubscribed(&pushv1.ChannelSubscribed{
				App: d.App, Transport: d.Transport, Environment: d.Environment, Token: d.Token, Channel: channel, KeyId: keyID, SubscribedAtUs: at,
			})
		}
	})
	if err != nil {
		return c.failed(err)
	}
	s.devices.learn(h)
	if there {
		return accepted(http.StatusOK, registered{"exists", channels})
	}
	return accepted(http.StatusCreated, registered{"registered", channels})
}

// rotate registers a token in the place of another, whose channels it takes over. The new one is in the log before the old one goes, so
// that a request which failed half way can be repeated. A site's key moves its own channel alone: the old token's others are not its.
func (c *call) rotate(d schemas.Device, b *tokenBody, to target, channels []string) *answer {
	if !c.grant.may(bitDelete) {
		return mayNotDelete
	}
	s, ctx := c.server, c.gin.Request.Context()
	old := d
	old.Token = b.replaces
	f := s.proof.about(ctx, old, s.options.RegisterPatience)
	switch {
	case !f.proven:
		return storeBehind
	case !f.state.Known:
		return c.putDevice(d, b, to, channels) // replaced already, or never there
	}
	if c.grant.claim() == nil {
		if b.channels == nil {
			channels = nil
		}
		channels = append(slices.Clone(channels), f.state.Channels...)
		slices.Sort(channels)
		channels = slices.Compact(channels)
	}
	a := c.putDevice(d, b, to, channels)
	if a.status >= http.StatusBadRequest {
		return a
	}
	if err := s.log.Append(ctx, c.removal([]schemas.Device{old})); err != nil {
		return c.failed(err)
	}
	if c.grant.claim() == nil {
		s.devices.forget(s.devices.hash(old))
	}
	return a
}

// deleteToken is DELETE /api/v3/tokens/<token>.
func (c *call) deleteToken() *answer {
	if refused := c.admitV3(bitDelete); refused != nil {
		return refused
	}
	if a := c.remove(); a != tokenDeleted {
		return a
	}
	return &answer{status: http.StatusNoContent}
}

// subscribe is PUT /api/v3/channels/<channel>/tokens/<token>.
func (c *call) subscribe() *answer {
	return c.membership(bitCreate, func(out *schemas.Out, d schemas.Device, channel, keyID string, at int64) {
		out.ChannelSubscribed(&pushv1.ChannelSubscribed{
			App: d.App, Transport: d.Transport, Environment: d.Environment, Token: d.Token, Channel: channel, KeyId: keyID, SubscribedAtUs: at,
		})
	})
}

// unsubscribe is DELETE /api/v3/channels/<channel>/tokens/<token>.
func (c *call) unsubscribe() *answer {
	return c.membership(bitDelete, func(out *schemas.Out, d schemas.Device, channel, keyID string, at int64) {
		out.ChannelUnsubscribed(&pushv1.ChannelUnsubscribed{
			App: d.App, Transport: d.Transport, Environment: d.Environment, Token: d.Token, Channel: channel, KeyId: keyID, UnsubscribedAtUs: at,
		})
	})
}

// membership says something of every device with the token in the path, in the channel there.
func (c *call) membership(bit uint32, say func(out *schemas.Out, d schemas.Device, channel, keyID string, at int64)) *answer {
	if refused := c.admitV3(bit); refused != nil {
		return refused
	}
	token, refused := c.pathToken()
	if refused != nil || schemas.CheckToken(token) != nil {
		return v3NoToken
	}
	channel, err := url.PathUnescape(c.gin.Param("channel"))
	if err != nil || schemas.CheckChannel(channel) != nil {
		return invalidChannel
	}
	if site := c.grant.claim(); site != nil && channel != site.channel {
		return v3NotMyChannel
	}
	if refused := c.full(); refused != nil {
		return refused
	}
	s, ctx := c.server, c.gin.Request.Context()
	devices, refused := c.devicesOf(ctx, token)
	if refused != nil {
		return refused
	}
	at, keyID := c.now.UnixMicro(), c.grant.keyID()
	if err := s.log.Append(ctx, func(out *schemas.Out) {
		for _, d := range devices {
			say(out, d, channel, keyID, at)
		}
	}); err != nil {
		return c.failed(err)
	}
	return &answer{status: http.StatusNoContent}
}

// devicesOf are those with a token, at least one: proven to be all that were registered before the request came.
func (c *call) devicesOf(ctx context.Context, token string) ([]schemas.Device, *answer) {
	s := c.server
	need, err := s.log.Ends(ctx, schemas.Devices)
	if err != nil {
		return nil, c.failed(err)
	}
	devices, err := s.findToken(ctx, c.grant.app, strings.Clone(token), need)
	switch {
	case err != nil:
		s.slog.Warn("token could not be looked up", "error", err, "app", c.grant.app)
		return nil, storeBehind
	case len(devices) == 0:
		return nil, v3NoToken
	}
	return devices, nil
}
