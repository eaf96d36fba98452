package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/campanile-push/campanile/bench/chaos"
)

// errPromise is a run that showed a broken promise, with the result above it.
var errPromise = errors.New("a promise is broken: see above")

// chaosCommand disturbs a campanile of its own.
func chaosCommand(t *terminal) *cobra.Command {
	var o chaos.Options
	var inside bool
	cmd := &cobra.Command{
		Use:   "chaos",
		Short: "Kill, stop and cut off the parts of a campanile under load, and prove what it promises",
		Long: `Starts three Kafka brokers, PostgreSQL, the ClickHouse engine, a simulator and every stage as processes of their own, on loopback; registers phones, notifies
them and broadcasts to them; meanwhile kills, stops, cuts off, adds and removes processes and engines in a random order, each after everything has settled; and
reconciles the log, the simulator's ledger and ClickHouse at the end. docs/guarantees.md says what is counted. The last line is

  chaos: kills=N stops=N outages=N accepted=N lost=N repeats=N bound=N analytics_diff=N

and the exit status says whether a promise was broken. Linux, as root; --network=false needs no root and cuts no links. With --kafka-brokers and
--cockroach-url it uses those engines and does not take them away.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, logger, err := t.setup(cmd)
			if err != nil {
				return err
			}
			self, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find this program: %w", err)
			}
			if o.Dir, err = filepath.Abs(o.Dir); err != nil {
				return err
			}
			if o.StoreURL, o.Library = cfg.Cockroach.URL, cfg.ClickHouse.Library; o.StoreURL != "" && !cmd.Flags().Changed("store-outages") {
				o.Stores = 0
			}
			if !cfg.embedded() {
				if o.Kafka, err = logConfig(cfg, nil, 0); err != nil {
					return err
				}
				if !cmd.Flags().Changed("broker-kills") {
					o.Brokers = 0
				}
			}
			if !o.Network && !cmd.Flags().Changed("cuts") {
				o.Cuts = 0
			}
			if !inside {
				if err := fetchEngines(cmd.Context(), t, &o); err != nil {
					return err
				}
				if o.Network {
					return t.apart(cmd.Context(), self)
				}
			}
			if cmd.Flags().Changed("log-level") {
				o.Logger = logger
			}
			o.Out = t.out
			o.Command = func(args ...string) *exec.Cmd { return exec.Command(self, args...) } //nolint:gosec,noctx // ourselves; ended by the run
			return t.runChaos(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.Kills, "kills", 110, "processes to kill")
	f.IntVar(&o.Stops, "stops", 8, "processes to stop for longer than a session, and to wake")
	f.IntVar(&o.Scales, "scales", 4, "processes to add and to remove")
	f.IntVar(&o.Brokers, "broker-kills", 3, "brokers to kill, one at a time")
	f.IntVar(&o.Stores, "store-outages", 1, "times that PostgreSQL is away")
	f.IntVar(&o.Engines, "engine-outages", 1, "times that the ClickHouse engine is away")
	f.IntVar(&o.Cuts, "cuts", 8, "processes to cut off from Kafka, PostgreSQL or ClickHouse")
	f.DurationVar(&o.StopFor, "stop-for", 14*time.Second, "how long a process is stopped, at least")
	f.DurationVar(&o.OutageFor, "outage-for", time.Minute, "how long PostgreSQL and the ClickHouse engine are away, at least")
	f.DurationVar(&o.CutFor, "cut-for", 15*time.Second, "how long a link is cut, at least")
	f.Uint64Var(&o.Seed, "seed", 1, "picks the steps and their order")
	f.IntVar(&o.Devices, "devices", 1000, "phones at the beginning")
	f.Float64Var(&o.Rate, "rate", 40, "notifications a second")
	f.IntVar(&o.BroadcastRate, "broadcast-rate", 600, "pushes a second that the providers are trusted with at first")
	f.IntVar(&o.Window, "window", 64, "pushes in flight for each partition")
	f.IntVar(&o.Partitions, "partitions", 8, "partitions of each topic")
	f.StringVar(&o.Dir, "dir", "build/chaos", "folder of the run; it is emptied")
	f.StringVar(&o.Scripts, "scripts", "deployments/local", "folder of the scripts that start the engines")
	f.BoolVar(&o.Network, "network", true, "a network namespace for each process, whose links can be cut")
	f.BoolVar(&inside, "inside", false, "this process is apart already")
	_ = f.MarkHidden("inside")
	return cmd
}

// fetchEngines installs what the run will start: where it will be, there is no network.
func fetchEngines(ctx context.Context, t *terminal, o *chaos.Options) error {
	var scripts [][]string
	if len(o.Kafka.Brokers) == 0 {
		scripts = append(scripts, []string{"kafka.sh", "fetch"})
	}
	if o.StoreURL == "" {
		scripts = append(scripts, []string{"postgres.sh", "fetch"})
	}
	if o.Library == "" {
		scripts = append(scripts, []string{"chdb.sh"})
	}
	for _, args := range scripts {
		cmd := exec.CommandContext(ctx, filepath.Join(o.Scripts, args[0]), args[1:]...) //nolint:gosec // our own scripts
		cmd.Stderr = t.err
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
	}
	return nil
}

// apart runs this command again where there is no network but its own.
func (t *terminal) apart(ctx context.Context, self string) error {
	cmd := exec.CommandContext(ctx, self, append(os.Args[1:], "--inside")...) //nolint:gosec // ourselves
	cmd.Stdin, cmd.Stdout, cmd.Stderr = t.in, t.out, t.err
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if err := chaos.Apart(cmd); err != nil {
		return err
	}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("the run apart: %w", err)
	}
	return nil
}

func (t *terminal) runChaos(ctx context.Context, o chaos.Options) error {
	r, err := chaos.Run(ctx, o)
	if err != nil && r.Accepted == 0 {
		return err
	}
	for _, p := range r.Problems {
		fmt.Fprintln(t.out, p)
	}
	fmt.Fprintf(t.out, "answered: %d notifications and %d broadcasts, after %d retries; the ledger has %d pushes, %d of them different; %d processes ended by themselves\n",
		r.Notifications, r.Broadcasts, r.Retries, r.LedgerAccepted, r.LedgerUnique, r.Falls)
	fmt.Fprintf(t.out, "stops: repeats=%d bound=%d; brokers and links: repeats=%d bound=%d; broadcasts that ended with other counts than the log's: %d\n",
		r.StopRepeats, r.StopBound, r.OutageRepeats, r.OutageBound, r.TallyDiff)
	fmt.Fprintln(t.out, r)
	if err == nil && r.Failed() {
		return errPromise
	}
	return err
}
