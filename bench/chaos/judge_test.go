package chaos

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/campanile-push/campanile/bench"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// scene is a whole run in a few records: a notification and a broadcast to two phones, and what everybody says of them.
type scene struct {
	h       *history
	pushes  []taken
	counted map[count]int64
	asked   asked
	steps   []performed
}

var (
	sceneRequest, sceneBroadcast = schemas.ID{1}, schemas.ID{2}
	sceneDirect                  = schemas.DirectSendID(sceneRequest)
)

func sceneBulk(n int) schemas.ID {
	return schemas.BulkSendID(sceneBroadcast, schemas.Device{App: app, Transport: schemas.FCM, Environment: schemas.Production, Token: bench.MakePhone(app, n).Token})
}

// newScene is a run in which all went well. The first two phones are Android phones.
func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{h: newHistory()}
	s.record(t, func(out *schemas.Out) {
		out.NotificationRequested(&pushv1.NotificationRequested{RequestId: sceneRequest[:]})
		out.BroadcastRequested(&pushv1.BroadcastRequested{BroadcastId: sceneBroadcast[:], RecordId: sceneBroadcast[:], App: app})
		out.CursorMoved(&pushv1.CursorMoved{BroadcastId: sceneBroadcast[:], Transport: schemas.FCM, Emitted: 2})
		out.DeliveryFinished(0, 1, sceneEnd(sceneDirect, schemas.Direct, 1))
		for i := range 2 {
			out.DeliveryFinished(0, 1, sceneEnd(sceneBulk(i), schemas.Bulk, 1))
		}
		out.BroadcastEnded(&pushv1.BroadcastEnded{BroadcastId: sceneBroadcast[:], Counts: []*pushv1.TransportCounts{{Transport: schemas.FCM, Emitted: 2, Accepted: 2}}})
	})
	for i, id := range []schemas.ID{sceneDirect, sceneBulk(0), sceneBulk(1)} {
		s.pushes = append(s.pushes, taken{id: id, transport: schemas.FCM, timeUS: int64(100 + i)})
	}
	s.counted = map[count]int64{{"fcm", "accepted", false}: 3}
	s.asked = asked{
		phones: []bench.Phone{bench.MakePhone(app, 0), bench.MakePhone(app, 1)}, notifications: []string{sceneRequest.String()},
		broadcasts: []sentBroadcast{{sceneBroadcast.String(), 2}},
	}
	s.steps = []performed{
		{step: step{kind: kill, roles: []string{"fcm-1", "router-1"}}, fromUS: 200, bound: 1},
		{step: step{kind: stop, roles: []string{"fcm-1"}}, fromUS: 300, bound: 1},
		{step: step{kind: broker, broker: 1}, fromUS: 400, bound: 1},
		{step: step{kind: scale, roles: []string{"apns"}}, fromUS: 500},
	}
	return s
}

func sceneEnd(id schemas.ID, lane schemas.Lane, generation int64) *pushv1.DeliveryFinished {
	return &pushv1.DeliveryFinished{
		SendId: id[:], Transport: schemas.FCM, Source: &pushv1.Source{Lane: lane}, Generation: generation, Outcome: pushv1.Outcome_OUTCOME_ACCEPTED,
	}
}

func (s *scene) record(t *testing.T, say func(out *schemas.Out)) {
	t.Helper()
	out := schemas.NewOut(schemas.Layout{Partitions: 2})
	say(out)
	out.Each(func(topic schemas.Topic, partition int32, key, value []byte) {
		if err := s.h.Apply(schemas.Record{Topic: topic, Partition: partition, Key: key, Value: value}); err != nil {
			t.Fatal(err)
		}
	})
}

func (s *scene) again(id schemas.ID, at int64) {
	s.pushes = append(s.pushes, taken{id: id, transport: schemas.FCM, timeUS: at})
}

