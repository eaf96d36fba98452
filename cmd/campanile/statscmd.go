package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/campanile-push/campanile/projections/clickhouse"
	"github.com/campanile-push/campanile/schemas"
)

// statsFormat is how statistics are printed; the zero value is tables.
type statsFormat struct {
	json, csv bool
	filter    clickhouse.Filter
}

func statsCommand(t *terminal) *cobra.Command {
	var format statsFormat
	var transport, since string
	cmd := &cobra.Command{
		Use:   "stats",
		Short: "Print how pushes ended, by app, platform, outcome and reason, and how long they took",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format.json && format.csv {
				return errors.New("--json and --csv: give one of them")
			}
			if transport != "" {
				tr, err := schemas.ParseTransport(transport)
				if err != nil {
					return fmt.Errorf("--platform: %w", err)
				}
				format.filter.Transport = tr
			}
			if since != "" {
				from, err := parseSince(since, time.Now())
				if err != nil {
					return err
				}
				format.filter.From = from
			}
			return t.withAnalytics(cmd, func(ctx context.Context, a *clickhouse.Analytics) error {
				return printStats(ctx, t.out, a, format)
			})
		},
	}
	f := cmd.Flags()
	f.BoolVar(&format.json, "json", false, "as one JSON object")
	f.BoolVar(&format.csv, "csv", false, "the totals as CSV with a header")
	f.StringVar(&format.filter.App, "app", "", "of one app")
	f.StringVar(&transport, "platform", "", "of one platform: apns or fcm")
	f.StringVar(&since, "since", "", "ended since then: a duration such as 24h, or a time such as 2026-11-23T08:00:00Z")
	return cmd
}

func parseSince(s string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil && d > 0 {
		return now.Add(-d), nil
	}
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, fmt.Errorf("--since %q: want a duration such as 24h, or a time such as 2026-11-23T08:00:00Z", s)
	}
	return at, nil
}

// withAnalytics opens ClickHouse, the engine of a running `campanile up`, or that of the data folder.
func (t *terminal) withAnalytics(cmd *cobra.Command, do func(ctx context.Context, a *clickhouse.Analytics) error) error {
	cfg, logger, err := t.setup(cmd)
	if err != nil {
		return err
	}
	s, err := loadSecrets(cfg)
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	p := &process{cfg: cfg, logger: logger}
	defer p.closeEngines()
	url, err := p.findAnalytics(ctx)
	if err != nil {
		return err
	}
	a, err := clickhouse.Open(ctx, clickhouse.Options{URL: url, Hasher: s.hasher, Logger: logger})
	if err != nil {
		return err
	}
	defer func() { _ = a.Close() }()
	return do(ctx, a)
}

func (p *process) findAnalytics(ctx context.Context) (string, error) {
	if p.cfg.ClickHouse.URL == "" {
		switch info, err := readRunFile(p.cfg); {
		case err == nil && info.alive() && info.Analytics != "":
			return info.Analytics, nil
		case err == nil && info.alive():
			return "", errors.New("the running campanile has no analytics engine; its log says how to get one")
		case err != nil && !errors.Is(err, os.ErrNotExist):
			return "", fmt.Errorf("%s: %w", runFile(p.cfg), err)
		}
		if _, err := os.Stat(analyticsDir(p.cfg)); err != nil && p.cfg.embedded() {
			return "", fmt.Errorf("no analytics under %s: start `campanile up` there, or name the folder with --data, or ClickHouse with --clickhouse-url", p.cfg.Data)
		}
	}
	return p.analyticsEngine(ctx)
}

func printStats(ctx context.Context, out io.Writer, a *clickhouse.Analytics, format statsFormat) error {
	totals, err := a.Totals(ctx, format.filter)
	if err != nil {
		return err
	}
	if format.csv {
		return writeCSV(out, totals)
	}
	latencies, err := a.Latencies(ctx, format.filter)
	if err != nil {
		return err
	}
	gaps, err := a.Gaps(ctx)
	if err != nil {
		return err
	}
	if format.json {
		return json.NewEncoder(out).Encode(map[string]any{"totals": jsonTotals(totals), "latencies": jsonLatencies(latencies), "gaps": gaps})
	}
	var rows [][]string
	for _, c := range totals {
		rows = append(rows, []string{c.App, c.Transport, outcomeWord(c), c.Reason, strconv.FormatInt(c.N, 10)})
	}
	if err := printTable(out, "APP\tPLATFORM\tOUTCOME\tREASON\tPUSHES", rows); err != nil {
		return err
	}
	rows = nil
	for _, l := range latencies {
		row := []string{l.App, l.Transport, l.Lane}
		for _, d := range []time.Duration{l.Answer.P50, l.Answer.P95, l.Answer.P99, l.Total.P50, l.Total.P95, l.Total.P99} {
			row = append(row, d.Round(100*time.Microsecond).String())
		}
		rows = append(rows, row)
	}
	fmt.Fprintln(out)
	if err := printTable(out, "APP\tPLATFORM\tLANE\tANSWER P50\tP95\tP99\tREQUEST TO END P50\tP95\tP99", rows); err != nil {
		return err
	}
	for _, g := range gaps {
		fmt.Fprintf(out, "never counted: %d records of %s[%d], offsets %d to %d\n", g.To-g.From, g.Topic, g.Partition, g.From, g.To-1)
	}
	return nil
}

// outcomeWord marks repeats, which are no pushes of their own.
func outcomeWord(c clickhouse.Total) string {
	if c.Repeat {
		return c.Outcome + " (repeat)"
	}
	return c.Outcome
}

func writeCSV(out io.Writer, totals []clickhouse.Total) error {
	w := csv.NewWriter(out)
	rows := [][]string{{"app", "platform", "outcome", "reason", "repeat", "pushes"}}
	for _, c := range totals {
		rows = append(rows, []string{c.App, c.Transport, c.Outcome, c.Reason, strconv.FormatBool(c.Repeat), strconv.FormatInt(c.N, 10)})
	}
	return w.WriteAll(rows)
}

func jsonTotals(totals []clickhouse.Total) []map[string]any {
	rows := []map[string]any{}
	for _, c := range totals {
		rows = append(rows, map[string]any{"app": c.App, "platform": c.Transport, "outcome": c.Outcome, "reason": c.Reason, "repeat": c.Repeat, "pushes": c.N})
	}
	return rows
}

func jsonLatencies(latencies []clickhouse.Latency) []map[string]any {
	us := func(q clickhouse.Quantiles) map[string]int64 {
		return map[string]int64{"p50_us": q.P50.Microseconds(), "p95_us": q.P95.Microseconds(), "p99_us": q.P99.Microseconds()}
	}
	rows := []map[string]any{}
	for _, l := range latencies {
		rows = append(rows, map[string]any{"app": l.App, "platform": l.Transport, "lane": l.Lane, "pushes": l.N, "answer": us(l.Answer), "request_to_end": us(l.Total)})
	}
	return rows
}
