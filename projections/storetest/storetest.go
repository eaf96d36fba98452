package storetest

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/campanile-push/campanile/projections"
	"github.com/campanile-push/campanile/schemas"
)

// Open opens the store of one place: the first time an empty one, after Close what was there.
type Open func(layout schemas.Layout) (projections.DeviceStore, error)

// layout of the suite's logs: few partitions, and more than one.
//
//nolint:gochecknoglobals // never changes
var layout = schemas.Layout{Partitions: 3}

// Run runs the suite. place makes a new empty place, which is gone when t ends.
func Run(t *testing.T, place func(t *testing.T) Open) {
	t.Helper()
	t.Run("FoldsAsTheRuleSays", func(t *testing.T) { t.Parallel(); testFoldCases(t, place) })
	t.Run("BadRecordsChangeNothing", func(t *testing.T) { t.Parallel(); testBadRecords(t, place) })
	for _, c := range []struct {
		name string
		test func(t *testing.T, open Open)
	}{
		{"EmptyStoreAnswers", testEmpty},
		{"RandomHistoriesCutAnywhere", testRandomHistories},
		{"CompactedLogGivesTheSameRows", testCompacted},
		{"ReplayChangesNothing", testReplay},
		{"TombstonesOnlyMoveTheOffset", testTombstones},
		{"TwoAppliersDoNotInterleave", testTwoAppliers},
		{"CancelledCallsDoNothing", testCancelled},
		{"ReopenedStoreIsTheSame", testReopen},
		{"AnotherLayoutIsRefused", testLayout},
		{"BehindUntilTheWatermark", testBehind},
		{"WatermarkAndRowsAreOneSnapshot", testOneSnapshot},
		{"ChannelsAreReadFromOneSnapshot", testChannelsOneSnapshot},
		{"PagesResumeAnywhere", testResume},
		{"DoneIsExact", testDone},
		{"ChannelsMergeADeviceOnce", testMerge},
		{"BadQueriesAreRefused", testBadQueries},
		{"ScanUnderWritesSeesWhatStays", testScanUnderWrites},
		{"LargeChannelInRanges", testLargeChannel},
		{"FindTokenOnEveryTransport", testFindToken},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.test(t, place(t))
		})
	}
}

// opened is a store that is closed when t ends.
func opened(t *testing.T, open Open) projections.DeviceStore {
	t.Helper()
	store, err := open(layout)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return store
}

// catchUp applies what the store lacks of a log, each partition in one batch.
func catchUp(t *testing.T, store projections.DeviceStore, l *Log) {
	t.Helper()
	for p, from := range applied(t, store) {
		if in := l.Batch(int32(p), from); len(in.Records) > 0 {
			if err := store.Apply(t.Context(), in); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func applied(t *testing.T, store projections.DeviceStore) []int64 {
	t.Helper()
	offsets, err := store.Applied(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return offsets
}

func checksum(t *testing.T, store projections.DeviceStore) uint64 {
	t.Helper()
	sum, err := store.Checksum(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// pages reads an audience in pages of limit and checks each against the query.
func pages(ctx context.Context, t *testing.T, store projections.DeviceStore, q schemas.PageQuery) []Row {
	t.Helper()
	var rows []Row
	var page schemas.Page
	for {
		if err := store.Page(ctx, q, &page); err != nil {
			t.Fatal(err)
		}
		for i := range page.Devices {
			d := &page.Devices[i]
			rows = append(rows, Row{schemas.Shard(d.Token), string(d.Token), d.Environment, d.RegisteredAtUS, d.Platform})
		}
		switch n := len(page.Devices); {
		case n > q.Limit:
			t.Fatalf("a page of %d devices where %d were asked for", n, q.Limit)
		case n < q.Limit && !page.Done:
			t.Fatalf("a page of %d of %d devices that is not the last", n, q.Limit)
		case n == 0 && page.Next != q.After:
			t.Fatalf("an empty page moves the cursor from %+v to %+v", q.After, page.Next)
		case n > 0:
			last := rows[len(rows)-1]
			if want := (schemas.Cursor{Shard: last.Shard, Token: last.Token, Environment: last.Environment, Set: true}); page.Next != want {
				t.Fatalf("cursor after the page: want %+v, got %+v", want, page.Next)
			}
		}
		if page.Done {
			return rows
		}
		q.After = page.Next
	}
}

// audience is the query for all of some channels.
func audience(app string, t schemas.Transport, limit int, channels ...string) schemas.PageQuery {
	return schemas.PageQuery{App: app, Channels: channels, Transport: t, ShardTo: schemas.Shards, Limit: limit}
}

// same compares a store with a log's model, in every question that can be asked.
func same(t *testing.T, store projections.DeviceStore, l *Log) {
	t.Helper()
	m := ModelOf(t, l)
	if want, got := m.Checksum(), checksum(t, store); want != got {
		t.Errorf("checksum: want %x, got %x", want, got)
	}
	devices := make([]schemas.Device, 0, len(m))
	for d := range m {
		devices = append(devices, d)
	}
	states, err := store.Lookup(t.Context(), devices, l.Ends())
	if err != nil {
		t.Fatal(err)
	}
	for i, d := range devices {
		if want := m.DeviceState(d); !equalStates(want, states[i]) {
			t.Errorf("state of %v: want %+v, got %+v", d, want, states[i])
		}
	}
	for _, app := range historyApps {
		for _, transport := range schemas.Transports {
			for _, channels := range [][]string{historyChannels[:1], historyChannels[2:3], historyChannels[1:], historyChannels} {
				q := audience(app, transport, 1+len(m)/3, channels...)
				q.Watermark = l.Ends()
				want, got := m.Audience(app, transport, channels...), pages(t.Context(), t, store, q)
				if !slices.Equal(want, got) {
					t.Errorf("audience of %s %s %q: want %v, got %v", app, transport, channels, want, got)
				}
			}
		}
	}
}

func equalStates(a, b schemas.DeviceState) bool {
	return a.Known == b.Known && a.Alive == b.Alive && a.RegisteredAtUS == b.RegisteredAtUS && a.Platform == b.Platform && slices.Equal(a.Channels, b.Channels)
}

// random is a source whose seed is named where a test fails.
func random(t *testing.T) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	})
	return rand.New(rand.NewPCG(seed, 0))
}
