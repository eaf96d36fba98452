package bench

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
	"github.com/campanile-push/campanile/simulator"
)

// The figures of storms of 429.
const (
	stormFall     = "storm/fcm/fall_ms"
	stormRecovery = "storm/fcm/recovery_s"
	stormRefused  = "storm/refused_share"
	stormAPNS     = "storm/apns/kept"
)

// A storm: FCM refuses every push for a while, and APNs those to a fifth of the tokens.
const (
	stormRate    = 2000 // pushes a second, FCM's quota and the app's own at APNs: the machine is not what limits
	stormShare   = 0.2
	stormTime    = 20 * time.Second
	stormSteady  = 5 * time.Second  // at the full rate before it
	stormReturn  = 90 * time.Second // after which it has not come back
	stormWindow  = 2 * time.Second  // over which a rate is taken
	stormLook    = 20 * time.Millisecond
	stormEnough  = 0.95
	stormDevices = 360_000 // two of three are FCM's: enough for a rise over a minute, a storm and the minute after it
)

// stormKind is how the provider refuses.
type stormKind struct {
	name       string
	retryAfter time.Duration
}

var stormKinds = []stormKind{{"without Retry-After", 0}, {"with Retry-After of 5 s", 5 * time.Second}} //nolint:gochecknoglobals // a table

// stormRound is what one storm came to.
type stormRound struct {
	fall, recovery time.Duration
	refused, kept  float64
}

// storm has a broadcast rise to the quota, refuses, and watches at the provider how soon the rate falls and comes back. Every push ends as
// accepted all the same.
func (h *harness) storm(ctx context.Context) (rows []Row, err error) {
	devices := h.Devices
	h.Devices = h.scaled(stormDevices)
	defer func() { h.Devices = devices }()
	up, end, err := h.startPipeline(ctx, "--senders-fcm-quota", fmt.Sprint(stormRate))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, end()) }()
	if err := up.load(ctx); err != nil {
		return nil, err
	}
	if err := up.log.Append(ctx, func(out *schemas.Out) {
		out.AppConfigured(&pushv1.AppConfigured{App: app, Title: "Benchmark", ApnsRate: stormRate / 2})
	}); err != nil {
		return nil, err
	}
	var all []stormRound
	for round := range h.Rounds {
		for _, kind := range stormKinds {
			r, err := up.storm(ctx, kind)
			if err != nil {
				return nil, fmt.Errorf("round %d, %s: %w", round+1, kind.name, err)
			}
			h.say("round %d  %s: FCM's rate at half after %s, back at 95 %% %s after the end; %.2f %% of FCM's answers were 429; APNs kept %.0f %% of its rate", round+1, kind.name,
				r.fall.Round(time.Millisecond), r.recovery.Round(100*time.Millisecond), 100*r.refused, 100*r.kept)
			all = append(all, r)
		}
	}
	figures := func(figure func(stormRound) float64) (values []float64) {
		for _, r := range all {
			values = append(values, figure(r))
		}
		return values
	}
	return []Row{
		row(stormFall, "ms", figures(func(r stormRound) float64 { return float64(r.fall.Microseconds()) / 1000 }), nil),
		row(stormRecovery, "s", figures(func(r stormRound) float64 { return r.recovery.Seconds() }), nil),
		row(stormRefused, "ratio", figures(func(r stormRound) float64 { return r.refused }), nil),
		row(stormAPNS, "ratio", figures(func(r stormRound) float64 { return r.kept }), nil),
	}, nil
}