func TestWhatARunShows(t *testing.T) {
	t.Parallel()
	good := Result{Kills: 2, Stops: 1, Outages: 1, Accepted: 3, Bound: 1, StopBound: 1, OutageBound: 1, Notifications: 1, Broadcasts: 1, LedgerAccepted: 3, LedgerUnique: 3}
	with := func(change func(r *Result)) Result {
		r := good
		change(&r)
		return r
	}
	for name, c := range map[string]struct {
		disturb func(t *testing.T, s *scene)
		want    Result
		fails   bool
		says    string
	}{
		"all is well": {func(*testing.T, *scene) {}, good, false, ""},
		"a repeat for a kill, within its bound": {
			func(_ *testing.T, s *scene) { s.again(sceneDirect, 250) },
			with(func(r *Result) { r.Repeats, r.LedgerAccepted = 1, 4 }), false, "",
		},
		"one more than a kill allows": {
			func(_ *testing.T, s *scene) { s.again(sceneDirect, 250); s.again(sceneBulk(0), 251) },
			with(func(r *Result) { r.Repeats, r.LedgerAccepted = 2, 5 }), true, "step 1 (kill fcm-1+router-1): 2 repeats, the bound is 1",
		},
		"a repeat before anything was done": {
			func(_ *testing.T, s *scene) { s.again(sceneDirect, 150); s.again(sceneDirect, 250) },
			with(func(r *Result) { r.Repeats, r.LedgerAccepted = 2, 5 }), true, "",
		},
		"a repeat for a stop and one for an outage": {
			func(_ *testing.T, s *scene) { s.again(sceneDirect, 301); s.again(sceneDirect, 400) },
			with(func(r *Result) { r.StopRepeats, r.OutageRepeats, r.LedgerAccepted = 1, 1, 5 }), false, "",
		},
		"a repeat for a graceful end": {
			func(_ *testing.T, s *scene) { s.again(sceneDirect, 501) },
			with(func(r *Result) { r.Repeats, r.LedgerAccepted = 1, 4 }), true, "step 4 (scale apns): 1 repeats, the bound is 0",
		},
		"a push that nobody asked for": {
			func(_ *testing.T, s *scene) { s.again(schemas.ID{9}, 250) },
			with(func(r *Result) { r.Strays, r.LedgerAccepted, r.LedgerUnique = 1, 4, 4 }), true, "of which the log knows no end",
		},
		"delivered by the log, and not by the provider": {
			func(_ *testing.T, s *scene) { s.pushes = s.pushes[1:] },
			with(func(r *Result) { r.Lost, r.LedgerAccepted, r.LedgerUnique = 1, 2, 2 }), true, "the ledger does not have it",
		},
		"an answered notification that is not in the log": {
			func(_ *testing.T, s *scene) {
				s.asked.notifications = append(s.asked.notifications, schemas.ID{8}.String())
			},
			with(func(r *Result) { r.Lost, r.Notifications = 1, 2 }), true, "was answered and is not in the log",
		},
		"an answered broadcast that is not in the log": {func(_ *testing.T, s *scene) {
			s.asked.broadcasts = append(s.asked.broadcasts, sentBroadcast{id: schemas.ID{8}.String()})
		}, with(func(r *Result) { r.Lost, r.Broadcasts = 1, 2 }), true, "broadcast " + schemas.ID{8}.String() + " was answered"},
		"a phone that was registered before and is not reached": {func(_ *testing.T, s *scene) {
			s.asked.phones = append(s.asked.phones, bench.MakePhone(app, 3))
			s.asked.broadcasts[0].reach = 3
		}, with(func(r *Result) { r.Lost = 1 }), true, "did not reach phone 2"},
		"a phone that came later need not be": {func(_ *testing.T, s *scene) { s.asked.phones = append(s.asked.phones, bench.MakePhone(app, 3)) }, good, false, ""},
		"a notification without an end": {func(t *testing.T, s *scene) {
			s.record(t, func(out *schemas.Out) {
				out.NotificationRequested(&pushv1.NotificationRequested{RequestId: make([]byte, 16)})
			})
		}, with(func(r *Result) { r.Lost, r.Accepted = 1, 4 }), true, "1 accepted pushes have no end"},
		"ClickHouse counts one too many": {
			func(_ *testing.T, s *scene) { s.counted[count{"fcm", "accepted", false}]++ },
			with(func(r *Result) { r.AnalyticsDiff = 1 }), true, "ClickHouse has 4, the log 3",
		},
		"ClickHouse takes a repeat for a delivery": {func(t *testing.T, s *scene) {
			s.record(t, func(out *schemas.Out) {
				out.OwnerChanged(&pushv1.OwnerChanged{Transport: schemas.FCM, Lane: schemas.Direct, Generation: 2})
				out.DeliveryFinished(0, 1, sceneEnd(sceneDirect, schemas.Direct, 1))
			})
			s.counted[count{"fcm", "accepted", false}]++
		}, with(func(r *Result) { r.AnalyticsDiff = 2 }), true, "(repeat: true): ClickHouse has 0, the log 1"},
		"a broadcast ended with other counts": {
			func(t *testing.T, s *scene) { s.h.ends[sceneBroadcast].Counts[0].Accepted = 1 },
			with(func(r *Result) { r.TallyDiff = 1 }), true, "ended with 2 sends to fcm and 1 finished; the log has 2",
		},
		"a broadcast that did not end": {
			func(_ *testing.T, s *scene) { delete(s.h.ends, sceneBroadcast) },
			with(func(r *Result) { r.TallyDiff = 1 }), true, "has not ended",
		},
		"an answer that must not be": {func(_ *testing.T, s *scene) { s.asked.unexpected = []string{"notify: Unregistered token"} }, good, true, "Unregistered token"},
		"a dead letter":              {func(_ *testing.T, s *scene) { s.h.letters = 1 }, good, true, "1 dead letters"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			c.disturb(t, s)
			got := compare(s.h, s.pushes, s.counted, s.asked, s.steps)
			if diff := cmp.Diff(c.want, got, cmpopts.IgnoreFields(Result{}, "Problems")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if got.Failed() != c.fails {
				t.Errorf("failed: want %v, got %v of %+v", c.fails, got.Failed(), got)
			}
			if !strings.Contains(strings.Join(got.Problems, "\n"), c.says) || (c.says != "") != (len(got.Problems) > 0) {
				t.Errorf("want it to say %q, got %q", c.says, got.Problems)
			}
		})
	}
}

