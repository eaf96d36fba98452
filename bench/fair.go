package bench

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// The figures of the benchmark of fairness.
const (
	fairP99   = "fair/direct_p99"
	fairP50   = "fair/direct_p50"
	fairRatio = "fair/direct_p99/ratio"
)

const (
	directEvery = 10 * time.Millisecond // a direct push
	fairLeast   = 2 * time.Second       // of each side, however small the broadcast
)

// fair measures direct pushes, 100 a second, while a broadcast goes to every device, and again while a process that only burns CPU
// uses as much of it as the broadcast did. From the request to the provider's answer, as the log has it.
func (h *harness) fair(ctx context.Context) (rows []Row, err error) {
	up, end, err := h.startPipeline(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, end()) }()
	if err := up.load(ctx); err != nil {
		return nil, err
	}
	var with, without []span
	for range h.Rounds {
		busy, cores, err := up.directWhileBroadcasting(ctx)
		if err != nil {
			return nil, err
		}
		quiet, err := up.directWhileBurning(ctx, cores, busy.wall())
		if err != nil {
			return nil, err
		}
		with, without = append(with, busy), append(without, quiet)
	}
	var spans []*span
	for i := range with {
		spans = append(spans, &with[i], &without[i])
	}
	if err := up.waitsOf(ctx, spans); err != nil {
		return nil, err
	}
	var ratios, p99s, p50s, baseP99s, baseP50s []float64
	for i := range with {
		a, b := &with[i], &without[i]
		if len(a.waits) == 0 || len(a.waits) != a.sent || len(b.waits) != b.sent {
			return nil, fmt.Errorf("want every direct push of %d and %d delivered once, got %d and %d", a.sent, b.sent, len(a.waits), len(b.waits))
		}
		h.say("round %d  with the broadcast p50 %.1f ms p99 %.1f ms of %d; beside as much CPU p50 %.1f ms p99 %.1f ms of %d", i+1,
			a.quantile(0.5), a.quantile(0.99), len(a.waits), b.quantile(0.5), b.quantile(0.99), len(b.waits))
		h.say("         of it at the provider p50 %.1f ms p99 %.1f ms; p50 %.1f ms p99 %.1f ms",
			quantile(a.answers, 0.5), quantile(a.answers, 0.99), quantile(b.answers, 0.5), quantile(b.answers, 0.99))
		p99s, p50s = append(p99s, a.quantile(0.99)), append(p50s, a.quantile(0.5))
		baseP99s, baseP50s = append(baseP99s, b.quantile(0.99)), append(baseP50s, b.quantile(0.5))
		ratios = append(ratios, a.quantile(0.99)/b.quantile(0.99))
	}
	ratio := row(fairRatio, "ratio", ratios, nil)
	ratio.Baseline, ratio.Ratio = 1, ratio.Value
	return []Row{ratio, row(fairP99, "ms", p99s, baseP99s), row(fairP50, "ms", p50s, baseP50s)}, nil
}

// span is a time in which direct pushes were asked for.
type span struct {
	fromUS, toUS int64
	sent         int
	waits        []float64 // ms, sorted
	answers      []float64 // of them at the provider, ms, sorted
	firsts       []float64 // ms, sorted: of small broadcasts, until they were expanded
}

func (s *span) wall() time.Duration { return time.Duration(s.toUS-s.fromUS) * time.Microsecond }

func (s *span) quantile(q float64) float64 { return quantile(s.waits, q) }

// quantile of sorted values, at least one; the nearest rank.
func quantile(sorted []float64, q float64) float64 {
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// direct asks for a push each directEvery until work returns, and for fairLeast at least.
func (u *runningUp) direct(ctx context.Context, work func(ctx context.Context) error) (s span, err error) {
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

// directWhileBroadcasting also returns how many cores the pipeline and the simulator used.
func (u *runningUp) directWhileBroadcasting(ctx context.Context) (s span, cores float64, err error) {
	s, err = u.direct(ctx, func(ctx context.Context) error {
		before, err := u.used()
		if err != nil {
			return err
		}
		began := time.Now()
		moodle := Moodle{BaseURL: u.api, App: app, Key: benchKey, Client: NewClient(1)}
		text, err := moodle.Broadcast(ctx, siteChannel, payload().Body)
		if err != nil {
			return err
		}
		id, err := schemas.ParseID(text)
		if err != nil {
			return err
		}
		if _, err := u.endOf(ctx, id); err != nil {
			return err
		}
		after, err := u.used()
		cores = (after - before).Seconds() / time.Since(began).Seconds()
		return err
	})
	return s, cores, err
}

// directWhileBurning burns so many cores for so long.
func (u *runningUp) directWhileBurning(ctx context.Context, cores float64, wall time.Duration) (span, error) {
	return u.direct(ctx, func(ctx context.Context) error {
		var ready struct{}
		burner, err := u.h.startChild(ctx, roleBurner, order{Burn: cores}, &ready)
		if err != nil {
			return err
		}
		select {
		case <-time.After(wall):
		case <-ctx.Done():
		}
		return burner.end()
	})
}

// waitsOf reads from the log how long each direct push of the spans took.
func (u *runningUp) waitsOf(ctx context.Context, spans []*span) error {
	err := poll(ctx, 100*time.Millisecond, func() (bool, error) {
		want, got := 0, 0
		for i := range spans {
			want += spans[i].sent
			spans[i].waits, spans[i].answers = spans[i].waits[:0], spans[i].answers[:0]
		}
		err := replay(ctx, u.log, func(r schemas.Record) error {
			if r.Type() != pushv1.EventType_EVENT_TYPE_DELIVERY_FINISHED {
				return nil
			}
			var e pushv1.DeliveryFinished
			if err := r.Into(&e); err != nil || len(e.BroadcastId) > 0 || e.Outcome != pushv1.Outcome_OUTCOME_ACCEPTED {
				return err
			}
			for i := range spans {
				if s := spans[i]; e.RequestedAtUs >= s.fromUS && e.RequestedAtUs <= s.toUS {
					s.waits = append(s.waits, float64(e.FinishedAtUs-e.RequestedAtUs)/1000)
					s.answers = append(s.answers, float64(e.LatencyUs)/1000)
					got++
				}
			}
			return nil
		}, schemas.Deliveries)
		return got >= want, err
	})
	for i := range spans {
		slices.Sort(spans[i].waits)
		slices.Sort(spans[i].answers)
	}
	return err
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
