package clickhouse_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/campanile-push/campanile/projections/clickhouse"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

func nowUS() int64 { return time.Now().UnixMicro() }

func TestQueriesSayWhatWasPushed(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(t *testing.T, url string) {
		t.Helper()
		a := open(t, url)
		h := &history{totals: map[clickhouse.Total]int64{}}
		broadcast := schemas.NewID()
		noon := time.Now().Add(-48 * time.Hour).Truncate(time.Hour)
		out := schemas.NewOut(schemas.Layout{Partitions: partitions})
		for i := range int64(100) {
			send := schemas.NewID()
			e := &pushv1.DeliveryFinished{
				SendId: send[:], App: "app", Transport: schemas.APNS, Outcome: pushv1.Outcome_OUTCOME_ACCEPTED, Attempt: 1,
				RequestedAtUs: noon.UnixMicro(), FinishedAtUs: noon.UnixMicro() + (i+1)*20_000, LatencyUs: (i + 1) * 1000,
				Source: &pushv1.Source{Lane: schemas.Bulk, Offset: i}, First: true, BroadcastId: broadcast[:],
			}
			if i >= 90 {
				e.Outcome, e.Reason, e.Transport = pushv1.Outcome_OUTCOME_TOKEN_INVALID, "UNREGISTERED", schemas.FCM
			}
			out.DeliveryFinished(0, 1, e)
		}
		h.add(out)
		if err := a.Handle(t.Context(), h.batch(0, 0, 100), nil); err != nil {
			t.Fatal(err)
		}

		all := []clickhouse.Total{
			{App: "app", Transport: "apns", Outcome: "accepted", N: 90},
			{App: "app", Transport: "fcm", Outcome: "token_invalid", Reason: "UNREGISTERED", N: 10},
		}
		for _, c := range []struct {
			name   string
			filter clickhouse.Filter
			want   []clickhouse.Total
		}{
			{"all", clickhouse.Filter{}, all},
			{"the hour", clickhouse.Filter{From: noon, To: noon.Add(time.Hour)}, all},
			{"the hour after", clickhouse.Filter{From: noon.Add(time.Hour)}, nil},
			{"the hour before", clickhouse.Filter{To: noon}, nil},
			{"one transport", clickhouse.Filter{Transport: schemas.FCM}, all[1:]},
			{"another app", clickhouse.Filter{App: "x"}, nil},
			{"another lane", clickhouse.Filter{Lane: schemas.Direct}, nil},
			{"a part of the hour", clickhouse.Filter{From: noon, To: noon.Add(201 * time.Millisecond)}, []clickhouse.Total{{App: "app", Transport: "apns", Outcome: "accepted", N: 10}}},
		} {
			got, err := a.Totals(t.Context(), c.filter)
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != len(c.want) {
				t.Errorf("%s: want %+v, got %+v", c.name, c.want, got)
				continue
			}
			for i := range got {
				if got[i] != c.want[i] {
					t.Errorf("%s: want %+v, got %+v", c.name, c.want[i], got[i])
				}
			}
		}

		latencies, err := a.Latencies(t.Context(), clickhouse.Filter{App: "app"})
		if err != nil || len(latencies) != 1 {
			t.Fatalf("%+v %v", latencies, err)
		}
		l := latencies[0]
		near := func(name string, got, want time.Duration) {
			if got < want-want/20 || got > want+want/20 {
				t.Errorf("%s: want about %v, got %v", name, want, got)
			}
		}
		near("median answer", l.Answer.P50, 45*time.Millisecond)
		near("p99 answer", l.Answer.P99, 89*time.Millisecond)
		near("median total", l.Total.P50, 900*time.Millisecond)

		got, err := a.Broadcast(t.Context(), broadcast)
		if err != nil || len(got) != 2 || got[0].N != 90 || got[1].N != 10 || got[1].Outcome != "token_invalid" || got[0].First.UnixMicro() != noon.UnixMicro()+20_000 {
			t.Errorf("%+v %v", got, err)
		}
	})
}

func TestTwoProcessesOpenAtOnce(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(t *testing.T, url string) {
		t.Helper()
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				a, err := clickhouse.Open(t.Context(), clickhouse.Options{URL: url})
				if err != nil {
					t.Error(err)
					return
				}
				_ = a.Close()
			})
		}
		wg.Wait()
	})
}

func TestPoisonIsNamedAndNothingOfItsBatchCounts(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(t *testing.T, url string) {
		t.Helper()
		a := open(t, url)
		h := newHistory(9, 100)
		in := h.batch(0, 0, 10)
		good := in.Records[5].Value
		in.Records[5].Value = []byte{byte(pushv1.EventType_EVENT_TYPE_DELIVERY_FINISHED), 0xff}
		if err := a.Handle(t.Context(), in, nil); !errors.Is(err, schemas.ErrMalformed) {
			t.Errorf("want ErrMalformed, got %v", err)
		}
		next, err := a.Positions(t.Context(), schemas.Deliveries, []int32{0, 1, 2})
		if err != nil || next[0] != 0 {
			t.Errorf("position %v, %v", next, err)
		}
		in.Records[5].Value = good
		for part := range int32(partitions) {
			if err := a.Handle(t.Context(), h.batch(part, 0, len(h.records[part])), nil); err != nil {
				t.Fatal(err)
			}
		}
		h.check(t, a)
	})
}

func TestWrongURLIsSaidWithoutItsPassword(t *testing.T) {
	t.Parallel()
	_, err := clickhouse.Open(t.Context(), clickhouse.Options{URL: "http://u:secret@%zz"})
	if err == nil || errors.As(err, new(*clickhouse.Error)) {
		t.Errorf("want an error that is not temporary, got %v", err)
	}
}
