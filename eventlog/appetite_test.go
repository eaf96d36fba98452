package eventlog

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// TestNoMoreIsPolledThanHasRoomSoon: of what waits, only that counts which more room would let go; a partition that waits for something
// else must not keep the others from being read.
func TestNoMoreIsPolledThanHasRoomSoon(t *testing.T) {
	t.Parallel()
	waits := func(n int, change func(w *window)) *window {
		w := &window{ready: true}
		w.backlog.add(make([]*kgo.Record, n))
		if change != nil {
			change(w)
		}
		return w
	}
	for name, c := range map[string]struct {
		total   int
		windows []*window
		want    int
	}{
		"nothing waits":                        {8000, []*window{waits(0, nil)}, 2000},
		"some wait":                            {8000, []*window{waits(300, nil), waits(500, nil)}, 1200},
		"as many wait as will have room":       {8000, []*window{waits(900, nil), waits(1100, nil)}, 0},
		"more wait":                            {8000, []*window{waits(9000, nil)}, 0},
		"for the end of the takeover":          {8000, []*window{waits(9000, func(w *window) { w.ready = false })}, 2000},
		"for the partition's own window":       {8000, []*window{waits(9000, func(w *window) { w.waiting = true })}, 2000},
		"for their time":                       {8000, []*window{waits(9000, func(w *window) { w.wake = 1 }), waits(1, nil)}, 1999},
		"there is room for very few":           {3, []*window{waits(0, nil)}, 1},
		"there is room for very few, who wait": {3, []*window{waits(1, nil)}, 0},
		"a poll is bounded":                    {1 << 20, nil, pollRecords},
	} {
		d := &delivery{o: DeliverOptions{Total: c.total}, windows: map[place]*window{}}
		for i, w := range c.windows {
			d.windows[place{partition: int32(i)}] = w
		}
		if got := d.appetite(); got != c.want {
			t.Errorf("%s: want %d, got %d", name, c.want, got)
		}
	}
}
