package router

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// MostCPU is what HeadroomOptions.Most is where it is zero: with half of the cores free, a goroutine that becomes runnable finds one, and
// what remains is for the parts of the pipeline that work in bursts.
const MostCPU = 0.55

// HeadroomOptions of what large broadcasts leave to others. The zero value never slows them down.
type HeadroomOptions struct {
	Now func() time.Time // nil: time.Now
	// CPU reads the CPU time that has been used here, and how much there was, since some moment in the past. Nil: nobody can say.
	CPU func() (used, all time.Duration, err error)
	// Most is the share of it, 0 to 1, that is used while others come, as far as large broadcasts can help it. Zero: MostCPU; 1: all.
	Most float64
	// Least is what they have in any case, in pushes a second; zero: 10,000.
	Least float64
	Log   *slog.Logger // nil: none
	// Registerer of its metric; nil: none is kept.
	Registerer prometheus.Registerer
}

func (o HeadroomOptions) withDefaults() HeadroomOptions {
	if o.Now == nil {
		o.Now = time.Now
	}
	setDefault(&o.Most, MostCPU)
	setDefault(&o.Least, 10_000)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

const (
	// headroomLook is how often the rate is set anew: long enough for a collection of garbage and a batch of each stage.
	headroomLook = 250 * time.Millisecond
	// headroomStale is the age of a look that says nothing of what is done now.
	headroomStale = 4 * headroomLook
	// headroomGrow and headroomCut bound what one look changes: growth more, since what was expanded is at work for some looks to come.
	headroomGrow = 1.3
	headroomCut  = 0.7
	// headroomUsed is the share of the rate that must have been taken before there is more.
	headroomUsed = 0.8
	// headroomBlind is for how long nobody is slowed down after the CPU time could not be read.
	headroomBlind = time.Minute
	// promptly: a page that is taken so soon after its turn came waited for nothing else.
	promptly = 20 * time.Millisecond
	// othersLately is for how long others are expected after the last one.
	othersLately = 5 * time.Second
)

// Headroom slows large broadcasts down while direct pushes and small broadcasts come: to the rate at which some of the CPU is free, so
// that those need not wait for a core. It follows what is used here, whoever uses it (multiplicative increase and decrease). One
// Headroom serves all stages of a process, and is safe for concurrent use; a nil one slows nobody down.
type Headroom struct {
	options  HeadroomOptions
	othersUS atomic.Int64 // when others came last; zero: never
	blindUS  atomic.Int64 // until when the CPU time is not read, since it could not be; zero: it could

	mu        sync.Mutex
	rate      float64 // pushes a second
	nextUS    int64   // when there may be another page
	lookedUS  int64
	used, all time.Duration // then
	taken     int64         // pushes since
}

// NewHeadroom returns a Headroom that has seen nobody.
func NewHeadroom(options HeadroomOptions) *Headroom {
	o := options.withDefaults()
	h := &Headroom{options: o, rate: o.Least}
	registered(o.Registerer, "campanile_router_headroom_rate", prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "campanile_router_headroom_rate",
		Help: "Pushes a second at which this process expands large broadcasts, so that the others that come find a free core; 0: no others come.",
	}, h.now))
	return h
}

// now is the rate in force; zero: none.
func (h *Headroom) now() float64 {
	if !h.limits(h.options.Now().UnixMicro()) {
		return 0
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.rate
}

// others notes that somebody has come who wants a core soon.
func (h *Headroom) others(nowUS int64) {
	if h != nil {
		h.othersUS.Store(nowUS)
	}
}

// limits reports whether large broadcasts are slowed down now.
func (h *Headroom) limits(nowUS int64) bool {
	if h == nil || h.options.CPU == nil || h.options.Most >= 1 || nowUS < h.blindUS.Load() {
		return false
	}
	at := h.othersUS.Load()
	return at > 0 && nowUS-at < othersLately.Microseconds()
}

// page is the most that a page of a large broadcast holds meanwhile.
func (h *Headroom) page() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slice(h.rate)
}

// take notes a page of n pushes, and returns when its partition may take another one. All partitions of a process take turns.
func (h *Headroom) take(n int, nowUS int64) (nextUS int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.look(nowUS)
	h.taken += int64(n)
	h.nextUS = due(max(h.nextUS, nowUS), float64(n), h.rate)
	return h.nextUS
}

// look sets the rate anew where it is time to; Headroom.mu is held.
func (h *Headroom) look(nowUS int64) {
	since := time.Duration(nowUS-h.lookedUS) * time.Microsecond
	if since < headroomLook {
		return
	}
	used, all, err := h.options.CPU()
	if err != nil {
		h.blindUS.Store(nowUS + headroomBlind.Microseconds())
		h.options.Log.Warn("large broadcasts leave no CPU to others: how much is used cannot be read", "again_in", headroomBlind, "error", err)
		return
	}
	if since < headroomStale && all > h.all {
		h.adjust((used-h.used).Seconds()/(all-h.all).Seconds(), float64(h.taken)/since.Seconds())
	}
	h.lookedUS, h.used, h.all, h.taken = nowUS, used, all, 0
}

// adjust draws the consequences of the share of the CPU that was used while so many pushes a second were taken; Headroom.mu is held.
func (h *Headroom) adjust(share, taken float64) {
	want := h.options.Most / max(share, 0.01)
	switch {
	case want < 1:
		h.rate = max(h.rate*max(want, headroomCut), h.options.Least)
	case taken >= headroomUsed*h.rate: // else it is not the rate that holds them back
		h.rate *= min((1+want)/2, headroomGrow)
	}
}
