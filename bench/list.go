package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"time"

	"github.com/campanile-push/campanile/schemas"
)

// benchmark is one comparison, and the names of its rows.
type benchmark struct {
	rows []string
	what string // told before it runs
	run  func(h *harness, ctx context.Context) ([]Row, error)
}

func duelRows(name string) []string {
	return []string{name + "/ratio", name + "/rate", name + "/cpu_us"}
}

// benchmarks are all of them, in the order in which they run.
func benchmarks(devices int) []benchmark {
	pipeline := pipelineName(devices)
	all := []benchmark{
		{
			duelRows("append/kfake"),
			"eventlog.Append, 512 callers with one notification each, against the same records of 512 callers of bare franz-go",
			(*harness).appendOnes,
		},
		{
			duelRows("append/batch/kfake"),
			"eventlog.Append, 4 callers with 1,000 notifications each, against the same records of 4 callers of bare franz-go",
			(*harness).appendBatches,
		},
		{
			duelRows("transform/kfake"),
			"eventlog.RunTransform, one send for each notification, against bare poll, the same handler, produce, commit",
			(*harness).transformKfake,
		},
		{
			duelRows("deliver/kfake"),
			"eventlog.RunDeliver, every send finished at once, against bare poll, the same outcomes, commit",
			(*harness).deliver,
		},
		{
			duelRows("router/kfake"),
			"the broadcast router on Pebble, against bare transactions of the same sends",
			(*harness).expandPebble,
		},
		{
			duelRows("router/memory/kfake"),
			"the broadcast router on an audience in memory, against bare transactions of the same sends",
			(*harness).expandMemory,
		},
		{
			duelRows("ingest/push"),
			"ingest, pushes of Moodle's size answered when the log has them, against a gin handler that reads the body and answers",
			(*harness).ingestPush,
		},
		{
			slices.Concat(duelRows("tls/fresh"), duelRows("tls/fresh/resumed"), duelRows("tls/fresh/http1"), []string{"tls/fresh/p99_ms", "tls/fresh/stall/max_ms"}),
			"ingest behind TLS, a new connection for each push as Moodle's curl makes it, against a bare net/http server that reads the body and answers",
			(*harness).tlsFresh,
		},
		{
			[]string{pipeline + "/cpu_us", pipeline + "/rate", pipeline + "/rss_mb"},
			fmt.Sprintf("`campanile up`: %s devices loaded through the log, one broadcast to all of them a round", sizeName(devices)),
			(*harness).pipeline,
		},
		{
			under(smallName, smallRatio, smallP99, smallP50),
			fmt.Sprintf("`campanile up`: 1,000 broadcasts to 10 devices each, from the request to the last answer, during broadcasts to %s devices, against the same beside "+
				"a process that burns as much CPU", sizeName(devices)),
			waiting((*running).small).inOne(smallName),
		},
		{
			under(smallQuota, smallRatio, smallP99, smallP50),
			fmt.Sprintf("`campanile up`: the same with FCM's default quota, at which a broadcast to %s devices takes minutes", sizeName(devices)),
			waiting((*running).small).inOne(smallQuota, defaultQuota()...),
		},
		{
			under(smallFar, smallRatio, smallP99, smallP50),
			fmt.Sprintf("`campanile up`: the same without a quota and with providers that answer after %s", farLatency),
			waiting((*running).small).farAway().inOne(smallFar),
		},
		{
			under(fairName, fairRatio, fairReach, fairP99, fairP50),
			fmt.Sprintf("`campanile up`: 100 direct pushes a second, from the request to the provider's answer, during a broadcast to %s devices, against the same beside "+
				"a process that burns as much CPU", sizeName(devices)),
			waiting((*running).fair).inOne(fairName),
		},
		{
			under(fairQuota, fairRatio, fairReach, fairP99, fairP50),
			fmt.Sprintf("`campanile up`: the same with FCM's default quota, at which a broadcast to %s devices takes minutes", sizeName(devices)),
			waiting((*running).fair).inOne(fairQuota, defaultQuota()...),
		},
		{
			under(fairFar, fairRatio, fairReach, fairP99, fairP50),
			fmt.Sprintf("`campanile up`: the same without a quota and with providers that answer after %s", farLatency),
			waiting((*running).fair).farAway().inOne(fairFar),
		},
		{
			under(fairRate, fairRatio, fairReach, fairP99, fairP50),
			fmt.Sprintf("`campanile up`: the same with providers that answer at once and a broadcast with a rate of %d a second", evenRate),
			waiting((*running).fair).rated(evenRate).inOne(fairRate),
		},
		{
			[]string{stormFall, stormRecovery, stormRefused, stormAPNS},
			"`campanile up`: a broadcast at an FCM quota of 2,000 a second; FCM answers 429 to all for 20 s, APNs to a fifth of the tokens",
			(*harness).storm,
		},
		{
			[]string{deadFirst, deadSecond},
			"`campanile up`: two broadcasts to an audience of which a tenth of the tokens are dead",
			(*harness).dead,
		},
	}
	at := slices.IndexFunc(all, func(b benchmark) bool { return b.rows[0] == pipeline+"/cpu_us" }) // the senders' grid goes before the pipeline
	all = slices.Insert(all, at, append(grid(), memory(schemas.APNS), memory(schemas.FCM))...)
	return slices.Concat(all, scaleBenchmarks(onEmbedded, 10_000, 100_000, 1_000_000, 10_000_000), pages(), onKafka(devices))
}

