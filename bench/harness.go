package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"time"

	"github.com/campanile-push/campanile/senders/maxprocs"
)

// Options of Run. Command must be set; the zero value of the others works.
type Options struct {
	// Only names the benchmarks to run by a regular expression on the names of their rows; empty: all.
	Only string
	// Rounds of each benchmark; zero: 5. A round is ours and then its baseline.
	Rounds int
	// Devices of the pipeline's audience; zero: 1,000,000.
	Devices int
	// Scale multiplies the work of a round of every other benchmark; zero: 1.
	Scale float64
	// Dir is the folder for the brokers' logs and the simulators; it is emptied of what was put there. Empty: a temporary one.
	Dir string
	// Profile is a folder for CPU profiles of our side of each round; empty: none are taken.
	Profile string
	// Library is the path of libchdb; empty: where `campanile up` looks for it.
	Library string
	// Scripts is the folder of deployments/local, whose scripts start the engines of the benchmarks on Kafka; empty: deployments/local.
	Scripts string
	// Command makes a process of this program with these arguments, which must lead to Child for ["bench", "child", role] and
	// to `campanile up` for ["up", …].
	Command func(ctx context.Context, args ...string) *exec.Cmd
	// Out is told what runs, and gets the table.
	Out io.Writer
	// Logger gets what the parts under test have to say; nil: nobody does.
	Logger *slog.Logger
}

func (o Options) withDefaults() (Options, error) {
	if o.Command == nil {
		return o, errors.New("bench: no command to start children with")
	}
	if o.Scripts == "" {
		o.Scripts = filepath.Join("deployments", "local")
	}
	if o.Rounds <= 0 {
		o.Rounds = 5
	}
	if o.Devices <= 0 {
		o.Devices = 1_000_000
	}
	if o.Scale <= 0 {
		o.Scale = 1
	}
	if o.Out == nil {
		o.Out = io.Discard
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o, nil
}

// harness is what a benchmark measures with.
type harness struct {
	Options

	dir       string // of the benchmark that runs
	profiling string // file for a CPU profile of the next side; empty: none
	// providerThreads are the simulator's threads for each core; zero: one. It stands back by providerNice.
	providerThreads int
	providerNice    int
}

// patient is h with a simulator that runs as many threads for each core as `campanile up` does. Where it is asked how long one push waits
// beside many, the answer must not be how long it waits in the simulator's own run queue: providers have machines of their own.
func (h *harness) patient() *harness {
	wide := *h
	wide.providerThreads, wide.providerNice = 4, 10
	return &wide
}

// scaled is a number of records, requests or pushes for one round.
func (h *harness) scaled(n int) int { return max(int(float64(n)*h.Scale), 64) }

func (h *harness) say(format string, args ...any) { fmt.Fprintf(h.Out, "  "+format+"\n", args...) }

// sample is what one side did in one round.
type sample struct {
	n    int           // records, requests or pushes
	wall time.Duration // from the first to the last
	cpu  time.Duration // of the process under test, user and system
	// others is the CPU time of the processes that it needs, by name: they are told, and in no figure.
	others map[string]time.Duration
}

func (s sample) rate() float64 { return float64(s.n) / s.wall.Seconds() }

func (s sample) cpuUS() float64 { return float64(s.cpu.Nanoseconds()) / 1000 / float64(s.n) }

// side does one round's work and measures it.
type side func(ctx context.Context) (sample, error)

// duel is the rounds of two sides.
type duel struct{ ours, bare []sample }

// duel runs ours and bare in turns, after one round of each that does not count: the first fills caches and pools.
func (h *harness) duel(ctx context.Context, name string, ours, bare side) (duel, error) {
	var d duel
	for round := range h.Rounds + 1 {
		a, err := h.settled(ctx, name, round, ours)
		if err != nil {
			return d, fmt.Errorf("%s, round %d: %w", name, round, err)
		}
		b, err := h.settled(ctx, name+"-baseline", round, bare)
		if err != nil {
			return d, fmt.Errorf("%s, round %d of the baseline: %w", name, round, err)
		}
		h.say("%s  ours %s   baseline %s", roundName(round), a, b)
		if round > 0 {
			d.ours, d.bare = append(d.ours, a), append(d.bare, b)
		}
	}
	return d, nil
}

func roundName(n int) string {
	if n == 0 {
		return "warm-up"
	}
	return fmt.Sprintf("round %d", n)
}

// settled runs a side without the garbage of the one before it. Where profiles are wanted, the side's stopwatch takes one.
func (h *harness) settled(ctx context.Context, name string, round int, s side) (sample, error) {
	runtime.GC()
	h.profiling = ""
	if h.Profile != "" && round > 0 {
		h.profiling = h.profileFile(name, round)
	}
	return s(ctx)
}

// String is a sample on part of a line.
func (s sample) String() string {
	var text strings.Builder
	fmt.Fprintf(&text, "%9.0f/s %6.2f µs CPU", s.rate(), s.cpuUS())
	for _, name := range slices.Sorted(maps.Keys(s.others)) {
		fmt.Fprintf(&text, ", %s %.2f", name, float64(s.others[name].Microseconds())/float64(s.n))
	}
	return text.String()
}

func (h *harness) profileFile(name string, round int) string {
	return filepath.Join(h.Profile, fmt.Sprintf("%s.%d.pprof", fileName(name), round))
}

// stopwatch measures a side in this process, and the processes that it needs.
type stopwatch struct {
	began   time.Time
	cpu     time.Duration
	others  map[string]*child
	before  map[string]time.Duration
	profile *os.File // nil: none
}

func (h *harness) watch(others map[string]*child) (*stopwatch, error) {
	w := &stopwatch{others: others, before: map[string]time.Duration{}}
	for name, c := range others {
		var err error
		if w.before[name], err = processCPU(c.pid()); err != nil {
			return nil, err
		}
	}
	var err error
	if h.profiling != "" {
		if w.profile, err = os.Create(h.profiling); err == nil {
			err = pprof.StartCPUProfile(w.profile)
		}
		if err != nil {
			return nil, fmt.Errorf("keep a profile: %w", err)
		}
	}
	w.cpu, err = maxprocs.CPUTime()
	w.began = time.Now()
	return w, err
}

func (w *stopwatch) stop(n int) (sample, error) {
	s := sample{n: n, wall: time.Since(w.began), others: map[string]time.Duration{}}
	cpu, err := maxprocs.CPUTime()
	if err != nil {
		return s, err
	}
	s.cpu = cpu - w.cpu
	if w.profile != nil {
		pprof.StopCPUProfile()
		_ = w.profile.Close()
	}
	for name, c := range w.others {
		used, err := processCPU(c.pid())
		if err != nil {
			return s, err
		}
		s.others[name] = used - w.before[name]
	}
	return s, nil
}
