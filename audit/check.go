package audit

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

func unreadable(err error) bool {
	return errors.Is(err, schemas.ErrMalformed) || errors.Is(err, schemas.ErrUnknownType)
}

// check looks for everything that does not fit.
func (p *reading) check(ctx context.Context) error {
	older := 0
	for _, b := range p.r.broadcasts {
		if b.counts(p.r) && !p.checkBroadcast(b) {
			older++
		}
	}
	if older > 0 {
		p.note("%d broadcasts are older than the deliveries that the log still holds (%s): what became of them is not proven", older, moment(p.r.wholeSince(schemas.Deliveries)))
	}
	for _, topic := range []schemas.Topic{schemas.Notifications, schemas.Deliveries} {
		gone := int64(0)
		for _, start := range p.r.starts[topic] {
			gone += start
		}
		if gone > 0 {
			p.note("the log no longer holds the first %d records of %s: the figures are of what it holds, and pending may be too large", gone, topic)
		}
	}
	if err := p.checkDirect(ctx); err != nil {
		return err
	}
	return p.unlessRows(ctx, p.compareRows(ctx))
}

// checkBroadcast reports whether the log still holds all that it takes.
func (p *reading) checkBroadcast(b *broadcast) bool {
	whole := p.r.wholeSince(schemas.Deliveries)
	d := Difference{Kind: Expansion, Broadcast: text(b.id), App: b.app}
	if b.isOver {
		p.checkOver(b)
	}
	p.checkProgress(b)
	if b.forgotten {
		return true
	}
	proven := true
	for t, transport := range schemas.Transports {
		d.Transport = transport.Word()
		now, before := b.emittedOn(transport)
		ends, waiting := b.ends[t], b.waiting[t]
		d.Detail = fmt.Sprintf("cursors count %d sends; %d ended, %d wait", now, ends, waiting)
		d.Kind = Expansion
		switch {
		case len(b.cursors) == 0 && !b.here && (b.requestedUS == 0 || b.requestedUS < p.now.Add(-p.o.KeepEnded).UnixMicro()):
			// forgotten, and nothing says so any longer
		case ends > now:
			d.Kind = FinishedWithoutSend
			p.r.found.add(d)
		case ends+waiting > now:
			p.r.found.add(d)
		case before > ends+waiting && b.requestedUS < whole:
			proven = false
		case before > ends+waiting:
			p.r.found.add(d)
		}
	}
	return proven
}

// checkOver compares a broadcast's end with its cursors, while they are there.
func (p *reading) checkOver(b *broadcast) {
	if b.forgotten || len(b.cursors) == 0 {
		return
	}
	var said [slots]int64
	d := Difference{Kind: Progress, Broadcast: text(b.id), App: b.app}
	for _, c := range b.over {
		t, ok := slot(c.Transport)
		if !ok {
			continue
		}
		said[t] = c.Emitted
		if ended := c.Accepted + c.TokenInvalid + c.Rejected + c.Expired + c.Cancelled; ended != c.Emitted {
			d.Transport, d.Detail = c.Transport.Word(), fmt.Sprintf("its end counts %d sends, of which %d ended", c.Emitted, ended)
			p.r.found.add(d)
		}
	}
	for t, transport := range schemas.Transports {
		if now, _ := b.emittedOn(transport); now != said[t] {
			d.Transport, d.Detail = transport.Word(), fmt.Sprintf("its end counts %d sends, its cursors %d", said[t], now)
			p.r.found.add(d)
		}
	}
}

// checkProgress compares what the tally counted with the deliveries, partition by partition, up to where it was.
func (p *reading) checkProgress(b *broadcast) {
	for n, at := range b.parts {
		if !at.known && !b.here { // its counts are forgotten
			continue
		}
		if starts := p.r.starts[schemas.Deliveries]; int(n) < len(starts) && starts[n] > 0 {
			if since, left := p.r.firstUS[place2{schemas.Deliveries, n}]; !left || b.requestedUS < since {
				continue // some of what was counted is deleted
			}
		}
		for t, transport := range schemas.Transports {
			if at.tallied[t] != at.counted[t] {
				p.r.found.add(Difference{
					Kind: Progress, Broadcast: text(b.id), App: b.app, Transport: transport.Word(), Place: place(schemas.Progress, n, p.r.through[n]),
					Detail: fmt.Sprintf("progress counts %s, deliveries below offset %d %s", at.tallied[t], p.r.through[n], at.counted[t]),
				})
			}
		}
	}
}

func (t tally) String() string {
	return fmt.Sprintf("first=%d accepted=%d invalid=%d rejected=%d expired=%d cancelled=%d repeats=%d", t.first, t.accepted, t.invalid, t.rejected, t.expired, t.cancelled, t.repeats)
}

