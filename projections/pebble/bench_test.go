package pebble_test

import (
	"fmt"
	"testing"

	"github.com/campanile-push/campanile/projections/pebble"
	"github.com/campanile-push/campanile/projections/storetest"
	"github.com/campanile-push/campanile/schemas"
)

const (
	benchDevices = 200_000
	benchBatch   = 10_000
)

var one = schemas.Layout{Partitions: 1}

func benchDevice(i int) schemas.Device {
	return schemas.Device{App: "moodle", Transport: schemas.FCM, Token: fmt.Sprintf("%064x", uint64(i)*0x9e3779b97f4a7c15)}
}

// benchLog registers and subscribes each device.
func benchLog() *storetest.Log {
	log := storetest.NewLog(one)
	for i := range benchDevices {
		d := benchDevice(i)
		log.Say(func(out *schemas.Out) {
			storetest.Register(d, int64(i), "Android-fcm")(out)
			storetest.Subscribe(d, "site")(out)
		})
	}
	return log
}

func benchStore(b *testing.B) *pebble.Store {
	b.Helper()
	store, err := pebble.Open(b.TempDir(), pebble.Options{Layout: one})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := store.Close(); err != nil {
			b.Error(err)
		}
	})
	return store
}

func benchApply(b *testing.B, store *pebble.Store, log *storetest.Log, from int64) (records int) {
	b.Helper()
	in := log.Batch(0, from)
	for at := 0; at < len(in.Records); at += benchBatch {
		part := in
		part.Records = in.Records[at:min(at+benchBatch, len(in.Records))]
		if err := store.Apply(b.Context(), part); err != nil {
			b.Fatal(err)
		}
	}
	return len(in.Records)
}

// BenchmarkApplyNew folds registrations and subscriptions of new devices: two records and two rows each.
func BenchmarkApplyNew(b *testing.B) {
	log := benchLog()
	records := 0
	for b.Loop() {
		b.StopTimer()
		store := benchStore(b)
		b.StartTimer()
		records += benchApply(b, store, log, 0)
	}
	b.ReportMetric(float64(records)/b.Elapsed().Seconds(), "records/s")
}

// BenchmarkApplyExisting registers known devices again, in random order: read, compare, write both rows.
func BenchmarkApplyExisting(b *testing.B) {
	log, store := benchLog(), benchStore(b)
	benchApply(b, store, log, 0)
	from, records, round := log.Ends()[0], 0, 0
	for b.Loop() {
		b.StopTimer()
		round++
		for i := range benchDevices {
			log.Say(storetest.Register(benchDevice(i), int64(benchDevices*round+i), "Android-fcm"))
		}
		b.StartTimer()
		records += benchApply(b, store, log, from)
		from = log.Ends()[0]
	}
	b.ReportMetric(float64(records)/b.Elapsed().Seconds(), "records/s")
}

// BenchmarkPage walks a channel in pages of ten thousand.
func BenchmarkPage(b *testing.B) {
	store := benchStore(b)
	benchApply(b, store, benchLog(), 0)
	for _, channels := range [][]string{{"site"}, {"site", "none"}} {
		b.Run(fmt.Sprint(len(channels)), func(b *testing.B) {
			var page schemas.Page
			rows := 0
			b.ReportAllocs()
			for b.Loop() {
				q := schemas.PageQuery{
					App: "moodle", Channels: channels, Transport: schemas.FCM, ShardTo: schemas.Shards, Limit: 10_000, Watermark: schemas.Watermark{1},
				}
				for {
					if err := store.Page(b.Context(), q, &page); err != nil {
						b.Fatal(err)
					}
					rows += len(page.Devices)
					if page.Done {
						break
					}
					q.After = page.Next
				}
			}
			b.ReportMetric(float64(rows)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

// BenchmarkLookup asks for a thousand devices at once, as ingest and the router do.
func BenchmarkLookup(b *testing.B) {
	store := benchStore(b)
	benchApply(b, store, benchLog(), 0)
	devices := make([]schemas.Device, 1000)
	for i := range devices {
		devices[i] = benchDevice(i * 113 % benchDevices)
	}
	n := 0
	for b.Loop() {
		if _, err := store.Lookup(b.Context(), devices, schemas.Watermark{1}); err != nil {
			b.Fatal(err)
		}
		n += len(devices)
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "devices/s")
}
