package bench

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"strings"
	"time"

	"github.com/campanile-push/campanile/projections"
	"github.com/campanile-push/campanile/projections/cockroach"
	"github.com/campanile-push/campanile/projections/pebble"
	"github.com/campanile-push/campanile/schemas"
)

// scalePushes of a round, whatever the audience: a small one is broadcast to so many times more often, or what a broadcast costs by itself
// would be what grows and shrinks. An audience of more is broadcast to once, and gets fewer rounds. On real engines a round is as long as
// the largest audience: what Kafka's JVM compiles in its first seconds, and what ClickHouse merges later, would be what shrinks and grows.
func scalePushes(engine string) int {
	if engine == onReal {
		return 10_000_000
	}
	return 1_000_000
}

// scalePlan is how one size pushes as much as every other.
type scalePlan struct {
	devices    int // of the audience
	broadcasts int // of a round, one after the other
	rounds     int
}

// planScale divides rounds of so many pushes.
func planScale(devices, pushes, rounds int) scalePlan {
	p := scalePlan{devices: devices, broadcasts: max(1, pushes/devices), rounds: rounds}
	if devices > pushes {
		p.rounds = max(1, rounds*pushes/devices)
	}
	return p
}

func (p scalePlan) pushes() int { return p.devices * p.broadcasts * p.rounds }

const (
	onEmbedded = "embedded"
	onReal     = "cluster"
)

func scaleName(engine string, devices int) string { return "scale/" + engine + "/" + sizeName(devices) }

// scaleParts are the processes whose memory and CPU have rows of their own.
func scaleParts(engine string) []string {
	if engine == onEmbedded {
		return []string{"up"}
	}
	return []string{"router", "sender.apns", "sender.fcm"}
}

// scaleBenchmarks are broadcasts to audiences of growing size, on one kind of engines.
func scaleBenchmarks(engine string, sizes ...int) []benchmark {
	var all []benchmark
	for _, n := range sizes {
		name := scaleName(engine, n)
		rows := []string{name + "/cpu_us", name + "/rate", name + "/seconds"}
		for _, part := range scaleParts(engine) {
			rows = append(rows, name+"/"+part+"/cpu_us", name+"/"+part+"/rss_mb")
		}
		what := "`campanile up`"
		if engine == onReal {
			what = "every stage in a process of its own, on Apache Kafka, PostgreSQL and the ClickHouse engine"
		}
		all = append(all, benchmark{
			rows, fmt.Sprintf("%s: %s devices in a store that was filled without the log, broadcasts to all of them until a round has %s pushes", what, sizeName(n), sizeName(max(n, scalePushes(engine)))),
			func(h *harness, ctx context.Context) ([]Row, error) { return h.scale(ctx, engine, n) },
		}.without(errNoAnalytics))
	}
	return all
}

func (h *harness) scale(ctx context.Context, engine string, devices int) (rows []Row, err error) {
	plan := planScale(h.scaled(devices), h.scaled(scalePushes(engine)), h.Rounds)
	sized := *h
	sized.Devices, sized.Rounds = plan.devices, plan.broadcasts*plan.rounds // by which the log's room is made
	u, end, err := sized.startScaled(ctx, engine)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, end()) }()
	if err := u.configure(ctx); err != nil {
		return nil, err
	}
	return u.scaleRounds(ctx, scaleName(engine, devices), plan, scaleParts(engine))
}

// startScaled starts the pipeline on a store that holds the devices.
func (h *harness) startScaled(ctx context.Context, engine string) (u *running, end func() error, err error) {
	if engine == onReal {
		c, end, err := h.startCluster(ctx, func(ctx context.Context, s *cockroach.Store) error {
			return h.fill(ctx, s, h.Devices, filledPhones)
		})
		if err != nil {
			return nil, nil, err
		}
		return &c.running, end, nil
	}
	store, err := pebble.Open(filepath.Join(h.dir, "data", "devices"), pebble.Options{Layout: schemas.Layout{Partitions: partitions}})
	if err != nil {
		return nil, nil, err
	}
	if err := errors.Join(h.fill(ctx, store, h.Devices, filledPhones), store.Close()); err != nil {
		return nil, nil, err
	}
	up, end, err := h.startPipeline(ctx)
	if err != nil {
		return nil, nil, err
	}
	if !up.analytics {
		return nil, nil, errors.Join(errNoAnalytics, end())
	}
	return &up.running, end, nil
}

