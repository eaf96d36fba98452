package senders

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// metrics are resolved once: a push looks up no label.
type metrics struct {
	finished  [16]prometheus.Counter // by outcome
	attempted [16]prometheus.Counter
	moved     [schemas.Tiers + 1]prometheus.Counter
	putOff    [limits]prometheus.Counter // by what held it back
	limited   [limits]prometheus.Gauge
	room      prometheus.Gauge
	latency   prometheus.Observer
	inFlight  prometheus.Gauge
	queued    prometheus.Gauge
	parked    prometheus.Gauge
	repeats   prometheus.Counter
}

// limits is one more than the greatest Limit.
const limits = limitParked + 1

var tierWords = [schemas.Tiers + 1]string{"0", "1", "2", "3", "4"}

func newMetrics(r prometheus.Registerer, t schemas.Transport, lane schemas.Lane) *metrics {
	labels := prometheus.Labels{"transport": t.Word(), "lane": lane.Word()}
	finished := vec(r, "campanile_sender_finished_total", "Sends that ended, by outcome.", labels, "outcome")
	attempted := vec(r, "campanile_sender_attempts_total", "Answers of the provider, by outcome.", labels, "outcome")
	moved := vec(r, "campanile_sender_moved_total", "Sends moved to a tier of retries; tier 4 holds those of parked apps.", labels, "tier")
	putOff := vec(r, "campanile_sender_put_off_total", "Sends moved to a tier without an attempt, by what held them back.", labels, "limit")
	limited := register(r, prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "campanile_sender_limited_apps", Help: "Apps whose sends wait, by what holds them back.", ConstLabels: labels,
	}, []string{"limit"}))
	m := &metrics{
		room: gauge(r, "campanile_sender_in_flight_limit", "Pushes that the apps at work may have in flight, as their providers' latency allows.", labels),
		latency: register(r, prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "campanile_sender_latency_seconds", Help: "Time to the provider's answer.", ConstLabels: labels,
			Buckets: prometheus.ExponentialBuckets(0.001, 2.5, 12), // 1 ms to 24 s; pushes end after 15 s
		})),
		inFlight: gauge(r, "campanile_sender_in_flight", "Pushes that wait for an answer.", labels),
		queued:   gauge(r, "campanile_sender_queued", "Sends that wait for their turn in memory.", labels),
		parked:   gauge(r, "campanile_sender_parked_apps", "Apps whose sends are parked: credentials missing, refused or in doubt.", labels),
		repeats: register(r, prometheus.NewCounter(prometheus.CounterOpts{
			Name: "campanile_sender_repeats_total", Help: "Sends dropped because they were pushed already.", ConstLabels: labels,
		})),
	}
	for number := range pushv1.Outcome_name {
		m.finished[number] = finished.WithLabelValues(pushv1.Outcome(number).Word())
		m.attempted[number] = attempted.WithLabelValues(pushv1.Outcome(number).Word())
	}
	for limit := limitNone + 1; limit < limits; limit++ {
		m.putOff[limit], m.limited[limit] = putOff.WithLabelValues(limit.Word()), limited.WithLabelValues(limit.Word())
	}
	for tier := range m.moved {
		m.moved[tier] = moved.WithLabelValues(tierWords[tier])
	}
	return m
}

func vec(r prometheus.Registerer, name, help string, labels prometheus.Labels, by string) *prometheus.CounterVec {
	return register(r, prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels}, []string{by}))
}

func gauge(r prometheus.Registerer, name, help string, labels prometheus.Labels) prometheus.Gauge {
	return register(r, prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}))
}

// register returns the collector that is there already, where a sender of the same kind was made before in this process. Any other
// refusal is a mistake in the code, and would hide the metric for ever.
func register[C prometheus.Collector](r prometheus.Registerer, c C) C {
	err := r.Register(c)
	if there := (prometheus.AlreadyRegisteredError{}); errors.As(err, &there) {
		if old, ok := there.ExistingCollector.(C); ok {
			return old
		}
	}
	if err != nil {
		panic(err)
	}
	return c
}
