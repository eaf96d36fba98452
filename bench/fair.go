package bench

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
	"github.com/campanile-push/campanile/senders"
)

// The figures of the benchmark of fairness.
const (
	fairP99   = "direct_p99"
	fairP50   = "direct_p50"
	fairRatio = "direct_p99/ratio"
	fairReach = "to_provider_p99/ratio"
)

// onProcesses is the part of a figure's name that says that every stage was a process of its own, on Kafka.
const onProcesses = "/kafka"

// onDistance is the part of a figure's name that says that the providers answered after farLatency, about the least that they are away
// from anybody's machines. Where they answer at once, a broadcast without a quota takes every core.
const (
	onDistance = "/20ms"
	farLatency = 20 * time.Millisecond
)

// evenRate is about a third of what `campanile up` can do on four cores.
const evenRate = 80_000

const (
	fairName  = "fair"
	fairQuota = fairName + "/quota"
	fairFar   = fairName + onDistance
	fairRate  = fairName + "/rate"
	fairKafka = fairName + onProcesses
)

// under are names in a folder.
func under(folder string, names ...string) (all []string) {
	for _, name := range names {
		all = append(all, folder+"/"+name)
	}
	return all
}

const (
	directEvery = 10 * time.Millisecond // a direct push
	fairLeast   = 2 * time.Second       // of each side, however small the broadcast
)

// defaultQuota undoes what startUp says of FCM's quota: the default is what an operator has who sets nothing.
func defaultQuota() []string { return []string{"--senders-fcm-quota", strconv.Itoa(senders.FCMQuota)} }

// waiting is a benchmark of how long one push waits beside many: what it makes of a pipeline at work, by the name of its figures.
type waiting func(u *running, ctx context.Context, name string) ([]Row, error)

// farAway is w where the providers answer after farLatency.
func (w waiting) farAway() waiting {
	return func(u *running, ctx context.Context, name string) ([]Row, error) {
		if err := u.p.answerAfter(ctx, farLatency); err != nil {
			return nil, err
		}
		return w(u, ctx, name)
	}
}

// rated is w where broadcasts to all devices have a rate, in pushes a second.
func (w waiting) rated(rate float64) waiting {
	return func(u *running, ctx context.Context, name string) ([]Row, error) {
		u.rate = rate
		return w(u, ctx, name)
	}
}

// inOne runs it on `campanile up` with more flags.
func (w waiting) inOne(name string, more ...string) func(h *harness, ctx context.Context) ([]Row, error) {
	return func(h *harness, ctx context.Context) (rows []Row, err error) {
		up, end, err := h.patient().startPipeline(ctx, more...)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, end()) }()
		return w(&up.running, ctx, name)
	}
}

// inMany runs it with every stage in a process of its own, on Kafka.
func (w waiting) inMany(name string) func(h *harness, ctx context.Context) ([]Row, error) {
	return func(h *harness, ctx context.Context) (rows []Row, err error) {
		c, end, err := h.patient().startCluster(ctx, nil)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, end()) }()
		return w(&c.running, ctx, name)
	}
}

