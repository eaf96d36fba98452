package senders

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
	"github.com/campanile-push/campanile/vault"
)

// Sender is the delivering stage of one transport on one lane. It is safe for concurrent use. Close it after its runner.
type Sender struct {
	options Options
	policy  policy
	hasher  vault.Hasher
	log     *slog.Logger
	metrics *metrics

	started  *memory // hops of the last minutes
	finished *memory // sends that takeovers found finished

	recheck recheck // of parked sends

	life    context.Context //nolint:containedctx // ends with Close: the goroutines below outlive the calls that start them
	end     context.CancelFunc
	running sync.WaitGroup
	flights sync.Pool // *flight
	stories sync.Pool // *story
	intakes sync.Pool // *intake

	broadcasts, apps waiters

	mu          sync.Mutex
	credentials map[string]sealed
	accounts    map[place]*account
	recent      *account   // that a send was queued for last, and whose credentials are there; nil: none
	ring        []*account // with something in their queues
	turn        int
	inFlight    int
	busy        int // accounts with pushes in flight
	queued      int
	devices     *devices // nil: the provider has no limit for each that we know of
	watchedUS   int64    // when the gauges of limits were last set
	closed      bool
	alarm       *time.Timer // wakes the pump when the first rate allows
	alarmUS     int64

	pumping sync.Mutex // held by who does the pump's work; before mu
	round   round      // of that work alone

	inbox inbox // answers that the pump has not seen
	wake  chan struct{}
	stop  chan struct{} // ends the pump
	ended chan struct{} // the pump has
}

// New returns a sender, which has a goroutine of its own until Close. It returns an error for options that cannot be.
func New(o Options) (*Sender, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Sender{
		options: o, policy: o.policy(), hasher: o.Hasher, metrics: newMetrics(o.Metrics, o.Transport, o.Lane),
		log:         o.Log.With("transport", o.Transport.Word(), "lane", o.Lane.Word()),
		started:     newMemory(memorySizeOf(o.Lane)),
		finished:    newMemory(memorySizeOf(o.Lane)),
		credentials: map[string]sealed{},
		accounts:    map[place]*account{},
		wake:        make(chan struct{}, 1), stop: make(chan struct{}), ended: make(chan struct{}),
	}
	s.recheck.baseUS = s.policy.tiers[schemas.ParkedTier-1]
	if o.Transport == schemas.FCM && o.Lane == schemas.Direct { // a broadcast has one push for a device
		s.devices = newDevices()
	}
	s.life, s.end = context.WithCancel(context.Background())
	s.flights.New = func() any { return newFlight(s) }
	s.stories.New = func() any { return &story{} }
	s.intakes.New = func() any { return &intake{} }
	s.broadcasts = waiters{s: s, catchUp: o.CatchUpBroadcasts, resume: func(f *flight) {
		if s.withBroadcast(f, &found{}, true) {
			s.queueAll([]*flight{f}, false)
		}
	}}
	s.apps = waiters{s: s, catchUp: o.CatchUpApps, resume: func(f *flight) { s.queueAll([]*flight{f}, true) }}
	go s.pumpOn()
	return s, nil
}

// Close ends the waits, closes the providers and waits for both. Sends that are not done are left to the next owner.
func (s *Sender) Close() {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		<-s.ended
		return
	}
	s.closed = true
	if s.alarm != nil {
		s.alarm.Stop()
	}
	for _, a := range s.accounts {
		s.retire(a)
	}
	s.mu.Unlock()
	s.end()
	s.running.Wait() // the providers' last answers are in the inbox then
	close(s.stop)
	<-s.ended
}

func (s *Sender) nowUS() int64 { return s.options.Now().UnixMicro() }

// NotBefore is when a record is due, Unix microseconds; zero: now. What has to wait longer than its tier is due after the tier's
// delay, and moves on: it must not hold up what stands behind it.
func (s *Sender) NotBefore(r schemas.Record) int64 {
	where, ok := schemas.ParseSendTopic(r.Topic)
	if !ok || where.Tier == 0 || r.Type() != pushv1.EventType_EVENT_TYPE_SEND_REQUESTED {
		return 0
	}
	var e pushv1.SendRequested
	if r.Into(&e) != nil {
		return 0
	}
	if where.Tier == schemas.ParkedTier {
		return s.recheck.due(r.TimeUS, e.NotBeforeUs, s.nowUS())
	}
	return min(e.NotBeforeUs, r.TimeUS+s.policy.tiers[where.Tier-1])
}

