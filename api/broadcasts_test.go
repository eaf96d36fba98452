package api_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/campanile-push/campanile/api"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

var (
	layout = schemas.Layout{Partitions: 4}
	start  = time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)
)

// view is a Broadcasts with a clock of its own, fed with what an Out says.
type view struct {
	*api.Broadcasts
	t   *testing.T
	now time.Time
}

func newView(t *testing.T) *view {
	t.Helper()
	v := &view{t: t, now: start}
	v.Broadcasts = api.NewBroadcasts(func() time.Time { return v.now })
	return v
}

func (v *view) say(say func(out *schemas.Out)) {
	v.t.Helper()
	out := schemas.NewOut(layout)
	say(out)
	out.Each(func(topic schemas.Topic, p int32, key, value []byte) {
		if err := v.Apply(schemas.Record{Topic: topic, Partition: p, Key: key, Value: value}); err != nil {
			v.t.Fatal(err)
		}
	})
}

func (v *view) get(id schemas.ID) api.Broadcast {
	v.t.Helper()
	b, ok := v.Get(id)
	if !ok {
		v.t.Fatalf("%s is not there", id)
	}
	return b
}

func named(n byte) schemas.ID { return schemas.ID{0: n, 6: 0x70, 8: 0x80} }

func (v *view) request(id schemas.ID, change func(e *pushv1.BroadcastRequested)) schemas.ID {
	v.t.Helper()
	record := schemas.NewID()
	e := &pushv1.BroadcastRequested{
		BroadcastId: id[:], RecordId: record[:], App: "moodle", KeyId: "k1", Channels: []string{"staff"},
		Content: &pushv1.Content{Text: "secret"}, RequestedAtUs: v.now.UnixMicro(), Ranges: 1, AudienceEstimate: 100,
	}
	if change != nil {
		change(e)
	}
	v.say(func(out *schemas.Out) { out.BroadcastRequested(e) })
	return record
}

func (v *view) move(id schemas.ID, t schemas.Transport, emitted int64, done bool) {
	v.t.Helper()
	v.say(func(out *schemas.Out) {
		out.CursorMoved(&pushv1.CursorMoved{BroadcastId: id[:], App: "moodle", Transport: t, Ranges: 1, Emitted: emitted, Done: done})
	})
}

func (v *view) count(id schemas.ID, partition int32, counts ...*pushv1.TransportCounts) {
	v.t.Helper()
	v.say(func(out *schemas.Out) {
		out.ProgressCounted(&pushv1.ProgressCounted{BroadcastId: id[:], App: "moodle", Partition: partition, Counts: counts})
	})
}

