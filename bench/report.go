package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
)

// Row is one figure. Value is the median of N rounds.
type Row struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	// Baseline is the same figure of what Value is compared with, in Unit: 1 where Value is a ratio already, 0 where there is none.
	Baseline float64 `json:"baseline"`
	// Ratio is Value through Baseline; where Value is a ratio, it is that: the median of the rounds' own ratios.
	Ratio  float64 `json:"ratio"`
	N      int     `json:"n"`
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	// Void says why the figure proves nothing; empty: it counts.
	Void string `json:"void,omitempty"`
}

// median of an odd number is the middle, and of an even number the mean of the two in the middle; zero of none.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

func each(samples []sample, figure func(sample) float64) []float64 {
	values := make([]float64, len(samples))
	for i, s := range samples {
		values[i] = figure(s)
	}
	return values
}

// row makes a figure of rounds and of those of a baseline, which may be none.
func row(name, unit string, values, baseline []float64) Row {
	r := Row{Name: name, Unit: unit, N: len(values), Median: median(values), Baseline: median(baseline)}
	r.Value = r.Median
	if len(values) > 0 {
		r.Min = slices.Min(values)
	}
	if r.Baseline > 0 {
		r.Ratio = r.Value / r.Baseline
	}
	return r
}

// rows are the figures of a duel: the ratio of the rates, the rates, and the CPU time of the process under test.
func (d duel) rows(name, what string) []Row {
	ratios := make([]float64, len(d.ours))
	for i := range ratios {
		ratios[i] = d.ours[i].rate() / d.bare[i].rate()
	}
	ratio := row(name+"/ratio", "ratio", ratios, nil)
	ratio.Baseline, ratio.Ratio = 1, ratio.Value
	return []Row{
		ratio,
		row(name+"/rate", what+"s/s", each(d.ours, sample.rate), each(d.bare, sample.rate)),
		row(name+"/cpu_us", "µs/"+what, each(d.ours, sample.cpuUS), each(d.bare, sample.cpuUS)),
	}
}

// WriteTable prints rows for people.
func WriteTable(w io.Writer, rows []Row) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tMEDIAN\tMIN\tUNIT\tBASELINE\tRATIO\tN\t")
	for _, r := range rows {
		void := ""
		if r.Void != "" {
			void = "VOID: " + r.Void
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\n", r.Name, number(r.Median), number(r.Min), r.Unit, number(r.Baseline), number(r.Ratio), r.N, void)
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print the table: %w", err)
	}
	return nil
}

// number writes three digits that count.
func number(v float64) string {
	switch {
	case v == 0:
		return "-"
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// WriteJSON keeps rows in a file as a list, whole or not at all.
func WriteJSON(file string, rows []Row) error {
	if rows == nil {
		rows = []Row{}
	}
	text, err := json.MarshalIndent(rows, "", "  ")
	if err != nil {
		return fmt.Errorf("keep the figures: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		return fmt.Errorf("keep the figures: %w", err)
	}
	temporary := file + ".new"
	if err := os.WriteFile(temporary, append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("keep the figures: %w", err)
	}
	if err := os.Rename(temporary, file); err != nil {
		return fmt.Errorf("keep the figures: %w", err)
	}
	return nil
}

// sizeName writes a round number short: 1M, 100k, 1234.
func sizeName(n int) string {
	switch {
	case n >= 1_000_000 && n%1_000_000 == 0:
		return fmt.Sprintf("%dM", n/1_000_000)
	case n >= 1000 && n%1000 == 0:
		return fmt.Sprintf("%dk", n/1000)
	}
	return fmt.Sprint(n)
}

func fileName(name string) string { return strings.ReplaceAll(name, "/", "-") }
