package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/campanile-push/campanile/api"
	"github.com/campanile-push/campanile/audit"
	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/ingest"
	"github.com/campanile-push/campanile/projections"
	"github.com/campanile-push/campanile/projections/chdb"
	"github.com/campanile-push/campanile/projections/clickhouse"
	"github.com/campanile-push/campanile/projections/cockroach"
	"github.com/campanile-push/campanile/projections/pebble"
	"github.com/campanile-push/campanile/router"
	"github.com/campanile-push/campanile/router/cpu"
	"github.com/campanile-push/campanile/schemas"
	"github.com/campanile-push/campanile/senders"
	"github.com/campanile-push/campanile/senders/apns"
	"github.com/campanile-push/campanile/senders/fcm"
)

// The stages of the pipeline. Each method starts one: `campanile up` starts them all, the other commands one each.

func storeDir(c *Config) string     { return filepath.Join(c.Data, "devices") }
func analyticsDir(c *Config) string { return filepath.Join(c.Data, "analytics") }

// openStore opens the device store, which ingest, the routers and the projector share.
func (p *process) openStore(ctx context.Context) error {
	if p.store != nil {
		return nil
	}
	var err error
	if p.cfg.Cockroach.URL == "" {
		if !p.cfg.embedded() {
			return errors.New("cockroach.url is not set: on Kafka every stage needs the shared device store")
		}
		p.store, err = pebble.Open(storeDir(p.cfg), pebble.Options{Layout: p.log.Layout(), Fsync: p.cfg.Embedded.Fsync, Logger: p.logger})
	} else {
		opening, cancel := context.WithTimeout(ctx, openWait)
		defer cancel()
		p.store, err = cockroach.Open(opening, cockroach.Options{URL: p.cfg.Cockroach.URL, Layout: p.log.Layout(), Logger: p.logger})
	}
	if err != nil {
		return fmt.Errorf("open the device store: %w", err)
	}
	p.closers = append(p.closers, func() {
		if err := p.store.Close(); err != nil {
			p.logger.Error("the device store did not close cleanly", "error", err)
		}
	})
	return nil
}

// startIngest serves the API.
func (p *process) startIngest(ctx context.Context) error {
	if err := p.openStore(ctx); err != nil {
		return err
	}
	listener, err := p.listen(ctx, "http.listen", p.cfg.HTTP.Listen)
	if err != nil {
		return err
	}
	p.apiAddress = listener.Addr().String()
	secure, err := p.startTLS()
	if err != nil {
		return err
	}
	server := p.newIngest("ingest")
	p.super.start(followers, "ingest.upkeep", server.Run)
	p.super.start(intake, "ingest.http", func(ctx context.Context) error {
		return serveHTTP(ctx, listener, server.Handler(), secure, drainTime, p.logger)
	})
	return nil
}

// startTLS keeps the API's certificate up with its files; nil where it has none.
func (p *process) startTLS() (*tls.Config, error) {
	certs, err := apiCertificates(p.cfg, p.logger.With("stage", "ingest"), p.registry)
	if certs == nil || err != nil {
		return nil, err
	}
	p.super.start(intake, "ingest.certificates", certs.run)
	return certs.config(), nil
}

// newIngest makes a server with followers of its own.
func (p *process) newIngest(name string) *ingest.Server {
	var apps, broadcasts *eventlog.Following
	options := ingest.Options{
		TrustedProxies:    p.cfg.HTTP.TrustedProxies,
		SiteCheckURL:      p.cfg.HTTP.SiteCheckURL,
		RepeatWithin:      p.cfg.HTTP.RepeatWithin,
		CatchUpApps:       func(ctx context.Context) error { return apps.CatchUp(ctx) },
		CatchUpBroadcasts: func(ctx context.Context) error { return broadcasts.CatchUp(ctx) },
	}
	if p.broker != nil {
		options.Full = p.broker.Full
	}
	view := api.NewBroadcasts(nil)
	reading := p.log.Follow(name+".reads", view.Apply, api.Topics()...)
	reads := api.NewReads(api.ReadsOptions{CatchUp: reading.CatchUp}, view)
	options.Reads, options.Document = reads.Serve, api.Document
	server := ingest.New(options, p.log, p.store, p.secrets.hasher, p.logger.With("stage", name), p.registry)
	apps = p.log.Follow(name+".apps", server.ApplyApps, schemas.Apps)
	p.follow(name+".apps", apps)
	broadcasts = p.log.Follow(name+".broadcasts", server.ApplyBroadcasts, schemas.Broadcasts)
	p.follow(name+".broadcasts", broadcasts)
	p.follow(name+".reads", reading)
	p.super.background(followers, func(ctx context.Context) {
		select {
		case <-reading.CaughtUp():
			view.Measure()
		case <-ctx.Done():
		}
	})
	p.super.start(intake, name+".streams", reads.Run)
	p.follow(name+".devices", p.log.Follow(name+".devices", server.ApplyDevices, schemas.Devices))
	return server
}

