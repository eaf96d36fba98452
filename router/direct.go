package router

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
	"github.com/campanile-push/campanile/vault"
)

// DirectOptions of the direct router. The zero value works.
type DirectOptions struct {
	Now func() time.Time // nil: time.Now
	// DoubtPatience is how long a batch waits for the store to catch up with requests in doubt, before it sends them; zero:
	// 1 s (a promise to Moodle, whose users wait).
	DoubtPatience time.Duration
	// HastyPatience takes DoubtPatience's place for HastyFor after it ran out once. Zero: 50 ms and 5 s.
	HastyPatience time.Duration
	HastyFor      time.Duration
	// MaxKnown is how many requests under Idempotency-Keys are remembered, at some 30 bytes each; beyond it the oldest are
	// forgotten before their time. Zero: 4,000,000.
	MaxKnown int64
	// Headroom that large broadcasts leave to direct pushes; nil: none.
	Headroom *Headroom
	// Registerer of the stage's metrics; nil: none are kept.
	Registerer prometheus.Registerer
}

func (o DirectOptions) withDefaults() DirectOptions {
	if o.Now == nil {
		o.Now = time.Now
	}
	setDefault(&o.DoubtPatience, time.Second)
	setDefault(&o.HastyPatience, 50*time.Millisecond)
	setDefault(&o.HastyFor, 5*time.Second)
	setDefault(&o.MaxKnown, 4_000_000)
	return o
}

// Direct turns notifications into sends, or into finished deliveries where it refuses them. It is a Transform over
// notifications whose state, the requests that may come again, is restored from routed; Handle may be called for several
// partitions at once.
type Direct struct {
	options    DirectOptions
	store      Store
	hasher     vault.Hasher
	log        *slog.Logger
	requests   *prometheus.CounterVec
	repeats    *repeats
	scratch    sync.Pool
	hastyUntil atomic.Int64 // Unix microseconds
}

// NewDirect returns the direct router. The hasher's key must be the senders'.
func NewDirect(options DirectOptions, store Store, hasher vault.Hasher, log *slog.Logger) *Direct {
	o := options.withDefaults()
	return &Direct{
		options: o, store: store, hasher: hasher, log: log,
		repeats: newRepeats(o.MaxKnown, gauge(o.Registerer, "campanile_router_known_requests",
			"Requests that the direct router remembers, to know them again."), o.Now, log),
		requests: counterVec(options.Registerer, "campanile_router_notifications_total",
			"Notifications routed, by what became of them: sent, repeat, conflict, or the outcome that refused them.", "result"),
		scratch: sync.Pool{New: func() any { return &directScratch{} }},
	}
}

// directScratch is a batch's memory.
type directScratch struct {
	events []*pushv1.NotificationRequested // reused; valid for one batch
	proofs []proof
	what   []repetition
	send   pushv1.SendRequested
	key    []byte
}

func (s *directScratch) event(i int) *pushv1.NotificationRequested {
	if i == len(s.events) {
		s.events = append(s.events, &pushv1.NotificationRequested{})
	}
	return s.events[i]
}

// Handle implements Transform. It waits for the store only where a request is in doubt, and then DoubtPatience at most. It
// returns ErrMalformed or ErrUnknownType for a record that it cannot read, and ctx's error.
func (d *Direct) Handle(ctx context.Context, in schemas.Batch, out *schemas.Out) error {
	s, ok := d.scratch.Get().(*directScratch)
	if !ok {
		s = &directScratch{}
	}
	defer d.release(s, len(in.Records))

	d.options.Headroom.others(d.options.Now().UnixMicro())
	layout := out.Layout()
	s.proofs, s.what = append(s.proofs[:0], make([]proof, len(in.Records))...), s.what[:0]
	var doubts []doubt
	repeats := d.repeats.of(in.Partition)
	repeats.begin(&in)
	for i := range in.Records {
		e := s.event(i)
		if err := readInto(&in.Records[i], e); err != nil {
			return err
		}
		s.what = append(s.what, repeats.look(e, &in.Records[i]))
		if e.InDoubt && s.what[i] == isFirst {
			doubts = addDoubt(doubts, layout, i, e)
		}
	}
	if err := d.resolve(ctx, doubts, s.proofs); err != nil {
		return err
	}
	now := d.options.Now().UnixMicro()
	sent := 0
	for i := range in.Records {
		if s.what[i] != isFirst {
			d.again(out, s, s.what[i], s.events[i], in.Records[i].Offset, now)
			continue
		}
		v := decide(s.events[i], s.proofs[i], now)
		if v.outcome == pushv1.Outcome_OUTCOME_UNSPECIFIED {
			s.emitSend(out, s.events[i], v)
			sent++
			continue
		}
		d.refuse(out, s, s.events[i], v, in.Records[i].Offset, now)
	}
	if sent > 0 {
		d.requests.WithLabelValues("sent").Add(float64(sent))
	}
	repeats.say(out, in.Partition)
	d.repeats.bound(in.Partition)
	return nil
}

