package router

import (
	"time"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// Phase is where a broadcast stands.
type Phase string

// The phases. Cancelled and Draining end when every send that was emitted is finished.
const (
	Scheduled Phase = "scheduled"
	Paused    Phase = "paused"
	Expanding Phase = "expanding"
	Draining  Phase = "draining" // every cursor is done
	Cancelled Phase = "cancelled"
	Ended     Phase = "ended"
)

// Status is how far a broadcast has come. Exact once it has ended, about a second old before.
type Status struct {
	ID            schemas.ID
	App           string
	Phase         Phase
	Cancelled     bool
	CursorsDone   int
	Cursors       int // zero once it has ended
	RequestedAtUS int64
	EndedAtUS     int64
	Estimate      int64
	Counts        []*pushv1.TransportCounts // one for each of schemas.Transports
}

// Broadcast says how far a broadcast has come; ok is false for one that the log does not hold, or not yet.
func (s *State) Broadcast(id schemas.ID) (status Status, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.broadcasts[id]
	if b == nil || !b.live() && !b.end {
		return Status{}, false
	}
	return b.status(s.options.Now()), true
}

// Live says how far every live broadcast has come, in no order.
func (s *State) Live() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.options.Now()
	var list []Status
	for _, b := range s.broadcasts {
		if b.live() {
			list = append(list, b.status(now))
		}
	}
	return list
}

func (b *broadcast) status(now time.Time) Status {
	r := b.request()
	status := Status{
		ID: b.id, App: b.app, Phase: b.phase(now.UnixMicro()), Cancelled: b.cancel, CursorsDone: b.cursorsDone(),
		RequestedAtUS: r.GetRequestedAtUs(), EndedAtUS: b.endedAtUS, Estimate: r.GetAudienceEstimate(),
	}
	if r != nil {
		status.Cursors = b.cursorCount()
	}
	status.Counts = b.counts()
	return status
}

func (b *broadcast) phase(nowUS int64) Phase {
	switch {
	case b.end:
		return Ended
	case b.cancel:
		return Cancelled
	case b.cursorsDone() >= b.cursorCount():
		return Draining
	case b.paused:
		return Paused
	case b.request().GetSendAtUs() > nowUS:
		return Scheduled
	}
	return Expanding
}

// counts are one entry for each transport.
func (b *broadcast) counts() []*pushv1.TransportCounts {
	list := make([]*pushv1.TransportCounts, slots)
	for i, t := range schemas.Transports {
		list[i] = b.sums[i].event(t, b.emitted[i])
	}
	return list
}
