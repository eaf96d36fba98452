package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/campanile-push/campanile/api"
	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/ingest"
	"github.com/campanile-push/campanile/projections/cockroach"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// logDesk is the operator's: it writes to the log what ingest would, and reads the log itself.
type logDesk struct {
	cfg *Config
	log *eventlog.Log
}

// operatorKey stands for a key's id where the operator's own command gives an Idempotency-Key.
const operatorKey = "operator"

func (d *logDesk) send(ctx context.Context, app string, body []byte, idempotencyKey string) (api.Accepted, error) {
	dir, err := readDirectory(ctx, d.log)
	if err != nil {
		return api.Accepted{}, err
	}
	if _, err := dir.find(app); err != nil {
		return api.Accepted{}, err
	}
	now := time.Now()
	e, dryRun, err := ingest.BroadcastFromJSON(app, body, now)
	if err != nil {
		return api.Accepted{}, fmt.Errorf("broadcast: %w", err)
	}
	estimate, err := d.estimate(ctx, app, e.Channels)
	if err != nil {
		return api.Accepted{}, err
	}
	accepted := api.Accepted{Status: "accepted", Channels: e.Channels, AudienceEstimate: estimate, DryRun: dryRun}
	if dryRun {
		accepted.Status = "dry_run"
		return accepted, nil
	}
	id, record, hash := schemas.NewID(), schemas.NewID(), sha256.Sum256(body)
	if idempotencyKey != "" {
		id = schemas.RequestID(app, operatorKey, idempotencyKey)
		first, err := d.firstHash(ctx, id)
		switch {
		case err != nil:
			return api.Accepted{}, err
		case first != nil && !bytes.Equal(first, hash[:]):
			return api.Accepted{}, fmt.Errorf("another broadcast was sent under the idempotency key %q: it is %s", idempotencyKey, id)
		case first != nil:
			accepted.ID = id.String()
			return accepted, nil
		}
	}
	ends, err := d.log.Ends(ctx, schemas.Devices)
	if err != nil {
		return api.Accepted{}, err
	}
	e.BroadcastId, e.RecordId, e.BodyHash = id[:], record[:], hash[:]
	e.Watermark = &pushv1.Watermark{Ends: ends}
	e.AudienceEstimate, e.Ranges = estimate, ingest.Ranges(estimate)
	if err := d.log.Append(ctx, func(out *schemas.Out) { out.BroadcastRequested(e) }); err != nil {
		return api.Accepted{}, err
	}
	accepted.ID = id.String()
	return accepted, nil
}

// firstHash is the body's hash of the first request under an id; nil where there is none.
func (d *logDesk) firstHash(ctx context.Context, id schemas.ID) (hash []byte, err error) {
	err = replay(ctx, d.log, "broadcast", func(r schemas.Record) error {
		if k, ok := schemas.ParseBroadcastKey(r.Key); !ok || k.Broadcast != id || k.Kind != schemas.BroadcastContent || r.Tombstone() || hash != nil {
			return nil
		}
		event, err := r.Event()
		if e, ok := event.(*pushv1.BroadcastRequested); ok {
			hash = append([]byte{}, e.BodyHash...)
		}
		return err
	}, schemas.Broadcasts)
	return hash, err
}

// estimate asks the shared store. The embedded one belongs to the process that runs, so there the log itself is counted: with its
// million devices at most, that takes seconds.
func (d *logDesk) estimate(ctx context.Context, app string, channels []string) (int64, error) {
	if d.cfg.Cockroach.URL == "" {
		a := newAudience(app, channels)
		err := replay(ctx, d.log, "audience", a.apply, schemas.Devices)
		return a.size(), err
	}
	opening, cancel := context.WithTimeout(ctx, openWait)
	defer cancel()
	store, err := cockroach.Open(opening, cockroach.Options{URL: d.cfg.Cockroach.URL, Layout: d.log.Layout()})
	if err != nil {
		return 0, fmt.Errorf("open the device store: %w", err)
	}
	n, err := store.Estimate(ctx, app, channels)
	return n, errors.Join(err, store.Close())
}

// read folds what the log says of broadcasts now.
func (d *logDesk) read(ctx context.Context) (*api.Broadcasts, error) {
	view := api.NewBroadcasts(nil)
	err := replay(ctx, d.log, "broadcasts", view.Apply, api.Topics()...)
	return view, err
}

func (d *logDesk) list(ctx context.Context, app, state string, limit int) ([]api.Broadcast, error) {
	view, err := d.read(ctx)
	if err != nil {
		return nil, err
	}
	list, _ := view.List(api.Query{App: app, State: state, Limit: limit})
	return list, nil
}

func (d *logDesk) show(ctx context.Context, text string) (api.Broadcast, error) {
	id, err := schemas.ParseID(text)
	if err != nil {
		return api.Broadcast{}, err
	}
	view, err := d.read(ctx)
	if err != nil {
		return api.Broadcast{}, err
	}
	x, ok := view.Get(id)
	if !ok {
		return api.Broadcast{}, noBroadcast(id)
	}
	return x, nil
}

