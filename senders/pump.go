package senders

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// round is what one look at the queues came to.
type round struct {
	start []departure
	open  []*account // want a provider first
	put   []held     // wait too long where they are
	drop  []*flight  // belong to somebody else by now

	requests []*Request // of those that start together, on their way to a provider
	leave    leave
}

// leave is whether the sends of one partition, as they were asked about last, may be pushed.
type leave struct {
	done schemas.Completion
	ctx  context.Context //nolint:containedctx // for comparison, within one look
	ok   bool
}

// allows reports whether f may still be pushed. What is known of its partition serves for the sends that follow it in the same look.
func (r *round) allows(f *flight) bool {
	if r.leave.done != f.done || r.leave.ctx != f.ctx {
		r.leave = leave{f.done, f.ctx, f.ctx.Err() == nil && f.done.MayPush()}
	}
	return r.leave.ok
}

type departure struct {
	f *flight
	p Provider
}

type held struct {
	f      *flight
	by     Limit
	reason string // of limitParked: the account's
	waitUS int64
}

// inbox is where providers leave their answers: a goroutine of theirs, which many pushes need, does no more than that. What came while
// the pump was at work, it settles together.
type inbox struct {
	mu    sync.Mutex
	items []*flight
	spare []*flight // memory of the batch before
}

// put leaves an answer, and reports whether it is the only one.
func (b *inbox) put(r *Request, answer Result) bool {
	f, _ := r.Tag.(*flight)
	f.answer = answer
	b.mu.Lock()
	defer b.mu.Unlock()
	b.items = append(b.items, f)
	return len(b.items) == 1
}

// take empties the inbox. What it returns is valid until the next take.
func (b *inbox) take() []*flight {
	b.mu.Lock()
	defer b.mu.Unlock()
	taken := b.items
	b.items, b.spare = b.spare[:0], taken
	return taken
}

func (b *inbox) empty() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.items) == 0
}

// pump has the queues looked at. It never waits.
func (s *Sender) pump() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// pumpOn is the goroutine that settles answers and starts what may start, so that both are done in batches.
func (s *Sender) pumpOn() {
	defer close(s.ended)
	for {
		select {
		case <-s.wake:
		case <-s.stop:
			s.pumping.Lock()
			s.settle(s.inbox.take())
			s.pumping.Unlock()
			return
		}
		s.pumping.Lock()
		for s.turnRound() {
		}
		s.gauge()
		s.pumping.Unlock()
	}
}

// mostBorrowed is how many rounds a goroutine of a provider is kept for.
const mostBorrowed = 4

// carryOn is called by a goroutine of a provider that has left answers in the inbox. It does the pump's work where that is idle: to
// wake another goroutine for it can cost more than the work.
func (s *Sender) carryOn() {
	if !s.pumping.TryLock() {
		s.pump() // who is at it may have looked into the inbox before
		return
	}
	busy := true
	for n := 0; busy && n < mostBorrowed; n++ {
		busy = s.turnRound()
	}
	s.gauge()
	s.pumping.Unlock()
	if busy || !s.inbox.empty() {
		s.pump()
	}
}

// turnRound settles what came and starts what may start, and reports whether there was anything; Sender.pumping is held.
func (s *Sender) turnRound() (busy bool) {
	answers := s.inbox.take()
	s.settle(answers)
	clear(answers)
	s.mu.Lock()
	s.look(&s.round)
	s.mu.Unlock()
	return s.act(&s.round) || len(answers) > 0
}

func (s *Sender) gauge() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.metrics.inFlight.Set(float64(s.inFlight))
	s.metrics.queued.Set(float64(s.queued))
	s.watch(s.nowUS())
}

// watch sets the gauges of what holds apps back, once a second at most; Sender.mu is held.
func (s *Sender) watch(now int64) {
	if now-s.watchedUS < time.Second.Microseconds() {
		return
	}
	s.watchedUS = now
	var counts [limits]int
	room := 0
	for _, a := range s.accounts {
		counts[a.limitNow()]++
		if a.inFlight > 0 {
			room += min(a.limit, a.gradient.now())
		}
	}
	for limit := limitNone + 1; limit < limits; limit++ {
		s.metrics.limited[limit].Set(float64(counts[limit]))
	}
	s.metrics.room.Set(float64(room))
}

