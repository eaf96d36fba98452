package main

import (
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/campanile-push/campanile/bench"
	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/eventlog/broker"
	"github.com/campanile-push/campanile/eventlog/broker/brokertest"
	"github.com/campanile-push/campanile/schemas"
)

// keyed are the records of the compacted topics of broadcasts that a key still has, by topic, tombstones left out.
type keyed map[schemas.Topic]map[string]schemas.Record

// broadcastRecords reads what the log holds of broadcasts: the last record of each key.
func broadcastRecords(t *testing.T, log *eventlog.Log) keyed {
	t.Helper()
	all := keyed{schemas.Broadcasts: {}, schemas.Expansions: {}, schemas.Progress: {}}
	err := replay(t.Context(), log, "records", func(r schemas.Record) error {
		if k, ok := schemas.ParseProgressKey(r.Key); r.Topic == schemas.Progress && ok && k.Broadcast.IsZero() {
			return nil // what tally itself remembers
		}
		delete(all[r.Topic], string(r.Key))
		if !r.Tombstone() {
			all[r.Topic][string(r.Key)] = schemas.Record{Topic: r.Topic, Partition: r.Partition, Key: slices.Clone(r.Key)}
		}
		return nil
	}, schemas.Broadcasts, schemas.Expansions, schemas.Progress)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestEndedBroadcastIsNeverSentAgain takes a broadcast that has ended through its forgetting: at each step the log is as it may be when
// the process stops there, everything is compacted, and campanile starts again. Nothing may be sent again.
func TestEndedBroadcastIsNeverSentAgain(t *testing.T) {
	t.Parallel()
	const n = 300
	w := newWorld(t)
	u := w.up(t, withoutAnalytics)
	w.app(t, app)
	key := w.key(t, app, "all")
	all := phones("ended", n)
	w.load(t, app, "room", all)
	if _, err := u.moodle(app, key).Broadcast(t.Context(), "room", "once"); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "the broadcast has ended", func() bool {
		for k := range broadcastRecords(t, w.open(t))[schemas.Broadcasts] {
			if parsed, ok := schemas.ParseBroadcastKey([]byte(k)); ok && parsed.Kind == schemas.BroadcastState {
				return true
			}
		}
		return false
	})
	w.settled(t, time.Minute)
	records := broadcastRecords(t, w.open(t))
	u.stop(t)
	if len(records[schemas.Broadcasts]) != 2 || len(records[schemas.Expansions]) < 2 || len(records[schemas.Progress]) != embeddedPartitions {
		t.Fatalf("of an ended broadcast the log holds %v", records)
	}

	var content, state []schemas.Record
	for k, r := range records[schemas.Broadcasts] {
		if parsed, _ := schemas.ParseBroadcastKey([]byte(k)); parsed.Kind == schemas.BroadcastState {
			state = append(state, r)
		} else {
			content = append(content, r)
		}
	}
	cursors, counts := slices.Collect(maps.Values(records[schemas.Expansions])), slices.Collect(maps.Values(records[schemas.Progress]))
	// The closer forgets the content first and the state last; between them the owners of cursors and counts forget theirs, each alone.
	steps := []struct {
		name, keep string
		gone       []schemas.Record
	}{
		{"ended", "168h", nil},
		{"no content", "168h", content},
		{"a cursor less", "168h", slices.Concat(content, cursors[:1])},
		{"some counts less", "1ms", slices.Concat(content, counts[:2])},
		{"no cursors and no counts", "1ms", slices.Concat(content, cursors, counts)},
		{"nothing left", "1ms", slices.Concat(content, cursors, counts, state)},
	}
	for i, step := range steps {
		at := &world{dir: filepath.Join(w.dir, "step"+string(rune('0'+i))), sim: w.sim}
		if err := os.MkdirAll(at.data(), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := brokertest.Copy(w.data(), at.data()); err != nil {
			t.Fatal(err)
		}
		at.tombstone(t, step.gone)
		at.sendsNothing(t, step.name, all, key, "CAMPANILE_ROUTER_KEEP_ENDED="+step.keep)
		if i == 3 { // and what campanile itself forgot in the middle of it
			at.offline(t, func(b *broker.Broker, _ eventlog.Config) { compact(t, b) })
			at.sendsNothing(t, step.name+", once more", all, key, "CAMPANILE_ROUTER_KEEP_ENDED=1ms")
		}
	}
}

// tombstone appends tombstones to a stopped log as the process does, and compacts it.
func (w *world) tombstone(t *testing.T, gone []schemas.Record) {
	t.Helper()
	w.offline(t, func(b *broker.Broker, cfg eventlog.Config) {
		log, err := eventlog.Open(t.Context(), cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		err = log.Append(t.Context(), func(out *schemas.Out) {
			for _, r := range gone {
				if k, ok := schemas.ParseBroadcastKey(r.Key); ok && r.Topic == schemas.Broadcasts {
					out.ForgetBroadcastRecord(k)
				}
				if k, ok := schemas.ParseCursorKey(r.Key); ok && r.Topic == schemas.Expansions {
					out.ForgetCursor(k)
				}
				if k, ok := schemas.ParseProgressKey(r.Key); ok && r.Topic == schemas.Progress {
					out.ForgetProgress(k)
				}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := log.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		compact(t, b)
		compact(t, b) // what the first one moved
	})
}

// sendsNothing starts campanile, sees it at work, and fails if that was not all that it sent.
func (w *world) sendsNothing(t *testing.T, when string, all []bench.Phone, key string, settings ...string) {
	t.Helper()
	u := w.up(t, append(settings, withoutAnalytics)...)
	before := w.summary(t).Accepted
	asked := w.works(t, u.moodle(app, key), schemas.NewID().String()) // after it, everything that was there at the start is handled
	if got := w.summary(t).Accepted - before; got != int64(asked) {
		t.Errorf("%s: %d pushes in all, want the %d that were asked for", when, got, asked)
	}
	for i, got := range w.pushes(t, all...) {
		if got != 1 {
			t.Errorf("%s: phone %d has %d pushes, want 1", when, i, got)
			break
		}
	}
	u.stop(t)
}
