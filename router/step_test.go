package router

import (
	"testing"

	"github.com/campanile-push/campanile/schemas"
)

func TestNextStepPassesOverWhatWaits(t *testing.T) {
	t.Parallel()
	const now = 1_000_000
	free := func() *laneView { return &laneView{lead: 20_000, runnable: 1} }
	full := func() *laneView { return &laneView{lead: 20_000, runnable: 1, outstanding: 20_000} }
	for name, c := range map[string]struct {
		candidates []candidate
		want       step
	}{
		"nothing to do":        {nil, step{wakeAt: never}},
		"one may go":           {[]candidate{{lane: free()}}, step{kind: stepPage, limit: 5_000, wakeAt: never}},
		"paused":               {[]candidate{{lane: free(), paused: true}, {lane: free()}}, step{kind: stepPage, index: 1, limit: 5_000, wakeAt: never}},
		"scheduled":            {[]candidate{{lane: free(), notBefore: now + 5}}, step{wakeAt: now + 5}},
		"its time has come":    {[]candidate{{lane: free(), notBefore: now}}, step{kind: stepPage, limit: 5_000, wakeAt: never}},
		"the nearest time":     {[]candidate{{lane: free(), notBefore: now + 9}, {lane: free(), notBefore: now + 5}}, step{wakeAt: now + 5}},
		"too far ahead":        {[]candidate{{lane: full()}}, step{wakeAt: never}},
		"another app may pass": {[]candidate{{lane: full()}, {lane: free()}}, step{kind: stepPage, index: 1, limit: 5_000, wakeAt: never}},
		"a small one passes the lead": {
			[]candidate{{lane: full()}, {lane: full(), express: true}}, step{kind: stepPage, index: 1, limit: 1_000, wakeAt: never},
		},
		"however far ahead the large ones are": {
			[]candidate{{lane: &laneView{lead: 1_000, runnable: 4, outstanding: 20_000}, express: true}}, step{kind: stepPage, limit: 250, wakeAt: never},
		},
		"until half a lead of small ones is out": {
			[]candidate{{lane: &laneView{lead: 20_000, runnable: 4, outstanding: 9_500, express: 9_500}, express: true}}, step{wakeAt: never},
		},
		"which the large ones wait for": {
			[]candidate{{lane: &laneView{lead: 20_000, runnable: 4, outstanding: 19_500, express: 19_500}}}, step{wakeAt: never},
		},
		"its own rate": {[]candidate{{lane: free(), slice: 7}}, step{kind: stepPage, limit: 7, wakeAt: never}},
		"cancelled while paused and ahead": {
			[]candidate{{lane: full(), paused: true}, {lane: full(), paused: true, closing: true}}, step{kind: stepClose, index: 1},
		},
		"paused until it expires": {[]candidate{{lane: free(), paused: true, expires: now + 3}}, step{wakeAt: now + 3}},
		"a share of the lead for each": {
			[]candidate{{lane: &laneView{lead: 20_000, runnable: 10}}}, step{kind: stepPage, limit: 2_000, wakeAt: never},
		},
		"no more shares than the partitions have": {
			[]candidate{{lane: &laneView{lead: 20_000, runnable: 100}}}, step{kind: stepPage, limit: 1_250, wakeAt: never},
		},
		"never a page of nothing": {
			[]candidate{{lane: &laneView{lead: 1_000, runnable: 5_000}}}, step{kind: stepPage, limit: 100, wakeAt: never},
		},
		"never more than a transaction holds": {
			[]candidate{{lane: &laneView{lead: 1_000_000, runnable: 1}}}, step{kind: stepPage, limit: 10_000, wakeAt: never},
		},
		"a lead below a page, nothing outstanding": {
			[]candidate{{lane: &laneView{lead: 10, runnable: 1}}}, step{kind: stepPage, limit: 100, wakeAt: never},
		},
		"a lead below a page, something outstanding": {
			[]candidate{{lane: &laneView{lead: 10, runnable: 1, outstanding: 1}}}, step{wakeAt: never},
		},
		"the app that waited longest": {
			[]candidate{{lane: free(), turns: [3]uint64{5, 1, 1}}, {lane: free(), turns: [3]uint64{2, 9, 9}}},
			step{kind: stepPage, index: 1, limit: 5_000, wakeAt: never},
		},
		"then its broadcast, then its cursor": {
			[]candidate{{lane: free(), turns: [3]uint64{5, 4, 1}}, {lane: free(), turns: [3]uint64{5, 3, 9}}, {lane: free(), turns: [3]uint64{5, 3, 8}}},
			step{kind: stepPage, index: 2, limit: 5_000, wakeAt: never},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := nextStep(c.candidates, now, pageLimits{100, 10_000, 16}); got != c.want {
				t.Errorf("want %+v, got %+v", c.want, got)
			}
		})
	}
}

