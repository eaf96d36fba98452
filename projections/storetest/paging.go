package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/campanile-push/campanile/projections"
	"github.com/campanile-push/campanile/schemas"
)

func testBehind(t *testing.T, open Open) {
	t.Helper()
	store, l := opened(t, open), NewLog(layout)
	d := schemas.Device{App: "moodle", Transport: schemas.FCM, Token: "d"}
	p := layout.Of(d)
	l.Say(Register(d, 1, "Android-fcm"))
	l.Say(Subscribe(d, "site"))
	first := l.Batch(p, 0)
	first.Records = first.Records[:1]
	if err := store.Apply(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	elsewhere := make(schemas.Watermark, layout.Partitions)
	elsewhere[(p+1)%layout.Partitions] = 1
	for name, c := range map[string]struct {
		need          schemas.Watermark
		lookup, pages error
	}{
		"asks for nothing":           {nil, nil, nil},
		"asks for zero":              {make(schemas.Watermark, layout.Partitions), nil, nil},
		"is reached":                 {append(make(schemas.Watermark, p), 1), nil, nil},
		"is one ahead":               {append(make(schemas.Watermark, p), 2), schemas.ErrBehind, schemas.ErrBehind},
		"is ahead in another":        {elsewhere, nil, schemas.ErrBehind}, // a lookup asks for its devices' partitions alone
		"is of a partition not here": {append(make(schemas.Watermark, layout.Partitions), 1), nil, schemas.ErrBehind},
	} {
		_, err := store.Lookup(t.Context(), []schemas.Device{d}, c.need)
		if !errors.Is(err, c.lookup) {
			t.Errorf("lookup, the watermark %s: want %v, got %v", name, c.lookup, err)
		}
		q := audience("moodle", schemas.FCM, 5, "site")
		q.Watermark = c.need
		if err := store.Page(t.Context(), q, new(schemas.Page)); !errors.Is(err, c.pages) {
			t.Errorf("page, the watermark %s: want %v, got %v", name, c.pages, err)
		}
	}
	q := audience("moodle", schemas.FCM, 5, "site")
	q.Watermark = l.Ends()
	catchUp(t, store, l)
	if rows := pages(t.Context(), t, store, q); len(rows) != 1 {
		t.Errorf("once applied: want the device, got %v", rows)
	}
	if _, err := store.Lookup(t.Context(), []schemas.Device{d}, l.Ends()); err != nil {
		t.Errorf("lookup once applied: %v", err)
	}
}

// testOneSnapshot asks for the watermark that is applied next, over and over, while somebody applies it: an answer without
// the row of that offset comes from before the offset that was checked.
func testOneSnapshot(t *testing.T, open Open) {
	t.Helper()
	n := int64(1500)
	if testing.Short() {
		n = 150
	}
	store, l := opened(t, open), NewLog(layout)
	d := schemas.Device{App: "moodle", Transport: schemas.FCM, Token: "d"}
	for layout.Of(d) != layout.Partitions-1 { // the last to be checked, which leaves the most time to be wrong
		d.Token += "d"
	}
	p := layout.Of(d)
	for i := range n { // the registration's time says how far the log was
		l.Say(Register(d, i, "Android-fcm"))
		if i == 0 {
			l.Say(Subscribe(d, "site"))
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var group sync.WaitGroup
	defer group.Wait()
	for _, ask := range []func(context.Context, projections.DeviceStore, schemas.Device, schemas.Watermark) (int64, error){byPage, byPage, byLookup, byLookup} {
		group.Go(func() {
			for need := int64(3); need <= n+1 && ctx.Err() == nil; need++ {
				if err := chase(ctx, store, d, need, ask); err != nil {
					t.Error(err)
					cancel()
				}
			}
		})
	}
	for _, r := range l.Batch(p, 0).Records {
		if err := store.Apply(ctx, schemas.Batch{Topic: schemas.Devices, Partition: p, Records: []schemas.Record{r}}); err != nil {
			t.Error(err)
			cancel()
			return
		}
	}
}

// chase asks for the log up to need until it gets an answer. The record before need is a registration at need-2.
func chase(
	ctx context.Context, store projections.DeviceStore, d schemas.Device, need int64,
	ask func(context.Context, projections.DeviceStore, schemas.Device, schemas.Watermark) (int64, error),
) error {
	watermark := make(schemas.Watermark, layout.Partitions)
	watermark[layout.Of(d)] = need
	for {
		switch at, err := ask(ctx, store, d, watermark); {
		case errors.Is(err, schemas.ErrBehind):
		case err != nil:
			return err
		case at < need-2:
			return fmt.Errorf("applied up to %d, the answer is from %d", need, at)
		default:
			return nil
		}
	}
}

// byPage is the registration's time as the channel's audience has it.
func byPage(ctx context.Context, store projections.DeviceStore, d schemas.Device, w schemas.Watermark) (int64, error) {
	q := audience(d.App, d.Transport, 5, "site")
	q.Watermark = w
	var page schemas.Page
	if err := store.Page(ctx, q, &page); err != nil {
		return 0, err
	}
	if len(page.Devices) != 1 {
		return 0, fmt.Errorf("the audience is %+v", page.Devices)
	}
	return page.Devices[0].RegisteredAtUS, nil
}

// byLookup is the registration's time as the device's row has it.
func byLookup(ctx context.Context, store projections.DeviceStore, d schemas.Device, w schemas.Watermark) (int64, error) {
	states, err := store.Lookup(ctx, []schemas.Device{d}, w)
	if err != nil {
		return 0, err
	}
	return states[0].RegisteredAtUS, nil
}

// testChannelsOneSnapshot moves a device from channel to channel, in one batch each: whoever reads both channels sees it once.
func testChannelsOneSnapshot(t *testing.T, open Open) {
	t.Helper()
	store, l := opened(t, open), NewLog(layout)
	d := schemas.Device{App: "moodle", Transport: schemas.APNS, Token: "d"}
	p := layout.Of(d)
	l.Say(Register(d, 1, "iOS"))
	l.Say(Subscribe(d, "a"))
	catchUp(t, store, l)
	here, there := "a", "b"
	moves := make([]schemas.Batch, 100)
	for i := range moves {
		from := l.Ends()[p]
		l.Say(Unsubscribe(d, here))
		l.Say(Subscribe(d, there))
		here, there = there, here
		moves[i] = l.Batch(p, from)
	}
	done := make(chan struct{})
	var group sync.WaitGroup
	defer group.Wait()
	group.Go(func() {
		defer close(done)
		for _, in := range moves {
			if err := store.Apply(t.Context(), in); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for {
		if rows := pages(t.Context(), t, store, audience("moodle", schemas.APNS, 5, "a", "b")); len(rows) != 1 {
			t.Errorf("want the device once, got %v", rows)
		}
		select {
		case <-done:
			return
		default:
		}
	}
}

// resumeStore has a channel of devices that are hard to sort, on both environments of APNs.
func resumeStore(t *testing.T, open Open) (projections.DeviceStore, []Row) {
	t.Helper()
	store, l, r := opened(t, open), NewLog(layout), random(t)
	for i, d := range RandomDevices(r, 300) {
		d.App, d.Transport = "moodle", schemas.APNS
		if i%2 == 0 {
			d.Environment = schemas.Sandbox
		}
		l.Say(Register(d, int64(i), "iOS"))
		l.Say(Subscribe(d, "site"))
		l.Say(Subscribe(d, "site2")) // a neighbour in the order of keys
	}
	catchUp(t, store, l)
	return store, ModelOf(t, l).Audience("moodle", schemas.APNS, "site")
}

func testResume(t *testing.T, open Open) {
	t.Helper()
	store, want := resumeStore(t, open)
	for _, limit := range []int{1, 2, 7, len(want)} {
		if got := pages(t.Context(), t, store, audience("moodle", schemas.APNS, limit, "site")); !slices.Equal(want, got) {
			t.Errorf("in pages of %d: want %v, got %v", limit, want, got)
		}
	}
	var page schemas.Page
	ask := func(q schemas.PageQuery, want []Row) {
		t.Helper()
		got := pages(t.Context(), t, store, q)
		if !slices.Equal(want, got) {
			t.Errorf("shards %d to %d after %+v: want %v, got %v", q.ShardFrom, q.ShardTo, q.After, want, got)
		}
	}
	for i := 0; i < len(want); i += 11 {
		q := audience("moodle", schemas.APNS, 50, "site")
		q.After = schemas.Cursor{Shard: want[i].Shard, Token: want[i].Token, Environment: want[i].Environment, Set: true}
		ask(q, want[i+1:])
		// A cursor whose device is gone, and one before the range.
		q.After.Token += "\x7f"
		ask(q, want[slices.IndexFunc(append(slices.Clone(want), Row{Shard: schemas.Shards}), func(r Row) bool {
			return compareRows(r, Row{Shard: q.After.Shard, Token: q.After.Token, Environment: q.After.Environment}) > 0
		}):])
		q.ShardFrom = min(want[i].Shard+1, schemas.Shards)
		ask(q, slices.DeleteFunc(slices.Clone(want), func(r Row) bool { return r.Shard < q.ShardFrom }))
		q.ShardTo = q.ShardFrom // nothing lies between
		ask(q, nil)
	}
	var union []Row
	for rng := range uint32(16) {
		q := audience("moodle", schemas.APNS, 9, "site")
		q.ShardFrom, q.ShardTo = schemas.ShardRange(rng, 16)
		union = append(union, pages(t.Context(), t, store, q)...)
	}
	if !slices.Equal(want, union) {
		t.Errorf("ranges side by side: want %v, got %v", want, union)
	}
	q := audience("moodle", schemas.APNS, 9, "site")
	q.After = schemas.Cursor{Shard: schemas.Shards, Token: "z", Set: true}
	if err := store.Page(t.Context(), q, &page); err != nil || !page.Done || len(page.Devices) > 0 {
		t.Errorf("after the last shard: got %d devices, done=%v, %v", len(page.Devices), page.Done, err)
	}
}

func testDone(t *testing.T, open Open) {
	t.Helper()
	store, all := resumeStore(t, open)
	for _, channels := range [][]string{{"site"}, {"site", "site2"}} {
		var page schemas.Page
		for _, c := range []struct {
			limit int
			done  bool
		}{{len(all) - 1, false}, {len(all), true}, {len(all) + 1, true}, {1, false}} {
			if err := store.Page(t.Context(), audience("moodle", schemas.APNS, c.limit, channels...), &page); err != nil {
				t.Fatal(err)
			}
			if page.Done != c.done || len(page.Devices) != min(c.limit, len(all)) {
				t.Errorf("%d of %d devices of %q: want done=%v, got %d devices, done=%v", c.limit, len(all), channels, c.done, len(page.Devices), page.Done)
			}
		}
	}
}

func testMerge(t *testing.T, open Open) {
	t.Helper()
	store, l, r := opened(t, open), NewLog(layout), random(t)
	channels := []string{"a", "b", "c", "d"}
	for i, d := range RandomDevices(r, 200) {
		d.App = "moodle"
		l.Say(Register(d, int64(i), historyPlatforms[i%3]))
		for _, c := range channels[:3] {
			if r.IntN(2) == 0 {
				l.Say(Subscribe(d, c))
			}
		}
	}
	catchUp(t, store, l)
	m := ModelOf(t, l)
	for _, some := range [][]string{{"a", "b"}, {"c", "a", "b"}, {"d", "c"}, {"d"}, channels} {
		for _, transport := range schemas.Transports {
			for _, limit := range []int{1, 13, 1000} {
				want := m.Audience("moodle", transport, some...)
				if got := pages(t.Context(), t, store, audience("moodle", transport, limit, some...)); !slices.Equal(want, got) {
					t.Errorf("%q on %s in pages of %d: want %v, got %v", some, transport, limit, want, got)
				}
			}
		}
	}
}

func testBadQueries(t *testing.T, open Open) {
	t.Helper()
	store := opened(t, open)
	good := audience("moodle", schemas.FCM, 1, "site")
	for name, spoil := range map[string]func(q *schemas.PageQuery){
		"no devices":           func(q *schemas.PageQuery) { q.Limit = 0 },
		"no channel":           func(q *schemas.PageQuery) { q.Channels = nil },
		"a channel with NUL":   func(q *schemas.PageQuery) { q.Channels = []string{"site\x00\x02"} },
		"no app":               func(q *schemas.PageQuery) { q.App = "" },
		"no transport":         func(q *schemas.PageQuery) { q.Transport = 0 },
		"shards from behind":   func(q *schemas.PageQuery) { q.ShardFrom, q.ShardTo = 2, 1 },
		"more shards than are": func(q *schemas.PageQuery) { q.ShardTo = schemas.Shards + 1 },
	} {
		q := good
		spoil(&q)
		if err := store.Page(t.Context(), q, new(schemas.Page)); !errors.Is(err, projections.ErrQuery) {
			t.Errorf("%s: want %v, got %v", name, projections.ErrQuery, err)
		}
	}
	if _, err := store.Estimate(t.Context(), "moodle", []string{"a\x00"}); !errors.Is(err, projections.ErrQuery) {
		t.Errorf("estimate: want %v, got %v", projections.ErrQuery, err)
	}
}

// testScanUnderWrites pages while every second device comes and goes.
func testScanUnderWrites(t *testing.T, open Open) {
	t.Helper()
	store, l := opened(t, open), NewLog(layout)
	var stay []Row
	var come []schemas.Device
	for i := range 400 {
		d := schemas.Device{App: "moodle", Transport: schemas.FCM, Token: fmt.Sprintf("token-%d", i)}
		if i%2 == 0 {
			l.Say(Register(d, int64(i), "Android-fcm"))
			l.Say(Subscribe(d, "site"))
			stay = append(stay, Row{schemas.ShardString(d.Token), d.Token, d.Environment, int64(i), "android-fcm"})
			continue
		}
		come = append(come, d)
	}
	slices.SortFunc(stay, compareRows)
	catchUp(t, store, l)
	var stop atomic.Bool
	var group sync.WaitGroup
	defer group.Wait()
	defer stop.Store(true)
	group.Go(func() {
		for round := 0; !stop.Load(); round++ {
			for _, d := range come {
				if round%2 == 0 {
					l.Say(Register(d, 1, "Android-fcm"))
					l.Say(Subscribe(d, "site"))
				} else {
					l.Say(Unregister(d))
				}
			}
			for p, from := range applied(t, store) {
				if err := store.Apply(t.Context(), l.Batch(int32(p), from)); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	for range 10 {
		rows := pages(t.Context(), t, store, audience("moodle", schemas.FCM, 23, "site"))
		if !slices.IsSortedFunc(rows, compareRows) || len(slices.CompactFunc(slices.Clone(rows), func(a, b Row) bool { return compareRows(a, b) == 0 })) != len(rows) {
			t.Fatal("rows out of order, or twice")
		}
		there := slices.DeleteFunc(rows, func(r Row) bool {
			_, found := slices.BinarySearchFunc(stay, r, compareRows)
			return !found
		})
		if !slices.Equal(stay, there) {
			t.Fatalf("want the %d devices that stay, got %d", len(stay), len(there))
		}
	}
}

func testLargeChannel(t *testing.T, open Open) {
	t.Helper()
	n := 100_000
	if testing.Short() {
		n = 20_000
	}
	store, l := opened(t, open), NewLog(layout)
	for i := range n {
		d := schemas.Device{App: "moodle", Transport: schemas.FCM, Token: fmt.Sprintf("fcm-token-of-some-length-%08d", i*7919)}
		l.Say(func(out *schemas.Out) { Register(d, int64(i), "Android-fcm")(out); Subscribe(d, "site")(out) })
		if i == 500 {
			small := NewLog(layout)
			small.partitions, small.next = l.partitions, l.next
			catchUp(t, store, small)
			if got, err := store.Estimate(t.Context(), "moodle", []string{"site", "site2"}); err != nil || got != 501 {
				t.Errorf("estimate of a small channel: want 501, got %d, %v", got, err)
			}
		}
	}
	catchUp(t, store, l)
	want := ModelOf(t, l)
	if w, got := want.Checksum(), checksum(t, store); w != got {
		t.Errorf("checksum: want %x, got %x", w, got)
	}
	var rows []Row
	for rng := range uint32(16) {
		q := audience("moodle", schemas.FCM, 3000, "site")
		q.ShardFrom, q.ShardTo = schemas.ShardRange(rng, 16)
		q.Watermark = l.Ends()
		rows = append(rows, pages(t.Context(), t, store, q)...)
	}
	if !slices.Equal(want.Audience("moodle", schemas.FCM, "site"), rows) {
		t.Errorf("ranges side by side: want %d rows in order, got %d", n, len(rows))
	}
	got, err := store.Estimate(t.Context(), "moodle", []string{"site"})
	if err != nil || got < int64(n)*8/10 || got > int64(n)*12/10 {
		t.Errorf("estimate of %d devices: got %d, %v", n, got, err)
	}
}

func testFindToken(t *testing.T, open Open) {
	t.Helper()
	store, l := opened(t, open), NewLog(layout)
	everywhere := projections.Candidates("moodle", "same")
	for _, d := range everywhere {
		l.Say(Register(d, 1, "x"))
	}
	l.Say(Invalidate(everywhere[0], 5)) // dead is still known
	elsewhere := schemas.Device{App: "moodle-2", Transport: schemas.FCM, Token: "same"}
	l.Say(Register(elsewhere, 1, "x"))
	gone := schemas.Device{App: "moodle", Transport: schemas.FCM, Token: "gone"}
	l.Say(Register(gone, 1, "x"))
	l.Say(Unregister(gone))
	l.Say(Subscribe(gone, "site"))
	if _, err := store.FindToken(t.Context(), "moodle", "same", l.Ends()); !errors.Is(err, schemas.ErrBehind) {
		t.Errorf("before anything is applied: want %v, got %v", schemas.ErrBehind, err)
	}
	catchUp(t, store, l)
	for _, c := range []struct {
		app, token string
		want       []schemas.Device
	}{{"moodle", "same", everywhere}, {"moodle-2", "same", []schemas.Device{elsewhere}}, {"moodle", "gone", nil}, {"moodle", "sam", nil}} {
		got, err := store.FindToken(t.Context(), c.app, c.token, l.Ends())
		if err != nil || !slices.Equal(c.want, got) {
			t.Errorf("%s %s: want %v, got %v, %v", c.app, c.token, c.want, got, err)
		}
	}
}