// startProjector keeps the device store up with the log.
func (p *process) startProjector(ctx context.Context) error {
	if err := p.openStore(ctx); err != nil {
		return err
	}
	projector := projections.NewProjector(p.store)
	p.transform(eventlog.TransformOptions{
		Stage: "projector", Group: schemas.GroupProjector, Topics: []schemas.Topic{schemas.Devices}, Positions: projector.Positions,
	}, projector)
	return nil
}

func (p *process) transform(o eventlog.TransformOptions, t eventlog.Transformer) {
	p.member(o.Stage, o.Group, func(ctx context.Context) error { return p.log.RunTransform(ctx, o, t) })
}

// member starts a stage that is a member of a consumer group. One that has lost its place leaves the group, so that `campanile topics
// reset` can write its offsets, keeps the process unready, and goes on by itself when it has a place again; the process's other
// stages work meanwhile.
func (p *process) member(stage, group string, run func(ctx context.Context) error) {
	p.super.start(stages, stage, func(ctx context.Context) error {
		for {
			err := run(ctx)
			if !errors.Is(err, eventlog.ErrNoOffset) {
				return err
			}
			p.health.wait(stage, fmt.Sprintf("run `campanile topics reset %s`: %v", group, err))
			if err := p.log.AwaitPlace(ctx, group); err != nil {
				return err
			}
			p.health.ready(stage)
		}
	})
}

// startRouter routes notifications, expands broadcasts, tallies and closes them, and lets the janitor sweep.
func (p *process) startRouter(ctx context.Context) error {
	if err := p.openStore(ctx); err != nil {
		return err
	}
	headroom := router.NewHeadroom(router.HeadroomOptions{
		CPU: cpu.New().Read, Most: p.cfg.Router.MostCPU, Least: p.cfg.Router.StartRate, Log: p.logger.With("stage", "router.broadcast"), Registerer: p.registry,
	})
	p.transform(eventlog.TransformOptions{
		Stage: "router.direct", Group: schemas.GroupDirectRouter, Topics: []schemas.Topic{schemas.Notifications}, StateTopic: schemas.Routed,
	}, router.NewDirect(router.DirectOptions{MaxKnown: p.cfg.Router.MaxKnown, Headroom: headroom, Registerer: p.registry}, p.store, p.secrets.hasher, p.logger.With("stage", "router.direct")))

	state := router.NewState(router.StateOptions{LeadSeconds: p.cfg.Router.Lead.Seconds(), StartRate: p.cfg.Router.StartRate}, p.log.Layout())
	following := p.log.Follow("router", state.Apply, schemas.Broadcasts, schemas.Expansions, schemas.Progress)
	p.follow("router", following)

	broadcasts := router.NewBroadcasts(router.BroadcastsOptions{
		MaxPage: p.cfg.Router.MaxPage, RewindLastPage: p.rebooted(), Headroom: headroom, Registerer: p.registry,
	}, state, p.store, p.logger.With("stage", "router.broadcast"))
	p.drive(eventlog.DriveOptions{
		Stage: "router.broadcast", Group: schemas.GroupBroadcastRouter, StateTopic: schemas.Expansions,
		Followed: []*eventlog.Following{following}, Transactional: true, TransactionalPrefix: "campanile.router",
	}, broadcasts)
	closer := router.NewCloser(router.CloserOptions{
		KeepEnded: p.cfg.Router.KeepEnded, Stop: router.StopRule{Above: p.cfg.Router.StopAbove, Young: p.cfg.Router.StopYoung}, Registerer: p.registry,
	}, state, p.logger.With("stage", "router.closer"))
	apps := p.log.Follow("router.apps", closer.ApplyApps, schemas.Apps)
	p.follow("router.apps", apps)
	p.drive(eventlog.DriveOptions{
		Stage: "router.closer", Group: schemas.GroupCloser, StateTopic: schemas.Broadcasts, Followed: []*eventlog.Following{following, apps},
	}, closer)

	p.transform(eventlog.TransformOptions{
		Stage: "tally", Group: schemas.GroupTally, Topics: []schemas.Topic{schemas.Deliveries}, Transactional: true, Instance: p.instance(), StateTopic: schemas.Progress,
		IdleEvery: time.Minute, // a broadcast's counts are forgotten also where no other one follows
	}, router.NewTally(router.TallyOptions{Gone: state.Gone, CatchUp: following.CatchUp}, p.logger.With("stage", "tally")))

	var janitor eventlog.JanitorOptions
	if p.broker != nil {
		// History must never fill the embedded log and stop ingest: analytics that are away or late lose it, and record the gap.
		janitor.Pressed, janitor.GiveUp = p.broker.Pressed, []string{schemas.GroupAnalytics}
	}
	p.super.start(stages, "janitor", func(ctx context.Context) error { return p.log.RunJanitor(ctx, janitor) })
	return nil
}

