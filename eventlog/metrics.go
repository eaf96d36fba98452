package eventlog

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/campanile-push/campanile/schemas"
)

// metrics of the stages. They are moved by batch, never by record, and carry no token, app or broadcast.
type metrics struct {
	reg         prometheus.Registerer
	recordsIn   *prometheus.CounterVec // stage, topic
	recordsOut  *prometheus.CounterVec // stage
	batches     *prometheus.CounterVec // stage
	failures    *prometheus.CounterVec // stage
	deadLetters *prometheus.CounterVec // stage, topic
	stalled     *prometheus.GaugeVec   // stage, topic, partition: 1
	inFlight    *prometheus.GaugeVec   // stage: sends given to a Deliver and not completed
	skipped     *prometheus.CounterVec // stage: sends that a takeover found done
	lag         *prometheus.GaugeVec   // group, topic
	lost        *prometheus.GaugeVec   // group: 1
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "campanile", Name: name, Help: help}, labels)
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "campanile", Name: name, Help: help}, labels)
	}
	m := &metrics{
		reg:         reg,
		recordsIn:   counter("stage_records_in_total", "Records handled and committed.", "stage", "topic"),
		recordsOut:  counter("stage_records_out_total", "Records appended by a stage.", "stage"),
		batches:     counter("stage_batches_total", "Batches handled and committed.", "stage"),
		failures:    counter("stage_failures_total", "Batches that a handler or the log refused, each try counted.", "stage"),
		deadLetters: counter("stage_dead_letters_total", "Records put among the dead letters.", "stage", "topic"),
		stalled:     gauge("partition_stalled", "1: the partition stands still until somebody looks.", "stage", "topic", "partition"),
		inFlight:    gauge("stage_in_flight", "Sends begun and not yet recorded.", "stage"),
		skipped:     counter("stage_takeover_skipped_total", "Sends that a takeover found done.", "stage"),
		lag:         gauge("lag", "Records that a group has not committed, by topic.", "group", "topic"),
		lost:        gauge("group_lost", "1: the group has lost its place, and a stage waits for `campanile topics reset`.", "group"),
	}
	for i, c := range m.collectors() {
		if err := reg.Register(c); err != nil {
			for _, done := range m.collectors()[:i] {
				reg.Unregister(done)
			}
			return nil, fmt.Errorf("register the log's metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{
		m.recordsIn, m.recordsOut, m.batches, m.failures, m.deadLetters, m.stalled, m.inFlight, m.skipped, m.lag, m.lost,
	}
}

func (m *metrics) unregister() {
	for _, c := range m.collectors() {
		m.reg.Unregister(c)
	}
}

// meter is one stage's share of the metrics, looked up once.
type meter struct {
	l           *Log
	stage       string
	in, letters map[schemas.Topic]prometheus.Counter
	out         prometheus.Counter
	batches     prometheus.Counter
	failures    prometheus.Counter
	skipped     prometheus.Counter
	inFlight    prometheus.Gauge
}

func (l *Log) stageMeter(stage string, topics []schemas.Topic) *meter {
	m := &meter{
		l: l, stage: stage,
		in: map[schemas.Topic]prometheus.Counter{}, letters: map[schemas.Topic]prometheus.Counter{},
		out:      l.metrics.recordsOut.WithLabelValues(stage),
		batches:  l.metrics.batches.WithLabelValues(stage),
		failures: l.metrics.failures.WithLabelValues(stage),
		skipped:  l.metrics.skipped.WithLabelValues(stage),
		inFlight: l.metrics.inFlight.WithLabelValues(stage),
	}
	for _, t := range topics {
		m.in[t] = l.metrics.recordsIn.WithLabelValues(stage, string(t))
		m.letters[t] = l.metrics.deadLetters.WithLabelValues(stage, string(t))
	}
	return m
}

// stall sets or ends the alarm of a partition.
func (m *meter) stall(at place, on bool) {
	labels := []string{m.stage, string(at.topic), strconv.Itoa(int(at.partition))}
	if !on {
		m.l.metrics.stalled.DeleteLabelValues(labels...)
		return
	}
	m.l.metrics.stalled.WithLabelValues(labels...).Set(1)
}

const lagInterval = 10 * time.Second

// lagWatch refreshes the lag of every registered group until it is stopped.
type lagWatch struct {
	cancel context.CancelFunc
	done   chan struct{}
}

func (l *Log) watchLag() *lagWatch {
	ctx, cancel := context.WithCancel(context.Background())
	w := &lagWatch{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(w.done)
		ticker := time.NewTicker(lagInterval)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				l.refreshLag(ctx)
			}
		}
	}()
	return w
}

func (w *lagWatch) stop() {
	w.cancel()
	<-w.done
}

func (l *Log) refreshLag(ctx context.Context) {
	if _, err := l.readyLayout(); err != nil {
		return
	}
	for _, group := range Groups() {
		offsets, err := l.GroupOffsets(ctx, group)
		if err != nil {
			if ctx.Err() == nil {
				l.log.Warn("lag unknown", "group", group, "error", err)
			}
			return // the next tick asks again
		}
		lag := map[string]float64{}
		for _, o := range offsets {
			lag[string(o.Topic)] += float64(o.Lag())
		}
		for topic, n := range lag {
			l.metrics.lag.WithLabelValues(group, topic).Set(n)
		}
	}
}
