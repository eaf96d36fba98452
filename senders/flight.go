package senders

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// flight is one send on its way. Flights are pooled, and keep their buffers and bound functions from send to send.
type flight struct {
	s *Sender
	// ctx is the ownership's: a flight outlives the call that brought it.
	ctx       context.Context //nolint:containedctx // see above
	done      schemas.Completion
	where     schemas.SendTopic
	partition int32
	offset    int64
	timeUS    int64

	buf    []byte // copies of the record's key and value: its own end with Deliver
	split  int    // where the value begins
	app    string // of the last bulk send: most that come to one flight are of one app
	device schemas.Device

	// What the record says, as far as it is needed later: all of it would be a third of a flight's memory, and most flights wait. Texts
	// alias buf.
	requestID   []byte
	requestedAt int64 // as the record says, and from aim on as the next one is to say
	notBeforeUS int64
	lastReason  string
	lastOutcome schemas.Outcome
	moved       bool // another record went before it

	id        schemas.ID // of the send
	hop       schemas.ID // of this stay of it, in memory
	broadcast schemas.ID // zero: a direct send

	content     *content
	requestedUS int64
	expiresUS   int64 // as asked for; zero: not
	cancelled   bool
	probe       bool

	account  *account
	provider Provider // that the push went to
	request  Request
	attempt  attempt
	answer   Result // zero value: no attempt was made
	limit    Limit  // what held it back
	apart    bool   // its token is in doubt
	doubt    string // why bad-token answers of its app are not believed; "": they are
	step     step
	seenUS   int64                  // when it was last looked at: a batch is looked at together
	say      func(out *schemas.Out) // f.tell, bound once
}

func newFlight(s *Sender) *flight {
	f := &flight{s: s}
	f.say = f.tell
	f.request.Tag = f
	return f
}

// keptFlight bounds the buffer that a pooled flight keeps, bytes: a bulk send's record is 250 or so. Direct sends carry their content.
const keptFlight = 1 << 10

// separator stands between the parts of a device's key.
var separator = []byte{0}

func (f *flight) key() []byte   { return f.buf[:f.split] }
func (f *flight) value() []byte { return f.buf[f.split:] }

// load copies a record into f, which e helps to read. It returns schemas.ErrMalformed or schemas.ErrUnknownType, wrapped.
func (f *flight) load(r *schemas.Record, e *pushv1.SendRequested) error {
	f.offset, f.timeUS = r.Offset, r.TimeUS
	f.buf, f.split = append(append(slices.Grow(f.buf[:0], len(r.Key)+len(r.Value)), r.Key...), r.Value...), len(r.Key)
	if r.Type() != pushv1.EventType_EVENT_TYPE_SEND_REQUESTED {
		return fmt.Errorf("%s[%d]@%d: no send: type %d: %w", r.Topic, r.Partition, r.Offset, r.Type(), schemas.ErrMalformed)
	}
	*e = pushv1.SendRequested{} // Reset, as Record.Into calls it, would tell protobuf's registry of it each time
	if err := e.UnmarshalVTUnsafe(f.value()[1:]); err != nil {
		return fmt.Errorf("%s[%d]@%d: %w: %w", r.Topic, r.Partition, r.Offset, schemas.ErrMalformed, err)
	}
	f.device = schemas.Device{App: e.App, Transport: f.where.Transport, Environment: e.Environment, Token: e.Token}
	if f.device.App == "" { // a bulk send's app stands in its key alone
		if app, _, _ := bytes.Cut(f.key(), separator); string(app) != f.app {
			f.app = string(app)
		}
		f.device.App = f.app
	}
	f.broadcast, f.id = schemas.IDFrom(e.BroadcastId), schemas.IDFrom(e.SendId)
	if f.id.IsZero() {
		f.id = schemas.BulkSendID(f.broadcast, f.device)
	}
	if f.broadcast.IsZero() && f.id.IsZero() || e.Token == "" || f.device.App == "" {
		return fmt.Errorf("%s[%d]@%d: a send without id, app or token: %w", r.Topic, r.Partition, r.Offset, schemas.ErrMalformed)
	}
	f.requestID, f.requestedAt, f.notBeforeUS = e.RequestId, e.RequestedAtUs, e.NotBeforeUs
	f.lastReason, f.lastOutcome, f.moved = e.LastReason, e.LastOutcome, e.Source != nil
	f.attempt = attempt{made: e.Attempt, registeredUS: e.RegisteredAtUs}
	if f.broadcast.IsZero() {
		f.content = &content{raw: e.Content, expiresUS: e.ExpiresAtUs}
	}
	var from *source
	if e.Source != nil {
		from = &source{e.Source.Tier, e.Source.Offset}
	}
	f.hop = hop(f.id, f.done.Generation(), from)
	return nil
}

// first reports whether nothing was said of this send before.
func (f *flight) first() bool { return !f.moved }

// doubtful reports whether the provider called the token bad and was not believed.
func (f *flight) doubtful() bool {
	return f.lastOutcome == tokenInvalid || f.lastReason == tokenFlood
}

// aim sets what the content's owner knows: a broadcast, or the send itself.
func (f *flight) aim(b *broadcast) {
	since := f.requestedAt
	if b != nil {
		f.content, f.requestedUS, f.expiresUS, f.cancelled = b.content, b.requested, b.expires, b.cancelled
		if since == 0 { // first time: a slow broadcast's age counts from its expansion
			since = f.timeUS
		}
	} else {
		f.requestedUS, f.expiresUS = since, f.content.expiresUS
		if since == 0 {
			since = f.timeUS
		}
	}
	f.requestedAt = since
	f.attempt.id, f.attempt.deadlineUS = f.id, f.expiresUS
	if f.expiresUS == 0 {
		f.attempt.deadlineUS = since + f.s.policy.maxAge
	}
}

// render fills the request.
func (f *flight) render() (err error) {
	f.request.SendID, f.request.Token, f.request.ExpiresUS = f.id, f.device.Token, f.expiresUS
	if f.where.Transport == schemas.APNS {
		f.request.APNS, err = f.content.forAPNS()
	} else {
		f.request.FCM, err = f.content.forFCM()
	}
	return err
}

// clear makes f ready for the next send. Buffers and bound functions stay.
func (f *flight) clear() {
	f.ctx, f.done, f.content, f.account, f.provider = nil, nil, nil, nil, nil
	f.requestID, f.requestedAt, f.notBeforeUS, f.lastReason, f.lastOutcome, f.moved = nil, 0, 0, "", 0, false
	if cap(f.buf) > keptFlight {
		f.buf = nil
	}
	f.request.APNS, f.request.FCM, f.request.Token = nil, nil, ""
	f.device, f.answer, f.step, f.attempt = schemas.Device{}, Result{}, step{}, attempt{}
	f.cancelled, f.probe, f.apart, f.doubt, f.limit = false, false, false, "", limitNone
	f.requestedUS, f.expiresUS = 0, 0
}
