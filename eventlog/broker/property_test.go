package broker_test

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/campanile-push/campanile/eventlog/broker"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// kept is the last record of a key, and where it stands: folds go by the order of records of different keys too.
type kept struct {
	offset int64
	value  []byte // nil: a tombstone
}

// TestCompactionNeverChangesWhatATopicSays writes random histories of the topics of truth as the rooms do, forces real
// compactions and restarts in between, and compares with the live fold.
func TestCompactionNeverChangesWhatATopicSays(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		t.Run("seed "+strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			compactionProperty(t, rand.New(rand.NewPCG(seed, 20)))
		})
	}
}

const propertyPartitions = 3

func compactionProperty(t *testing.T, rng *rand.Rand) {
	t.Helper()
	dir := t.TempDir()
	o := broker.Options{Dir: dir, SegmentBytes: 1000 + rng.Int64N(20_000)}
	b := open(t, o)
	cl := client(t, b)
	topics := []schemas.Topic{schemas.Apps, schemas.Devices, schemas.Broadcasts}
	for _, topic := range topics {
		create(t, cl, string(topic), propertyPartitions, map[string]string{"cleanup.policy": "compact", "delete.retention.ms": "86400000"})
	}
	w := newWorld(rng)
	live := make(map[string]map[string]kept) // by topic and partition, then key
	written := 0
	for round := range 8 {
		written += w.write(t, cl, live, 1+rng.IntN(400))
		if rng.IntN(2) == 0 {
			compact(t, b)
		}
		switch rng.IntN(3) {
		case 0:
			cl.Close()
			shut(t, b)
			b = open(t, o)
			cl = client(t, b)
		case 1:
			o.Dir = killed(t, o.Dir)
			b = open(t, o)
			cl = client(t, b)
		}
		compareFolds(t, b, topics, live, round)
	}
	compact(t, b)
	left := compareFolds(t, b, topics, live, -1)
	if left >= written {
		t.Errorf("want compaction to have dropped something of %d records, %d are left", written, left)
	}
}

func compareFolds(t *testing.T, b *broker.Broker, topics []schemas.Topic, live map[string]map[string]kept, round int) (records int) {
	t.Helper()
	got := make(map[string]map[string]kept)
	for _, topic := range topics {
		for p, keys := range readAll(t, b, string(topic)) {
			fold := make(map[string]kept)
			for k, all := range keys {
				records += len(all)
				last := all[len(all)-1]
				fold[k] = kept{offset: last.offset, value: []byte(last.value)}
				if last.tombstone {
					fold[k] = kept{offset: last.offset}
				}
			}
			if len(fold) > 0 {
				got[placeOf(string(topic), p)] = fold
			}
		}
	}
	same := maps.EqualFunc(live, got, func(a, b map[string]kept) bool {
		return maps.EqualFunc(a, b, func(x, y kept) bool {
			return x.offset == y.offset && (x.value == nil) == (y.value == nil) && bytes.Equal(x.value, y.value)
		})
	})
	if !same {
		t.Fatalf("round %d: the log says something else than what was written", round)
	}
	return records
}

func placeOf(topic string, p int32) string { return fmt.Sprintf("%s[%d]", topic, p) }

// world is what a random history is about: few things, so that keys repeat.
type world struct {
	rng        *rand.Rand
	out        *schemas.Out
	apps       []string
	tokens     []string
	channels   []string
	broadcasts []schemas.ID
	at         int64
}

func newWorld(rng *rand.Rand) *world {
	w := &world{rng: rng, out: schemas.NewOut(schemas.Layout{Partitions: propertyPartitions}), apps: []string{"a", "b"}, at: 1_790_000_000_000_000}
	for i := range 6 {
		w.tokens = append(w.tokens, "token"+strconv.Itoa(i))
		w.channels = append(w.channels, "channel"+strconv.Itoa(i))
		w.broadcasts = append(w.broadcasts, schemas.NewID())
	}
	return w
}

func pick[T any](w *world, from []T) T { return from[w.rng.IntN(len(from))] }

