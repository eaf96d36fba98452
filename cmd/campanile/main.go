// Command campanile is an event-sourced push pipeline: a drop-in replacement for AirNotifier, the push server of Moodle.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// version is set by the linker.
var version = "unknown" //nolint:gochecknoglobals // -X can set nothing else

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := execute(ctx, os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// execute runs one command line; tests call it as the shell would.
func execute(ctx context.Context, args, environ []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRoot(&terminal{environ: environ, in: stdin, out: stdout, err: stderr})
	root.SetArgs(args)
	ran, err := root.ExecuteContextC(ctx)
	_, job := ran.Annotations[jobAnnotation]
	switch {
	case err == nil:
		return 0
	case errors.Is(err, context.Canceled) && ctx.Err() != nil && !job:
		return 0 // asked to stop, and stopped
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		fmt.Fprintln(stderr, "campanile: interrupted before it was done")
		return exitInterrupted
	}
	fmt.Fprintln(stderr, "campanile:", err)
	return 1
}

// exitInterrupted is what shells give for a program that SIGINT ended.
const exitInterrupted = 130

const jobAnnotation = "job"

// asJob marks a command that has an end: one that is stopped before has not done what it was asked for.
func asJob(cmd *cobra.Command) *cobra.Command {
	cmd.Annotations = map[string]string{jobAnnotation: ""}
	return cmd
}

// terminal is what a command reads and writes.
type terminal struct {
	environ  []string
	in       io.Reader
	out, err io.Writer
}

func newRoot(t *terminal) *cobra.Command {
	root := &cobra.Command{
		Use:   "campanile",
		Short: "An event-sourced push pipeline, and a drop-in replacement for AirNotifier",
		Long: `Campanile takes push notifications and broadcasts over HTTP, keeps them in a log, and delivers them to APNs and FCM.

  campanile up --demo     the whole pipeline in one process, with simulated providers and phones
  campanile up            the same, for your own apps: create one with "campanile app create"

Every flag below "Global Flags" is also a variable (CAMPANILE_HTTP_LISTEN) and a key of the --config file (http: listen:).`,
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetIn(t.in)
	root.SetOut(t.out)
	root.SetErr(t.err)
	addConfigFlags(root.PersistentFlags())
	root.AddCommand(
		upCommand(t),
		appCommand(t), keyCommand(t), topicsCommand(t), broadcastCommand(t), importCommand(t), shadowCommand(t),
		statsCommand(t), asJob(reconcileCommand(t)), rebuildCommand(t),
		simulatorCommand(t), asJob(benchCommand(t)), asJob(chaosCommand(t)),
		healthCommand(t), configCommand(t), keyFileCommand(t), engineCommand(t), chdbEngineCommand(t),
	)
	root.AddCommand(stageCommands(t)...)
	return root
}

// setup reads the settings of a command and makes its logger.
func (t *terminal) setup(cmd *cobra.Command) (*Config, *slog.Logger, error) {
	c, err := loadConfig(cmd.Flags(), t.environ)
	if err != nil {
		return nil, nil, err
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Log.Level)); err != nil {
		return nil, nil, err
	}
	return c, t.logger(c, level), nil
}

func (t *terminal) logger(c *Config, level slog.Level) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	var handler slog.Handler = slog.NewTextHandler(t.err, options)
	if c.Log.Format == "json" {
		handler = slog.NewJSONHandler(t.err, options)
	}
	return slog.New(handler)
}

// isTerminal reports whether w is a person's screen.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