// Run runs the benchmarks and returns their rows, also with an error: those of the benchmarks before it.
func Run(ctx context.Context, o Options) ([]Row, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	only, err := regexp.Compile(o.Only)
	if err != nil {
		return nil, fmt.Errorf("the benchmarks to run: %w", err)
	}
	if o.Profile != "" {
		if err := os.MkdirAll(o.Profile, 0o750); err != nil {
			return nil, fmt.Errorf("keep profiles: %w", err)
		}
	}
	if o.Dir != "" {
		if err := os.MkdirAll(o.Dir, 0o750); err != nil {
			return nil, fmt.Errorf("make the benchmarks' folder: %w", err)
		}
	}
	fmt.Fprintf(o.Out, "%s, %d CPUs, load average %s, %d rounds\n", runtime.Version(), runtime.GOMAXPROCS(0), loadAverage(), o.Rounds)
	var rows []Row
	for _, b := range benchmarks(o.Devices) {
		if !b.matches(only) {
			continue
		}
		got, err := b.runIn(ctx, o)
		rows = append(rows, got...)
		if err != nil {
			return rows, err
		}
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("no benchmark is called %q", o.Only)
	}
	compareSizes(rows)
	fmt.Fprintln(o.Out)
	return rows, WriteTable(o.Out, rows)
}

func (b *benchmark) matches(only *regexp.Regexp) bool {
	return slices.ContainsFunc(b.rows, only.MatchString)
}

// without is the benchmark whose rows are void where it returns missing, wrapped: what it needs cannot be had here.
func (b benchmark) without(missing error) benchmark {
	run := b.run
	b.run = func(h *harness, ctx context.Context) ([]Row, error) {
		rows, err := run(h, ctx)
		if !errors.Is(err, missing) {
			return rows, err
		}
		h.say("left out: %v", err)
		rows = nil
		for _, name := range b.rows {
			rows = append(rows, Row{Name: name, Void: err.Error()})
		}
		return rows, nil
	}
	return b
}

// runIn runs one benchmark in a folder of its own, which is removed after it.
func (b *benchmark) runIn(ctx context.Context, o Options) ([]Row, error) {
	dir, err := os.MkdirTemp(o.Dir, "campanile-bench-")
	if err != nil {
		return nil, fmt.Errorf("make a benchmark's folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, fmt.Errorf("make a benchmark's folder: %w", err)
	}
	began := time.Now()
	fmt.Fprintf(o.Out, "\n%s\n  %s\n", b.rows[0], b.what)
	rows, err := b.run(&harness{Options: o, dir: dir}, ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b.rows[0], err)
	}
	fmt.Fprintf(o.Out, "  took %s; load average %s\n", time.Since(began).Round(time.Second), loadAverage())
	return rows, nil
}
