package router_test

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/campanile-push/campanile/router"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// generated is an audience of n devices of one transport that exist only while they are read.
type generated struct {
	n         int
	transport schemas.Transport
	token     []byte // the constant part
}

func newGenerated(n int) *generated {
	// As long as an FCM token (facts: about 160 bytes).
	return &generated{n: n, transport: schemas.FCM, token: []byte(fmt.Sprintf("%0150d", 7))}
}

// Page implements router.Audience.
func (g *generated) Page(_ context.Context, q schemas.PageQuery, page *schemas.Page) error {
	page.Next, page.Done = q.After, true
	if q.Transport != g.transport {
		return nil
	}
	from := 0
	if q.After.Set {
		n, err := strconv.Atoi(q.After.Token)
		if err != nil {
			return err
		}
		from = n
	}
	to := min(from+q.Limit, g.n)
	var buf [200]byte
	for i := from; i < to; i++ {
		page.Add(strconv.AppendInt(append(buf[:0], g.token...), int64(i), 10), schemas.Production, 1_700_000_000_000_000, "android-fcm")
	}
	page.Next, page.Done = schemas.Cursor{Token: strconv.Itoa(to), Set: true}, to == g.n
	return nil
}

// expandGenerated runs one broadcast over a generated audience, into a log that keeps nothing, and calls each with every
// commit's Out.
func expandGenerated(tb testing.TB, n int, o router.BroadcastsOptions, each func(out *schemas.Out)) {
	tb.Helper()
	layout := schemas.Layout{Partitions: 1}
	state := router.NewState(router.StateOptions{MinLead: 1 << 50}, layout)
	id, record := schemas.NewID(), schemas.NewID()
	seed := schemas.NewOut(layout)
	seed.BroadcastRequested(&pushv1.BroadcastRequested{BroadcastId: id[:], RecordId: record[:], App: "moodle", Channels: []string{"news"}})
	apply := func(topic schemas.Topic, p int32, key, value []byte) {
		if topic != schemas.Broadcasts && topic != schemas.Expansions {
			return
		}
		if err := state.Apply(schemas.Record{Topic: topic, Partition: p, Key: key, Value: value}); err != nil {
			tb.Fatal(err)
		}
	}
	seed.Each(apply)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	out, done := schemas.NewOut(layout), 0
	commit := func(_ context.Context, say func(out *schemas.Out)) error {
		out.Reset()
		say(out)
		each(out)
		out.Each(func(topic schemas.Topic, p int32, key, value []byte) {
			if topic != schemas.Expansions {
				return
			}
			apply(topic, p, key, value)
			if status, _ := state.Broadcast(id); status.CursorsDone > done {
				if done = status.CursorsDone; done == len(schemas.Transports) {
					cancel()
				}
			}
		})
		return nil
	}
	if err := router.NewBroadcasts(o, state, newGenerated(n), quiet()).Drive(ctx, 0, commit); ctx.Err() == nil {
		tb.Fatal(err)
	}
}

// TestMemoryIsTheSameForAMillionDevices compares the heap in use with every page.
func TestMemoryIsTheSameForAMillionDevices(t *testing.T) {
	peak := func(n int) uint64 {
		var most atomic.Uint64
		pages := 0
		expandGenerated(t, n, router.BroadcastsOptions{MaxPage: 2000}, func(*schemas.Out) {
			if pages++; pages%50 != 3 { // a collection costs more than a page
				return
			}
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			most.Store(max(most.Load(), m.HeapAlloc))
		})
		return most.Load()
	}
	peak(10_000) // what a first run allocates once
	small, large := peak(10_000), peak(1_000_000)
	t.Logf("heap: %d KiB for 10,000 devices, %d KiB for 1,000,000", small>>10, large>>10)
	if large > small+2<<20 {
		t.Errorf("want the same memory, got %d KiB more", (large-small)>>10)
	}
}

// BenchmarkExpand measures from a page in memory to encoded sends, for each device.
func BenchmarkExpand(b *testing.B) {
	b.ReportAllocs()
	sent := 0
	expandGenerated(b, b.N, router.BroadcastsOptions{}, func(out *schemas.Out) { sent += out.Len() })
	if sent < b.N {
		b.Fatalf("want %d sends, got %d records", b.N, sent)
	}
}

// BenchmarkTally measures counting one finished delivery, in batches of 1,000.
func BenchmarkTally(b *testing.B) {
	b.ReportAllocs()
	id := schemas.NewID()
	value := schemas.AppendEvent(nil, finished(id, accepted, true, 0, 1))
	in := schemas.Batch{Topic: schemas.Deliveries, Records: make([]schemas.Record, 1000)}
	tally, out := router.NewTally(router.TallyOptions{}, quiet()), schemas.NewOut(schemas.Layout{Partitions: 1})
	offset := int64(0)
	for n := 0; n < b.N; n += len(in.Records) {
		for i := range in.Records {
			in.Records[i] = schemas.Record{Topic: schemas.Deliveries, Offset: offset, Value: value}
			offset++
		}
		out.Reset()
		if err := tally.Handle(b.Context(), in, out); err != nil {
			b.Fatal(err)
		}
	}
}