func TestTheLastLine(t *testing.T) {
	t.Parallel()
	r := Result{Kills: 1, Stops: 2, Outages: 3, Accepted: 4, Lost: 5, Repeats: 6, Bound: 7, AnalyticsDiff: 8}
	if want := "chaos: kills=1 stops=2 outages=3 accepted=4 lost=5 repeats=6 bound=7 analytics_diff=8"; r.String() != want {
		t.Errorf("want %q, got %q", want, r)
	}
}

func TestReadLedger(t *testing.T) {
	t.Parallel()
	const header = "time_us,provider,environment,app,token_hash,notification_id,body_hash,unanswered\n"
	got, err := readLedger(strings.NewReader(header + "17,fcm,,p,00000000000000ff,01000000-0000-0000-0000-000000000000,00,false\n"))
	if want := []taken{{schemas.ID{1}, 255, schemas.FCM, 17}}; err != nil || !cmp.Equal(want, got, cmp.AllowUnexported(taken{})) {
		t.Errorf("want %v, got %v, %v", want, got, err)
	}
	for _, bad := range []string{
		"", header + "x,fcm,,p,ff,01000000-0000-0000-0000-000000000000,00,false\n", header + "17,wns,,p,ff,01000000-0000-0000-0000-000000000000,00,false\n",
		header + "17,fcm,,p,no,01000000-0000-0000-0000-000000000000,00,false\n", header + "17,fcm,,p,ff,01,00,false\n", header + "17,fcm\n",
	} {
		if _, err := readLedger(strings.NewReader(bad)); err == nil {
			t.Errorf("%q: want an error", bad)
		}
	}
}