// act does what look found, and reports whether there was anything.
func (s *Sender) act(r *round) bool {
	busy := len(r.start)+len(r.open)+len(r.put)+len(r.drop) > 0
	for _, a := range r.open {
		s.openProvider(a)
	}
	var began time.Time
	if len(r.start) > 0 {
		began = s.options.Now()
	}
	for from := 0; from < len(r.start); {
		to := from + 1
		for to < len(r.start) && r.start[to].p == r.start[from].p && r.start[to].f.ctx == r.start[from].f.ctx {
			to++
		}
		s.launch(r, r.start[from:to], began)
		from = to
	}
	for _, h := range r.put {
		if h.by == limitParked {
			s.park(h.f, h.reason)
		} else {
			s.putOff(h.f, h.by, h.waitUS)
		}
	}
	for _, f := range r.drop {
		s.drop(f)
	}
	clear(r.start)
	clear(r.put)
	clear(r.drop)
	r.start, r.open, r.put, r.drop = r.start[:0], r.open[:0], r.put[:0], r.drop[:0]
	return busy
}

// launch starts pushes through one provider and under one context.
func (s *Sender) launch(r *round, all []departure, began time.Time) {
	p, ctx, beganUS := all[0].p, all[0].f.ctx, began.UnixMicro()
	for _, d := range all {
		d.f.attempt.beganUS, d.f.request.At, d.f.provider = beganUS, began, p
	}
	batcher, ok := p.(Batcher)
	if !ok {
		for _, d := range all {
			p.Push(d.f.ctx, &d.f.request, s.answered)
		}
		return
	}
	for _, d := range all {
		r.requests = append(r.requests, &d.f.request)
	}
	batcher.PushAll(ctx, r.requests, s.collect)
	clear(r.requests)
	r.requests = r.requests[:0]
}

// leastNap is how long pushes that a rate holds back wait at least, in microseconds.
const leastNap = 4000

// mostStarts bounds a round, so that answers are not kept waiting for the lock's holder.
const mostStarts = 256

// look takes from the queues, one send of each app in turn; Sender.mu is held.
func (s *Sender) look(r *round) {
	now := s.nowUS()
	r.leave = leave{}
	wake := int64(0)
	idle := 0 // accounts in a row that could start nothing
	for s.inFlight < s.options.Window && idle < len(s.ring) && len(r.start) < mostStarts {
		s.turn %= len(s.ring)
		a := s.ring[s.turn]
		switch s.try(a, r, now) {
		case emptied:
			a.listed = false
			s.ring = append(s.ring[:s.turn], s.ring[s.turn+1:]...)
			idle = 0
			continue // the next one stands at this turn now
		case went:
			idle = 0
		case stuck:
			idle++
		case tooFast:
			idle++
			at := now + max(a.wait(now, 0), leastNap) // no spinning, and pushes that leave together
			if wake == 0 || at < wake {
				wake = at
			}
		}
		s.turn++
	}
	if s.inFlight >= s.options.Window && len(s.ring) > 0 {
		s.ring[s.turn%len(s.ring)].held = limitWindow
	}
	s.wakeAt(wake, now)
}

type tried int

const (
	went    tried = iota
	stuck         // the window, the account's share of it or its provider is full: an answer will pump again
	tooFast       // its rate or a pause holds it back
	emptied       // its queue
)

// try starts one send of an account; Sender.mu is held.
func (s *Sender) try(a *account, r *round, now int64) tried {
	if a.waiting() == 0 {
		a.held = limitNone
		return emptied
	}
	if a.parked && !s.probing(a) {
		s.empty(a, r, limitParked, 0)
		return emptied
	}
	if s.closed || a.inFlight >= s.share() {
		a.held = limitWindow
		return stuck
	}
	if a.provider == nil || a.apart.provider == nil && a.apart.queue.len() > 0 {
		if !slices.Contains(r.open, a) {
			r.open = append(r.open, a)
		}
		return stuck
	}
	f, state := s.next(a, r)
	if f == nil {
		return state
	}
	if !a.take(now) {
		if left := a.paused(now); left > s.options.MaxWait.Microseconds() {
			s.empty(a, r, a.why(now), left)
			return emptied
		}
		a.held = a.why(now)
		if now-f.seenUS > s.options.MaxWait.Microseconds() { // the rate did not rise as it was thought to
			s.overdue(a, f, r, now)
			return went
		}
		return tooFast
	}
	f.limit = a.held
	s.queued--
	s.inFlight++
	a.inFlight++
	if a.inFlight == 1 {
		s.busy++
	}
	if f.apart {
		a.apart.queue.pop()
		a.apart.inFlight++
		r.start = append(r.start, departure{f, a.apart.provider})
	} else {
		a.queue.pop()
		r.start = append(r.start, departure{f, a.provider})
	}
	return went
}

