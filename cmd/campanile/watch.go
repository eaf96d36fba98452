package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/campanile-push/campanile/api"
)

const (
	watchEvery = 200 * time.Millisecond
	plainEvery = 2 * time.Second
)

// follow shows a broadcast until it has ended: a bar on a terminal, else a line now and then, or JSON.
func (b *broadcasts) follow(ctx context.Context, d desk, id string) error {
	if b.asJSON {
		encoder := json.NewEncoder(b.t.out)
		return d.watch(ctx, id, everyPlain(func(x api.Broadcast) error { return encoder.Encode(x) }))
	}
	last, err := showProgress(ctx, d, id, b.t.out, !isTerminal(b.t.out))
	if err == nil {
		fmt.Fprintln(b.t.out, summary(&last))
	}
	return err
}

// everyPlain lets one call through each plainEvery, and the last.
func everyPlain(each func(api.Broadcast) error) func(api.Broadcast) error {
	var at time.Time
	return func(x api.Broadcast) error {
		if now := time.Now(); over(&x) || now.Sub(at) >= plainEvery {
			at = now
			return each(x)
		}
		return nil
	}
}

// showProgress watches a broadcast to its end and returns what it came to.
func showProgress(ctx context.Context, d desk, id string, out io.Writer, plain bool) (last api.Broadcast, err error) {
	each := everyPlain(func(x api.Broadcast) error {
		if !over(&x) {
			fmt.Fprintln(out, "  "+progressLine(&x))
		}
		return nil
	})
	if !plain {
		bar := newBar(out, "", 1)
		defer func() { _ = bar.Clear() }()
		each = func(x api.Broadcast) error {
			bar.ChangeMax64(max(1, x.Progress.Audience))
			bar.Describe(progressLine(&x))
			return bar.Set64(min(x.Progress.Finished, max(1, x.Progress.Audience)))
		}
	}
	err = d.watch(ctx, id, func(x api.Broadcast) error {
		last = x
		return each(x)
	})
	return last, err
}

// progressLine is a running broadcast in one line.
func progressLine(x *api.Broadcast) string {
	p := &x.Progress
	parts := []string{fmt.Sprintf("%s: %d expanded, %d delivered, %d failed, %d remaining", x.State, p.Expanded, p.Delivered, p.Failed+p.Cancelled, p.Remaining)}
	if p.Rate > 0 {
		parts = append(parts, fmt.Sprintf("%.0f/s", p.Rate))
	}
	if p.LimitedBy != "" {
		parts = append(parts, "limited by "+strings.ReplaceAll(p.LimitedBy, "_", " "))
	}
	if p.SecondsLeft > 0 {
		parts = append(parts, time.Duration(p.SecondsLeft*float64(time.Second)).Round(time.Second).String()+" left")
	}
	if a := x.Paused; a != nil && x.State == api.StatePaused && a.Reason != "" {
		parts = append(parts, "paused by "+a.By+": "+a.Reason)
	}
	return strings.Join(parts, ", ")
}

// summary is what a broadcast came to.
func summary(x *api.Broadcast) string {
	p := &x.Progress
	return fmt.Sprintf("%s: %d sent, %d delivered, %d dead tokens, %d rejected, %d expired, %d cancelled",
		x.State, p.Expanded, p.Delivered, p.Invalid, p.Rejected, p.Expired, p.Cancelled)
}
