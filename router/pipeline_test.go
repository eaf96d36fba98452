package router_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// checkExact: each device once, and the counts of the end as the log has them.
func checkExact(t *testing.T, h *house, id schemas.ID, want []schemas.Device) {
	t.Helper()
	got := h.sends()[id]
	for _, d := range want {
		if got[d] != 1 {
			t.Errorf("device %v: want 1 send, got %d", d, got[d])
			return
		}
	}
	if len(got) != len(want) {
		t.Errorf("want %d devices, got %d", len(want), len(got))
	}
	checkEnd(t, h, id, int64(len(want)))
}

func checkEnd(t *testing.T, h *house, id schemas.ID, emitted int64) {
	t.Helper()
	ends := h.ended()[id]
	if len(ends) != 1 {
		t.Errorf("want one end of %s, got %d", id, len(ends))
		return
	}
	var gotEmitted, finished, first int64
	for _, c := range ends[0].Counts {
		gotEmitted += c.Emitted
		finished += c.Finished()
		first += c.FirstOutcomes
	}
	if gotEmitted != emitted || finished != emitted || first != emitted {
		t.Errorf("want %d emitted, finished and attempted, got %d, %d and %d", emitted, gotEmitted, finished, first)
	}
}

func TestABroadcastReachesEachDeviceOnceAndEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, 4)
		want := h.devices("app", "news", 5000)
		h.devices("app", "sports", 300)
		h.devices("other", "news", 300)
		id := h.request(&pushv1.BroadcastRequested{Ranges: 16})
		empty := h.request(&pushv1.BroadcastRequested{Channels: []string{"nobody"}})
		h.untilEnded(time.Hour, id, empty)
		checkExact(t, h, id, want)
		checkExact(t, h, empty, nil)
	})
}

func TestADeviceInSeveralChannelsIsSentOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, 2)
		want := h.devices("app", "news", 400)
		h.audience.add("sports", want[:200]...)
		more := h.devices("app", "culture", 100)
		id := h.request(&pushv1.BroadcastRequested{Channels: []string{"culture", "news", "sports"}})
		h.untilEnded(time.Hour, id)
		checkExact(t, h, id, append(want, more...))
	})
}
