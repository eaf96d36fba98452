package ingest

import (
	"bytes"
	"context"
	"net/http"
	"slices"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// acceptedNotification answers a notification.
type acceptedNotification struct {
	ID     string `json:"id"`
	Status string `json:"status"`
}

// acceptedBroadcast answers a broadcast.
type acceptedBroadcast struct {
	ID               string   `json:"id,omitempty"`
	Status           string   `json:"status"`
	Channels         []string `json:"channels"`
	AudienceEstimate int64    `json:"audience_estimate"`
	DryRun           bool     `json:"dry_run,omitempty"`
}

// postNotification is POST /api/v3/notifications.
func (c *call) postNotification() *answer {
	if refused := c.admitV3(bitNotify); refused != nil {
		return refused
	}
	members, refused := c.bodyV3(false)
	if refused != nil {
		return refused
	}
	b, wrong := readNotification(members, c.now, &c.content)
	if wrong != nil {
		return badField(wrong)
	}
	to, wrong := b.target()
	if wrong != nil {
		return badField(wrong)
	}
	return c.once(func() *answer {
		c.notification.ExpiresAtUs = b.expiresAt
		if refused := c.request(to, &pushBody{token: b.token, environment: b.environment}, deadToken); refused != nil {
			return refused
		}
		return accepted(http.StatusAccepted, acceptedNotification{c.id, "accepted"})
	}, func() *answer {
		return accepted(http.StatusAccepted, acceptedNotification{c.id, "accepted"})
	})
}

// once runs do, and under an Idempotency-Key that this process has seen answers again instead.
func (c *call) once(do, again func() *answer) *answer {
	hash, keyed, refused := c.idempotent()
	switch {
	case refused != nil:
		return refused
	case !keyed:
		return do()
	}
	id := c.wantedID
	logged, conflict := c.server.taken.take(id, hash, c.now)
	switch {
	case conflict:
		return v3OtherBody
	case logged:
		c.id = id.String()
		c.gin.Writer.Header().Set(headerReplayed, "true")
		return again()
	}
	c.notification.BodyHash = append(c.notification.BodyHash[:0], hash[:]...) // the router has it where another ingest took the first
	ok := false
	defer func() { c.server.taken.done(id, ok) }()
	a := do()
	ok = a.status < http.StatusBadRequest
	return a
}

// postBroadcast is POST /api/v3/broadcasts.
func (c *call) postBroadcast() *answer {
	if refused := c.admitV3(bitBroadcast); refused != nil {
		return refused
	}
	members, refused := c.bodyV3(false)
	if refused != nil {
		return refused
	}
	b, wrong := readBroadcast(members, c.now, &c.content)
	if wrong != nil {
		return badField(wrong)
	}
	channels, refused := c.grant.audiences(b.channels)
	if refused != nil {
		return refused
	}
	if b.dryRun {
		return c.dryRun(channels)
	}
	hash, keyed, refused := c.idempotent()
	if refused != nil {
		return refused
	}
	if keyed {
		if a := c.replay(hash); a != nil {
			return a
		}
	}
	e := b.event(c.grant.app, channels, c.now, &c.content.c)
	e.BodyHash = hash[:]
	answered := func() *answer {
		c.gin.Writer.Header().Set("Location", prefixV3+"/broadcasts/"+c.id)
		return accepted(http.StatusAccepted, acceptedBroadcast{ID: c.id, Status: "accepted", Channels: channels, AudienceEstimate: e.AudienceEstimate})
	}
	return c.once(func() *answer {
		if refused := c.appendBroadcast(e); refused != nil {
			return refused
		}
		return answered()
	}, answered)
}

// audiences is the channels of a broadcast that names some, each as far as the key reaches.
func (g *grant) audiences(named []string) (all []string, refused *answer) {
	if len(named) == 0 {
		named = []string{""}
	}
	for _, n := range named {
		channels, refused := g.audience(n)
		if refused != nil {
			return nil, refused
		}
		all = append(all, channels...)
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// dryRun counts an audience and sends nothing.
func (c *call) dryRun(channels []string) *answer {
	s := c.server
	ctx, cancel := context.WithTimeout(c.gin.Request.Context(), s.options.RegisterPatience)
	defer cancel()
	n, err := s.store.Estimate(ctx, c.grant.app, channels)
	if err != nil {
		s.slog.Warn("audience not estimated", "app", c.grant.app, "error", err)
		return storeBehind
	}
	return accepted(http.StatusOK, acceptedBroadcast{Status: "dry_run", Channels: channels, AudienceEstimate: n, DryRun: true})
}

// replay answers a broadcast whose id the log holds; nil where it does not, as far as could be read.
func (c *call) replay(hash [32]byte) *answer {
	b := c.findBroadcast(c.wantedID)
	if b == nil {
		return nil
	}
	first := &b.contents[0]
	if !bytes.Equal(first.bodyHash, hash[:]) {
		return v3OtherBody
	}
	c.id = c.wantedID.String()
	h := c.gin.Writer.Header()
	h.Set(headerReplayed, "true")
	h.Set("Location", prefixV3+"/broadcasts/"+c.id)
	return accepted(http.StatusAccepted, acceptedBroadcast{ID: c.id, Status: "accepted", Channels: first.channels, AudienceEstimate: first.estimate})
}

// findBroadcast looks a broadcast up, and reads the log to its end before it says that there is none.
func (c *call) findBroadcast(id schemas.ID) *knownBroadcast {
	s := c.server
	if b := s.casts.find(id); b != nil || s.options.CatchUpBroadcasts == nil {
		return b
	}
	ctx, cancel := context.WithTimeout(c.gin.Request.Context(), catchUpV3)
	defer cancel()
	if err := s.options.CatchUpBroadcasts(ctx); err != nil && c.gin.Request.Context().Err() == nil {
		s.slog.Warn("broadcasts not read to their end", "error", err)
	}
	return s.casts.find(id)
}

// controlled answers a control.
type controlled struct {
	ID     string   `json:"id"`
	Status string   `json:"status"`
	Rate   *float64 `json:"rate,omitempty"`
}

// control is POST /api/v3/broadcasts/<id>/<verb>. The log decides what holds; what is known here only makes for better answers.
func control(verb string) handler {
	return func(c *call) *answer {
		if refused := c.admitV3(bitBroadcast); refused != nil {
			return refused
		}
		members, refused := c.bodyV3(verb != "rate")
		if refused != nil {
			return refused
		}
		body, wrong := readControl(members, verb)
		if wrong != nil {
			return badField(wrong)
		}
		id, err := schemas.ParseID(c.gin.Param("id"))
		if err != nil {
			return v3NoBroadcast
		}
		b := c.findBroadcast(id)
		if b == nil || b.contents[0].app != c.grant.app {
			return v3NoBroadcast
		}
		mine := c.server.mine(&c.grant)
		switch {
		case mine != nil && !mine(b.contents[0].keyID):
			return v3NoBroadcast
		case b.ended:
			return v3Ended
		case b.cancelled && verb != "cancel":
			return v3Cancelled
		}
		return c.steer(id, verb, &body)
	}
}

// steer appends a control. Also where the log is nearly full: it makes the log smaller, or nothing larger.
func (c *call) steer(id schemas.ID, verb string, b *controlBody) *answer {
	at, by := c.now.UnixMicro(), "key "+c.grant.keyID()
	done := controlled{ID: id.String()}
	err := c.server.log.Append(c.gin.Request.Context(), func(out *schemas.Out) {
		switch verb {
		case "pause":
			done.Status = "paused"
			out.BroadcastPaused(&pushv1.BroadcastPaused{BroadcastId: id[:], PausedAtUs: at, PausedBy: by, Reason: b.reason})
		case "resume":
			done.Status = "resumed"
			out.BroadcastResumed(&pushv1.BroadcastResumed{BroadcastId: id[:], ResumedAtUs: at, ResumedBy: by})
		case "cancel":
			done.Status = "cancelled"
			out.BroadcastCancelled(&pushv1.BroadcastCancelled{BroadcastId: id[:], CancelledAtUs: at, CancelledBy: by, Reason: b.reason})
		case "rate":
			done.Status, done.Rate = "rate_changed", &b.rate
			out.BroadcastRateChanged(&pushv1.BroadcastRateChanged{BroadcastId: id[:], Rate: b.rate, ChangedAtUs: at, ChangedBy: by})
		}
	})
	if err != nil {
		return c.failed(err)
	}
	return accepted(http.StatusAccepted, done)
}
