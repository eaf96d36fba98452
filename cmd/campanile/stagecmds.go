package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/campanile-push/campanile/projections/chdb"
	"github.com/campanile-push/campanile/schemas"
)

// stageCommands are one command for each stage.
func stageCommands(t *terminal) []*cobra.Command {
	var platform string
	sender := t.stage("sender", "Deliver to one provider: sends in, deliveries out", func(_ context.Context, p *process) error {
		transport, err := schemas.ParseTransport(platform)
		if err != nil {
			return fmt.Errorf("--platform: %w", err)
		}
		p.collectOften()
		p.followWork()
		return p.startSender(transport)
	})
	sender.Flags().StringVar(&platform, "platform", "", "apns or fcm")
	return []*cobra.Command{
		t.stage("ingest", "Serve the API: HTTP in, facts out", func(ctx context.Context, p *process) error { return p.startIngest(ctx) }),
		t.stage("router", "Route notifications, expand broadcasts, count their progress", func(ctx context.Context, p *process) error { return p.startRouter(ctx) }),
		sender,
		t.stage("projector", "Keep the device store up with the log", func(ctx context.Context, p *process) error { return p.startProjector(ctx) }),
		t.stage("analytics", "Count deliveries in ClickHouse", func(ctx context.Context, p *process) error { return p.startAnalytics(ctx) }),
	}
}

// stage is the command of one stage on shared engines.
func (t *terminal) stage(name, short string, begin func(ctx context.Context, p *process) error) *cobra.Command {
	return &cobra.Command{
		Use: name, Short: short, Args: cobra.NoArgs,
		Long: short + ".\n\nRuns one stage on Kafka (--kafka-brokers), CockroachDB (--cockroach-url) and ClickHouse (--clickhouse-url). Several processes of a stage share its work.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, logger, err := t.setup(cmd)
			if err != nil {
				return err
			}
			if cfg.embedded() {
				return errors.New("kafka.brokers is not set: one stage alone needs a log that others share; `campanile up` runs every stage on an embedded one")
			}
			ctx := cmd.Context()
			spreadThreads(cfg.Threads)
			p, err := newProcess(ctx, cfg, logger)
			defer p.close()
			if err != nil {
				return err
			}
			if err := begin(ctx, p); err != nil {
				return err
			}
			return p.serve(ctx, t.out, nil)
		},
	}
}

// chdbEngineCommand is the child process of the embedded analytics engine; people have no use for it.
func chdbEngineCommand(t *terminal) *cobra.Command {
	var o chdb.Options
	cmd := &cobra.Command{
		Use: "chdb-engine", Short: "Run the embedded analytics engine for a parent process", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, logger, err := t.setup(cmd)
			if err != nil {
				return err
			}
			o.Logger = logger
			return chdb.ServeChild(cmd.Context(), o, t.in, t.out)
		},
	}
	cmd.Flags().StringVar(&o.Dir, "dir", "", "folder of its data")
	cmd.Flags().StringVar(&o.Library, "library", "", "path of libchdb.so")
	return cmd
}