func TestProgressSumsPartitionsAndTransports(t *testing.T) {
	t.Parallel()
	v, id := newView(t), named(1)
	v.request(id, nil)
	v.move(id, schemas.APNS, 10, true)
	v.move(id, schemas.FCM, 20, false)
	v.count(id, 0, &pushv1.TransportCounts{Transport: schemas.APNS, FirstOutcomes: 4, Accepted: 3, TokenInvalid: 1})
	v.count(id, 0, &pushv1.TransportCounts{Transport: schemas.APNS, FirstOutcomes: 6, Accepted: 4, TokenInvalid: 1}) // cumulative
	v.count(id, 1, &pushv1.TransportCounts{Transport: schemas.FCM, FirstOutcomes: 8, Accepted: 5, Rejected: 1, Repeats: 2})
	b := v.get(id)
	want := api.Progress{
		Audience: 100, Expanded: 30, Attempted: 14, Delivered: 9, Failed: 2, Invalid: 1, Rejected: 1, Finished: 11, Waiting: 3,
		Remaining: 89, Repeats: 2, LimitedBy: api.LimitProviders,
	}
	if diff := cmp.Diff(want, b.Progress, cmpopts.IgnoreFields(api.Progress{}, "Transports")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if b.State != api.StateRunning || b.Progress.Transports[1].Expanded != 20 {
		t.Errorf("got %+v", b)
	}
}

func TestWhatSendersSayIsWhatLimits(t *testing.T) {
	t.Parallel()
	v, id := newView(t), named(1)
	v.request(id, nil)
	v.move(id, schemas.APNS, 10, true)
	v.move(id, schemas.FCM, 20, true)
	v.count(id, 0, &pushv1.TransportCounts{Transport: schemas.APNS, FirstOutcomes: 10, Accepted: 10, LimitedBy: pushv1.Limit_LIMIT_PARKED})
	v.count(id, 1, &pushv1.TransportCounts{Transport: schemas.FCM, FirstOutcomes: 4, Accepted: 4, LimitedBy: pushv1.Limit_LIMIT_LATENCY})
	v.count(id, 2, &pushv1.TransportCounts{Transport: schemas.FCM, FirstOutcomes: 4, Accepted: 4, LimitedBy: pushv1.Limit_LIMIT_QUOTA})
	p := v.get(id).Progress
	if p.LimitedBy != "quota" || p.Transports[0].LimitedBy != "" || p.Transports[1].LimitedBy != "quota" {
		t.Errorf("want the quota of the transport that is not done, got %q in %+v", p.LimitedBy, p.Transports)
	}
	v.count(id, 1, &pushv1.TransportCounts{Transport: schemas.FCM, FirstOutcomes: 16, Accepted: 4, LimitedBy: pushv1.Limit_LIMIT_THROTTLED})
	if p = v.get(id).Progress; p.LimitedBy != "throttled" {
		t.Errorf("want to know why all that is left waits for another attempt, got %q", p.LimitedBy)
	}
}

func TestStateFollowsTheLog(t *testing.T) {
	t.Parallel()
	id := named(1)
	us := func(d time.Duration) int64 { return start.Add(d).UnixMicro() }
	pause := func(v *view) {
		v.say(func(out *schemas.Out) {
			out.BroadcastPaused(&pushv1.BroadcastPaused{BroadcastId: id[:], PausedAtUs: us(0), PausedBy: "anne", Reason: "typo"})
		})
	}
	resume := func(v *view) {
		v.say(func(out *schemas.Out) {
			out.BroadcastResumed(&pushv1.BroadcastResumed{BroadcastId: id[:], ResumedAtUs: us(0)})
		})
	}
	rate := func(v *view) {
		v.say(func(out *schemas.Out) {
			out.BroadcastRateChanged(&pushv1.BroadcastRateChanged{BroadcastId: id[:], Rate: 50})
		})
	}
	cancel := func(v *view) {
		v.say(func(out *schemas.Out) {
			out.BroadcastCancelled(&pushv1.BroadcastCancelled{BroadcastId: id[:], CancelledAtUs: us(0), CancelledBy: "anne"})
		})
	}
	expand := func(v *view) { v.move(id, schemas.APNS, 1, true); v.move(id, schemas.FCM, 1, true) }
	giveWay := func(v *view) {
		v.say(func(out *schemas.Out) {
			out.CursorMoved(&pushv1.CursorMoved{
				BroadcastId: id[:], App: "moodle", Transport: schemas.APNS, Ranges: 1, Emitted: 1, GaveWay: true, MovedAtUs: us(time.Second),
			})
		})
	}
	expandOn := func(v *view) {
		v.say(func(out *schemas.Out) {
			out.CursorMoved(&pushv1.CursorMoved{BroadcastId: id[:], App: "moodle", Transport: schemas.FCM, Ranges: 1, Emitted: 1, MovedAtUs: us(2 * time.Second)})
		})
	}
	quota := func(v *view) {
		v.count(id, 0, &pushv1.TransportCounts{Transport: schemas.APNS, LimitedBy: pushv1.Limit_LIMIT_QUOTA})
	}
	attempt := func(v *view) { v.count(id, 0, &pushv1.TransportCounts{Transport: schemas.APNS, FirstOutcomes: 2}) }
	end := func(v *view) {
		v.say(func(out *schemas.Out) {
			out.BroadcastEnded(&pushv1.BroadcastEnded{BroadcastId: id[:], App: "moodle", EndedAtUs: us(time.Minute), RequestedAtUs: us(0)})
		})
	}
	for name, c := range map[string]struct {
		request      func(*pushv1.BroadcastRequested)
		then         []func(*view)
		state, limit string
	}{
		"at once":                          {nil, nil, api.StateRunning, api.LimitExpansion},
		"later":                            {func(e *pushv1.BroadcastRequested) { e.SendAtUs = us(time.Hour) }, nil, api.StateScheduled, api.LimitSendAt},
		"its time has come":                {func(e *pushv1.BroadcastRequested) { e.SendAtUs = us(-time.Hour) }, nil, api.StateRunning, api.LimitExpansion},
		"paused":                           {nil, []func(*view){pause}, api.StatePaused, api.LimitPause},
		"resumed":                          {nil, []func(*view){pause, resume}, api.StateRunning, api.LimitExpansion},
		"with a rate":                      {func(e *pushv1.BroadcastRequested) { e.Rate = 5 }, nil, api.StateRunning, api.LimitRate},
		"rate changed":                     {nil, []func(*view){rate}, api.StateRunning, api.LimitRate},
		"spread":                           {func(e *pushv1.BroadcastRequested) { e.SpreadSeconds = 60 }, nil, api.StateRunning, api.LimitSpread},
		"gives way":                        {nil, []func(*view){giveWay}, api.StateRunning, api.LimitOthers},
		"gives way, with a rate":           {func(e *pushv1.BroadcastRequested) { e.Rate = 5 }, []func(*view){giveWay}, api.StateRunning, api.LimitRate},
		"gives way, and waits for a quota": {nil, []func(*view){giveWay, quota}, api.StateRunning, pushv1.Limit_LIMIT_QUOTA.Word()},
		"gave way before":                  {nil, []func(*view){giveWay, expandOn}, api.StateRunning, api.LimitProviders},
		"all expanded":                     {nil, []func(*view){expand}, api.StateDraining, api.LimitProviders},
		"all tried":                        {nil, []func(*view){expand, attempt}, api.StateDraining, api.LimitRetries},
		"paused too late":                  {nil, []func(*view){pause, expand}, api.StateDraining, api.LimitProviders},
		"cancelled":                        {nil, []func(*view){cancel}, api.StateCancelling, ""},
		"cancelled and paused":             {nil, []func(*view){pause, cancel}, api.StateCancelling, ""},
		"ended":                            {nil, []func(*view){expand, end}, api.StateEnded, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := newView(t)
			v.request(id, c.request)
			for _, step := range c.then {
				step(v)
			}
			if b := v.get(id); b.State != c.state || b.Progress.LimitedBy != c.limit {
				t.Errorf("want %s limited by %q, got %s limited by %q", c.state, c.limit, b.State, b.Progress.LimitedBy)
			}
		})
	}
}

