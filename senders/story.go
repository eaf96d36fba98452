package senders

import (
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// story is the memory of the events that one send's end or move needs. Thousands of sends are in flight, few are told of at a time: it
// is not a part of them.
type story struct {
	finished    pushv1.DeliveryFinished
	attempted   pushv1.DeliveryAttempted
	invalidated pushv1.TokenInvalidated
	source      pushv1.Source
	send        pushv1.SendRequested
}

// tell says what became of the send.
func (f *flight) tell(out *schemas.Out) {
	hash := f.s.hasher.Hash(f.key())
	st, _ := f.s.stories.Get().(*story)
	st.tell(f, out, hash)
	f.s.stories.Put(st)
}

func (st *story) tell(f *flight, out *schemas.Out, hash uint64) {
	st.source.Lane, st.source.Tier, st.source.Offset = f.where.Lane, f.where.Tier, f.offset
	made := f.answer.Outcome != 0
	if f.step.fate == finish {
		st.finish(f, out, hash)
		return
	}
	if made || f.first() {
		st.attempt(f, out, hash, made)
	}
	e := &st.send
	*e = pushv1.SendRequested{}
	if err := e.UnmarshalVTUnsafe(f.value()[1:]); err != nil {
		panic(err) // it was read before
	}
	e.RequestedAtUs = f.requestedAt
	e.Attempt, e.NotBeforeUs = f.attempt.made, f.step.notBeforeUS
	e.Source, e.Generation = &st.source, f.done.Generation()
	e.LastOutcome, e.LastReason = f.step.outcome, f.step.reason
	to := schemas.SendTopic{Transport: f.where.Transport, Lane: f.where.Lane, Tier: f.step.tier}
	out.Retry(to, f.partition, f.key(), e)
	*e = pushv1.SendRequested{}
}

func (st *story) finish(f *flight, out *schemas.Out, hash uint64) {
	e := &st.finished
	e.SendId, e.BroadcastId, e.RequestId = f.id[:], nil, f.requestID
	if !f.broadcast.IsZero() {
		e.BroadcastId = f.broadcast[:]
	}
	e.App, e.Transport = f.device.App, f.where.Transport
	e.Outcome, e.Reason, e.Attempt = f.step.outcome, f.step.reason, f.attempt.made
	e.RequestedAtUs, e.FinishedAtUs, e.LatencyUs = f.requestedUS, f.seenUS, f.answer.LatencyUS
	e.Source, e.Generation, e.First = &st.source, f.done.Generation(), f.first()
	e.LimitedBy = f.limit
	out.DeliveryFinished(f.partition, hash, e)
	if f.step.asOfUS == 0 {
		return
	}
	d := &st.invalidated
	d.App, d.Transport, d.Environment, d.Token = f.device.App, f.device.Transport, f.device.Environment, f.device.Token
	d.AsOfUs, d.Reason, d.SendId, d.InvalidatedAtUs = f.step.asOfUS, f.step.reason, f.id[:], e.FinishedAtUs
	out.TokenInvalidated(d)
}

func (st *story) attempt(f *flight, out *schemas.Out, hash uint64, made bool) {
	e := &st.attempted
	e.SendId, e.BroadcastId = f.id[:], nil
	if !f.broadcast.IsZero() {
		e.BroadcastId = f.broadcast[:]
	}
	e.App, e.Transport = f.device.App, f.where.Transport
	e.Outcome, e.Reason, e.First = f.step.outcome, f.step.reason, f.first()
	e.Attempt, e.LatencyUs, e.AttemptedAtUs = 0, f.answer.LatencyUS, f.seenUS
	if made {
		e.Attempt, e.AttemptedAtUs = f.attempt.made, f.attempt.beganUS
	}
	e.Source, e.Generation, e.LimitedBy = &st.source, f.done.Generation(), f.limit
	if made {
		e.LimitedBy = limitOf(f.answer.Verdict)
	}
	out.DeliveryAttempted(f.partition, hash, e)
}
