package ingest

import (
	"context"
	"slices"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// broadcastV1 is POST /broadcast/.
func (c *call) broadcastV1() *answer {
	if refused := c.admit(needsKey, true); refused != nil {
		return refused
	}
	if !c.grant.may(bitBroadcast) {
		return mayNotBroadcast
	}
	if c.form.get("alert") == "" {
		return noAlert
	}
	if refused := c.content.ofForm(&c.form); refused != nil {
		return refused
	}
	if refused := c.broadcast(c.form.get("channel"), nil); refused != nil {
		return refused
	}
	return okStatus
}

// broadcastV2 is POST /api/v2/broadcast.
func (c *call) broadcastV2() *answer {
	if refused := c.admit(needsKey, false); refused != nil {
		return refused
	}
	if !c.grant.may(bitBroadcast) {
		return mayNotBroadcast
	}
	members, refused := c.json()
	if refused != nil {
		return refused
	}
	b := readPush(members)
	if !b.alertThere {
		return noAlertV2
	}
	if refused := c.content.ofPush(&b, toAll); refused != nil {
		return refused
	}
	if b.device != "" && schemas.CheckChannel(b.device) != nil {
		return invalidDeviceType
	}
	if refused := c.broadcast(b.channel, platformFilter(b.device)); refused != nil {
		return refused
	}
	return acceptedEmpty
}

// audience is the channels that a broadcast goes to. A site key reaches its own and nothing else, whatever is named; one that names
// none means all that is its own.
func (g *grant) audience(named string) ([]string, *answer) {
	site := g.claim()
	if site == nil {
		if named == "" {
			named = defaultChannel
		}
		if schemas.CheckChannel(named) != nil {
			return nil, invalidChannel
		}
		return []string{named}, nil
	}
	own := []string{site.channel}
	all := named == "" || named == defaultChannel // what v1's clients send who mean none
	if g.owner {
		// A site that names itself means all its phones, those that the site registered (in the claim's channel) too.
		all = all || named == siteChannel(site.wwwroot)
		own = append(own, siteChannel(site.wwwroot))
		slices.Sort(own)
	}
	switch {
	case all:
		return own, nil
	case named == site.channel:
		return []string{named}, nil
	}
	return nil, mayNotBroadcast
}

// broadcast appends a request for a push to every device of some channels.
//
// The watermark is read after the request came, so it covers every registration that was answered before it was sent, by
// this process or any other.
func (c *call) broadcast(channel string, platforms []string) *answer {
	channels, refused := c.grant.audience(channel)
	if refused != nil {
		return refused
	}
	if c.repeatedBroadcast() {
		return nil
	}
	return c.appendBroadcast(&pushv1.BroadcastRequested{
		App: c.grant.app, Channels: channels, Platforms: platforms, Content: &c.content.c, RequestedAtUs: c.now.UnixMicro(),
	})
}

// appendBroadcast gives a request its ids, its watermark and its size, and appends it.
func (c *call) appendBroadcast(e *pushv1.BroadcastRequested) *answer {
	if refused := c.full(); refused != nil {
		return refused
	}
	s, ctx := c.server, c.gin.Request.Context()
	ends, err := s.log.Ends(ctx, schemas.Devices)
	if err != nil {
		return c.failed(err)
	}
	id, record := c.wantedID, schemas.NewID()
	if id.IsZero() {
		id = schemas.NewID()
	}
	e.BroadcastId, e.RecordId, e.KeyId, e.Watermark = id[:], record[:], c.grant.keyID(), &pushv1.Watermark{Ends: ends}
	e.AudienceEstimate, e.Ranges = s.estimate(ctx, e.App, e.Channels)
	if err := s.log.Append(ctx, func(out *schemas.Out) { out.BroadcastRequested(e) }); err != nil {
		return c.failed(err)
	}
	c.id = id.String()
	return nil
}

// Audiences from which on a broadcast walks more cursors at once. One cursor reads and commits some 100,000 devices a second, so
// that a small audience gains nothing from more than one, and each costs a commit.
const (
	mediumAudience = 50_000
	largeAudience  = 1_000_000
)

// estimate asks the store for the size of an audience. Without an answer the audience is taken for a medium one.
func (s *Server) estimate(ctx context.Context, app string, channels []string) (size int64, ranges uint32) {
	ctx, cancel := context.WithTimeout(ctx, s.options.ProofPatience)
	defer cancel()
	size, err := s.store.Estimate(ctx, app, channels)
	if err != nil {
		s.slog.Warn("audience not estimated", "app", app, "error", err)
		return 0, 16
	}
	return size, rangesFor(size)
}

// Ranges is into how many ranges a broadcast to an audience of that size is split; zero is an audience that nobody could estimate.
func Ranges(audience int64) uint32 {
	if audience <= 0 {
		return 16
	}
	return rangesFor(audience)
}

func rangesFor(audience int64) uint32 {
	switch {
	case audience < mediumAudience:
		return 1
	case audience < largeAudience:
		return 16
	}
	return 64
}
