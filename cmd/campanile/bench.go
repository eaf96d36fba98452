package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"

	"github.com/spf13/cobra"

	"github.com/campanile-push/campanile/bench"
)

func benchCommand(t *terminal) *cobra.Command {
	var o bench.Options
	var out string
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure every stage beside its bare library, as ratios in one run",
		Long: `Runs each benchmark in rounds, ours and its baseline in turns, and prints the medians. Broker, simulator and load are processes of their
own, so that their CPU time is not that of what is measured. docs/benchmarks.md says what each figure means. Linux only.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, logger, err := t.setup(cmd)
			if err != nil {
				return err
			}
			if cmd.Flags().Changed("log-level") { // what the parts say would stand between the figures
				o.Logger = logger
			}
			self, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find this program: %w", err)
			}
			o.Command = func(ctx context.Context, args ...string) *exec.Cmd {
				return exec.CommandContext(ctx, self, args...) //nolint:gosec // ourselves
			}
			o.Library, o.Out = cfg.ClickHouse.Library, t.out
			rows, err := bench.Run(cmd.Context(), o)
			if out != "" && len(rows) > 0 {
				err = errors.Join(err, bench.WriteJSON(out, rows))
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&out, "out", "", "file for the figures as JSON")
	f.StringVar(&o.Only, "only", "", "run the benchmarks with a figure whose name matches this regular expression")
	f.IntVar(&o.Rounds, "rounds", 5, "rounds of each benchmark")
	f.IntVar(&o.Devices, "devices", 1_000_000, "devices of the whole pipeline's audience")
	f.Float64Var(&o.Scale, "scale", 1, "multiplies the work of a round of the other benchmarks")
	f.StringVar(&o.Dir, "dir", "", "folder for the benchmarks' data; empty: the system's temporary one")
	f.StringVar(&o.Scripts, "scripts", "", "folder of the scripts that start Kafka and PostgreSQL; empty: deployments/local")
	f.StringVar(&o.Profile, "profile", "", "folder for CPU profiles of our side")
	cmd.AddCommand(&cobra.Command{
		Use: "child ROLE", Short: "Be a broker, a simulator or load for a benchmark", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return bench.Child(cmd.Context(), args[0], t.in, t.out)
		},
	})
	return cmd
}