// errNoAnalytics says that a part of the pipeline is missing: its rows are void.
var errNoAnalytics = errors.New("without analytics: libchdb is not there")

// fill is the loader: rows as the projector would have written them, and no log.
func (h *harness) fill(ctx context.Context, store projections.Filler, n int, phones func(n int) iter.Seq[projections.Filled]) error {
	began := time.Now()
	if err := store.Fill(ctx, phones(n)); err != nil {
		return err
	}
	took := time.Since(began)
	h.say("%d devices filled without the log in %s, %.0f a second", n, took.Round(time.Second/10), float64(n)/took.Seconds())
	return nil
}

// filledPhones are n phones, each in the one channel, as register says them in the log.
func filledPhones(n int) iter.Seq[projections.Filled] {
	return func(yield func(projections.Filled) bool) {
		channels := []string{siteChannel}
		for i := range n {
			p := MakePhone("bench", i)
			state := projections.State{
				Known: true, Registration: projections.Registration{AtUS: registeredUS, Platform: p.Platform, KeyID: registeredBy}, Channels: channels,
			}
			if !yield(projections.Filled{Device: p.device(), State: state}) {
				return
			}
		}
	}
}

// scaleRounds measures the rounds, and proves them.
func (u *running) scaleRounds(ctx context.Context, name string, plan scalePlan, parts []string) ([]Row, error) {
	if err := u.forgetPeaks(parts...); err != nil {
		return nil, err
	}
	var samples []sample
	for round := range plan.rounds {
		s, err := u.broadcasts(ctx, name, round+1, plan.broadcasts)
		if err != nil {
			return nil, fmt.Errorf("round %d: %w", round+1, err)
		}
		u.h.say("round %d  %s  %d broadcasts in %s", round+1, s, plan.broadcasts, s.wall.Round(time.Second/10))
		samples = append(samples, s)
	}
	peaks, err := u.peaks()
	if err != nil {
		return nil, err
	}
	if err := u.reconcile(ctx, int64(plan.pushes())); err != nil {
		return nil, err
	}
	rows := []Row{
		row(name+"/cpu_us", "µs/push", each(samples, sample.cpuUS), nil),
		row(name+"/rate", "pushes/s", each(samples, sample.rate), nil),
		row(name+"/seconds", "s/broadcast", each(samples, func(s sample) float64 { return s.wall.Seconds() / float64(plan.broadcasts) }), nil),
	}
	for _, part := range parts {
		used := each(samples, func(s sample) float64 { return float64(s.others[ofIt+part].Microseconds()) / float64(s.n) })
		rows = append(rows, row(name+"/"+part+"/cpu_us", "µs/push", used, nil), row(name+"/"+part+"/rss_mb", "MB", []float64{float64(peaks[part]) / 1e6}, nil))
	}
	return rows, nil
}

// compareSizes gives each figure of scale/<engine>/<size>/… that of the smallest size before it as its baseline.
func compareSizes(rows []Row) {
	first := map[string]float64{}
	for i := range rows {
		parts := strings.Split(rows[i].Name, "/")
		if parts[0] != "scale" || len(parts) < 4 || rows[i].Void != "" {
			continue
		}
		figure := parts[1] + "/" + strings.Join(parts[3:], "/")
		if _, seen := first[figure]; !seen {
			first[figure] = rows[i].Value
		}
		if rows[i].Baseline = first[figure]; rows[i].Baseline > 0 {
			rows[i].Ratio = rows[i].Value / rows[i].Baseline
		}
	}
}