// storm is one broadcast with a storm in its middle.
func (u *runningUp) storm(ctx context.Context, kind stormKind) (r stormRound, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	if err := u.p.client.Reset(ctx, "stats", "ledger"); err != nil {
		return r, err
	}
	if err := u.p.answerAfter(ctx, farLatency); err != nil {
		return r, err
	}
	id, err := u.toAll(ctx)
	if err != nil {
		return r, err
	}
	w := &stormWatch{client: u.p.client}
	if err := w.until(ctx, func() bool { return w.fcm.over(stormSteady) >= 0.98*stormRate && w.fcm.long(stormSteady) }); err != nil {
		return r, fmt.Errorf("wait for the full rate: %w", err)
	}
	before, apns := w.fcm.over(stormSteady), w.apns.over(stormSteady)
	rules := []simulator.Rule{
		{Name: "storm", Provider: simulator.FCM, Reason: "QUOTA_EXCEEDED", RetryAfter: simulator.Duration(kind.retryAfter)},
		{Name: "storm", Provider: simulator.APNS, Reason: "TooManyRequests", Share: stormShare},
	}
	if err := u.p.client.SetRules(ctx, rules...); err != nil {
		return r, err
	}
	began := time.Now()
	// The rate has fallen when it is below half and stays there.
	if err := w.until(ctx, func() bool {
		if w.asked.over(100*time.Millisecond) > before/2 {
			r.fall = time.Since(began)
		}
		return time.Since(began) >= stormTime
	}); err != nil {
		return r, err
	}
	r.kept = w.apns.over(stormTime-time.Second) / apns
	if err := u.p.client.SetRules(ctx); err != nil {
		return r, err
	}
	ended := time.Now()
	if err := w.until(ctx, func() bool {
		r.recovery = time.Since(ended)
		return w.fcm.over(stormWindow) >= stormEnough*before || r.recovery > stormReturn
	}); err != nil {
		return r, err
	}
	if r.recovery > stormReturn {
		return r, fmt.Errorf("%.0f pushes a second %s after the storm, %.0f before it", w.fcm.over(stormWindow), stormReturn, before)
	}
	u.h.say("%s: half after %s, back after %s; now to the end of the broadcast", kind.name, r.fall.Round(time.Millisecond), r.recovery.Round(100*time.Millisecond))
	return r, u.stormEnded(ctx, id, &r)
}

// stormEnded waits for the end of the broadcast, and checks that every push was made once.
func (u *runningUp) stormEnded(ctx context.Context, id schemas.ID, r *stormRound) error {
	ended, err := u.endOf(ctx, id)
	if err != nil {
		return err
	}
	emitted, accepted := int64(0), int64(0)
	for _, c := range ended.Counts {
		emitted, accepted = emitted+c.Emitted, accepted+c.Accepted
	}
	stats, err := u.p.client.Stats(ctx)
	if err != nil {
		return err
	}
	if want := int64(u.h.Devices); emitted != want || accepted != want || stats.Ledger.Accepted != want || stats.Ledger.Repeats != 0 {
		return fmt.Errorf("want %d pushes, each accepted once, got %d emitted, %d accepted, %d in the ledger, %d repeats", want, emitted, accepted, stats.Ledger.Accepted, stats.Ledger.Repeats)
	}
	var refused, all int64
	for _, a := range stats.Answers {
		if a.Provider != simulator.FCM {
			continue
		}
		all += a.Count
		if a.Status == http.StatusTooManyRequests {
			refused += a.Count
		}
	}
	r.refused = float64(refused) / float64(all)
	return nil
}

// stormWatch looks at the provider's counts again and again.
type stormWatch struct {
	client      *simulator.Client
	fcm         series // FCM's answers with 200
	asked, apns series // every answer of FCM, and of APNs
}

func (w *stormWatch) until(ctx context.Context, over func() bool) error {
	return poll(ctx, stormLook, func() (bool, error) {
		stats, err := w.client.Stats(ctx)
		if err != nil {
			return false, err
		}
		now := time.Now()
		var fcm, apns, asked int64
		for _, a := range stats.Answers {
			switch {
			case a.Status == 0: // none was given
			case a.Provider == simulator.APNS:
				apns += a.Count
			default:
				asked += a.Count
			}
			if a.Provider == simulator.FCM && a.Status == http.StatusOK {
				fcm += a.Count
			}
		}
		w.fcm.add(now, fcm)
		w.apns.add(now, apns)
		w.asked.add(now, asked)
		return over(), nil
	})
}

// series is a count over time.
type series []point

type point struct {
	at time.Time
	n  int64
}

func (s *series) add(at time.Time, n int64) { *s = append(*s, point{at, n}) }

// long reports whether it goes back so far.
func (s series) long(over time.Duration) bool {
	return len(s) > 1 && s[len(s)-1].at.Sub(s[0].at) >= over
}

// over is the rate a second over so long a time up to the last point; 0 of a single one.
func (s series) over(window time.Duration) float64 {
	if len(s) < 2 {
		return 0
	}
	last := s[len(s)-1]
	first := s[0]
	for i := len(s) - 2; i >= 0; i-- {
		if first = s[i]; last.at.Sub(first.at) >= window {
			break
		}
	}
	return float64(last.n-first.n) / last.at.Sub(first.at).Seconds()
}
