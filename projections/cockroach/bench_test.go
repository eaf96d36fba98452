package cockroach_test

import (
	"fmt"
	"testing"

	"github.com/campanile-push/campanile/projections/storetest"
	"github.com/campanile-push/campanile/schemas"
)

const benchDevices = 20_000

func benchDevice(i int) schemas.Device {
	return schemas.Device{App: "moodle", Transport: schemas.FCM, Token: fmt.Sprintf("%064x", uint64(i)*0x9e3779b97f4a7c15)}
}

// BenchmarkStore measures the store on the tests' database: PostgreSQL without fsync, unless the environment names another.
// New folds two records a device (one row in each table), existing registers known devices again, page walks the channel.
func BenchmarkStore(b *testing.B) {
	for _, kind := range []string{"new", "existing", "page"} {
		b.Run(kind, func(b *testing.B) {
			store, log := openAt(b, newDatabase(b)), storetest.NewLog(layout)
			rows := 0
			apply := func(from schemas.Watermark) {
				for p := range layout.Partitions {
					in := log.Batch(p, from[p])
					if err := store.Apply(b.Context(), in); err != nil {
						b.Fatal(err)
					}
					rows += len(in.Records)
				}
			}
			register := func(round int, subscribe bool) schemas.Watermark {
				from := log.Ends()
				for i := range benchDevices {
					n := i
					if kind == "new" {
						n += round * benchDevices
					}
					log.Say(storetest.Register(benchDevice(n), int64(round), "Android-fcm"))
					if subscribe {
						log.Say(storetest.Subscribe(benchDevice(n), "site"))
					}
				}
				return from
			}
			if kind != "new" {
				apply(register(0, true))
				rows = 0
			}
			round := 0
			var page schemas.Page
			for b.Loop() {
				round++
				if kind != "page" {
					b.StopTimer()
					from := register(round, kind == "new")
					b.StartTimer()
					apply(from)
					continue
				}
				q := schemas.PageQuery{App: "moodle", Channels: []string{"site"}, Transport: schemas.FCM, ShardTo: schemas.Shards, Limit: 5000}
				for done := false; !done; done, q.After = page.Done, page.Next {
					if err := store.Page(b.Context(), q, &page); err != nil {
						b.Fatal(err)
					}
					rows += len(page.Devices)
				}
			}
			b.ReportMetric(float64(rows)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
