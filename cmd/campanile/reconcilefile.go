package main

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// reconcileGauges are what `campanile reconcile --textfile` leaves for Prometheus' node exporter.
type reconcileGauges struct {
	differences *prometheus.GaugeVec // kind
	success     prometheus.Gauge
}

func registerReconcile(reg prometheus.Registerer) reconcileGauges {
	g := reconcileGauges{
		differences: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: "campanile", Subsystem: "reconcile", Name: "differences", Help: "What the last reconcile could not account for, by kind; kind all is their sum.",
		}, []string{"kind"}),
		success: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: "campanile", Subsystem: "reconcile", Name: "success_timestamp_seconds", Help: "When reconcile last ran through, in seconds since 1970.",
		}),
	}
	reg.MustRegister(g.differences, g.success)
	return g
}

// writeReconcile replaces the file: a scrape never sees half of it. counts are the differences by kind.
func writeReconcile[K ~string](path string, counts map[K]int64, now time.Time) error {
	reg := prometheus.NewRegistry()
	g := registerReconcile(reg)
	var all int64
	for kind, n := range counts {
		g.differences.WithLabelValues(string(kind)).Set(float64(n))
		all += n
	}
	g.differences.WithLabelValues("all").Set(float64(all))
	g.success.Set(float64(now.Unix()))
	if err := prometheus.WriteToTextfile(path, reg); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
