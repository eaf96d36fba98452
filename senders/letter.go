package senders

import (
	"bytes"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

const reasonLetter = "dead_letter"

// letter keeps what is no send, so that it stops nothing.
func (s *Sender) letter(r *schemas.Record, done schemas.Completion, err error) {
	s.log.Error("send cannot be read", "topic", r.Topic, "partition", r.Partition, "offset", r.Offset, "error", err)
	done.Complete(r.Offset, func(out *schemas.Out) {
		out.DeadLettered(&pushv1.DeadLettered{
			Topic: string(r.Topic), Partition: r.Partition, Offset: r.Offset, Reason: err.Error(), Key: r.Key, Value: r.Value,
			Stage:        "sender." + s.options.Transport.Word() + "." + s.options.Lane.Word(),
			RecordedAtUs: r.TimeUS, LetteredAtUs: s.nowUS(),
		})
		s.End(*r, done.Generation(), out)
	})
}

// End says that a send which becomes a dead letter has ended as rejected: its broadcast would wait for it for ever. Nothing is said
// of a record that names neither a send nor a broadcast. It may be called from any goroutine.
func (s *Sender) End(r schemas.Record, generation int64, out *schemas.Out) {
	where, ok := schemas.ParseSendTopic(r.Topic)
	if !ok || r.Type() != pushv1.EventType_EVENT_TYPE_SEND_REQUESTED {
		return
	}
	var e pushv1.SendRequested
	if r.Into(&e) != nil {
		e = pushv1.SendRequested{BroadcastId: firstField(r.Value[1:])}
	}
	broadcast, id := schemas.IDFrom(e.BroadcastId), schemas.IDFrom(e.SendId)
	app := e.App
	if name, _, ok := bytes.Cut(r.Key, []byte{0}); ok && app == "" {
		app = string(name)
	}
	switch {
	case broadcast.IsZero() && id.IsZero():
		return
	case id.IsZero():
		id = schemas.BulkSendID(broadcast, schemas.Device{App: app, Transport: where.Transport, Environment: e.Environment, Token: tokenOf(&e, r.Key)})
	}
	out.DeliveryFinished(r.Partition, s.options.Hasher.Hash(r.Key), &pushv1.DeliveryFinished{
		SendId: id[:], BroadcastId: e.BroadcastId, RequestId: e.RequestId, App: app, Transport: where.Transport,
		Outcome: rejected, Reason: reasonLetter, Attempt: e.Attempt, RequestedAtUs: e.RequestedAtUs, FinishedAtUs: s.nowUS(),
		Source: &pushv1.Source{Lane: where.Lane, Tier: where.Tier, Offset: r.Offset}, Generation: generation, First: e.Source == nil,
	})
}

// firstField is the broadcast of a bulk send of which the rest cannot be read: it stands first. Nil where it does not.
func firstField(message []byte) []byte {
	const tag, size = 1<<3 | 2, 16
	if len(message) < 2+size || message[0] != tag || message[1] != size {
		return nil
	}
	return message[2 : 2+size]
}

// tokenOf is a send's token, or that of its key where the send cannot be read: after NUL and the device's code.
func tokenOf(e *pushv1.SendRequested, key []byte) string {
	if _, rest, ok := bytes.Cut(key, []byte{0}); ok && e.Token == "" && len(rest) > 1 {
		return string(rest[1:])
	}
	return e.Token
}
