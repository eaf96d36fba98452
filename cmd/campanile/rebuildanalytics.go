package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/campanile-push/campanile/audit"
	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/projections/clickhouse"
	"github.com/campanile-push/campanile/schemas"
)

func rebuildAnalyticsCommand(t *terminal) *cobra.Command {
	return &cobra.Command{
		Use:   "analytics",
		Short: "Build the deliveries in ClickHouse anew from the log, and replace the days that it still holds whole",
		Long: `Reads the topic deliveries into a table beside the live one, and then replaces the days that the log still covers whole, each at once; their sums follow.
Other days stay as they are, and are named. While days are replaced nothing is inserted: pushes flow, and the analytics go on from the end of what was built. Every
day is compared by checksum. device_events stay: the topic devices is compacted, and no longer holds their history.

A rebuild that is ended or killed before it replaces days changes nothing; one that is killed then is finished by the analytics, a minute later.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, logger, err := t.setup(cmd)
			if err != nil {
				return err
			}
			show := newBuildProgress(t.out, "deliveries")
			defer show.end()
			return t.withLog(cmd, func(ctx context.Context, log *eventlog.Log, s *secrets) error {
				p := &process{cfg: c, logger: logger}
				defer p.closeEngines()
				a, err := openRows(ctx, p, s)
				if err != nil {
					return err
				}
				defer func() { _ = a.Close() }()
				days, err := rebuildAnalytics(ctx, log, a, show)
				show.end()
				for _, d := range days {
					fmt.Fprintln(t.out, dayWords(d))
				}
				return err
			})
		},
	}
}

func rebuildAnalytics(ctx context.Context, log *eventlog.Log, a *clickhouse.Analytics, show *buildProgress) (days []clickhouse.Day, err error) {
	starts, err := log.Starts(ctx, schemas.Deliveries)
	if err != nil {
		return nil, err
	}
	r, err := a.BeginRebuild(ctx, starts)
	if err != nil {
		return nil, err
	}
	swapping := false
	defer func() {
		if !swapping { // else its table may be needed to finish
			err = errors.Join(err, r.Abandon(ctx))
		}
	}()
	if _, err := audit.BuildDeliveries(ctx, log, r, func(b audit.Building) { show.said(rebuilding{Building: b}) }); err != nil {
		return nil, err
	}
	swapping = true
	return r.Swap(ctx)
}

// dayWords tell what became of a day.
func dayWords(d clickhouse.Day) string {
	day := d.Day.Format("2006-01-02")
	switch {
	case d.Refused != "":
		return day + ": refused: " + d.Refused
	case d.Same():
		return fmt.Sprintf("%s: replaced, %d rows, checksum %016x, the same", day, d.Rows, d.Sum)
	}
	return fmt.Sprintf("%s: replaced, %d rows for %d, checksum old=%016x new=%016x; they differ", day, d.Rows, d.OldRows, d.OldSum, d.Sum)
}
