package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/campanile-push/campanile/api"
)

// controlRoom is a campanile on which broadcast after broadcast is steered and killed.
type controlRoom struct {
	w        *world
	u        *up
	key      string
	settings []string
	n        int64
	window   int64
}

// kill ends campanile at once, and starts it again.
func (c *controlRoom) kill(t *testing.T) {
	t.Helper()
	c.u.kill()
	c.u = c.w.up(t, c.settings...)
}

// client asks the campanile that runs.
func (c *controlRoom) client() *api.Client {
	return &api.Client{URL: c.u.info.API, App: app, Key: c.key, HTTP: &http.Client{Timeout: 10 * time.Second}}
}

// get asks until there is an answer: campanile may have been started a moment ago.
func (c *controlRoom) get(t *testing.T, id string) (b api.Broadcast) {
	t.Helper()
	eventually(t, time.Minute, "the broadcast can be read", func() bool {
		var err error
		b, err = c.client().GetBroadcast(t.Context(), id)
		return err == nil
	})
	return b
}

// until waits for a broadcast to be as wanted.
func (c *controlRoom) until(t *testing.T, id, what string, ok func(b *api.Broadcast) bool) (b api.Broadcast) {
	t.Helper()
	eventually(t, 5*time.Minute, what, func() bool {
		b = c.get(t, id)
		return ok(&b)
	})
	return b
}

// at waits until a share of the audience was pushed to since before.
func (c *controlRoom) at(t *testing.T, before int64, share float64) {
	t.Helper()
	target := before + int64(share*float64(c.n))
	eventually(t, 5*time.Minute, strconv.FormatInt(target, 10)+" are pushed", func() bool { return c.w.summary(t).Unique >= target })
}

// killed runs do with a kill before it, after it, or both; the moments are at random.
func (c *controlRoom) killed(t *testing.T, before int64, share float64, do func()) (kills int64) {
	t.Helper()
	when := rand.IntN(3)
	if when != 1 {
		c.kill(t)
		kills++
	}
	do()
	if when != 0 {
		if rand.IntN(2) == 0 { // else at once
			c.at(t, before, min(share+0.01, 0.99)*rand.Float64())
		}
		c.kill(t)
		kills++
	}
	return kills
}

// TestControlIsExactThroughKills pauses, resumes, changes the rate of and cancels broadcasts at random moments, with kill -9 in
// between: once settled, the counts are exact, and after a cancel nothing more is delivered.
func TestControlIsExactThroughKills(t *testing.T) {
	t.Parallel()
	rounds, devices := proof(2, 50), proof[int64](20_000, 200_000)
	for name, steer := range map[string]func(t *testing.T, c *controlRoom){
		"pause and resume": pauseAndResume, "rate": changeRate, "cancel": cancelForEver,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for left := rounds; left > 0; left -= 5 { // the log keeps deliveries: it is not to fill
				steerRounds(t, min(left, 5), devices, steer)
			}
		})
	}
}

func steerRounds(t *testing.T, rounds int, devices int64, steer func(t *testing.T, c *controlRoom)) {
	t.Helper()
	c := &controlRoom{
		w: newWorld(t, "--mix", "unavailable=0.02,PayloadTooLarge=0.01"), n: devices, window: 1024,
		settings: []string{
			"CAMPANILE_SENDERS_WINDOW=1024", "CAMPANILE_ROUTER_MAX_PAGE=2000", withoutAnalytics,
			// Two to five seconds a broadcast: there is time for an order, and for many broadcasts.
			fmt.Sprintf("CAMPANILE_SENDERS_FCM_QUOTA=%d", proof(10_000, 60_000)), "CAMPANILE_SENDERS_FCM_RAMP=" + proof("1m", "1s"),
		},
	}
	c.u = c.w.up(t, c.settings...)
	c.w.app(t, app)
	c.key = c.w.key(t, app, "all")
	c.w.load(t, app, "everybody", phones("control", int(devices)))
	for range rounds {
		steer(t, c)
	}
	c.u.stop(t)
}

// send broadcasts to everybody.
func (c *controlRoom) send(t *testing.T) (id string, before int64) {
	t.Helper()
	before = c.w.summary(t).Unique
	eventually(t, time.Minute, "the broadcast is taken", func() bool {
		a, err := c.client().SendBroadcast(t.Context(), "", api.BroadcastRequest{Channels: []string{"everybody"}, Message: &api.Message{Text: "Fire drill at noon"}})
		id = a.ID
		return err == nil
	})
	return id, before
}

// control gives an order, again where campanile is not there yet. It reports whether the broadcast had ended before.
func (c *controlRoom) control(t *testing.T, order func(ctx context.Context, client *api.Client) error) (late bool) {
	t.Helper()
	eventually(t, time.Minute, "the order is taken", func() bool {
		err := order(t.Context(), c.client())
		if p, ok := errors.AsType[*api.Problem](err); ok && p.Status == http.StatusConflict {
			late = true
		}
		return err == nil || late
	})
	return late
}

// whole checks a broadcast that ran to its end: every device was expanded once, and the ledger has what was delivered. A push whose
// answer a kill has cut off is made again under its id, and the ledger knows it.
func (c *controlRoom) whole(t *testing.T, id string, before int64) {
	t.Helper()
	b := c.until(t, id, "it has ended", func(b *api.Broadcast) bool { return b.State == api.StateEnded })
	p := b.Progress
	if p.Expanded != c.n || p.Finished != c.n || p.Delivered+p.Rejected != c.n || p.Rejected == 0 || p.Remaining != 0 {
		t.Errorf("%d devices: it ended with %+v", c.n, p)
	}
	if got := c.w.summary(t).Unique - before; got != p.Delivered {
		t.Errorf("the ledger has %d pushes, the broadcast says %d", got, p.Delivered)
	}
}

