// Package chaos kills, stops, cuts off and takes away the parts of a running campanile, one after the other in a random order, while
// phones register and are notified, and proves at the end from the log, the providers' ledger and ClickHouse that nothing was lost,
// that no more was repeated than the promise allows, and that everything was counted once.
package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/campanile-push/campanile/eventlog"
)

// Options of Run. Command, Scripts and Dir must be set; withDefaults says what the zero values of the others mean.
type Options struct {
	// Kills is how many processes are killed with kill -9; the other disturbances are so many steps each.
	Kills, Stops, Scales, Brokers, Stores, Engines, Cuts int
	// StopFor, OutageFor and CutFor are how long a process is stopped, an engine is away and a link is cut, at least.
	StopFor, OutageFor, CutFor time.Duration
	// Seed picks the steps, their order and the load: a run can be had again, but for its timing. 0: 1.
	Seed uint64
	// Devices are registered before the first step, and more while it goes on; 0: 1000.
	Devices int
	// Rate is of notifications, a second; 0: 40.
	Rate float64
	// BroadcastRate is what a broadcast starts with, pushes a second; 0: 600, so that one is under way all the time.
	BroadcastRate int
	// Window of the senders: pushes in flight for each partition; 0: 64.
	Window int
	// Partitions of each topic; 0: 8.
	Partitions int
	// Dir is the run's own folder, absolute: emptied at the beginning, and left as it is at the end.
	Dir string
	// Scripts is the folder deployments/local.
	Scripts string
	// Library is the path of libchdb; empty: where the analytics engine looks for it.
	Library string
	// Network gives every process a network namespace of its own, so that its links can be cut. This process must have been started
	// with Apart. Without it all share the loopback, and there are no cuts.
	Network bool
	// Kafka is a log to use; without brokers the run starts three. StoreURL is a PostgreSQL or CockroachDB; empty: the run starts one.
	// What it did not start it does not take away.
	Kafka    eventlog.Config
	StoreURL string
	// Command makes a process of campanile with these arguments.
	Command func(args ...string) *exec.Cmd
	// Out is told what happens, and gets the result.
	Out    io.Writer
	Logger *slog.Logger // of the harness's own clients; nil: none
}

func (o Options) withDefaults() (Options, error) {
	if o.Command == nil || o.Scripts == "" || !filepath.IsAbs(o.Dir) {
		return o, errors.New("chaos: Command, Scripts and an absolute Dir must be given")
	}
	if len(o.Kafka.Brokers) > 0 && o.Brokers > 0 || o.StoreURL != "" && o.Stores > 0 {
		return o, errors.New("chaos: an engine that the run did not start is not taken away")
	}
	if !o.Network && o.Cuts > 0 {
		return o, errNoNetwork
	}
	for v, def := range map[*int]int{&o.Devices: 1000, &o.BroadcastRate: 600, &o.Window: 64, &o.Partitions: 8} {
		if *v <= 0 {
			*v = def
		}
	}
	for v, def := range map[*time.Duration]time.Duration{&o.StopFor: 14 * time.Second, &o.OutageFor: time.Minute, &o.CutFor: 15 * time.Second} {
		if *v <= 0 {
			*v = def
		}
	}
	if o.Seed == 0 {
		o.Seed = 1
	}
	if o.Rate <= 0 {
		o.Rate = 40
	}
	if o.Out == nil {
		o.Out = io.Discard
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o, nil
}

func (o Options) amounts() amounts {
	seconds := func(d time.Duration) int { return int(d.Seconds()) }
	return amounts{
		kills: o.Kills, stops: o.Stops, scales: o.Scales, brokers: o.Brokers, stores: o.Stores, engines: o.Engines, cuts: o.Cuts,
		stopFor: seconds(o.StopFor), outageFor: seconds(o.OutageFor), cutFor: seconds(o.CutFor),
	}
}

// Run starts a campanile of ten processes, disturbs it, and returns what came of it. An error says that the run could not be held, or
// that something did not settle; the Result is then of what was done before, or of nothing.
func Run(ctx context.Context, o Options) (result Result, err error) {
	if o, err = o.withDefaults(); err != nil {
		return result, err
	}
	w := &world{Options: o}
	defer func() {
		if closing := w.close(); closing != nil {
			err = errors.Join(err, fmt.Errorf("end the run: %w", closing))
		}
	}()
	fmt.Fprintf(o.Out, "seed %d; data, settings and logs are in %s\n", o.Seed, o.Dir)
	if err := w.open(ctx); err != nil {
		return result, err
	}
	l := newLoad(w)
	if err := l.fill(ctx); err != nil {
		return result, err
	}
	loading, abandon := context.WithCancel(ctx)
	defer l.wait()
	defer abandon()
	stop := make(chan struct{})
	l.begin(loading, stop, o.Rate)
	w.say("%d phones are registered; the load begins", o.Devices)
	if err := w.flows(ctx, l); err != nil {
		return result, err
	}

	steps, broken := w.performAll(ctx, l)
	if broken != nil {
		w.say("the plan is broken off: %v", broken)
		if ctx.Err() != nil {
			return result, broken
		}
	}
	close(stop)
	l.wait()
	w.say("the load has ended: all settles")
	if err := w.settle(ctx, expectation{quiet: true}); err != nil {
		w.say("it does not settle: %v", err) // what is missing is told by the figures
	}
	result, err = w.judge(ctx, l.asked(), steps)
	return result, errors.Join(broken, err)
}

// performAll plays the plan.
func (w *world) performAll(ctx context.Context, l *load) ([]performed, error) {
	plan := newPlan(rand.New(rand.NewPCG(w.Seed, 0)), w.amounts())
	steps := make([]performed, 0, len(plan))
	for i, s := range plan {
		done, err := w.perform(ctx, s, l)
		if err != nil {
			return append(steps, done), fmt.Errorf("step %d of %d (%s), seed %d: %w", i+1, len(plan), s, w.Seed, err)
		}
		steps = append(steps, done)
		pushes, err := w.delivered(ctx)
		if err != nil {
			return steps, err
		}
		w.say("%3d/%d %s: settled in %s; bound %d; %d pushes, %d broadcasts ended", i+1, len(plan), s, done.took.Round(time.Second/10), done.bound, pushes, l.endedBroadcasts())
	}
	return steps, nil
}

func (w *world) say(format string, args ...any) {
	fmt.Fprintf(w.Out, "%s  %s\n", time.Now().Format(time.TimeOnly), fmt.Sprintf(format, args...))
}