// write appends n random events in batches of random size, and folds them into live with the offsets that they got.
func (w *world) write(t *testing.T, cl *kgo.Client, live map[string]map[string]kept, n int) int {
	t.Helper()
	for left := n; left > 0; {
		w.out.Reset()
		for range min(left, 1+w.rng.IntN(20)) {
			w.event()
		}
		left -= w.out.Len()
		var records []*kgo.Record
		w.out.Each(func(topic schemas.Topic, p int32, key, value []byte) {
			records = append(records, &kgo.Record{Topic: string(topic), Partition: p, Key: slices.Clone(key), Value: bytes.Clone(value), Timestamp: time.Now()})
		})
		if err := cl.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			at := placeOf(r.Topic, r.Partition)
			if live[at] == nil {
				live[at] = make(map[string]kept)
			}
			live[at][string(r.Key)] = kept{r.Offset, r.Value}
		}
	}
	return n
}

// event says one random event or tombstone of the topics of truth.
func (w *world) event() {
	w.at += w.rng.Int64N(1_000_000)
	app, token, channel, id := pick(w, w.apps), pick(w, w.tokens), pick(w, w.channels), pick(w, w.broadcasts)
	env := schemas.Environment(w.rng.Int32N(2))
	switch w.rng.IntN(17) {
	case 0:
		w.out.AppConfigured(&pushv1.AppConfigured{App: app, Title: channel, ConfiguredAtUs: w.at})
	case 1:
		w.out.CredentialsSet(&pushv1.CredentialsSet{App: app, Transport: pick(w, schemas.Transports), Sealed: []byte(token), SetAtUs: w.at})
	case 2:
		w.out.AccessKeyIssued(&pushv1.AccessKeyIssued{App: app, KeyId: token, IssuedAtUs: w.at})
	case 3:
		w.out.AccessKeyRevoked(&pushv1.AccessKeyRevoked{App: app, KeyId: token, RevokedAtUs: w.at})
	case 4, 5:
		w.out.TokenRegistered(&pushv1.TokenRegistered{App: app, Transport: schemas.APNS, Environment: env, Token: token, Platform: "ios", RegisteredAtUs: w.at})
	case 6:
		w.out.TokenUnregistered(&pushv1.TokenUnregistered{App: app, Transport: schemas.APNS, Environment: env, Token: token, UnregisteredAtUs: w.at})
	case 7:
		w.out.TokenInvalidated(&pushv1.TokenInvalidated{App: app, Transport: schemas.APNS, Environment: env, Token: token, AsOfUs: w.at})
	case 8, 9:
		w.out.ChannelSubscribed(&pushv1.ChannelSubscribed{App: app, Transport: schemas.APNS, Environment: env, Token: token, Channel: channel, SubscribedAtUs: w.at})
	case 10:
		w.out.ChannelUnsubscribed(&pushv1.ChannelUnsubscribed{App: app, Transport: schemas.APNS, Environment: env, Token: token, Channel: channel, UnsubscribedAtUs: w.at})
	case 11:
		record := pick(w, w.broadcasts)
		w.out.BroadcastRequested(&pushv1.BroadcastRequested{BroadcastId: id[:], RecordId: record[:], App: app, Channels: []string{channel}, RequestedAtUs: w.at})
	case 12:
		w.out.BroadcastPaused(&pushv1.BroadcastPaused{BroadcastId: id[:], PausedAtUs: w.at})
	case 13:
		w.out.BroadcastRateChanged(&pushv1.BroadcastRateChanged{BroadcastId: id[:], Rate: float64(w.at), ChangedAtUs: w.at})
	case 14:
		w.out.BroadcastCancelled(&pushv1.BroadcastCancelled{BroadcastId: id[:], CancelledAtUs: w.at})
	case 15:
		w.out.BroadcastEnded(&pushv1.BroadcastEnded{BroadcastId: id[:], App: app, EndedAtUs: w.at})
	case 16:
		kinds := []schemas.BroadcastKind{schemas.BroadcastContent, schemas.BroadcastRun, schemas.BroadcastRate, schemas.BroadcastCancel, schemas.BroadcastState}
		key := schemas.BroadcastKey{Broadcast: id, Kind: pick(w, kinds)}
		if key.Kind == schemas.BroadcastContent {
			key.Record = pick(w, w.broadcasts)
		}
		w.out.ForgetBroadcastRecord(key)
	}
}