func TestPagesOfLargeAudiencesAreShortWhileSmallOnesCome(t *testing.T) {
	t.Parallel()
	const second = 1_000_000
	const now = 1_000 * second
	for name, c := range map[string]struct {
		limits    pageLimits
		expressUS int64
		want      int
	}{
		"none came ever":       {pageLimits{100, 10_000, 16}, 0, 10_000},
		"one is there":         {pageLimits{100, 10_000, 16}, now, 2_000},
		"one came a while ago": {pageLimits{100, 10_000, 16}, now - 4*second, 2_000},
		"none comes any more":  {pageLimits{100, 10_000, 16}, now - 5*second, 10_000},
		"short pages anyway":   {pageLimits{100, 500, 16}, now, 500},
		"no shorter than set":  {pageLimits{5_000, 10_000, 16}, now, 5_000},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := c.limits.beside(c.expressUS, now); got.most != c.want || got.least != c.limits.least {
				t.Errorf("want at most %d, got %+v", c.want, got)
			}
		})
	}
}

func TestCloseStepEndsOnceAllIsDoneAndForgetsTheStateLast(t *testing.T) {
	t.Parallel()
	id, winner, loser := schemas.NewID(), schemas.NewID(), schemas.NewID()
	const keep, now = 100, 1_000
	content := func(r schemas.ID) schemas.BroadcastKey {
		return schemas.BroadcastKey{Broadcast: id, Kind: schemas.BroadcastContent, Record: r}
	}
	key := func(k schemas.BroadcastKind) schemas.BroadcastKey {
		return schemas.BroadcastKey{Broadcast: id, Kind: k}
	}
	both := []schemas.ID{winner, loser}
	one := both[:1]
	for name, c := range map[string]struct {
		standing standing
		want     closing
	}{
		"live":                          {standing{contents: one, live: true}, closing{}},
		"live, a retry":                 {standing{contents: both, same: both[1:], live: true}, closing{forget: []schemas.BroadcastKey{content(loser)}}},
		"live, another request":         {standing{contents: both, live: true}, closing{}},
		"expanded, not settled":         {standing{contents: one, live: true, expanded: true}, closing{}},
		"settled for now, not expanded": {standing{contents: one, live: true, settled: true}, closing{}},
		"cancelled, cursors still open": {standing{contents: one, live: true, settled: true, cancelled: true}, closing{}},
		"expanded and settled":          {standing{contents: one, live: true, settled: true, expanded: true}, closing{end: true}},
		"ended, kept":                   {standing{contents: one, ended: true, endedAtUS: 950}, closing{dueUS: 1_050}},
		"ended, kept, a retry comes late": {
			standing{contents: both, same: both[1:], ended: true, endedAtUS: 950}, closing{dueUS: 1_050, forget: []schemas.BroadcastKey{content(loser)}},
		},
		"its time is over": {
			standing{contents: both, run: true, rate: true, cancelled: true, ended: true, endedAtUS: 900},
			closing{forget: []schemas.BroadcastKey{
				content(loser), content(winner), key(schemas.BroadcastRun), key(schemas.BroadcastRate), key(schemas.BroadcastCancel),
			}},
		},
		"cursors are left": {standing{ended: true, endedAtUS: 900, leftovers: true}, closing{}},
		"the state is last": {
			standing{ended: true, endedAtUS: 900}, closing{forget: []schemas.BroadcastKey{key(schemas.BroadcastState)}},
		},
		"a control of nothing": {standing{run: true}, closing{forget: []schemas.BroadcastKey{key(schemas.BroadcastRun)}}},
		"only counts are left": {standing{leftovers: true}, closing{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := closeStep(id, c.standing, now, keep)
			if got.end != c.want.end || got.dueUS != c.want.dueUS || len(got.forget) != len(c.want.forget) {
				t.Fatalf("want %+v, got %+v", c.want, got)
			}
			for i := range got.forget {
				if got.forget[i] != c.want.forget[i] {
					t.Errorf("want %v at place %d, got %v", c.want.forget[i], i, got.forget[i])
				}
			}
		})
	}
}
