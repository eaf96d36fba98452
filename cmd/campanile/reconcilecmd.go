package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/campanile-push/campanile/audit"
	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/projections/clickhouse"
	"github.com/campanile-push/campanile/schemas"
)

// reconciliation is what the flags of `campanile reconcile` say.
type reconciliation struct {
	from, to string
	overdue  time.Duration
	limit    int
	asJSON   bool
	logOnly  bool
	textfile string
}

// rowsPatience bounds how long the proof waits for ClickHouse to answer at all.
const rowsPatience = 10 * time.Second

func reconcileCommand(t *terminal) *cobra.Command {
	var r reconciliation
	cmd := &cobra.Command{
		Use:   "reconcile",
		Short: "Prove from the log and ClickHouse what became of every accepted push",
		Long: `Reads the log from its beginning and prints where every accepted push is:

  accepted = delivered + rejected + invalid + expired + cancelled + pending

pending is what the senders still work on or wait with. dead_lettered, where it is not zero, are notifications that the direct router could not handle, each named
with its place in the dead letters: nobody sends them. repeats are pushes that a provider took a second time; they are in none of the others.

It proves that each push ended in exactly one way or still waits in a topic, that the cursors and the progress of broadcasts count what was delivered, and that
ClickHouse counts what the log says. What is otherwise is printed as a difference with the ids and the place to look at, and the exit status is 1. The pipeline may
run meanwhile: a difference counts only if a second reading shows it too. What could not be proven, and why, is printed as a note.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return r.run(cmd, t) },
	}
	f := cmd.Flags()
	f.StringVar(&r.from, "from", "", "requests from then on: a time such as 2026-11-23T08:00:00Z, or a duration such as -24h")
	f.StringVar(&r.to, "to", "", "requests before then: a time, or a duration such as -1h")
	f.DurationVar(&r.overdue, "overdue", 0, "age from which a push that has not ended is a difference (default: senders.max_age and an hour)")
	f.IntVar(&r.limit, "limit", 20, "differences of each kind that are printed")
	f.BoolVar(&r.logOnly, "log-only", false, "do not ask ClickHouse")
	f.BoolVar(&r.asJSON, "json", false, "as one JSON object")
	f.StringVar(&r.textfile, "textfile", "", "file for the numbers of differences, for the textfile collector of Prometheus' node exporter")
	return cmd
}

// errDifferences makes the exit status 1; the differences are printed before.
var errDifferences = errors.New("the log does not account for every push, or ClickHouse counts otherwise: look at the differences above")

func (r *reconciliation) options(c *Config) (o audit.Options, err error) {
	now := time.Now()
	if o.From, err = parseMoment("--from", r.from, now); err != nil {
		return o, err
	}
	if o.To, err = parseMoment("--to", r.to, now); err != nil {
		return o, err
	}
	if !o.From.IsZero() && !o.To.IsZero() && !o.From.Before(o.To) {
		return o, fmt.Errorf("--from %s is not before --to %s", r.from, r.to)
	}
	if r.limit < 1 {
		return o, fmt.Errorf("--limit %d: want at least 1", r.limit)
	}
	o.Overdue, o.Limit, o.KeepEnded = r.overdue, r.limit, c.Router.KeepEnded
	if o.Overdue <= 0 {
		o.Overdue = c.Senders.MaxAge + time.Hour
	}
	return o, nil
}

// parseMoment reads a time, or a duration from now; nothing is the zero time.
func parseMoment(flag, s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(d), nil
	}
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, fmt.Errorf("%s %q: want a time such as 2026-11-23T08:00:00Z, or a duration such as -24h", flag, s)
	}
	return at, nil
}

func (r *reconciliation) run(cmd *cobra.Command, t *terminal) error {
	c, logger, err := t.setup(cmd)
	if err != nil {
		return err
	}
	o, err := r.options(c)
	if err != nil {
		return err
	}
	return t.withLog(cmd, func(ctx context.Context, log *eventlog.Log, s *secrets) error {
		o.Routed = func(ctx context.Context) ([]int64, error) { return routed(ctx, log) }
		why := "--log-only"
		if !r.logOnly {
			p := &process{cfg: c, logger: logger}
			defer p.closeEngines()
			a, err := openRows(ctx, p, s)
			if err == nil {
				defer func() { _ = a.Close() }()
				o.Rows, why = a, ""
			} else if why = err.Error(); ctx.Err() != nil {
				return err
			}
		}
		report, err := audit.Prove(ctx, log, o)
		if err != nil {
			return err
		}
		if why != "" {
			report.Notes = append(report.Notes, "not proven for ClickHouse: "+why)
		}
		if err := r.print(t.out, report); err != nil {
			return err
		}
		if r.textfile != "" {
			if err := writeReconcile(r.textfile, report.Counts, time.Now()); err != nil {
				return err
			}
		}
		if len(report.Counts) > 0 {
			return errDifferences
		}
		return nil
	})
}

// openRows opens what analytics there are.
func openRows(ctx context.Context, p *process, s *secrets) (*clickhouse.Analytics, error) {
	url, err := p.findAnalytics(ctx)
	if err != nil {
		return nil, err
	}
	opening, cancel := context.WithTimeout(ctx, rowsPatience)
	defer cancel()
	return clickhouse.Open(opening, clickhouse.Options{URL: url, Hasher: s.hasher, Logger: p.logger, Timeout: rowsTimeout})
}

// rowsTimeout bounds one of the proof's questions, some of which read every row.
const rowsTimeout = 5 * time.Minute

// routed is how far the direct router has committed notifications.
func routed(ctx context.Context, log *eventlog.Log) ([]int64, error) {
	offsets, err := log.GroupOffsets(ctx, schemas.GroupDirectRouter)
	if err != nil {
		return nil, err
	}
	at := make([]int64, len(offsets))
	for _, o := range offsets {
		if o.Topic == schemas.Notifications && int(o.Partition) < len(at) {
			at[o.Partition] = o.Committed
		}
	}
	return at, nil
}

func (r *reconciliation) print(out io.Writer, report *audit.Report) error {
	if r.asJSON {
		return json.NewEncoder(out).Encode(report)
	}
	for _, d := range report.Differences {
		fmt.Fprintln(out, d)
	}
	for kind, n := range report.Counts {
		if n > int64(r.limit) {
			fmt.Fprintf(out, "%d differences of the kind %s; --limit prints more\n", n, kind)
		}
	}
	for _, l := range report.DeadLetters {
		fmt.Fprintln(out, l)
	}
	fmt.Fprintf(out, "reconciled: %s repeats=%d\n", report.Totals, report.Repeats)
	if report.Forgotten > 0 {
		fmt.Fprintf(out, "%d of the accepted are known by their ends alone: the log no longer holds their requests\n", report.Forgotten)
	}
	for _, note := range report.Notes {
		fmt.Fprintln(out, "note:", note)
	}
	if report.Compared > 0 {
		fmt.Fprintf(out, "ClickHouse was compared with %d ends of the log\n", report.Compared)
	}
	return nil
}