func (p *process) drive(o eventlog.DriveOptions, d eventlog.Driver) {
	p.super.start(stages, o.Stage, func(ctx context.Context) error { return p.log.RunDrive(ctx, o, d) })
}

// unclean reports whether the embedded log was not closed the last time.
func (p *process) unclean() bool { return p.broker != nil && p.broker.Unclean() }

// rebooted reports whether the machine may have gone down with the embedded log open. Only then is the last page repeated: after a
// killed process the log is whole, and who was found dead meanwhile would be missing from the page's count.
func (p *process) rebooted() bool { return p.broker != nil && p.broker.Rebooted() }

// startSender delivers on one transport.
func (p *process) startSender(t schemas.Transport) error {
	open, err := p.opener(t)
	if err != nil {
		return err
	}
	name := "sender." + t.Word()
	quotas, err := p.quotas(t)
	if err != nil {
		return err
	}
	catalog := senders.NewCatalog()
	broadcasts := p.log.Follow(name+".broadcasts", catalog.ApplyBroadcasts, schemas.Broadcasts)
	p.follow(name+".broadcasts", broadcasts)
	const ahead = 2 // times what is in flight: outcomes on their way to the log, and a lane's queue
	inMemory := p.cfg.Senders.InMemory
	if inMemory == 0 {
		inMemory = ahead * p.cfg.Senders.InFlight
	}
	for _, lane := range schemas.Lanes {
		stage := name + "." + lane.Word()
		var apps *eventlog.Following
		sender, err := senders.New(senders.Options{
			Transport: t, Lane: lane, Open: open, Keyring: p.secrets.keyring, Hasher: p.secrets.hasher, Catalog: catalog,
			CatchUpApps:       func(ctx context.Context) error { return apps.CatchUp(ctx) },
			CatchUpBroadcasts: broadcasts.CatchUp,
			Log:               p.logger.With("stage", stage), Metrics: p.registry,
			Tiers: p.cfg.Senders.Tiers, MaxAge: p.cfg.Senders.MaxAge, Window: p.cfg.Senders.InFlight, Quotas: quotas,
		})
		if err != nil {
			return err
		}
		p.closers = append(p.closers, sender.Close)
		p.senders.add(sender)
		apps = p.log.Follow(stage+".apps", sender.ApplyApps, schemas.Apps)
		p.follow(stage+".apps", apps)
		var topics []schemas.Topic
		for _, s := range schemas.SendTopics(t, lane) {
			topics = append(topics, s.Topic())
		}
		group := schemas.SenderGroup(t, lane)
		p.member(stage, group, func(ctx context.Context) error {
			return p.log.RunDeliver(ctx, eventlog.DeliverOptions{
				Stage: stage, Group: group, Topics: topics, Window: p.cfg.Senders.Window, Total: inMemory,
				NotBefore: sender.NotBefore, LookBack: p.lookBack(),
			}, sender)
		})
	}
	return nil
}

// quotas are those of a transport, which its lanes share.
func (p *process) quotas(t schemas.Transport) (*senders.Quotas, error) {
	if t != schemas.FCM {
		return senders.NewQuotas(senders.QuotaOptions{}), nil
	}
	projects, err := p.cfg.fcmQuotas()
	if err != nil {
		return nil, err
	}
	return senders.NewQuotas(senders.QuotaOptions{Rate: p.cfg.Senders.FCMQuota, Projects: projects, Ramp: p.cfg.Senders.FCMRamp}), nil
}