func noBroadcast(id schemas.ID) error {
	return fmt.Errorf("there is no broadcast %s: `campanile broadcast list` shows those that the log holds", id)
}

func (d *logDesk) control(ctx context.Context, text string, o order) error {
	x, err := d.show(ctx, text)
	if err != nil {
		return err
	}
	switch {
	case x.State == api.StateEnded, x.State == api.StateCancelled:
		return fmt.Errorf("broadcast %s has ended", text)
	case x.State == api.StateCancelling && o.verb != "cancel":
		return fmt.Errorf("broadcast %s is cancelled, and that is final", text)
	}
	id, err := schemas.ParseID(text)
	if err != nil {
		return err
	}
	return d.log.Append(ctx, func(out *schemas.Out) { o.say(out, id, time.Now().UnixMicro(), operator()) })
}

// say writes the order down.
func (o order) say(out *schemas.Out, id schemas.ID, atUS int64, by string) {
	switch o.verb {
	case "pause":
		out.BroadcastPaused(&pushv1.BroadcastPaused{BroadcastId: id[:], PausedAtUs: atUS, PausedBy: by, Reason: o.reason})
	case "resume":
		out.BroadcastResumed(&pushv1.BroadcastResumed{BroadcastId: id[:], ResumedAtUs: atUS, ResumedBy: by})
	case "cancel":
		out.BroadcastCancelled(&pushv1.BroadcastCancelled{BroadcastId: id[:], CancelledAtUs: atUS, CancelledBy: by, Reason: o.reason})
	case "rate":
		out.BroadcastRateChanged(&pushv1.BroadcastRateChanged{BroadcastId: id[:], Rate: o.rate, ChangedAtUs: atUS, ChangedBy: by})
	}
}

func (d *logDesk) watch(ctx context.Context, text string, each func(api.Broadcast) error) error {
	id, err := schemas.ParseID(text)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	view := api.NewBroadcasts(nil)
	following := d.log.Follow("watch", view.Apply, api.Topics()...)
	ended := make(chan error, 1)
	go func() { ended <- following.Run(ctx) }()
	defer func() { // it ends before watch returns
		stop()
		<-ended //nolint:errcheck // it was returned, or is that of stop
	}()
	caughtUp := following.CaughtUp()
	var tick <-chan time.Time
	for {
		select {
		case err := <-ended:
			ended <- err
			return err
		case <-caughtUp:
			view.Measure()
			caughtUp = nil
			ticker := time.NewTicker(watchEvery)
			defer ticker.Stop()
			tick = ticker.C
		case <-tick:
		}
		x, ok := view.Get(id)
		if !ok {
			return noBroadcast(id)
		}
		if err := each(x); err != nil || over(&x) {
			return err
		}
	}
}

func over(x *api.Broadcast) bool { return x.State == api.StateEnded || x.State == api.StateCancelled }

// audience counts from the log the phones of some channels of an app. Its memory grows with the app's devices.
type audience struct {
	app      string
	channels map[string]bool
	devices  map[schemas.Device]*member
}

type member struct {
	registeredAtUS, deadAsOfUS int64 // zero: never
	in                         map[string]bool
}

func newAudience(app string, channels []string) *audience {
	a := &audience{app: app, channels: map[string]bool{}, devices: map[schemas.Device]*member{}}
	for _, c := range channels {
		a.channels[c] = true
	}
	return a
}

func (a *audience) apply(r schemas.Record) error {
	if r.Tombstone() {
		return nil
	}
	event, err := r.Event()
	if err != nil {
		return err
	}
	named, ok := event.(interface {
		GetApp() string
		GetTransport() schemas.Transport
		GetEnvironment() schemas.Environment
		GetToken() string
	})
	if !ok || named.GetApp() != a.app {
		return nil
	}
	device := schemas.DeviceOf(named)
	m := a.devices[device]
	if m == nil {
		m = &member{}
		a.devices[device] = m
	}
	switch e := event.(type) {
	case *pushv1.TokenRegistered:
		m.registeredAtUS = e.RegisteredAtUs
	case *pushv1.TokenUnregistered:
		m.registeredAtUS, m.in = 0, nil
	case *pushv1.TokenInvalidated:
		m.deadAsOfUS = max(m.deadAsOfUS, e.AsOfUs)
	case *pushv1.ChannelSubscribed:
		if a.channels[e.Channel] {
			if m.in == nil {
				m.in = map[string]bool{}
			}
			m.in[e.Channel] = true
		}
	case *pushv1.ChannelUnsubscribed:
		delete(m.in, e.Channel)
	}
	return nil
}

// size is how many of them live; each phone counts once.
func (a *audience) size() (n int64) {
	for _, m := range a.devices {
		if len(m.in) > 0 && m.registeredAtUS > m.deadAsOfUS {
			n++
		}
	}
	return n
}
