package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/campanile-push/campanile/audit"
	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/projections"
	"github.com/campanile-push/campanile/projections/cockroach"
	"github.com/campanile-push/campanile/projections/pebble"
)

func rebuildCommand(t *terminal) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rebuild",
		Short: "Build the device store or the analytics anew from the log, beside those that serve",
	}
	cmd.AddCommand(asJob(rebuildDevicesCommand(t)), asJob(rebuildAnalyticsCommand(t)))
	return cmd
}

func rebuildDevicesCommand(t *terminal) *cobra.Command {
	var o projections.SwapOptions
	cmd := &cobra.Command{
		Use:   "devices",
		Short: "Build the device store anew from the log, and swap it in",
		Long: `Reads the topic devices from its beginning into a new epoch of the device store, while the old one serves. When it has caught up, the two are brought to the same
offsets and compared by checksum. Where the sums differ, what serves is not what the log says: nothing is swapped, the new epoch is dropped, and the exit status is 1; with
--force it is swapped all the same. Then everybody finds the new one from one moment on, running broadcasts included. The old epoch is dropped, unless --keep is given or the
sums differ.

On CockroachDB it runs in this process, beside those that run; all of them must be of this version. The embedded store is built by the running ` + "`campanile up`" + ` of the
data folder, or by this process where none runs. A rebuild that is ended or killed at any moment leaves one whole store, and can be started again.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, logger, err := t.setup(cmd)
			if err != nil {
				return err
			}
			show := newBuildProgress(t.out, "devices")
			defer show.end()
			if c.Cockroach.URL == "" {
				if !c.embedded() {
					return errors.New("cockroach.url is not set: on Kafka the device store is the shared one")
				}
				if info, err := readRunFile(c); err == nil && info.alive() {
					return rebuildThrough(cmd.Context(), info, o, show)
				}
			}
			return t.withLog(cmd, func(ctx context.Context, log *eventlog.Log, s *secrets) error {
				p := &process{cfg: c, logger: logger, log: log, secrets: s}
				defer p.closeEngines()
				if err := p.openStore(ctx); err != nil {
					if errors.Is(err, pebble.ErrInUse) {
						return fmt.Errorf("%w: a campanile that is just starting or stopping has it; try again", err)
					}
					return err
				}
				return rebuildDevices(ctx, log, p.store, o, show.said)
			})
		},
	}
	cmd.Flags().BoolVar(&o.Keep, "keep", false, "keep the old epoch")
	cmd.Flags().BoolVar(&o.Force, "force", false, "swap also where the old epoch is not what the log says; it is kept")
	return cmd
}

// rebuilding is one word of a rebuild: how far it is, or something to tell.
type rebuilding struct {
	Building audit.Building `json:"building"`
	Says     string         `json:"says,omitempty"`
	Error    string         `json:"error,omitempty"`
}

// rebuildDevices builds an epoch and swaps it in. said is called as it goes on.
func rebuildDevices(ctx context.Context, log *eventlog.Log, store projections.DeviceStore, o projections.SwapOptions, said func(rebuilding)) (err error) {
	epochs, ok := store.(projections.Epochs)
	if !ok {
		return errors.New("this device store cannot be rebuilt beside itself")
	}
	epoch, err := beginEpoch(ctx, epochs, said)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, epoch.Abandon(ctx)) }()
	said(rebuilding{Says: fmt.Sprintf("building epoch %d", epoch.Number())})
	var b audit.Building
	for tries := 0; ; tries++ {
		if b, err = audit.BuildDevices(ctx, log, epoch, func(b audit.Building) { said(rebuilding{Building: b}) }); err != nil {
			return err
		}
		done, err := epoch.Swap(ctx, o, audit.ReadDevices(log))
		switch {
		case errors.Is(err, projections.ErrMoved) && tries < 10:
			continue
		case errors.Is(err, projections.ErrOther):
			return fmt.Errorf("%w: checksum of what serves %016x, of epoch %d from the log %016x; nothing was swapped, and what served goes on to serve. "+
				"With --force the new one takes its place, and the old one is kept to be looked at", err, done.Old, epoch.Number(), done.New)
		}
		if done.Swapped {
			said(rebuilding{Building: b, Says: swappedWords(epoch.Number(), b, done)})
		}
		return err
	}
}

// swappedWords tell what a swap came to.
func swappedWords(epoch int64, b audit.Building, done projections.Swapped) string {
	text := fmt.Sprintf("rebuilt: epoch %d serves; checksum old=%016x new=%016x", epoch, done.Old, done.New)
	switch {
	case !done.Same():
		text += "; they differ: what served was not what the log says, and is kept"
	case done.Kept:
		text += ", the same; the old epoch is kept"
	default:
		text += ", the same"
	}
	if b.Skipped > 0 {
		text += fmt.Sprintf("; %d records are no events, and were skipped", b.Skipped)
	}
	return text
}

// beginEpoch waits while another rebuild runs, or the lease of one that was killed.
func beginEpoch(ctx context.Context, epochs projections.Epochs, said func(rebuilding)) (projections.Epoch, error) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for told := false; ; told = true {
		epoch, err := epochs.BeginEpoch(ctx)
		if !errors.Is(err, projections.ErrRebuilding) {
			return epoch, err
		}
		if !told {
			said(rebuilding{Says: "waiting: " + projections.ErrRebuilding.Error()})
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
		}
	}
}

// buildProgress shows a rebuild: a bar on a terminal, else a line now and then.
type buildProgress struct {
	out   io.Writer
	what  string
	plain bool
	at    time.Time
	bar   interface {
		ChangeMax64(n int64)
		Set64(n int64) error
		Clear() error
	}
}

func newBuildProgress(out io.Writer, what string) *buildProgress {
	return &buildProgress{out: out, what: what, plain: !isTerminal(out)}
}

func (b *buildProgress) said(r rebuilding) {
	if r.Says != "" {
		b.end()
		fmt.Fprintln(b.out, r.Says)
		return
	}
	done, total := r.Building.Done, r.Building.Total
	if b.plain {
		if now := time.Now(); now.Sub(b.at) >= plainEvery || done == total {
			b.at = now
			fmt.Fprintf(b.out, "  %s: %d of %d offsets\n", b.what, done, total)
		}
		return
	}
	if b.bar == nil {
		b.bar = newBar(b.out, b.what, max(1, total))
	}
	b.bar.ChangeMax64(max(1, total))
	_ = b.bar.Set64(min(done, max(1, total)))
}

// end takes the bar away.
func (b *buildProgress) end() {
	if b.bar != nil {
		_ = b.bar.Clear()
		b.bar = nil
	}
}

var (
	_ projections.Epochs = (*cockroach.Store)(nil)
	_ projections.Epochs = (*pebble.Store)(nil)
)
