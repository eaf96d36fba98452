package audit_test

import (
	"encoding/binary"
	"runtime"
	"testing"

	"github.com/campanile-push/campanile/audit"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// BenchmarkReconcileMemory prints what a proof of so many sends of a broadcast holds: go test ./audit -run - -bench ReconcileMemory -benchtime 1x.
func BenchmarkReconcileMemory(b *testing.B) {
	for name, n := range map[string]int{"1M": 1_000_000, "5M": 5_000_000} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				var before, after runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&before)
				r := audit.NewReconciler()
				out := schemas.NewOut(schemas.Layout{Partitions: 1})
				var seed schemas.ID
				for i := range n {
					binary.BigEndian.PutUint64(seed[:], uint64(i))
					id := schemas.DirectSendID(seed)
					out.Reset()
					out.DeliveryFinished(0, 1, &pushv1.DeliveryFinished{
						SendId: id[:], BroadcastId: broadcast[:], App: "moodle", Transport: schemas.FCM, Outcome: accepted, Source: &pushv1.Source{Lane: schemas.Bulk}, Generation: 1,
					})
					out.Each(func(topic schemas.Topic, p int32, key, value []byte) {
						if err := r.Apply(schemas.Record{Topic: topic, Partition: p, Offset: int64(i), Key: key, Value: value}); err != nil {
							b.Fatal(err)
						}
					})
				}
				runtime.GC()
				runtime.ReadMemStats(&after)
				b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1e6, "MB")
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/send")
				if t := r.Totals(); t.Delivered != int64(n) {
					b.Fatalf("%+v", t)
				}
			}
		})
	}
}
