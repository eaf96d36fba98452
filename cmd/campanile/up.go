package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/campanile-push/campanile/bench"
	"github.com/campanile-push/campanile/schemas"
	"github.com/campanile-push/campanile/simulator"
)

func upCommand(t *terminal) *cobra.Command {
	var withDemo bool
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run every stage in one process, on embedded engines",
		Long: `Runs the whole pipeline in one process. Without --kafka-brokers, --cockroach-url and --clickhouse-url the log, the device store and the analytics
engine are embedded and keep their data under --data; they are meant for up to one million devices. With --demo both providers are simulated, and a made-up
Moodle network registers, notifies and broadcasts.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, logger, err := t.setup(cmd)
			if err != nil {
				return err
			}
			if withDemo && cfg.HTTP.TLSCert != "" {
				return errors.New("--demo speaks plain HTTP to itself: leave http.tls_cert and http.tls_key empty")
			}
			if withDemo && !cmd.Flags().Changed("log-level") {
				logger = t.logger(cfg, slog.LevelWarn) // the demonstration speaks for itself
			}
			ctx := cmd.Context()
			var sim *simulator.Simulator
			if withDemo {
				if sim, err = startDemoSimulator(ctx, cfg, logger); err != nil {
					return err
				}
				defer func() { _ = sim.Close() }()
			}
			spreadThreads(cfg.Threads)
			p, err := newProcess(ctx, cfg, logger)
			defer p.close()
			if err != nil {
				return err
			}
			if err := p.startAll(ctx); err != nil {
				return err
			}
			return p.serve(ctx, t.out, sim)
		},
	}
	cmd.Flags().BoolVar(&withDemo, "demo", false, "simulate both providers and a Moodle network")
	return cmd
}

// startAll starts every stage.
func (p *process) startAll(ctx context.Context) error {
	if p.rebooted() {
		pages := 2 * p.log.Layout().Partitions
		p.logger.Warn("the machine went down with the embedded log open: the last page of each partition of expansions is sent again, and what was sent is skipped by its id",
			"bound_pages", pages, "bound_pushes", int(pages)*p.cfg.Router.MaxPage)
	}
	if err := p.startProjector(ctx); err != nil {
		return err
	}
	if err := p.startRouter(ctx); err != nil {
		return err
	}
	for _, t := range schemas.Transports {
		if err := p.startSender(t); err != nil {
			return err
		}
	}
	if err := p.startAnalytics(ctx); err != nil {
		return err
	}
	if err := p.startIngest(ctx); err != nil {
		return err
	}
	info := runInfo{Analytics: p.analyticsAddress}
	var err error
	if info.Admin, info.AdminToken, err = p.startAdmin(ctx); err != nil {
		return err
	}
	return p.writeRunFile(info)
}

// serve runs until ctx ends or a part fails; the demonstration plays meanwhile.
func (p *process) serve(ctx context.Context, out io.Writer, sim *simulator.Simulator) error {
	p.health.ready("start")
	p.logger.Info("ready", "api", p.apiURL(), "ops", "http://"+p.opsAddress, "version", version)
	if sim == nil {
		return p.super.wait(ctx)
	}
	p.demoClient = bench.NewClient(demoClients)
	played := make(chan error, 1)
	p.super.background(intake, func(ctx context.Context) {
		d := &demo{p: p, simulator: sim, url: p.apiURL(), out: out}
		played <- d.run(ctx)
	})
	waiting, stop := context.WithCancel(ctx)
	defer stop()
	var demoErr error
	p.super.background(intake, func(ctx context.Context) {
		select {
		case err := <-played:
			if err != nil && !errors.Is(err, context.Canceled) {
				demoErr = err
				stop()
			}
		case <-ctx.Done():
		}
	})
	err := p.super.wait(waiting)
	return errors.Join(err, demoErr)
}

// startDemoSimulator starts both providers beside the data and points the settings at them.
func startDemoSimulator(ctx context.Context, cfg *Config, logger *slog.Logger) (*simulator.Simulator, error) {
	dir := filepath.Join(cfg.Data, "simulator")
	latency, err := simulator.ParseLatency("lognormal:15ms,80ms")
	if err != nil {
		return nil, err
	}
	sim, err := simulator.Start(ctx, simulator.Options{
		Dir: dir, Logger: logger.With("stage", "simulator"),
		Scenario: simulator.Scenario{Seed: 1, Mix: simulator.Mix{"dead": 0.02, "unavailable": 0.005}, Latency: latency},
	})
	if err != nil {
		return nil, fmt.Errorf("start the simulator: %w", err)
	}
	cfg.APNS.Host, cfg.APNS.SandboxHost, cfg.FCM.Endpoint = sim.APNSURL(), sim.SandboxURL(), sim.FCMURL()+"/v1"
	cfg.APNS.CA = filepath.Join(dir, simulator.CAFile)
	cfg.FCM.CA = cfg.APNS.CA
	cfg.Senders.Tiers = demoTiers()
	return sim, nil
}