func TestTheFirstRequestCounts(t *testing.T) {
	t.Parallel()
	v, id := newView(t), named(1)
	v.request(id, func(e *pushv1.BroadcastRequested) { e.BodyHash = []byte("this") })
	v.request(id, func(e *pushv1.BroadcastRequested) { e.BodyHash = []byte("this") }) // a retry at another ingest
	lost := v.request(id, func(e *pushv1.BroadcastRequested) { e.Channels, e.BodyHash = []string{"others"}, []byte("that") })
	if b := v.get(id); b.OtherRequests != 1 || b.Channels[0] != "staff" {
		t.Errorf("got %+v", b)
	}
	v.say(func(out *schemas.Out) {
		out.ForgetBroadcastRecord(schemas.BroadcastKey{Broadcast: id, Kind: schemas.BroadcastContent, Record: lost})
	})
	if b := v.get(id); b.OtherRequests != 0 {
		t.Errorf("the loser is gone from the log, and still counted: %+v", b)
	}
}

func TestWhatIsForgottenIsGone(t *testing.T) {
	t.Parallel()
	v, id := newView(t), named(1)
	record := v.request(id, nil)
	v.move(id, schemas.APNS, 1, true)
	v.count(id, 2, &pushv1.TransportCounts{Transport: schemas.APNS, FirstOutcomes: 1, Accepted: 1})
	v.say(func(out *schemas.Out) {
		out.BroadcastEnded(&pushv1.BroadcastEnded{
			BroadcastId: id[:], App: "moodle", Counts: []*pushv1.TransportCounts{{Transport: schemas.APNS, Emitted: 1, FirstOutcomes: 1, Accepted: 1}},
		})
		out.ForgetBroadcastRecord(schemas.BroadcastKey{Broadcast: id, Kind: schemas.BroadcastContent, Record: record})
	})
	if b := v.get(id); b.State != api.StateEnded || b.Progress.Delivered != 1 || b.App != "moodle" {
		t.Errorf("ended, its content forgotten: %+v", b)
	}
	v.say(func(out *schemas.Out) {
		out.ForgetBroadcastRecord(schemas.BroadcastKey{Broadcast: id, Kind: schemas.BroadcastState})
		out.ForgetCursor(schemas.CursorKey{Broadcast: id, Transport: schemas.APNS})
		out.ForgetProgress(schemas.ProgressKey{Broadcast: id, Partition: 2})
	})
	if _, ok := v.Get(id); ok {
		t.Error("the log says nothing of it any more, and it is still there")
	}
}

