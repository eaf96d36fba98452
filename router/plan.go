package router

import "github.com/campanile-push/campanile/schemas"

// maxForget bounds the tombstones of one commit.
const maxForget = 1000

// plan looks at the state: it fills d.candidates, and returns cursors of this partition whose broadcasts are over.
func (d *drive) plan(nowUS int64) (forget []schemas.CursorKey) {
	s := d.state
	s.mu.Lock()
	defer s.mu.Unlock()
	d.plans++
	clear(d.candidates) // pointers of broadcasts that are gone
	d.candidates = d.candidates[:0]
	for id := range d.owned {
		if b := s.broadcasts[id]; b == nil || !b.live() {
			delete(d.owned, id)
		}
	}
	for _, b := range s.open {
		d.consider(b, nowUS)
	}
	return d.strays()
}

// consider adds b's cursors, and their weight in their lanes.
func (d *drive) consider(b *broadcast, nowUS int64) {
	r := b.request()
	o := d.owned[b.id]
	if o == nil || o.request != r {
		o = d.own(b)
		d.owned[b.id] = o
	}
	closing := b.cancel || r.ExpiresAtUs > 0 && r.ExpiresAtUs <= nowUS
	runs := !closing && !b.paused && r.SendAtUs <= nowUS
	left := 0
	var lanes [slots]*laneView
	for i := range slots {
		lanes[i] = d.lane(laneKey{b.app, i})
		undone := max(0, int(r.Ranges)-b.done[i])
		left += undone
		if runs {
			lanes[i].runnable += undone
		}
	}
	express := b.express()
	d.correct(b, o, express, &lanes)
	owned := o.left()
	if owned == 0 {
		return
	}
	if express && runs {
		d.expressUS = nowUS
		d.options.Headroom.others(nowUS)
	}
	p := b.pace(r, nowUS)
	rate := p.rate * float64(owned) / float64(max(left, owned)) // left may be a page older than owned
	notBefore, slice := max(r.SendAtUs, o.notBefore), slice(rate)
	if !runs || slice == 0 {
		o.paced = paced{} // time without a rate is no lateness
	} else {
		o.paced.begin(d.partition, d.state.layout.Partitions, slice, nowUS)
		notBefore = max(notBefore, min(due(o.paced.fromUS, o.paced.taken, rate), p.untilUS))
	}
	gaveWay := !express && d.options.Headroom.limits(nowUS) && d.turnUS > notBefore
	if gaveWay {
		notBefore = d.turnUS
	}
	for i := range o.cursors {
		c := &o.cursors[i]
		if c.done {
			continue
		}
		d.candidates = append(d.candidates, candidate{
			broadcast: o, cursor: c, closing: closing, paused: b.paused, expires: r.ExpiresAtUs,
			notBefore: notBefore, gaveWay: gaveWay, slice: slice, lane: lanes[c.slot], express: express, turns: [3]uint64{d.appTurns[b.app], o.turn, c.turn},
		})
	}
}

// correct adds what this Drive has emitted and the followed state does not show yet.
func (d *drive) correct(b *broadcast, o *owned, express bool, lanes *[slots]*laneView) {
	var ahead [slots]int64
	for i := range o.cursors {
		c := &o.cursors[i]
		ahead[c.slot] += c.emitted - b.cursors[c.key].emitted
	}
	for i, n := range ahead {
		if n > 0 {
			lanes[i].add(max(0, b.emitted[i]+n-b.sums[i].first)-b.outstanding[i], express)
		}
	}
}

func (d *drive) lane(k laneKey) *laneView {
	v := d.lanes[k]
	if v == nil {
		v = &laneView{}
		d.lanes[k] = v
	}
	if v.plan != d.plans {
		l := d.state.lane(k)
		*v = laneView{outstanding: l.outstanding, express: l.express, lead: d.state.lead(l), plan: d.plans}
	}
	return v
}

// strays lists cursors of this partition without a request. Theirs was there before them in the log, and this Drive began
// with both topics read to their ends: so it is gone, and not merely unseen.
func (d *drive) strays() (forget []schemas.CursorKey) {
	for k := range d.forgotten {
		b := d.state.broadcasts[k.Broadcast]
		if b == nil {
			delete(d.forgotten, k)
			continue
		}
		if _, there := b.cursors[cursorKey{k.Transport, k.Range}]; !there {
			delete(d.forgotten, k)
		}
	}
	for id, b := range d.state.stray {
		for key := range b.cursors {
			k := schemas.CursorKey{Broadcast: id, Transport: key.transport, Range: key.rng}
			if _, said := d.forgotten[k]; said || d.state.layout.OfCursor(id, key.transport, key.rng) != d.partition {
				continue
			}
			if forget = append(forget, k); len(forget) == maxForget {
				return forget
			}
		}
	}
	return forget
}