// checkDirect looks at single pushes, and reads those topics again whose records it has to name.
func (p *reading) checkDirect(ctx context.Context) error {
	var asked, ended, waiting bool
	p.r.pushes.each(func(v uint32) {
		direct, done := v&isDirect != 0, v&isEnded != 0
		asked = asked || direct && !done && v&(isAsked|isLettered) == isAsked && (v&isOverdue != 0 || v&(isRouted|isWaiting) == isRouted)
		ended = ended || direct && done && v&isAsked == 0
		waiting = waiting || !direct && !done && v&isOverdue != 0
	})
	if asked {
		if err := p.scan(ctx, schemas.Notifications, p.nameNotification); err != nil {
			return err
		}
	}
	if ended {
		if err := p.scan(ctx, schemas.Deliveries, p.nameEnd); err != nil {
			return err
		}
	}
	if p.r.dead > 0 {
		if err := p.scan(ctx, schemas.DeadLetters, p.nameLetter); err != nil {
			return err
		}
	}
	if waiting {
		for _, topic := range sendTopics() {
			if err := p.scan(ctx, topic, p.nameWaiting); err != nil {
				return err
			}
		}
	}
	return nil
}

// name marks a push as named, and reports whether it was not.
func (p *reading) name(id schemas.ID) bool {
	v := p.r.pushes.at(id)
	if *v&isNamed != 0 {
		return false
	}
	*v |= isNamed
	return true
}

func (p *reading) nameNotification(rec schemas.Record) error {
	e := &p.r.request
	if rec.Type() != pushv1.EventType_EVENT_TYPE_NOTIFICATION_REQUESTED {
		return nil
	}
	if err := rec.Into(e); err != nil {
		return err
	}
	defer e.Reset()
	id := schemas.IDFrom(e.RequestId)
	v := p.r.pushes.get(id)
	if v&(isAsked|isLettered) != isAsked || v&isEnded != 0 || !p.r.in(e.RequestedAtUs) {
		return nil
	}
	d := Difference{
		Request: text(id), Send: text(schemas.DirectSendID(id)), App: cloned(e.App), Transport: e.Transport.Word(), Place: place(rec.Topic, rec.Partition, rec.Offset),
	}
	switch {
	case v&(isRouted|isWaiting) == isRouted && e.RequestedAtUs >= p.r.wholeSince(schemas.Deliveries):
		d.Kind, d.Detail = Lost, "routed, not ended, and no topic holds it; asked for at "+moment(e.RequestedAtUs)
	case v&isOverdue != 0 && e.RequestedAtUs >= p.r.wholeSince(schemas.Deliveries):
		d.Kind, d.Detail = Overdue, "asked for at "+moment(e.RequestedAtUs)
	default:
		return nil
	}
	if p.name(id) {
		p.r.found.add(d)
	}
	return nil
}

func (p *reading) nameWaiting(rec schemas.Record) error {
	e := &p.r.send
	topic, ok := schemas.ParseSendTopic(rec.Topic)
	if !ok || rec.Type() != pushv1.EventType_EVENT_TYPE_SEND_REQUESTED {
		return nil
	}
	if err := rec.Into(e); err != nil {
		return err
	}
	defer e.Reset()
	id := pushOf(e, topic.Transport, rec.Key)
	v := p.r.pushes.get(id)
	of := schemas.IDFrom(e.BroadcastId)
	if v&(isDirect|isEnded|isOverdue) != isOverdue || of.IsZero() || !p.r.broadcast(of).counts(p.r) || !p.name(id) {
		return nil
	}
	p.r.found.add(Difference{
		Kind: Overdue, Broadcast: text(of), Send: text(id), App: p.r.broadcast(of).app, Transport: topic.Transport.Word(),
		Place: place(rec.Topic, rec.Partition, rec.Offset), Detail: "sent since " + moment(rec.TimeUS),
	})
	return nil
}

func (p *reading) nameEnd(rec schemas.Record) error {
	e := &p.r.finished
	if rec.Type() != pushv1.EventType_EVENT_TYPE_DELIVERY_FINISHED {
		return nil
	}
	if err := rec.Into(e); err != nil {
		return err
	}
	defer e.Reset()
	id := schemas.IDFrom(e.RequestId)
	v := p.r.pushes.get(id)
	if id.IsZero() || v&(isDirect|isEnded|isAsked) != isDirect|isEnded {
		return nil
	}
	// Deliveries are kept longer than notifications: what was asked for before those that are left is forgotten.
	since := p.r.wholeSince(schemas.Notifications)
	if since == math.MaxInt64 || e.RequestedAtUs < since || !p.name(id) {
		return nil
	}
	p.r.found.add(Difference{
		Kind: FinishedWithoutSend, Request: text(id), Send: text(schemas.IDFrom(e.SendId)), App: cloned(e.App), Transport: e.Transport.Word(),
		Outcome: e.Outcome.Word(), Place: place(rec.Topic, rec.Partition, rec.Offset), Detail: "no notification of this id is in the log",
	})
	return nil
}