// next is the send that may go next, and stays in its queue; nil where none may, and what that comes to. Sender.mu is held.
func (s *Sender) next(a *account, r *round) (f *flight, state tried) {
	room := a.apart.inFlight < mostApart
	switch {
	case room && a.apart.queue.len() > 0:
		f = a.apart.queue.items[a.apart.queue.head]
	case a.queue.len() == 0:
		a.held = limitLatency
		return nil, stuck
	case a.inFlight >= a.limit:
		a.held = limitWindow
		return nil, stuck
	case a.inFlight >= a.gradient.now():
		a.held, a.gradient.pressed = limitLatency, true
		return nil, stuck
	default:
		f = a.queue.peek()
	}
	if r.allows(f) {
		return f, went
	}
	s.queued--
	if f.apart {
		r.drop = append(r.drop, a.apart.queue.pop())
	} else {
		r.drop = append(r.drop, a.queue.pop())
	}
	return nil, went
}

// overdue puts off the send that would go next, after it has waited here in vain. It comes back when the first tier's time is over, at
// the soonest. Sender.mu is held.
func (s *Sender) overdue(a *account, f *flight, r *round, now int64) {
	if f.apart {
		a.apart.queue.pop()
	} else {
		a.queue.pop()
	}
	s.queued--
	r.put = append(r.put, held{f: f, by: a.held, waitUS: a.reserve(now, s.policy.tiers[0])})
}

// probing reports whether the queue of a parked account is its one probe.
func (s *Sender) probing(a *account) bool {
	switch {
	case a.waiting() != 1:
		return false
	case a.queue.len() == 1:
		return a.queue.peek().probe
	}
	return a.apart.queue.items[a.apart.queue.head].probe
}

// empty takes a whole queue out; Sender.mu is held.
func (s *Sender) empty(a *account, r *round, by Limit, waitUS int64) {
	a.held = limitNone
	for a.waiting() > 0 {
		s.queued--
		h := held{by: by, reason: a.reason}
		if a.queue.len() > 0 {
			h.f = a.queue.pop()
		} else {
			h.f = a.apart.queue.pop()
		}
		if by != limitParked {
			h.waitUS = a.reserve(s.nowUS(), waitUS)
		}
		r.put = append(r.put, h)
	}
}

// share is how much of the window one account may take: one part more than there are accounts at work stays free for who comes
// next, so that an app whose provider hangs never takes it all. Sender.mu is held.
func (s *Sender) share() int {
	return max(s.options.Window/(max(s.busy, len(s.ring))+1), 1)
}

// wakeAt pumps again at a time; Sender.mu is held.
func (s *Sender) wakeAt(at, now int64) {
	if at == 0 || s.closed || s.alarmUS > now && s.alarmUS <= at {
		return
	}
	s.alarmUS = at
	if s.alarm != nil {
		s.alarm.Stop()
	}
	s.alarm = time.AfterFunc(time.Duration(at-now)*time.Microsecond, func() {
		s.mu.Lock()
		s.alarmUS = 0
		closed := s.closed
		s.mu.Unlock()
		if !closed {
			s.pump()
		}
	})
}

// openProvider makes an account's provider of its credentials, or parks it.
func (s *Sender) openProvider(a *account) {
	s.mu.Lock()
	c, ok := s.credentials[a.app]
	apart := a.provider != nil
	s.mu.Unlock()
	var p Provider
	err := fmt.Errorf("%w: none are set", ErrCredentials)
	if ok {
		p, err = s.openAccount(a.place, c, apart)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.parkAccount(a, "credentials_unusable", s.nowUS())
		s.log.Error("credentials cannot be used: the app is parked until they are replaced", "app", a.app, "error", err)
		a.queue.each(func(f *flight) { f.probe = false })
		for _, f := range a.apart.queue.items[a.apart.queue.head:] {
			f.probe = false
		}
		return
	}
	if s.closed || s.credentials[a.app].id != c.id { // changed meanwhile: the next round opens them
		s.running.Go(func() { _ = p.Close() })
		return
	}
	if apart {
		a.apart.provider = p
		return
	}
	a.provider, a.limit, a.proven, a.gradient = p, max(p.Limit(), 1), false, gradient{}
	s.draw(a)
}

// projector is a Provider whose pushes count against the quota of a project, together with those of others.
type projector interface{ Project() string }

