package senders

import "time"

// The gradient's constants.
const (
	gradientStart  = 256 // pushes in flight before anything is known
	gradientLeast  = 16
	gradientRoom   = int64(50 * time.Millisecond / time.Microsecond) // of latency above the floor that is noise, or our own CPU's
	gradientWindow = int64(50 * time.Millisecond / time.Microsecond)
	gradientFew    = 8 // answers that say nothing yet
	gradientStale  = int64(30 * time.Second / time.Microsecond)
	gradientBad    = 0.1 // share of unavailable answers that halves
)

// gradient bounds the pushes in flight to one provider for one app by its latency (additive increase, multiplicative decrease, as
// Vegas does with packets): while answers come about as fast as they ever did, more are let in; when they come later than twice
// that, or the provider is unavailable, fewer. The zero value starts with a few hundred. Times are in microseconds.
type gradient struct {
	limit   int
	floor   float64 // least mean latency of a window; zero: none known
	floorAt int64   // when a window was last near it
	calm    bool    // it has shrunk once: it doubles no more

	endAt      int64 // of the window
	n, bad     int
	sum        int64
	pressed    bool // a push had to wait for its place
	probing    int  // windows left of a look for the floor at half the pushes
	beforeLook int  // limit to come back to
}

// now is the bound in force.
func (g *gradient) now() int {
	if g.limit == 0 {
		return gradientStart
	}
	return g.limit
}

// observe counts an answer. most is what the connections carry.
func (g *gradient) observe(r Result, nowUS int64, most int) {
	g.n++
	g.sum += r.LatencyUS
	if r.Outcome == unavailable {
		g.bad++
	}
	if nowUS >= g.endAt {
		g.turn(nowUS, most)
	}
}

// turn ends a window, and judges it where it has something to say.
func (g *gradient) turn(nowUS int64, most int) {
	if g.limit == 0 {
		g.limit = min(gradientStart, most)
	}
	if g.endAt != 0 && g.n >= gradientFew {
		mean := max(float64(g.sum)/float64(g.n), 1)
		if float64(g.bad) >= gradientBad*float64(g.n) {
			g.shrink(0.5)
		} else {
			g.judge(mean, nowUS, most)
		}
		g.endAt = nowUS + max(gradientWindow, int64(mean))
	} else {
		if g.endAt != 0 && g.n > 0 {
			return // too few answers yet: the window goes on
		}
		g.endAt = nowUS + gradientWindow
	}
	g.n, g.bad, g.sum, g.pressed = 0, 0, 0, false
}

func (g *gradient) judge(mean float64, nowUS int64, most int) {
	if g.probing > 0 {
		g.probing--
		if g.probing == 0 { // the windows before it held answers to what was in flight already
			g.floor, g.floorAt = mean, nowUS
			g.limit = g.beforeLook
		}
		return
	}
	if g.floor == 0 || mean < g.floor {
		g.floor = mean
	}
	if mean <= 1.1*g.floor {
		g.floorAt = nowUS
	}
	switch bound := max(2*g.floor, g.floor+float64(gradientRoom)); {
	case mean > bound:
		g.shrink(max(bound/mean, 0.5))
	case g.pressed && !g.calm:
		g.limit = min(2*g.limit, most)
	case g.pressed:
		g.limit = min(g.limit+max(g.limit/16, 4), most)
	}
	if nowUS-g.floorAt > gradientStale { // the network may have changed, and a floor of old would shrink us for ever
		g.beforeLook, g.probing = g.limit, 3
		g.limit = max(g.limit/2, gradientLeast)
	}
}

func (g *gradient) shrink(by float64) {
	g.calm = true
	if g.probing > 0 {
		g.limit, g.probing = g.beforeLook, 0
	}
	g.limit = max(int(float64(g.limit)*by), gradientLeast)
}
