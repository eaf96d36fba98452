package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/schemas"
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
				for _, topic := range []schemas.Topic{schemas.Notifications, schemas.Deliveries} {
					gone, err := forgotten(ctx, log, topic)
					if err != nil {
						return err
					}
					if gone > 0 {
						fmt.Fprintf(t.err, "the log no longer holds the first %d records of %s: the figures are of what it holds, and pending may be too large\n", gone, topic)
					}
				}
				if asJSON {
					return json.NewEncoder(t.out).Encode(totals)
				}
				fmt.Fprintf(t.out, "reconciled: %s repeats=%d\n", totals, totals.Repeats)
				if totals.Forgotten > 0 {
					fmt.Fprintf(t.out, "%d of the accepted are known by their ends alone: the log no longer holds their requests\n", totals.Forgotten)
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "as one JSON object")
	return cmd
}

// forgotten is how many records of a topic retention has deleted.
func forgotten(ctx context.Context, log *eventlog.Log, topic schemas.Topic) (gone int64, err error) {
	starts, err := log.Starts(ctx, topic)
	for _, start := range starts {
		gone += start
	}
	return gone, err
}
