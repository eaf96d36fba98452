package router

import (
	"errors"
	"math"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// machine is one of cores whose CPU time goes by with the time of day, and with what is pushed.
type machine struct {
	cores  float64
	others float64 // cores that somebody else uses
	push   float64 // CPU seconds of a push, all stages
	nowUS  int64
	used   float64
	err    error
}

func (m *machine) cpu() (used, all time.Duration, err error) {
	seconds := float64(m.nowUS) / 1e6
	return time.Duration(m.used * 1e9), time.Duration(seconds * m.cores * 1e9), m.err
}

func (m *machine) until(atUS int64) {
	m.used += float64(atUS-m.nowUS) / 1e6 * m.others
	m.nowUS = atUS
}

// run has partitions take pages as often as they may while others come, and says how many pushes a second those were in the last five. None of them takes more than most a second.
func (m *machine) run(h *Headroom, partitions int, most float64, d time.Duration) (rate float64) {
	next := make([]int64, partitions)
	end := m.nowUS + d.Microseconds()
	taken := 0
	for m.nowUS < end {
		turn := 0
		for p := range next {
			if next[p] < next[turn] {
				turn = p
			}
		}
		m.until(max(next[turn], m.nowUS))
		h.others(m.nowUS)
		n := h.page()
		m.used += float64(n) * m.push
		next[turn] = max(h.take(n, m.nowUS), m.nowUS+int64(float64(n)*float64(partitions)/most*1e6))
		if m.nowUS > end-5*time.Second.Microseconds() {
			taken += n
		}
	}
	return float64(taken) / 5
}

func TestHeadroomFindsTheRateThatLeavesCPU(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		machine    machine
		partitions int
		most       float64 // that the pages' store gives
		want       float64
	}{
		"a push of 14 µs on four cores":       {machine{cores: 4, push: 14e-6}, 4, 1e6, 0.55 * 4 / 14e-6},
		"one partition":                       {machine{cores: 4, push: 14e-6}, 1, 1e6, 0.55 * 4 / 14e-6},
		"many cores":                          {machine{cores: 64, push: 14e-6}, 24, 1e8, 0.55 * 64 / 14e-6},
		"somebody else uses a core":           {machine{cores: 4, others: 1, push: 14e-6}, 4, 1e6, (0.55*4 - 1) / 14e-6},
		"somebody else uses most":             {machine{cores: 4, others: 3, push: 14e-6}, 4, 1e6, 10_000},
		"the least is too much":               {machine{cores: 1, push: 1e-3}, 4, 1e6, 10_000},
		"something else holds the pages back": {machine{cores: 4, push: 14e-6}, 4, 30_000, 30_000},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := &c.machine
			m.nowUS = 1
			h := NewHeadroom(HeadroomOptions{CPU: m.cpu})
			if got := m.run(h, c.partitions, c.most, 30*time.Second); math.Abs(got-c.want) > 0.15*c.want {
				t.Errorf("want about %.0f pushes a second, got %.0f", c.want, got)
			}
			m.others += 0.1 * m.cores
			less := m.run(h, c.partitions, c.most, 10*time.Second)
			m.others -= 0.1 * m.cores
			again := m.run(h, c.partitions, c.most, 30*time.Second)
			if less > c.want*1.15 || math.Abs(again-c.want) > 0.15*c.want {
				t.Errorf("want less while somebody else uses more, and then %.0f again, got %.0f and %.0f", c.want, less, again)
			}
		})
	}
}

func TestHeadroomIsForOthers(t *testing.T) {
	t.Parallel()
	m := &machine{cores: 4, push: 14e-6}
	const now = int64(1_000_000_000)
	late := now + othersLately.Microseconds()
	metrics := prometheus.NewRegistry()
	at := now
	h := NewHeadroom(HeadroomOptions{CPU: m.cpu, Registerer: metrics, Now: func() time.Time { return time.UnixMicro(at) }})
	gauge := func() float64 {
		families, err := metrics.Gather()
		if err != nil || len(families) != 1 {
			t.Fatalf("want one metric, got %d and error %v", len(families), err)
		}
		return families[0].Metric[0].GetGauge().GetValue()
	}
	if h.limits(now) || gauge() != 0 {
		t.Error("nobody came, and it limits")
	}
	h.others(now)
	if !h.limits(now) || !h.limits(late-1) || gauge() != 10_000 {
		t.Errorf("others came: want it to limit to 10,000 for %v, got %v %v %v", othersLately, h.limits(now), h.limits(late-1), gauge())
	}
	if at = late; h.limits(late) || gauge() != 0 {
		t.Error("nobody came for long, and it limits")
	}
	if problems, err := testutil.GatherAndLint(metrics); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v, error %v", problems, err)
	}
	var none *Headroom
	none.others(now)
	for name, h := range map[string]*Headroom{
		"none": none, "of all": NewHeadroom(HeadroomOptions{CPU: m.cpu, Most: 1}), "without a clock of the CPU": NewHeadroom(HeadroomOptions{}),
	} {
		if h.others(now); h.limits(now) {
			t.Errorf("%s: it limits", name)
		}
	}
}

func TestHeadroomThatSeesNothingSlowsNobodyDown(t *testing.T) {
	t.Parallel()
	m := &machine{cores: 4, push: 14e-6, nowUS: 1_000_000, err: errors.New("no procfs")}
	h := NewHeadroom(HeadroomOptions{CPU: m.cpu})
	h.others(m.nowUS)
	if h.take(100, m.nowUS); h.limits(m.nowUS) {
		t.Error("the CPU time cannot be read, and it limits")
	}
	m.until(m.nowUS + headroomBlind.Microseconds())
	if h.others(m.nowUS); !h.limits(m.nowUS) {
		t.Error("it never looks again")
	}
	m.err = nil
	m.run(h, 4, 1e6, 20*time.Second)
	if !h.limits(m.nowUS) || h.rate <= h.options.Least {
		t.Errorf("the CPU time can be read again: want a rate, got %.0f", h.rate)
	}
}

func TestHeadroomForgetsWhatIsStale(t *testing.T) {
	t.Parallel()
	m := &machine{cores: 4, push: 14e-6, nowUS: 1_000_000}
	h := NewHeadroom(HeadroomOptions{CPU: m.cpu})
	m.run(h, 4, 1e6, 20*time.Second)
	before := h.rate
	m.others = 4
	m.until(m.nowUS + time.Minute.Microseconds()) // without a large broadcast
	m.others = 0
	if h.take(100, m.nowUS); h.rate != before {
		t.Errorf("what was used by others meanwhile changed the rate from %.0f to %.0f", before, h.rate)
	}
}