// Remember takes a finished send that a takeover found, before the first Deliver of its partition: it is not pushed again.
func (s *Sender) Remember(_ int32, e *pushv1.DeliveryFinished) {
	if id := schemas.IDFrom(e.SendId); !id.IsZero() {
		s.finished.add(id, s.nowUS())
	}
}

// Deliver starts the pushes of a batch and returns without waiting for their answers. ctx is the ownership's: when it ends, pushes
// without an answer are no attempts, and their records are never completed.
func (s *Sender) Deliver(ctx context.Context, in schemas.Batch, done schemas.Completion) error {
	where, ok := schemas.ParseSendTopic(in.Topic)
	if !ok || where.Transport != s.options.Transport || where.Lane != s.options.Lane {
		return fmt.Errorf("deliver: %q is no topic of the %s sender's %s lane", in.Topic, s.options.Transport.Word(), s.options.Lane.Word())
	}
	now := s.nowUS()
	b, _ := s.intakes.Get().(*intake)
	for records := in.Records; len(records) > 0 && done.MayPush(); { // or the next owner has them
		n := min(len(records), takenAtOnce)
		for i := range records[:n] {
			r := &records[i]
			if r.Tombstone() {
				done.Complete(r.Offset, nil)
				continue
			}
			f, _ := s.flights.Get().(*flight)
			f.ctx, f.done, f.where, f.partition, f.seenUS = ctx, done, where, in.Partition, now //nolint:fatcontext // one for each flight, not one in another
			if err := f.load(r, &b.send); err != nil {
				s.letter(r, done, err)
				s.free(f)
				continue
			}
			b.flights, b.hops = append(b.flights, f), append(b.hops, f.hop)
		}
		s.admit(b, now)
		records = records[n:]
	}
	b.found, b.send = found{}, pushv1.SendRequested{}
	s.intakes.Put(b)
	s.pump()
	return nil
}

// takenAtOnce is how many records are looked at together: some microseconds, after which the partition may be another's, and the pump
// want the lock.
const takenAtOnce = 128

// intake is the memory of one Deliver, pooled.
type intake struct {
	send    pushv1.SendRequested
	flights []*flight
	hops    []schemas.ID // theirs
	fresh   [takenAtOnce]bool
	found   found
}

// admit queues the loaded flights of an intake, but for those that have been here before and those that end at once.
func (s *Sender) admit(b *intake, now int64) {
	s.started.addAll(b.hops, b.fresh[:], now)
	kept := b.flights[:0]
	for i, f := range b.flights {
		if !b.fresh[i] || s.finished.has(f.id) {
			s.metrics.repeats.Inc()
			f.done.Complete(f.offset, nil)
			s.free(f)
			continue
		}
		if s.withBroadcast(f, &b.found, false) {
			kept = append(kept, f)
		}
	}
	s.queueAll(kept, false)
	clear(b.flights)
	b.flights, b.hops = b.flights[:0], b.hops[:0]
}

// found is the broadcast that was looked for last: the next send is nearly always of the same.
type found struct {
	id schemas.ID // zero: none
	broadcast
	ok bool
}

// withBroadcast finds what a send says, and reports whether it is to be queued. last: broadcasts has been read to its end since the
// send was seen.
func (s *Sender) withBroadcast(f *flight, b *found, last bool) bool {
	if f.broadcast.IsZero() {
		f.aim(nil)
		return s.withContent(f)
	}
	if b.id != f.broadcast {
		b.id = f.broadcast
		b.broadcast, b.ok = s.options.Catalog.find(f.broadcast)
	}
	switch {
	case !b.ok && !last:
		s.broadcasts.add(f)
	case !b.ok:
		f.attempt = attempt{id: f.id, made: f.attempt.made}
		f.requestedUS = f.requestedAt
		s.finish(f, rejected, "content_missing")
	case b.app != f.device.App:
		f.aim(&b.broadcast)
		s.finish(f, rejected, "wrong_app")
	default:
		f.aim(&b.broadcast)
		return s.withContent(f)
	}
	return false
}

