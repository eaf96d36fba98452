package router_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// TestCrashesAndControlAtRandomSendEachDeviceOnce drives random histories: processes that die at any time, commits that fail
// before or after they are there, lagging followers, pauses, rates and cancellations, losers of the same request, compaction
// between the lives, and at the end the tombstones.
func TestCrashesAndControlAtRandomSendEachDeviceOnce(t *testing.T) {
	t.Parallel()
	seeds := uint64(40)
	if testing.Short() {
		seeds = 5
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { simulate(t, rand.New(rand.NewPCG(seed, 1))) })
		})
	}
}

type simulated struct {
	id        schemas.ID
	audience  []schemas.Device
	cancelled bool
}

func simulate(t *testing.T, r *rand.Rand) {
	t.Helper()
	h := newHouse(t, 1+r.Int32N(4))
	h.failures = 0.1
	h.lag = func() time.Duration { return rand.N(20 * time.Millisecond) }
	h.delivery = func() time.Duration { return rand.N(30 * time.Millisecond) }
	h.stateOptions.MinLead = 100 + r.Int64N(900)
	h.stateOptions.StartRate = 100 + 2000*r.Float64()
	h.broadcastsOptions.MinPage, h.broadcastsOptions.MaxPage = 1+r.IntN(100), 100+r.IntN(400)
	var all []*simulated
	for range 2 + r.IntN(4) {
		all = append(all, h.randomBroadcast(r, len(all)))
	}
	for range r.IntN(8) {
		h.during(time.Duration(1+r.IntN(800)) * time.Millisecond)
		for range r.IntN(4) {
			h.randomControl(r, all[r.IntN(len(all))])
		}
		if r.IntN(3) == 0 {
			h.compactAll(r)
		}
	}
	ids := make([]schemas.ID, 0, len(all))
	for _, b := range all {
		ids = append(ids, b.id)
		if !b.cancelled {
			h.log.append(func(out *schemas.Out) {
				out.BroadcastResumed(&pushv1.BroadcastResumed{BroadcastId: b.id[:], ResumedAtUs: time.Now().UnixMicro()})
			})
			h.log.append(func(out *schemas.Out) { out.BroadcastRateChanged(&pushv1.BroadcastRateChanged{BroadcastId: b.id[:]}) })
		}
	}
	h.untilEnded(24*time.Hour, ids...)
	for _, b := range all {
		if b.cancelled {
			h.checkCancelled(b)
			continue
		}
		checkExact(t, h, b.id, b.audience)
	}
	h.checkForgetting(r)
}

func (h *house) randomBroadcast(r *rand.Rand, n int) *simulated {
	app, channel := fmt.Sprintf("app%d", r.IntN(2)), fmt.Sprintf("channel%d", n)
	e := &pushv1.BroadcastRequested{App: app, Channels: []string{channel}, Ranges: []uint32{1, 16, 64}[r.IntN(3)]}
	if r.IntN(4) == 0 {
		e.Rate = 50 + 1000*r.Float64()
	}
	if r.IntN(4) == 0 {
		e.SpreadSeconds, e.AudienceEstimate = 1+r.Uint32N(20), r.Int64N(3000)
	}
	if r.IntN(4) == 0 {
		e.SendAtUs = time.Now().Add(time.Duration(r.IntN(2000)) * time.Millisecond).UnixMicro()
	}
	if r.IntN(3) == 0 { // an audience that is small, or said to be
		e.AudienceEstimate = 1 + r.Int64N(1000)
	}
	b := &simulated{audience: h.devices(app, channel, r.IntN(2500))}
	b.id = h.request(e)
	for range r.IntN(3) { // the same request, taken again elsewhere, with another text and another audience
		record := schemas.NewID()
		h.log.append(func(out *schemas.Out) {
			out.BroadcastRequested(&pushv1.BroadcastRequested{
				BroadcastId: b.id[:], RecordId: record[:], App: app, Channels: []string{"a channel of nobody"}, Ranges: 1,
			})
		})
	}
	return b
}

func (h *house) randomControl(r *rand.Rand, b *simulated) {
	if len(h.ended()[b.id]) > 0 {
		return
	}
	h.log.append(func(out *schemas.Out) {
		switch r.IntN(8) {
		case 0, 1:
			out.BroadcastPaused(&pushv1.BroadcastPaused{BroadcastId: b.id[:]})
		case 2, 3, 4:
			out.BroadcastResumed(&pushv1.BroadcastResumed{BroadcastId: b.id[:], ResumedAtUs: time.Now().UnixMicro()})
		case 5, 6:
			out.BroadcastRateChanged(&pushv1.BroadcastRateChanged{BroadcastId: b.id[:], Rate: 2000 * r.Float64()})
		default:
			out.BroadcastCancelled(&pushv1.BroadcastCancelled{BroadcastId: b.id[:]})
			b.cancelled = true
		}
	})
}

func (h *house) compactAll(r *rand.Rand) {
	for _, topic := range []schemas.Topic{schemas.Broadcasts, schemas.Expansions, schemas.Progress} {
		h.log.compact(topic, r.IntN(2) == 0)
	}
}

// checkCancelled: nobody twice, nobody else, and the counts are those of the sends in the log.
func (h *house) checkCancelled(b *simulated) {
	h.t.Helper()
	members := map[schemas.Device]bool{}
	for _, d := range b.audience {
		members[d] = true
	}
	got := h.sends()[b.id]
	for d, n := range got {
		if n != 1 || !members[d] {
			h.t.Errorf("device %v: %d sends, member: %v", d, n, members[d])
		}
	}
	checkEnd(h.t, h, b.id, int64(len(got)))
	if ends := h.ended()[b.id]; len(ends) == 1 && !ends[0].Cancelled {
		h.t.Error("a cancelled broadcast ended as if it were not")
	}
}

// checkForgetting lets the broadcasts' time run out, with a crash and a compaction after each step.
func (h *house) checkForgetting(r *rand.Rand) {
	h.t.Helper()
	before := h.countSends()
	h.keepEnded = time.Hour
	pass(h.keepEnded)
	for range 12 {
		h.directTraffic()
		h.during(time.Duration(1+r.IntN(200)) * time.Millisecond)
		h.compactAll(r)
	}
	h.during(10 * time.Second) // and nothing comes any more
	if after := h.countSends(); after != before {
		h.t.Errorf("%d sends after the end", after-before)
	}
	for _, topic := range []schemas.Topic{schemas.Broadcasts, schemas.Expansions, schemas.Progress} {
		h.log.compact(topic, true)
		for _, rec := range h.log.all(topic) {
			if rec.Type() != pushv1.EventType_EVENT_TYPE_TALLY_OWNERS_SEEN {
				h.t.Errorf("%s still holds %q", topic, rec.Key)
			}
		}
	}
}

// directTraffic gives every partition of deliveries something that is none of a broadcast's.
func (h *house) directTraffic() {
	h.log.append(func(out *schemas.Out) {
		for p := range h.log.layout.Partitions {
			out.DeliveryFinished(p, 1, &pushv1.DeliveryFinished{
				App: "app", Transport: schemas.FCM, Outcome: pushv1.Outcome_OUTCOME_ACCEPTED, Source: &pushv1.Source{Lane: schemas.Direct},
			})
		}
	})
}

func (h *house) countSends() (n int) {
	for _, devices := range h.sends() {
		for _, times := range devices {
			n += times
		}
	}
	return n
}