func pauseAndResume(t *testing.T, c *controlRoom) {
	t.Helper()
	id, before := c.send(t)
	share := 0.9 * rand.Float64()
	c.at(t, before, share)
	late := false
	c.killed(t, before, share, func() {
		late = c.control(t, func(ctx context.Context, client *api.Client) error {
			_, err := client.PauseBroadcast(ctx, id, api.Reason{Reason: "wrong text"})
			return err
		})
	})
	if !late {
		drained := c.until(t, id, "what was expanded has drained", func(b *api.Broadcast) bool { return b.Progress.Finished == b.Progress.Expanded })
		if drained.State == api.StatePaused {
			if rand.IntN(2) == 0 {
				c.kill(t)
			}
			if now := c.get(t, id); now.Progress.Expanded != drained.Progress.Expanded || now.Progress.Delivered != drained.Progress.Delivered {
				t.Errorf("paused, it went from %+v to %+v", drained.Progress, now.Progress)
			}
			if got := c.w.summary(t).Unique - before; got != drained.Progress.Delivered {
				t.Errorf("paused: the ledger has %d pushes, the broadcast says %d", got, drained.Progress.Delivered)
			}
		}
		c.killed(t, before, share, func() {
			c.control(t, func(ctx context.Context, client *api.Client) error {
				_, err := client.ResumeBroadcast(ctx, id)
				return err
			})
		})
	}
	c.whole(t, id, before)
}

func changeRate(t *testing.T, c *controlRoom) {
	t.Helper()
	id, before := c.send(t)
	for range 2 { // down, and away again
		share := 0.9 * rand.Float64()
		rate := []float64{0, float64(c.n) / 4, float64(c.n)}[rand.IntN(3)]
		c.at(t, before, share)
		c.killed(t, before, share, func() {
			c.control(t, func(ctx context.Context, client *api.Client) error {
				_, err := client.ChangeRate(ctx, id, api.RateRequest{Rate: rate})
				return err
			})
		})
	}
	c.whole(t, id, before)
}

func cancelForEver(t *testing.T, c *controlRoom) {
	t.Helper()
	id, before := c.send(t)
	share := 0.9 * rand.Float64()
	c.at(t, before, share)
	late := false
	kills := c.killed(t, before, share, func() {
		late = c.control(t, func(ctx context.Context, client *api.Client) error {
			_, err := client.CancelBroadcast(ctx, id, api.Reason{Reason: "never mind"})
			return err
		})
	})
	if late {
		c.whole(t, id, before)
		return
	}
	b := c.until(t, id, "the cancel has settled", func(b *api.Broadcast) bool { return b.State == api.StateCancelled })
	p := b.Progress
	settled := c.w.summary(t).Unique - before
	if p.Finished != p.Expanded || p.Delivered+p.Rejected+p.Cancelled != p.Expanded || p.Expanded > c.n || p.Remaining != 0 {
		t.Errorf("it was cancelled with %+v", p)
	}
	// A push that was on its way at a kill may have been taken, and be cancelled by who finds it without an answer.
	if more := settled - p.Delivered; more < 0 || more > kills*embeddedPartitions*2*c.window {
		t.Errorf("the ledger has %d pushes, the broadcast says %d", settled, p.Delivered)
	}
	c.kill(t) // nor does a start find anything left to do
	if b := c.get(t, id); b.State != api.StateCancelled || b.Progress.Finished != p.Finished || b.Progress.Delivered != p.Delivered {
		t.Errorf("it was over with %+v, and is now %s with %+v", p, b.State, b.Progress)
	}
	if got := c.w.summary(t).Unique - before; got != settled {
		t.Errorf("%d pushes after the cancel had settled", got-settled)
	}
}

// TestABroadcastThatFailsStopsItself: with credentials that were just set most pushes are rejected. It pauses with the reason, and goes
// on to its end when somebody resumes it.
func TestABroadcastThatFailsStopsItself(t *testing.T) {
	t.Parallel()
	const n = 4_000
	w := newWorld(t, "--mix", "PayloadTooLarge=0.9")
	u := w.up(t, "CAMPANILE_ROUTER_START_RATE=500", "CAMPANILE_ROUTER_MAX_PAGE=200", withoutAnalytics)
	w.app(t, app)
	w.load(t, app, "everybody", phones("failing", n))
	id := w.run(t, "broadcast", "send", app, "--channel", "everybody", "--text", "Fire drill at noon", "--rate", "2000")
	var x api.Broadcast
	eventually(t, 2*time.Minute, "it has stopped itself", func() bool { x = w.show(t, id); return x.State == api.StatePaused })
	if x.Paused == nil || x.Paused.By != "campanile" || x.Paused.Reason == "" || x.Progress.Expanded >= n {
		t.Errorf("it stopped as %+v %+v", x.Paused, x.Progress)
	}
	w.run(t, "broadcast", "rate", id, "0")
	w.run(t, "broadcast", "resume", id)
	eventually(t, 3*time.Minute, "it has ended", func() bool { x = w.show(t, id); return x.State == api.StateEnded })
	if p := x.Progress; p.Expanded != n || p.Rejected < n/10 || p.Delivered+p.Rejected != n {
		t.Errorf("it ended with %+v", p)
	}
	u.stop(t)
}