func TestListPagesFromTheNewest(t *testing.T) {
	t.Parallel()
	v := newView(t)
	for n := range byte(7) {
		v.now = start.Add(time.Duration(n/2) * time.Second) // two at a time ask in the same microsecond
		v.request(named(n+1), func(e *pushv1.BroadcastRequested) {
			if n == 3 {
				e.App = "other"
			}
			if n == 4 {
				e.KeyId = "k2"
			}
		})
	}
	mine := func(id string) bool { return id == "k1" }
	var got []string
	q := api.Query{App: "moodle", Mine: mine, Limit: 2}
	for {
		page, more := v.List(q)
		for _, b := range page {
			got = append(got, b.ID)
			q.Before, _ = schemas.ParseID(b.ID)
		}
		if !more {
			break
		}
	}
	want := []string{named(7).String(), named(6).String(), named(3).String(), named(2).String(), named(1).String()}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if page, _ := v.List(api.Query{State: "live", Limit: 100}); len(page) != 7 {
		t.Errorf("%d live", len(page))
	}
	if page, _ := v.List(api.Query{State: api.StateEnded, Limit: 100}); len(page) != 0 {
		t.Errorf("%d ended", len(page))
	}
}

func TestSpeedIsMeasuredOnceTheLogIsRead(t *testing.T) {
	t.Parallel()
	v, id := newView(t), named(1)
	v.request(id, func(e *pushv1.BroadcastRequested) { e.AudienceEstimate = 10_000 })
	v.move(id, schemas.APNS, 10_000, false)
	accepted := func(n int64) {
		v.count(id, 0, &pushv1.TransportCounts{Transport: schemas.APNS, FirstOutcomes: n, Accepted: n})
	}
	accepted(1000)
	if r := v.get(id).Progress.Rate; r != 0 {
		t.Errorf("before the log is read: %v a second", r)
	}
	v.Measure()
	for n := int64(1); n <= 4; n++ {
		accepted(1000 + n*500)
		v.now = v.now.Add(time.Second)
	}
	accepted(3500)
	p := v.get(id).Progress
	if p.Rate != 500 || p.SecondsLeft != 13 {
		t.Errorf("want 500 a second and 13 s left, got %v and %v", p.Rate, p.SecondsLeft)
	}
	v.now = v.now.Add(time.Minute)
	if r := v.get(id).Progress.Rate; r != 0 {
		t.Errorf("after a minute without news: %v a second", r)
	}
}

func TestWhatNoVersionWroteIsMalformed(t *testing.T) {
	t.Parallel()
	v, id := newView(t), named(1)
	value := schemas.AppendEvent(nil, &pushv1.BroadcastPaused{BroadcastId: id[:]})
	for topic, key := range map[schemas.Topic]string{
		schemas.Broadcasts: id.String() + "/cancel", schemas.Expansions: id.String() + "/apns/0", schemas.Progress: id.String() + "/1",
		schemas.Devices: "x",
	} {
		if err := v.Apply(schemas.Record{Topic: topic, Key: []byte(key), Value: value}); !errors.Is(err, schemas.ErrMalformed) {
			t.Errorf("%s: %v", topic, err)
		}
	}
	if err := v.Apply(schemas.Record{Topic: schemas.Broadcasts, Key: []byte("x"), Value: []byte{250}}); !errors.Is(err, schemas.ErrUnknownType) {
		t.Errorf("an event of a newer version: %v", err)
	}
	if _, ok := v.Get(id); ok {
		t.Error("something came of it")
	}
}