// lookBack is how many records of each partition of deliveries a takeover reads beyond what it needs. After an unclean stop the
// direct router may repeat a batch, and the broadcast router a page, whose sends have new offsets: they are known by their ids.
func (p *process) lookBack() int64 {
	if p.unclean() {
		return 2 * int64(p.cfg.Router.MaxPage)
	}
	return 0
}

// startAnalytics counts in ClickHouse. Without an engine it says so and starts nothing.
func (p *process) startAnalytics(ctx context.Context) error {
	url, err := p.analyticsEngine(ctx)
	if err != nil {
		if p.cfg.ClickHouse.URL != "" || !p.cfg.embedded() {
			return err
		}
		p.logger.Warn("no analytics: the pipeline runs without, and the log keeps deliveries for it as long as it can", "reason", err)
		return nil
	}
	p.analytics, err = clickhouse.Open(ctx, clickhouse.Options{
		URL: url, Logger: p.logger.With("stage", "analytics"), Hasher: p.secrets.hasher, Read: audit.ReadDeliveries(p.log),
	})
	if err != nil {
		return fmt.Errorf("open analytics: %w", err)
	}
	p.analyticsAddress = url
	p.super.start(followers, "analytics.rollups", p.analytics.Run)
	p.closers = append(p.closers, func() { _ = p.analytics.Close() })
	p.transform(eventlog.TransformOptions{
		Stage: "analytics", Group: schemas.GroupAnalytics, Topics: []schemas.Topic{schemas.Deliveries, schemas.Devices},
		Positions: p.analytics.Positions, Expendable: true, MaxBatch: 100_000,
	}, p.analytics)
	return nil
}

// analyticsEngine is the URL of ClickHouse: the one that is set, or an engine that this process starts.
func (p *process) analyticsEngine(ctx context.Context) (string, error) {
	if p.cfg.ClickHouse.URL != "" {
		return p.cfg.ClickHouse.URL, nil
	}
	if !p.cfg.embedded() {
		return "", errors.New("clickhouse.url is not set")
	}
	library, err := chdb.FindLibrary(p.cfg.ClickHouse.Library)
	if err != nil {
		return "", err
	}
	child, err := chdb.Start(ctx, chdb.ChildOptions{
		Args: []string{"chdb-engine", "--dir", analyticsDir(p.cfg), "--library", library}, Logger: p.logger.With("stage", "analytics.engine"),
	})
	if err != nil {
		return "", err
	}
	p.closers = append(p.closers, func() {
		if err := child.Close(); err != nil {
			p.logger.Error("the analytics engine did not close cleanly", "error", err)
		}
	})
	return child.URL, nil
}

// opener makes the providers of a transport.
func (p *process) opener(t schemas.Transport) (func(context.Context, senders.Account) (senders.Provider, error), error) {
	limit := max(p.cfg.Senders.InFlight/2, 1) // what one app may have of it
	switch t {                                //nolint:exhaustive // the transports in use
	case schemas.APNS:
		pool, err := certPool(p.cfg.APNS.CA)
		if err != nil {
			return nil, fmt.Errorf("apns.ca: %w", err)
		}
		if p.signers == nil {
			p.signers = &apns.Signers{}
		}
		o := apns.Options{Production: p.cfg.APNS.Host, Sandbox: p.cfg.APNS.SandboxHost, RootCAs: pool, Signers: p.signers, Transport: p.cfg.Senders.Transport, Limit: limit}
		return func(ctx context.Context, a senders.Account) (senders.Provider, error) { return apns.Open(ctx, a, o) }, nil
	case schemas.FCM:
		pool, err := certPool(p.cfg.FCM.CA)
		if err != nil {
			return nil, fmt.Errorf("fcm.ca: %w", err)
		}
		if p.tokens == nil {
			p.tokens = &fcm.Tokens{}
		}
		o := fcm.Options{Endpoint: p.cfg.FCM.Endpoint, RootCAs: pool, Tokens: p.tokens, Transport: p.cfg.Senders.Transport, Limit: limit}
		return func(ctx context.Context, a senders.Account) (senders.Provider, error) { return fcm.Open(ctx, a, o) }, nil
	}
	return nil, fmt.Errorf("no sender for %s", t)
}

// instance names this process where it is the only one, so that it ends the transactions that it left open when it was killed.
func (p *process) instance() string {
	if p.broker != nil {
		return "up"
	}
	return ""
}