// draw finds the quotas that an account's pushes are taken from; Sender.mu is held.
func (s *Sender) draw(a *account) {
	a.quotas = a.quotas[:0]
	if q := s.options.Quotas.ofApp(a.app); q != nil {
		a.quotas = append(a.quotas, q)
	}
	if p, ok := a.provider.(projector); ok {
		if q := s.options.Quotas.ofProject(p.Project()); q != nil {
			a.quotas = append(a.quotas, q)
		}
	}
}

func (s *Sender) openAccount(at place, c sealed, apart bool) (Provider, error) {
	plain, err := s.options.Keyring.Open(c.envelope, at.app, s.options.Transport.Word())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCredentials, err)
	}
	account := Account{App: at.app, Environment: at.env, CredentialsID: c.id, Apart: apart, Answered: s.carryOn}
	if s.options.Transport == schemas.APNS {
		account.APNS = &pushv1.ApnsCredentials{}
		err = account.APNS.UnmarshalVT(plain)
	} else {
		account.FCM = &pushv1.FcmCredentials{}
		err = account.FCM.UnmarshalVT(plain)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCredentials, err)
	}
	return s.options.Open(s.life, account)
}

// answered is given each answer, by a goroutine of the provider.
func (s *Sender) answered(r *Request, answer Result) {
	if s.inbox.put(r, answer) {
		s.pump()
	}
}

// collect is answered for a Batcher, which calls carryOn afterwards.
func (s *Sender) collect(r *Request, answer Result) { s.inbox.put(r, answer) }

// settle draws the consequences of answers.
func (s *Sender) settle(answers []*flight) {
	if len(answers) == 0 {
		return
	}
	now := s.nowUS()
	s.mu.Lock()
	for i, f := range answers {
		a := f.account
		f.seenUS = now
		s.inFlight--
		a.inFlight--
		if a.inFlight == 0 {
			s.busy--
		}
		if f.apart {
			a.apart.inFlight--
		}
		switch {
		case !f.answer.NoAttempt:
			f.doubt = s.learn(a, f, f.answer, now)
		case f.ctx.Err() == nil && !s.closed && f.done.MayPush(): // its provider was replaced
			f.answer = Result{}
			s.enqueue(f)
			answers[i] = nil
		}
	}
	s.mu.Unlock()
	for _, f := range answers {
		switch {
		case f == nil:
		case f.answer.NoAttempt:
			s.drop(f)
		default:
			s.metrics.attempted[f.answer.Outcome].Inc()
			s.metrics.latency.Observe(float64(f.answer.LatencyUS) / 1e6)
			f.attempt.made++
			f.step = decide(f.attempt, f.answer, now, s.policy, f.doubt)
			s.complete(f)
		}
	}
}

// learn draws from an answer what concerns the whole app, and says why its bad-token answers are in doubt ("": they are not);
// Sender.mu is held.
func (s *Sender) learn(a *account, f *flight, answer Result, now int64) (doubt string) {
	if f.provider != a.provider && f.provider != a.apart.provider {
		return "" // credentials that were replaced meanwhile: nothing about the new ones
	}
	if a.learn(answer, f.attempt.beganUS, now) {
		s.log.Warn("pushes pause", "app", a.app, "reason", a.why(now).Word(), "seconds", a.paused(now)/1e6)
	}
	if !f.apart {
		a.gradient.observe(answer, f.attempt.beganUS, now, min(a.limit, s.options.Window))
	}
	if answer.Has(Park) {
		if !a.parked {
			s.log.Error("credentials are refused: the app is parked until they are replaced", "app", a.app, "reason", answer.Reason)
		}
		s.parkAccount(a, answer.Reason, now)
	}
	if a.flood.observe(answer.Has(Suspect), now, s.options.FloodLeast, s.options.FloodShare) && !a.parked {
		s.parkAccount(a, "token_flood", now)
		s.log.Error("so many tokens are called bad that credentials or environment must be wrong: the app is parked, no token is dropped",
			"app", a.app, "answers", a.flood.answers, "bad", a.flood.suspects)
	}
	sound := answer.Outcome == accepted || answer.Has(Invalidate) && !answer.Has(Suspect)
	a.proven = a.proven || sound
	if a.parked && f.probe && sound {
		a.unpark()
		s.metrics.parked.Dec()
		s.recheck.free(now)
		s.log.Info("app is no longer parked: a probe went through", "app", a.app)
	}
	if a.reason == "" && !a.proven {
		return unproven
	}
	return a.reason
}

// parkAccount parks an account; Sender.mu is held.
func (s *Sender) parkAccount(a *account, reason string, now int64) {
	if !a.parked {
		s.metrics.parked.Inc()
	}
	a.park(reason, now)
}
