package senders

import "time"

// The gradient's constants.
const (
	gradientStart  = 256 // pushes in flight before anything is known
	gradientLeast  = 64
	gradientRoom   = int64(100 * time.Millisecond / time.Microsecond) // of latency above the floor that is noise, or our own CPU's
	gradientWindow = int64(50 * time.Millisecond / time.Microsecond)
	gradientFew    = 8 // answers that say nothing yet
	gradientStale  = int64(30 * time.Second / time.Microsecond)
	gradientBad    = 0.1  // share of unavailable answers that halves
	gradientCut    = 0.7  // what a late window leaves
	gradientHelped = 0.85 // a cut that leaves more than this of the latency was none of the provider's doing
	gradientQueue  = 1.5  // of what is on the wire: enough to wait in front of the connections for another one to be made
	gradientWaits  = 0.1  // of the latency: pushes that wait so long for a place are not made fewer by more of them
)

// gradient bounds the pushes in flight to one provider for one app by its latency (additive increase, multiplicative decrease, as
// Vegas does with packets): while answers come about as fast as they ever did, more are let in; when they come later than twice
// that, or the provider is unavailable, fewer. Where fewer come just as late, it is not the provider's queue but this machine or the
// way there that is slow: then the bound goes back, and late is the new normal. What a push waits for a place on a connection is no
// latency of the provider: while that is a good part of its time, the bound follows what the connections carry. The zero value starts
// with a few hundred. Times are in microseconds.
type gradient struct {
	limit   int
	floor   float64 // least mean latency of a window; zero: none known
	floorAt int64   // when a window was last near it
	calm    bool    // it has shrunk once: it doubles no more

	cutAt   float64 // mean latency at the last cut, until it is known whether that helped; zero: none
	backTo  int     // limit before the last cut, or the last look
	probing bool    // it looks for the floor with half the pushes

	validFrom int64 // answers to pushes that began before say nothing of the limit in force
	endAt     int64 // of the window, which begins with an answer
	n, bad    int
	sum       int64 // of the provider's latency
	waited    int64 // for a place on a connection
	pressed   bool  // a push had to wait for its turn
}

// now is the bound in force.
func (g *gradient) now() int {
	if g.limit == 0 {
		return gradientStart
	}
	return g.limit
}

// observe counts the answer to a push that began at beganUS. most is what the connections carry.
func (g *gradient) observe(r Result, beganUS, nowUS int64, most int) {
	if beganUS < g.validFrom {
		return
	}
	if g.n == 0 {
		g.endAt = nowUS + gradientWindow
	}
	g.n++
	g.sum += r.LatencyUS - r.WaitedUS
	g.waited += r.WaitedUS
	if r.Outcome == unavailable {
		g.bad++
	}
	if nowUS < g.endAt || g.n < gradientFew {
		return
	}
	if g.limit == 0 {
		g.limit = min(gradientStart, most)
	}
	before, mean := g.limit, max(float64(g.sum)/float64(g.n), 1)
	waited := float64(g.waited) / float64(g.n)
	switch {
	case float64(g.bad) >= gradientBad*float64(g.n):
		g.cutAt = 0
		g.shrink(0.5)
	case g.pressed && waited > (gradientQueue-1)*mean:
		g.follow(mean / (mean + waited))
	default:
		g.pressed = g.pressed && waited <= gradientWaits*mean
		g.judge(mean, nowUS, most)
	}
	if g.limit != before {
		g.validFrom = nowUS + int64(mean) // what the new limit lets in meets the queue that it makes a round later
	}
	g.n, g.bad, g.sum, g.waited, g.pressed = 0, 0, 0, 0, false
}

// follow sets the bound by the share of the pushes in flight that were on the wire (by Little's law, that of their time), since more
// than that waited for a place. It says nothing of the provider: the bound may double again once there are places.
func (g *gradient) follow(wire float64) {
	if g.probing {
		g.limit, g.probing = g.backTo, false
	}
	g.limit = min(g.limit, max(int(gradientQueue*wire*float64(g.limit)), gradientLeast))
}

// judge draws the consequences of a window's mean latency.
func (g *gradient) judge(mean float64, nowUS int64, most int) {
	if g.probing {
		g.floor, g.floorAt, g.limit, g.probing = mean, nowUS, g.backTo, false
		return
	}
	if g.floor == 0 || mean < g.floor {
		g.floor = mean
	}
	if mean <= 1.1*g.floor {
		g.floorAt = nowUS
	}
	late := mean > max(2*g.floor, g.floor+float64(gradientRoom))
	switch {
	case late && g.cutAt > 0 && mean > gradientHelped*g.cutAt:
		g.floor, g.floorAt, g.limit, g.cutAt = mean, nowUS, g.backTo, 0
		return
	case late:
		g.cutAt, g.backTo = mean, g.limit
		g.shrink(gradientCut)
		return
	case g.pressed && !g.calm:
		g.limit = min(2*g.limit, most)
	case g.pressed:
		g.limit = min(g.limit+max(g.limit/16, 4), most)
	}
	g.cutAt = 0
	if nowUS-g.floorAt > gradientStale { // the network may have changed, and a floor of old would shrink us for ever
		g.backTo, g.probing = g.limit, true
		g.limit = max(g.limit/2, gradientLeast)
	}
}

func (g *gradient) shrink(by float64) {
	g.calm = true
	if g.probing {
		g.limit, g.probing = g.backTo, false
	}
	g.limit = min(g.limit, max(int(float64(g.limit)*by), gradientLeast))
}