// again is what follows from a request that is not the first. A repeat ends with the first one: they share their id. A conflict
// does so too, and the log says that something else was asked for under that id. A copy has an id of its own, and ends here.
func (d *Direct) again(out *schemas.Out, s *directScratch, what repetition, e *pushv1.NotificationRequested, offset, nowUS int64) {
	switch what {
	case isFirst:
	case isRepeat:
		d.requests.WithLabelValues("repeat").Inc()
	case isConflict:
		d.requests.WithLabelValues("conflict").Inc()
		device := schemas.DeviceOf(e)
		s.key = device.AppendKey(s.key[:0])
		id := schemas.DirectSendID(schemas.IDFrom(e.RequestId))
		out.DeliveryAttempted(out.Layout().Of(device), d.hasher.Hash(s.key), &pushv1.DeliveryAttempted{
			SendId: id[:], App: e.App, Transport: e.Transport, Outcome: pushv1.Outcome_OUTCOME_REJECTED, Reason: reasonConflict,
			AttemptedAtUs: nowUS, Source: &pushv1.Source{Lane: schemas.ByRouter, Offset: offset},
		})
	case isCopy:
		d.refuse(out, s, e, verdict{outcome: pushv1.Outcome_OUTCOME_CANCELLED, reason: reasonCopy}, offset, nowUS)
	}
}

// Reset implements a transform with state: it forgets the requests of a partition.
func (d *Direct) Reset(partition int32) { d.repeats.reset(partition) }

// Restore takes one record of that partition of routed over. What cannot be read is passed over: at worst a request that comes
// again is sent again.
func (d *Direct) Restore(partition int32, r schemas.Record) error {
	var e pushv1.RequestsRouted
	err := readInto(&r, &e)
	if err == nil {
		err = d.repeats.of(partition).restore(&e)
	}
	if err != nil {
		d.log.Error("requests that were routed before are not known again", "topic", r.Topic, "partition", r.Partition, "offset", r.Offset, "error", err)
	}
	return nil
}

// release keeps a batch's memory for the next one, and lets go of the records that its events alias.
func (d *Direct) release(s *directScratch, used int) {
	for _, e := range s.events[:min(used, len(s.events))] {
		e.Reset()
	}
	s.send.Reset()
	d.scratch.Put(s)
}

// addDoubt joins a request to the question about its device's partition.
func addDoubt(doubts []doubt, layout schemas.Layout, request int, e *pushv1.NotificationRequested) []doubt {
	device := schemas.DeviceOf(e)
	p := layout.Of(device)
	i := 0
	for i < len(doubts) && doubts[i].partition != p {
		i++
	}
	if i == len(doubts) {
		doubts = append(doubts, doubt{partition: p})
	}
	q := &doubts[i]
	q.end = max(q.end, e.DoubtEnd)
	q.requests = append(q.requests, request)
	q.devices = append(q.devices, device)
	return doubts
}

func (s *directScratch) emitSend(out *schemas.Out, e *pushv1.NotificationRequested, v verdict) {
	id := schemas.DirectSendID(schemas.IDFrom(e.RequestId))
	s.send.Reset()
	s.send.Token = e.Token
	s.send.Environment = e.Environment
	s.send.RegisteredAtUs = v.registeredAtUS
	s.send.SendId = id[:]
	s.send.RequestId = e.RequestId
	s.send.App = e.App
	s.send.Platform = e.Platform
	s.send.Content = e.Content
	s.send.RequestedAtUs = e.RequestedAtUs
	s.send.ExpiresAtUs = e.ExpiresAtUs
	out.SendRequested(schemas.Direct, schemas.DeviceOf(e), &s.send)
}

// refuse finishes a request that becomes no send, so that every accepted push ends in exactly one way.
func (d *Direct) refuse(out *schemas.Out, s *directScratch, e *pushv1.NotificationRequested, v verdict, offset, nowUS int64) {
	device := schemas.DeviceOf(e)
	s.key = device.AppendKey(s.key[:0])
	id := schemas.DirectSendID(schemas.IDFrom(e.RequestId))
	out.DeliveryFinished(out.Layout().Of(device), d.hasher.Hash(s.key), &pushv1.DeliveryFinished{
		SendId:        id[:],
		RequestId:     e.RequestId,
		App:           e.App,
		Transport:     e.Transport,
		Outcome:       v.outcome,
		Reason:        v.reason,
		RequestedAtUs: e.RequestedAtUs,
		FinishedAtUs:  nowUS,
		Source:        &pushv1.Source{Lane: schemas.ByRouter, Offset: offset},
		First:         true,
	})
	d.requests.WithLabelValues(v.outcome.Word()).Inc()
}

// readInto decodes r into e, and tells an event of a newer version from one that no version wrote.
func readInto(r *schemas.Record, e schemas.Event) error {
	if r.Type() != e.EventType() && pushv1.New(r.Type()) == nil {
		_, err := r.Event()
		return err
	}
	return r.Into(e)
}
