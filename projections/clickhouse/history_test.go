package clickhouse_test

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/campanile-push/campanile/projections/chdbtest"
	"github.com/campanile-push/campanile/projections/clickhouse"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
	"github.com/campanile-push/campanile/vault"
)

// eachEngine runs a test on the embedded engine, and on the server of CLICKHOUSE_URL where one is given, in a database of its
// own.
func eachEngine(t *testing.T, test func(t *testing.T, url string)) {
	t.Helper()
	t.Run("chdb", func(t *testing.T) {
		t.Parallel()
		test(t, chdbtest.Start(t, t.TempDir()).URL)
	})
	server := os.Getenv("CLICKHOUSE_URL")
	if server == "" {
		return
	}
	t.Run("server", func(t *testing.T) {
		t.Parallel()
		at, err := url.Parse(server)
		if err != nil {
			t.Fatal(err)
		}
		at.Path = "/test_" + strings.ReplaceAll(schemas.NewID().String(), "-", "")
		test(t, at.String())
	})
}

func hasher(tb testing.TB) vault.Hasher {
	tb.Helper()
	h, err := vault.ParseHasher("AAECAwQFBgcICQoLDA0ODw==")
	if err != nil {
		tb.Fatal(err)
	}
	return h
}

func open(tb testing.TB, url string) *clickhouse.Analytics {
	tb.Helper()
	a, err := clickhouse.Open(tb.Context(), clickhouse.Options{URL: url, Hasher: hasher(tb), Linger: -1})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := a.Close(); err != nil {
			tb.Error(err)
		}
	})
	return a
}

const partitions = 3

// history is a random run of deliveries, by partition, and what must be counted of it.
type history struct {
	records [partitions][]schemas.Record
	totals  map[clickhouse.Total]int64 // by a Total without N
}

// newHistory makes n records: sends that finish, attempts, and owners that change and come late. Their times spread over days,
// so that a batch touches several partitions of the tables.
func newHistory(seed uint64, n int) *history {
	rng := rand.New(rand.NewPCG(seed, 1))
	h := &history{totals: map[clickhouse.Total]int64{}}
	var generations [partitions]int64
	start := time.Now().Add(-72 * time.Hour)
	outcomes := []schemas.Outcome{
		pushv1.Outcome_OUTCOME_ACCEPTED, pushv1.Outcome_OUTCOME_ACCEPTED, pushv1.Outcome_OUTCOME_TOKEN_INVALID,
		pushv1.Outcome_OUTCOME_REJECTED, pushv1.Outcome_OUTCOME_EXPIRED, pushv1.Outcome_OUTCOME_CANCELLED,
	}
	broadcasts := []schemas.ID{schemas.NewID(), schemas.NewID()}
	for i := range n {
		part := int32(rng.IntN(partitions))
		at := start.Add(time.Duration(rng.IntN(60*3600)) * time.Second).UnixMicro()
		app := fmt.Sprintf("app%d", rng.IntN(3))
		broadcast := broadcasts[rng.IntN(2)]
		send := schemas.NewID()
		out := schemas.NewOut(schemas.Layout{Partitions: partitions})
		switch k := rng.IntN(20); {
		case k == 0:
			generations[part]++
			out.OwnerChanged(&pushv1.OwnerChanged{Transport: schemas.FCM, Lane: schemas.Bulk, Partition: part, Generation: generations[part], ChangedAtUs: at})
		case k < 4:
			out.DeliveryAttempted(part, rng.Uint64(), &pushv1.DeliveryAttempted{
				SendId: send[:], BroadcastId: broadcast[:], App: app, Transport: schemas.FCM, Outcome: pushv1.Outcome_OUTCOME_THROTTLED,
				Reason: "QUOTA_EXCEEDED", Attempt: 1, AttemptedAtUs: at, LatencyUs: 1000, Source: &pushv1.Source{Lane: schemas.Bulk, Offset: int64(i)},
				Generation: generations[part],
			})
		default:
			generation := generations[part] - int64(rng.IntN(2)) // half come from the owner before
			o := outcomes[rng.IntN(len(outcomes))]
			out.DeliveryFinished(part, rng.Uint64(), &pushv1.DeliveryFinished{
				SendId: send[:], BroadcastId: broadcast[:], App: app, Transport: schemas.FCM, Outcome: o, Reason: "R" + o.Word(), Attempt: 1,
				RequestedAtUs: at - 2_000_000, FinishedAtUs: at, LatencyUs: int64(rng.IntN(100_000)),
				Source: &pushv1.Source{Lane: schemas.Bulk, Offset: int64(i)}, Generation: generation, First: true,
			})
			h.totals[clickhouse.Total{
				App: app, Transport: "fcm", Outcome: o.Word(), Reason: "R" + o.Word(), Repeat: generation < generations[part],
			}]++
		}
		h.add(out)
	}
	return h
}

// add puts what out holds at the ends of the partitions.
func (h *history) add(out *schemas.Out) {
	out.Each(func(topic schemas.Topic, part int32, key, value []byte) {
		h.records[part] = append(h.records[part], schemas.Record{
			Topic: topic, Partition: part, Offset: int64(len(h.records[part])),
			Key: append([]byte(nil), key...), Value: append([]byte(nil), value...),
		})
	})
}

// batch is a cut of a partition.
func (h *history) batch(part int32, from, to int) schemas.Batch {
	return schemas.Batch{Topic: schemas.Deliveries, Partition: part, Records: h.records[part][from:min(to, len(h.records[part]))]}
}

// check compares totals, rows and rollups with what the history says.
func (h *history) check(t *testing.T, a *clickhouse.Analytics) {
	t.Helper()
	for _, f := range []clickhouse.Filter{{}, {From: time.Unix(1, 0)}} { // from the rollups, and from the rows
		totals, err := a.Totals(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		got := map[clickhouse.Total]int64{}
		for _, total := range totals {
			n := total.N
			total.N = 0
			got[total] += n
		}
		for total, want := range h.totals {
			if got[total] != want {
				t.Errorf("%+v: want %d, got %d", total, want, got[total])
			}
			delete(got, total)
		}
		if len(got) > 0 {
			t.Errorf("counted what never was: %v", got)
		}
	}
	audit, err := a.Audit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	rows := int64(0)
	for _, records := range h.records {
		for _, r := range records {
			if r.Type() != pushv1.EventType_EVENT_TYPE_OWNER_CHANGED {
				rows++
			}
		}
	}
	if !audit.Exact() || audit.Rows != rows {
		t.Errorf("want %d rows, each once, and rollups that agree: %+v", rows, audit)
	}
}