// fair measures direct pushes, 100 a second, while a broadcast goes to every device, and again while processes that only burn CPU use as
// much of it as the broadcast did. From the request to the provider's answer, as the log has it.
func (u *running) fair(ctx context.Context, name string) ([]Row, error) {
	h := u.h
	if err := u.load(ctx); err != nil {
		return nil, err
	}
	var with, without []span
	for range h.Rounds {
		busy, used, err := u.directWhileBroadcasting(ctx)
		if err != nil {
			return nil, err
		}
		quiet, err := u.directWhileBurning(ctx, used, busy.wall())
		if err != nil {
			return nil, err
		}
		with, without = append(with, busy), append(without, quiet)
	}
	var spans []*span
	for i := range with {
		spans = append(spans, &with[i], &without[i])
	}
	if err := u.waitsOf(ctx, spans); err != nil {
		return nil, err
	}
	var ratios, reaches, p99s, p50s, baseP99s, baseP50s []float64
	for i := range with {
		a, b := &with[i], &without[i]
		if len(a.waits) == 0 || len(a.waits) != a.sent || len(b.waits) != b.sent {
			return nil, fmt.Errorf("want every direct push of %d and %d delivered once, got %d and %d", a.sent, b.sent, len(a.waits), len(b.waits))
		}
		h.say("round %d  with the broadcast p50 %.1f ms p99 %.1f ms of %d; beside as much CPU p50 %.1f ms p99 %.1f ms of %d", i+1,
			a.quantile(0.5), a.quantile(0.99), len(a.waits), b.quantile(0.5), b.quantile(0.99), len(b.waits))
		h.say("         slowest %.1f ms, asked for %.1f s after the start; %.1f ms, %.1f s", a.slowest, a.sinceStart(), b.slowest, b.sinceStart())
		for part := range directParts {
			if len(a.parts[part]) > 0 && len(b.parts[part]) > 0 {
				h.say("         %-36s p50 %6.1f p99 %6.1f ms; p50 %6.1f p99 %6.1f ms", part, quantile(a.parts[part], 0.5),
					quantile(a.parts[part], 0.99), quantile(b.parts[part], 0.5), quantile(b.parts[part], 0.99))
			}
		}
		p99s, p50s = append(p99s, a.quantile(0.99)), append(p50s, a.quantile(0.5))
		baseP99s, baseP50s = append(baseP99s, b.quantile(0.99)), append(baseP50s, b.quantile(0.5))
		ratios = append(ratios, a.quantile(0.99)/b.quantile(0.99))
		reaches = append(reaches, quantile(a.parts[reached], 0.99)/quantile(b.parts[reached], 0.99))
	}
	ratio, reach := row(name+"/"+fairRatio, "ratio", ratios, nil), row(name+"/"+fairReach, "ratio", reaches, nil)
	ratio.Baseline, ratio.Ratio = 1, ratio.Value
	reach.Baseline, reach.Ratio = 1, reach.Value
	return []Row{ratio, reach, row(name+"/"+fairP99, "ms", p99s, baseP99s), row(name+"/"+fairP50, "ms", p50s, baseP50s)}, nil
}

// directPart is a part of a direct push's way. Brokers stamp records with their own clock, in milliseconds.
type directPart int

const (
	accepting   directPart = iota // from the request until it is in the log
	routing                       // from there until its send is in the log
	sending                       // from there until the attempt begins
	answering                     // from there until the provider's answer
	recording                     // from there until the outcome is in the log
	reached                       // from the request until the attempt begins: the first three
	directParts                   // their number
)

// String implements fmt.Stringer.
func (p directPart) String() string {
	return [directParts]string{
		"request to log", "log to router to log", "log to sender", "provider", "outcome to log (nobody waits)", "request to provider",
	}[p]
}

// span is a time in which direct pushes were asked for.
type span struct {
	fromUS, toUS int64
	sent         int
	waits        []float64              // ms, sorted
	parts        [directParts][]float64 // of them, ms, sorted
	slowest      float64                // ms
	slowestAtUS  int64                  // when it was asked for
	firsts       []float64              // ms, sorted: of small broadcasts, until they were expanded
}

func (s *span) wall() time.Duration { return time.Duration(s.toUS-s.fromUS) * time.Microsecond }

func (s *span) quantile(q float64) float64 { return quantile(s.waits, q) }

