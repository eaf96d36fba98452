package simulator

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// collector turns Stats into metrics when they are asked for: nothing is counted twice on the hot path.
type collector struct {
	s *Simulator

	answers, connections, open, inFlight, most, accepted, unique, repeats, memory, cpu, cut, doubt, violations, delays *prometheus.Desc
}

// Collector is for a Prometheus registry; the admin API has one of its own.
func (s *Simulator) Collector() prometheus.Collector {
	name := func(n string) string { return prometheus.BuildFQName("campanile", "simulator", n) }
	by := []string{"provider", "environment"}
	return &collector{
		s:           s,
		answers:     prometheus.NewDesc(name("answers_total"), "Answers to pushes; status 0 is none.", append(by, "status", "reason"), nil),
		connections: prometheus.NewDesc(name("connections_opened_total"), "Connections accepted.", nil, nil),
		open:        prometheus.NewDesc(name("connections_open"), "Connections open.", nil, nil),
		inFlight:    prometheus.NewDesc(name("pushes_in_flight"), "Pushes not yet answered.", nil, nil),
		most:        prometheus.NewDesc(name("pushes_in_flight_max"), "The most at once since the last reset.", nil, nil),
		cut:         prometheus.NewDesc(name("answers_cut_total"), "Accepted pushes whose answer was not given.", nil, nil),
		doubt:       prometheus.NewDesc(name("answers_in_doubt_total"), "Answers that were written, and perhaps never read.", nil, nil),
		violations:  prometheus.NewDesc(name("protocol_violations_total"), "Breaches of HTTP/2's rules by clients.", []string{"rule"}, nil),
		delays:      prometheus.NewDesc(name("answer_delay_seconds"), "How long answers were held back on purpose; the sum is not kept.", nil, nil),
		accepted:    prometheus.NewDesc(name("ledger_accepted"), "Pushes in the ledger.", by, nil),
		unique:      prometheus.NewDesc(name("ledger_unique"), "Distinct pushes in the ledger.", by, nil),
		repeats:     prometheus.NewDesc(name("ledger_repeats"), "Pushes in the ledger that had been there.", by, nil),
		memory:      prometheus.NewDesc(name("ledger_memory_bytes"), "Memory of the ledger's counts.", nil, nil),
		cpu:         prometheus.NewDesc(name("process_cpu_us_per_request"), "CPU of the whole process for each push, microseconds.", nil, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.answers, c.connections, c.open, c.inFlight, c.accepted, c.unique, c.repeats, c.memory, c.cpu, c.most, c.cut, c.doubt, c.violations, c.delays} {
		to <- d
	}
}

// Collect implements prometheus.Collector. Apps are summed up: their number is the user's.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	st := c.s.Stats()
	put := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, kind, v, labels...)
	}
	for _, a := range st.Answers {
		put(c.answers, prometheus.CounterValue, float64(a.Count), string(a.Provider), a.Environment, strconv.Itoa(a.Status), a.Reason)
	}
	put(c.connections, prometheus.CounterValue, float64(st.Opened))
	put(c.open, prometheus.GaugeValue, float64(st.Open))
	put(c.inFlight, prometheus.GaugeValue, float64(st.InFlight))
	put(c.memory, prometheus.GaugeValue, float64(st.Ledger.Memory))
	put(c.cpu, prometheus.GaugeValue, st.CPUPerRequest)
	put(c.most, prometheus.GaugeValue, float64(st.MaxInFlight))
	put(c.cut, prometheus.CounterValue, float64(st.Cut))
	put(c.doubt, prometheus.CounterValue, float64(st.Doubt))
	for _, rule := range sortedKeys(st.Violations) {
		put(c.violations, prometheus.CounterValue, float64(st.Violations[rule]), rule)
	}
	to <- delayHistogram(c.delays, st.Delays)
	sums := map[service]*AppSummary{serviceAPNS: {}, serviceSandbox: {}, serviceFCM: {}}
	for i := range st.Ledger.Apps {
		a := &st.Ledger.Apps[i]
		for at, sum := range sums {
			if at.provider() == a.Provider && at.environment() == a.Environment {
				sum.add(a)
			}
		}
	}
	for at, sum := range sums {
		p, e := string(at.provider()), at.environment()
		put(c.accepted, prometheus.GaugeValue, float64(sum.Accepted), p, e)
		put(c.unique, prometheus.GaugeValue, float64(sum.Unique), p, e)
		put(c.repeats, prometheus.GaugeValue, float64(sum.Repeats), p, e)
	}
}

// delayHistogram adds the buckets up, as Prometheus has them.
func delayHistogram(d *prometheus.Desc, counts []DelayCount) prometheus.Metric {
	buckets, total := map[float64]uint64{}, uint64(0)
	for i, c := range counts {
		total += uint64(c.Count)
		if i < len(delayBounds) {
			buckets[delayBounds[i].Seconds()] = total
		}
	}
	return prometheus.MustNewConstHistogram(d, total, 0, buckets)
}
