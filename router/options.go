package router

import (
	"cmp"
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// setDefault gives a setting its default where it was not set.
func setDefault[T cmp.Ordered](setting *T, value T) {
	var zero T
	if *setting == zero {
		*setting = value
	}
}

// counterVec returns a counter that r collects; a nil r collects none. Two stages of a process may share a name.
func counterVec(r prometheus.Registerer, name, help string, labels ...string) *prometheus.CounterVec {
	return registered(r, name, prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels))
}

// gauge is the same for a gauge.
func gauge(r prometheus.Registerer, name, help string) prometheus.Gauge {
	return registered(r, name, prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help}))
}

// registered is c, or what r collects under its name already.
func registered[C prometheus.Collector](r prometheus.Registerer, name string, c C) C {
	if r == nil {
		return c
	}
	if err := r.Register(c); err != nil {
		if taken, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
			if existing, ok := taken.ExistingCollector.(C); ok {
				return existing
			}
		}
		panic("router: metric " + name + ": " + err.Error()) // names are constants: a clash is a mistake in the code
	}
	return c
}
