package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/campanile-push/campanile/eventlog"
)

func reconcileCommand(t *terminal) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "reconcile",
		Short: "Compute from the log what became of every accepted push",
		Long: `Reads notifications, expansions and deliveries from their beginnings and prints where every accepted push is:

  accepted = delivered + rejected + invalid + expired + cancelled + pending

pending is what the senders still work on or wait with. repeats are pushes that a provider took a second time; they are in none of the others.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return t.withLog(cmd, func(ctx context.Context, log *eventlog.Log, _ *secrets) error {
				totals, err := reconcileLog(ctx, log)
				if err != nil {
					return err
				}
				if asJSON {
					return json.NewEncoder(t.out).Encode(totals)
				}
				fmt.Fprintf(t.out, "reconciled: %s repeats=%d\n", totals, totals.Repeats)
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "as one JSON object")
	return cmd
}