// quantile of sorted values, at least one; the nearest rank.
func quantile(sorted []float64, q float64) float64 {
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// direct asks for a push each directEvery until work returns, and for fairLeast at least.
func (u *running) direct(ctx context.Context, work func(ctx context.Context) error) (s span, err error) {
	moodle := Moodle{BaseURL: u.api, App: app, Key: benchKey, Client: NewClient(64)}
	return openLoop(ctx, directEvery, func(ctx context.Context, i int) error {
		phone := MakePhone("bench", i%u.h.Devices)
		answer, err := moodle.Push(ctx, phone.Token, phone.Platform, "Room 12 has moved")
		if err == nil {
			err = answer.expect(202, "push")
		}
		return err
	}, work)
}

// openLoop asks at each tick of every, without waiting for answers, until work returns, and for fairLeast at least.
func openLoop(ctx context.Context, every time.Duration, ask func(ctx context.Context, i int) error, work func(ctx context.Context) error) (s span, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := newFirstError()
	var requests, working sync.WaitGroup
	done := make(chan struct{})
	s.fromUS = time.Now().UnixMicro()
	working.Go(func() {
		defer close(done)
		failed.set(work(ctx))
	})
	tick := time.NewTicker(every)
	defer tick.Stop()
	least := time.After(fairLeast)
	for over, ended := false, done; !over || ended != nil; {
		select {
		case <-tick.C:
			i := s.sent
			s.sent++
			requests.Go(func() { failed.set(ask(ctx, i)) }) // a slow answer delays none behind it
		case <-least:
			over = true
		case <-ended:
			ended = nil
			if failed.get() != nil {
				over = true
			}
		case <-ctx.Done():
			failed.set(ctx.Err())
			over, ended = true, nil
		}
	}
	requests.Wait()
	working.Wait()
	s.toUS = time.Now().UnixMicro()
	return s, failed.get()
}

// directWhileBroadcasting also returns what was used meanwhile.
func (u *running) directWhileBroadcasting(ctx context.Context) (s span, used cores, err error) {
	s, err = u.direct(ctx, func(ctx context.Context) error {
		since, err := u.countCores()
		if err != nil {
			return err
		}
		id, err := u.toAll(ctx)
		if err != nil {
			return err
		}
		if _, err := u.endOf(ctx, id); err != nil {
			return err
		}
		used, err = since()
		return err
	})
	return s, used, err
}

// directWhileBurning burns as much for so long.
func (u *running) directWhileBurning(ctx context.Context, used cores, wall time.Duration) (span, error) {
	return u.direct(ctx, func(ctx context.Context) error {
		over := make(chan struct{})
		timer := time.AfterFunc(wall, func() { close(over) })
		defer timer.Stop()
		return u.h.burning(ctx, used, over)
	})
}

// cores are CPU time by wall time: of the pipeline with its engines, and of the simulator, which stands back.
type cores struct{ pipeline, provider float64 }

// String implements fmt.Stringer.
func (c cores) String() string {
	return fmt.Sprintf("%.1f cores and the simulator's %.1f", c.pipeline, c.provider)
}

// countCores begins to count what is used; what it returns says how much it was since.
func (u *running) countCores() (since func() (cores, error), err error) {
	began := time.Now()
	pipeline, provider, err := u.used()
	if err != nil {
		return nil, err
	}
	return func() (cores, error) {
		wall := time.Since(began).Seconds()
		p, s, err := u.used()
		return cores{(p - pipeline).Seconds() / wall, (s - provider).Seconds() / wall}, err
	}, nil
}

// used is the CPU time of the pipeline with its engines, and of the simulator.
func (u *running) used() (pipeline, provider time.Duration, err error) {
	parts, err := u.cpu()
	if err != nil {
		return 0, 0, err
	}
	for _, part := range parts {
		pipeline += part
	}
	provider, err = processCPU(u.p.child.pid())
	return pipeline, provider, err
}

// burning burns as much until over is closed: with the priority of the pipeline what it used, and with the
// simulator's what that did.
func (h *harness) burning(ctx context.Context, used cores, over <-chan struct{}) (err error) {
	for _, o := range []order{{Burn: used.pipeline}, {Burn: used.provider, Nice: h.providerNice}} {
		var ready struct{}
		burner, starting := h.startChild(ctx, roleBurner, o, &ready)
		if starting != nil {
			return starting
		}
		defer func() { err = errors.Join(err, burner.end()) }()
	}
	select {
	case <-over:
	case <-ctx.Done():
	}
	return nil
}

// waitsOf reads from the log how long each direct push of the spans took, and each part of its way.
func (u *running) waitsOf(ctx context.Context, spans []*span) error {
	times := map[schemas.ID]*directTimes{}
	of := func(request []byte) *directTimes {
		id := schemas.IDFrom(request)
		if times[id] == nil {
			times[id] = &directTimes{}
		}
		return times[id]
	}
	want := 0
	for _, s := range spans {
		want += s.sent
	}
	var asked pushv1.NotificationRequested
	var send pushv1.SendRequested
	var end pushv1.DeliveryFinished
	err := poll(ctx, 100*time.Millisecond, func() (bool, error) {
		finished := 0
		err := replay(ctx, u.log, func(r schemas.Record) error {
			switch r.Type() { //nolint:exhaustive // those of a direct push
			case pushv1.EventType_EVENT_TYPE_NOTIFICATION_REQUESTED:
				if err := r.Into(&asked); err != nil {
					return err
				}
				of(asked.RequestId).askedUS = r.TimeUS
			case pushv1.EventType_EVENT_TYPE_SEND_REQUESTED:
				if err := r.Into(&send); err != nil {
					return err
				}
				of(send.RequestId).sendUS = r.TimeUS
			case pushv1.EventType_EVENT_TYPE_DELIVERY_FINISHED:
				if err := r.Into(&end); err != nil || len(end.BroadcastId) > 0 || end.Outcome != pushv1.Outcome_OUTCOME_ACCEPTED {
					return err
				}
				t := of(end.RequestId)
				t.requestedUS, t.finishedUS, t.latencyUS, t.recordedUS = end.RequestedAtUs, end.FinishedAtUs, end.LatencyUs, r.TimeUS
				for _, s := range spans {
					if s.covers(t) {
						finished++
					}
				}
			}
			return nil
		}, schemas.Notifications, schemas.SendTopic{Transport: schemas.APNS, Lane: schemas.Direct}.Topic(),
			schemas.SendTopic{Transport: schemas.FCM, Lane: schemas.Direct}.Topic(), schemas.Deliveries)
		return finished >= want, err
	})
	for _, s := range spans {
		for _, t := range times {
			if s.covers(t) {
				s.add(t)
			}
		}
		slices.Sort(s.waits)
		for i := range s.parts {
			slices.Sort(s.parts[i])
		}
	}
	return err
}

// directTimes are when a direct push was where, Unix microseconds; zero: the log did not say.
type directTimes struct {
	requestedUS, askedUS, sendUS, finishedUS, latencyUS, recordedUS int64
}

// covers reports whether a push that has ended was asked for in s.
func (s *span) covers(t *directTimes) bool {
	return t.finishedUS > 0 && t.requestedUS >= s.fromUS && t.requestedUS <= s.toUS
}

// sinceStart is when in s the slowest was asked for, in seconds.
func (s *span) sinceStart() float64 { return float64(s.slowestAtUS-s.fromUS) / 1e6 }

func (s *span) add(t *directTimes) {
	began := t.finishedUS - t.latencyUS
	wait := float64(t.finishedUS-t.requestedUS) / 1000
	s.waits = append(s.waits, wait)
	if wait > s.slowest {
		s.slowest, s.slowestAtUS = wait, t.requestedUS
	}
	tell := func(part directPart, fromUS, toUS int64) {
		if fromUS > 0 && toUS > 0 { // the log keeps sends no longer than it must
			s.parts[part] = append(s.parts[part], float64(max(toUS-fromUS, 0))/1000)
		}
	}
	tell(accepting, t.requestedUS, t.askedUS)
	tell(routing, t.askedUS, t.sendUS)
	tell(sending, t.sendUS, began)
	tell(answering, began, t.finishedUS)
	tell(recording, t.finishedUS, t.recordedUS)
	tell(reached, t.requestedUS, began)
}

// burn uses so many cores until its input ends: in each period every core's goroutine works for its part and sleeps for the rest.
func burn(ctx context.Context, cores float64) (stop func()) {
	const period = 10 * time.Millisecond
	width := runtime.GOMAXPROCS(0)
	part := time.Duration(min(cores/float64(width), 1) * float64(period))
	ctx, cancel := context.WithCancel(ctx)
	var burning sync.WaitGroup
	var sink atomic.Uint64
	for range width {
		burning.Go(func() {
			tick := time.NewTicker(period)
			defer tick.Stop()
			for ctx.Err() == nil {
				x := sink.Load() + 1
				for until := time.Now().Add(part); time.Now().Before(until); {
					for range 1000 {
						x = x*6364136223846793005 + 1
					}
				}
				sink.Store(x)
				select {
				case <-tick.C:
				case <-ctx.Done():
				}
			}
		})
	}
	return func() {
		cancel()
		burning.Wait()
	}
}