// withContent ends what is not to be pushed any more, moves on what is not yet due, and renders the rest, which is to be queued.
func (s *Sender) withContent(f *flight) (queue bool) {
	now := f.seenUS
	const slack = int64(100 * time.Millisecond / time.Microsecond) // clocks of brokers and senders differ
	switch due := f.notBeforeUS; {
	case f.cancelled:
		s.finish(f, cancelled, "")
	case now >= f.attempt.deadlineUS:
		s.finish(f, expired, f.lastReason)
	case f.where.Tier != schemas.ParkedTier && due > now+slack:
		f.step = s.policy.again(f.attempt, f.lastReason, due-now, now)
		f.step.outcome = outcomeOr(f.step, f.lastOutcome)
		s.complete(f)
	default:
		if err := f.render(); err != nil {
			s.finish(f, rejected, renderReason(err))
			return false
		}
		return true
	}
	return false
}

func outcomeOr(st step, o schemas.Outcome) schemas.Outcome {
	if st.fate == finish {
		return st.outcome
	}
	return o
}

func renderReason(err error) string {
	if errors.Is(err, ErrTooLarge) {
		return ErrTooLarge.Error()
	}
	return ErrBadContent.Error()
}

// queueAll queues sends for their apps. last: apps has been read to its end since the sends were seen.
func (s *Sender) queueAll(flights []*flight, last bool) {
	if len(flights) == 0 {
		return
	}
	var elsewhere []held
	s.mu.Lock()
	for _, f := range flights {
		if h := s.queue(f, last); h.f != nil {
			elsewhere = append(elsewhere, h)
		}
	}
	s.mu.Unlock()
	for _, h := range elsewhere {
		switch h.by {
		case limitNone:
			s.apps.add(h.f)
		case limitParked:
			s.park(h.f, h.reason)
		default:
			s.putOff(h.f, h.by, h.waitUS)
		}
	}
}

// queue queues a send for its app, or says where else it goes; limitNone: it waits for what apps may say. Sender.mu is held.
func (s *Sender) queue(f *flight, last bool) held {
	now := f.seenUS
	a := s.recent
	if a == nil || a.env != f.device.Environment || a.app != f.device.App {
		if _, ok := s.credentials[f.device.App]; !ok {
			if !last {
				return held{f: f}
			}
			return held{f: f, by: limitParked, reason: "no_credentials"}
		}
		a = s.account(place{f.device.App, f.device.Environment})
		s.recent = a
	}
	f.account = a
	wait, forDevice := a.wait(now, a.queue.len()), int64(0)
	if s.devices != nil && !a.parked && !s.tooLong(wait, a.queue.len()) {
		forDevice = s.devices.wait(f.device.Token, now)
	}
	switch {
	case a.parked && !a.mayProbe(now, s.options.Tiers[schemas.ParkedTier-1]):
		return held{f: f, by: limitParked, reason: a.reason}
	case s.tooLong(wait, a.queue.len()):
		return held{f: f, by: a.why(now), waitUS: a.reserve(now, wait)}
	case forDevice > 0:
		return held{f: f, by: limitDevice, waitUS: forDevice}
	}
	f.probe = a.parked
	s.enqueue(f)
	return held{}
}

// mostQueued bounds what an app that is held to a rate keeps in memory.
const mostQueued = 32 << 10

// tooLong reports whether a send is better off in a tier than here, behind queued others.
func (s *Sender) tooLong(waitUS int64, queued int) bool {
	return waitUS > s.options.MaxWait.Microseconds() || queued >= mostQueued && waitUS > 0
}

// account returns the state of a place; Sender.mu is held.
func (s *Sender) account(p place) *account {
	a := s.accounts[p]
	if a == nil {
		p.app = strings.Clone(p.app) // it aliases a flight's buffer, and the map outlives that
		a = &account{place: p, lane: laneIndex(s.options.Lane), pace: newPacer(s.options.Rate)}
		s.draw(a)
		s.accounts[p] = a
	}
	return a
}

// enqueue puts f into its account's queue; Sender.mu is held.
func (s *Sender) enqueue(f *flight) {
	a := f.account
	if f.apart = f.doubtful(); f.apart {
		a.apart.queue.push(f)
	} else {
		a.queue.push(f)
	}
	s.queued++
	if !a.listed {
		a.listed = true
		s.ring = append(s.ring, a)
	}
}

// finish ends a send without an attempt.
func (s *Sender) finish(f *flight, o schemas.Outcome, reason string) {
	f.step = step{fate: finish, outcome: o, reason: reason}
	s.complete(f)
}

