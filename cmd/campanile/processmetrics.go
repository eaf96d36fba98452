package main

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/campanile-push/campanile/eventlog/broker"
)

// registerBuild says which build runs, for alerts about processes of different versions.
func registerBuild(r prometheus.Registerer) {
	r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "campanile", Name: "build_info", Help: "1, with the version of the build.",
		ConstLabels: prometheus.Labels{"version": version, "go": runtime.Version()},
	}, func() float64 { return 1 }))
}

// registerEmbedded says how full the embedded log is.
func registerEmbedded(r prometheus.Registerer, b *broker.Broker) {
	gauge := func(name, help string, value func() int64) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "campanile", Subsystem: "embedded", Name: name, Help: help},
			func() float64 { return float64(value()) }))
	}
	gauge("log_bytes", "Size of the embedded log.", b.Bytes)
	gauge("log_max_bytes", "Size at which it takes nothing more.", b.MaxBytes)
	gauge("disk_free_bytes", "Room on the disk under it.", b.FreeBytes)
	gauge("disk_min_free_bytes", "Room that must stay free: below it, the log takes nothing more.", b.MinFreeBytes)
}
