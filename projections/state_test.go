package projections_test

import (
	"slices"
	"testing"

	"github.com/campanile-push/campanile/projections"
)

func TestNextLeavesTheStateBeforeAlone(t *testing.T) {
	t.Parallel()
	before := projections.State{Known: true, Channels: []string{"b", "d"}}
	for _, f := range []projections.Fact{
		{Kind: projections.Subscribed, Channel: "a"},
		{Kind: projections.Subscribed, Channel: "c"},
		{Kind: projections.Subscribed, Channel: "e"},
		{Kind: projections.Unsubscribed, Channel: "b"},
		{Kind: projections.Unsubscribed, Channel: "d"},
		{Kind: projections.Unregistered},
	} {
		first, second := before.Next(f), before.Next(f)
		if !first.Equal(&second) {
			t.Errorf("%+v twice: %+v and %+v", f, first, second)
		}
		if want := []string{"b", "d"}; !slices.Equal(want, before.Channels) {
			t.Fatalf("after %+v the state before has %q", f, before.Channels)
		}
	}
}

func TestDiffIsWhatTurnsOldRowsIntoNew(t *testing.T) {
	t.Parallel()
	alive := projections.State{Known: true, Registration: projections.Registration{AtUS: 5, Platform: "iOS"}, Channels: []string{"a", "b"}}
	dead, later, moved, none := alive, alive, alive, projections.State{}
	dead.Invalidated, dead.AsOfUS = true, 5
	later.Registration.AtUS = 6
	moved.Channels = []string{"b", "c"}
	relocated := alive
	relocated.Registration.Locale = "fr"
	for name, c := range map[string]struct {
		before, after                     projections.State
		put, drop, subscribe, unsubscribe []string
	}{
		"nothing":      {alive, alive, nil, nil, nil, nil},
		"appears":      {none, alive, []string{"a", "b"}, nil, []string{"a", "b"}, nil},
		"goes":         {alive, none, nil, []string{"a", "b"}, nil, []string{"a", "b"}},
		"dies":         {alive, dead, nil, []string{"a", "b"}, nil, nil},
		"lives again":  {dead, alive, []string{"a", "b"}, nil, nil, nil},
		"later":        {alive, later, []string{"a", "b"}, nil, nil, nil},
		"moves":        {alive, moved, []string{"c"}, []string{"a"}, []string{"c"}, []string{"a"}},
		"other locale": {alive, relocated, nil, nil, nil, nil},
	} {
		d := projections.Diff(&c.before, &c.after)
		if !slices.Equal(c.put, d.Put) || !slices.Equal(c.drop, d.Drop) || !slices.Equal(c.subscribe, d.Subscribe) || !slices.Equal(c.unsubscribe, d.Unsubscribe) {
			t.Errorf("%s: want put %q drop %q subscribe %q unsubscribe %q, got %+v", name, c.put, c.drop, c.subscribe, c.unsubscribe, d)
		}
	}
}

func TestExtrapolateIsExactAtTheEnd(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		rows, whole int64
		shard       uint32
		ended       bool
		want        int64
	}{
		{0, 0, 0, true, 0},
		{7, 3, 200, true, 7},
		{8192, 0, 0, false, 8192 * 256},    // one shard did not fit
		{8192, 8000, 2, false, 8000 * 128}, // two shards of 4000
		{8192, 0, 255, false, 8192 * 256},  // all rows in one shard: at least this, times what the others would hold
	} {
		if got := projections.Extrapolate(c.rows, c.whole, c.shard, c.ended); got != c.want {
			t.Errorf("%+v: got %d", c, got)
		}
	}
}

func TestWordsKeepAFew(t *testing.T) { // not parallel: it counts allocations
	var w projections.Words
	for i := range 100 {
		for _, b := range [][]byte{[]byte("ios"), {byte(i)}} {
			if got := w.Of(b); got != string(b) {
				t.Fatalf("want %q, got %q", b, got)
			}
		}
	}
	if n := testing.AllocsPerRun(100, func() { _ = w.Of([]byte{'i', 'o', 's'}) }); n > 0 {
		t.Errorf("a known word allocates %.0f times", n)
	}
}