// park moves a send to the tier of parked apps without an attempt.
func (s *Sender) park(f *flight, reason string) {
	f.limit = limitParked
	f.step = s.policy.park(f.attempt, reason, s.nowUS())
	s.complete(f)
}

// putOff moves a send to a tier without an attempt.
func (s *Sender) putOff(f *flight, by Limit, waitUS int64) {
	spread := jitter(f.id, f.attempt.made, waitUS/4)
	f.limit = by
	f.step = s.policy.again(f.attempt, by.Word(), waitUS+spread, s.nowUS())
	if f.step.fate == retry {
		f.step.outcome = throttled
		if by == limitUnavailable {
			f.step.outcome = unavailable
		}
	}
	s.metrics.putOff[by].Inc()
	s.complete(f)
}

// complete says what became of f, and frees it.
func (s *Sender) complete(f *flight) {
	if f.step.fate == finish {
		s.metrics.finished[f.step.outcome].Inc()
	} else {
		s.metrics.moved[f.step.tier].Inc()
		if f.step.tier == schemas.ParkedTier {
			s.recheck.count(s.nowUS())
		}
	}
	f.done.Complete(f.offset, f.say)
	s.free(f)
}

// drop leaves a send to its partition's next owner.
func (s *Sender) drop(f *flight) {
	s.started.forget(f.hop)
	s.free(f)
}

func (s *Sender) free(f *flight) {
	f.clear()
	s.flights.Put(f)
}

// ApplyApps takes one record of the topic apps, in log order within a partition; tombstones included. It keeps the sealed
// credentials of this sender's transport, and the app's own rate; a change takes hold at once and ends a parking. It returns schemas.ErrUnknownType or
// schemas.ErrMalformed, wrapped.
func (s *Sender) ApplyApps(r schemas.Record) error {
	if r.Tombstone() {
		if app, kind, ok := bytes.Cut(r.Key, []byte{'/'}); ok && string(kind) == "credentials/"+s.options.Transport.Word() {
			s.setCredentials(string(app), sealed{})
		} else if ok && string(kind) == "config" {
			s.setRate(string(app), 0)
		}
		return nil
	}
	event, err := r.Event()
	if err != nil {
		return fmt.Errorf("follow apps: %w", err)
	}
	switch e := event.(type) {
	case *pushv1.CredentialsSet:
		if e.Transport == s.options.Transport {
			s.setCredentials(e.App, sealed{schemas.IDFrom(e.CredentialsId), e.Sealed})
			s.pump()
		}
	case *pushv1.AppConfigured:
		rate := e.ApnsRate
		if s.options.Transport == schemas.FCM {
			rate = e.FcmRate
		}
		s.setRate(e.App, rate)
	}
	return nil
}

// setRate sets an app's own rate; zero: none.
func (s *Sender) setRate(app string, rate float64) {
	s.options.Quotas.setApp(app, rate)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.accounts {
		if a.app == app {
			s.draw(a)
		}
	}
	s.pump()
}

// Owns says how many of a topic's partitions this process owns: rates that are of a provider's project or of an app are split by
// them. The runner calls it at each change. Until the first call the process counts as the only one.
func (s *Sender) Owns(topic schemas.Topic, owned, partitions int) {
	if where, ok := schemas.ParseSendTopic(topic); ok && partitions > 0 {
		s.options.Quotas.owns(where, float64(owned)/float64(partitions))
		s.pump()
	}
}

func (s *Sender) setCredentials(app string, c sealed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.recent = nil
	if len(c.envelope) == 0 {
		delete(s.credentials, app)
	} else {
		s.credentials[app] = c
	}
	for _, a := range s.accounts {
		if a.app != app {
			continue
		}
		s.retire(a)
		if a.parked {
			s.log.Info("app is no longer parked: its credentials changed", "app", app)
			a.unpark()
			s.metrics.parked.Dec()
		}
	}
	s.recheck.free(s.nowUS())
}

// retire closes an account's providers once their pushes have ended; Sender.mu is held.
func (s *Sender) retire(a *account) {
	for _, p := range []*Provider{&a.provider, &a.apart.provider} {
		old := *p
		if *p = nil; old == nil {
			continue
		}
		s.running.Go(func() {
			if err := old.Close(); err != nil {
				s.log.Warn("provider closed badly", "app", a.app, "error", err)
			}
		})
	}
}
