package ingest

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	doubts   prometheus.Counter
	dead     prometheus.Counter
	created  prometheus.Counter
	dropped  prometheus.Counter
	keys     *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer, deadDevices func() float64) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "campanile", Subsystem: "ingest", Name: "requests_total",
			Help: "Requests answered, by route and status.",
		}, []string{"route", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "campanile", Subsystem: "ingest", Name: "request_seconds",
			Help:    "Time from a request's head to its answer, by route.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2, 5},
		}, []string{"route"}),
		doubts: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "campanile", Subsystem: "ingest", Name: "in_doubt_total",
			Help: "Pushes accepted because nothing against their device could be proven in time.",
		}),
		dead: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "campanile", Subsystem: "ingest", Name: "dead_token_answers_total",
			Help: "Pushes answered that their token is dead.",
		}),
		created: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "campanile", Subsystem: "ingest", Name: "registrations_by_push_total",
			Help: "Missing registrations appended because a key that may register pushed to the token.",
		}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "campanile", Subsystem: "ingest", Name: "registrations_by_push_dropped_total",
			Help: "Tokens that were not looked at for a missing registration, since too many waited or the store stayed behind; their next push tries again.",
		}),
		keys: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "campanile", Subsystem: "ingest", Name: "access_key_requests_total",
			Help: "Requests for an access key, by what became of them: issued, pending, refused, limited, failed.",
		}, []string{"result"}),
	}
	if reg != nil {
		reg.MustRegister(m.requests, m.seconds, m.doubts, m.dead, m.created, m.dropped, m.keys,
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Namespace: "campanile", Subsystem: "ingest", Name: "dead_devices",
				Help: "Devices in memory that may be dead.",
			}, deadDevices))
	}
	return m
}

// routeMetrics are one route's, without a search for each request.
type routeMetrics struct {
	all     *metrics
	name    string
	seconds prometheus.Observer
	usual   [4]struct {
		status  int
		counter prometheus.Counter
	}
}

func (m *metrics) route(name string) *routeMetrics {
	r := &routeMetrics{all: m, name: name, seconds: m.seconds.WithLabelValues(name)}
	for i, status := range [...]int{202, 200, 404, 400} {
		r.usual[i].status = status
		r.usual[i].counter = m.requests.WithLabelValues(name, strconv.Itoa(status))
	}
	return r
}

func (r *routeMetrics) answered(status int, took time.Duration) {
	r.seconds.Observe(took.Seconds())
	for i := range r.usual {
		if r.usual[i].status == status {
			r.usual[i].counter.Inc()
			return
		}
	}
	r.all.requests.WithLabelValues(r.name, strconv.Itoa(status)).Inc()
}
