package schemas_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

func TestSendTopicsParseBack(t *testing.T) {
	t.Parallel()
	seen := map[schemas.Topic]bool{}
	for _, tr := range schemas.Transports {
		for _, lane := range schemas.Lanes {
			for _, want := range schemas.SendTopics(tr, lane) {
				got, ok := schemas.ParseSendTopic(want.Topic())
				if !ok || got != want || seen[want.Topic()] {
					t.Errorf("%q: want %v, got %v, %v (seen before: %v)", want.Topic(), want, got, ok, seen[want.Topic()])
				}
				seen[want.Topic()] = true
			}
		}
	}
	for _, bad := range []schemas.Topic{
		"", "sends", "sends.apns", "sends.apns.direct.1", "sends.mpns.direct", "sends.apns.router", "retries.apns.direct",
		"retries.apns.direct.0", "retries.apns.direct.5", "retries.apns.direct.01", "retries.apns.direct.x", "deliveries", "sends.apns.direct.",
	} {
		if s, ok := schemas.ParseSendTopic(bad); ok {
			t.Errorf("%q: parsed as %v", bad, s)
		}
	}
}

func TestSpecsNameEachTopicOnceAndEveryGroup(t *testing.T) {
	t.Parallel()
	topics := map[schemas.Topic]bool{}
	for _, s := range schemas.Specs() {
		if topics[s.Topic] {
			t.Errorf("%s stands twice", s.Topic)
		}
		topics[s.Topic] = true
		if s.Cleanup == schemas.UntilConsumed && len(s.Groups) == 0 {
			t.Errorf("%s is kept until nobody has consumed it", s.Topic)
		}
		if s.Cleanup == schemas.ByTime && s.Retention == 0 {
			t.Errorf("%s is kept for no time", s.Topic)
		}
		got, ok := schemas.SpecOf(s.Topic)
		if !ok || got.Topic != s.Topic {
			t.Errorf("SpecOf(%s) = %v, %v", s.Topic, got, ok)
		}
	}
	if _, ok := schemas.SpecOf("nothing"); ok {
		t.Error("SpecOf knows a topic that is not ours")
	}
}

func TestKeysParseBack(t *testing.T) {
	t.Parallel()
	id, record := schemas.NewID(), schemas.NewID()
	for _, k := range []schemas.BroadcastKey{
		{Broadcast: id, Kind: schemas.BroadcastContent, Record: record},
		{Broadcast: id, Kind: schemas.BroadcastRun},
		{Broadcast: id, Kind: schemas.BroadcastRate},
		{Broadcast: id, Kind: schemas.BroadcastCancel},
		{Broadcast: id, Kind: schemas.BroadcastState},
	} {
		if got, ok := schemas.ParseBroadcastKey([]byte(k.String())); !ok || got != k {
			t.Errorf("%s: got %v, %v", k, got, ok)
		}
	}
	for _, k := range []schemas.CursorKey{{id, schemas.APNS, 0}, {id, schemas.FCM, 63}} {
		if got, ok := schemas.ParseCursorKey([]byte(k.String())); !ok || got != k {
			t.Errorf("%s: got %v, %v", k, got, ok)
		}
	}
	for _, k := range []schemas.ProgressKey{{id, 0}, {id, 23}, {schemas.ID{}, 7}} {
		if got, ok := schemas.ParseProgressKey([]byte(k.String())); !ok || got != k {
			t.Errorf("%s: got %v, %v", k, got, ok)
		}
	}
	for _, bad := range []string{"", "/", "x/run", id.String(), id.String() + "/", id.String() + "/content", id.String() + "/run/x", id.String() + "/fcm/01", id.String() + "/-1", "!owners/x"} {
		_, b := schemas.ParseBroadcastKey([]byte(bad))
		_, c := schemas.ParseCursorKey([]byte(bad))
		_, p := schemas.ParseProgressKey([]byte(bad))
		if b || c || p {
			t.Errorf("%q: parsed (broadcast %v, cursor %v, progress %v)", bad, b, c, p)
		}
	}
}

func FuzzKeys(f *testing.F) {
	f.Add([]byte("0198c0de-0000-7000-8000-000000000000/content/0198c0de-0000-7000-8000-000000000001"))
	f.Add([]byte("0198c0de-0000-7000-8000-000000000000/fcm/3"))
	f.Add([]byte("!owners/3"))
	f.Fuzz(func(t *testing.T, key []byte) {
		if k, ok := schemas.ParseBroadcastKey(key); ok && !strings.EqualFold(k.String(), string(key)) {
			t.Errorf("%q read as %s", key, k)
		}
		if k, ok := schemas.ParseCursorKey(key); ok && !strings.EqualFold(k.String(), string(key)) {
			t.Errorf("%q read as %s", key, k)
		}
		if k, ok := schemas.ParseProgressKey(key); ok && !k.Broadcast.IsZero() && !strings.EqualFold(k.String(), string(key)) {
			t.Errorf("%q read as %s", key, k)
		}
	})
}

func TestDeviceKeysDiffer(t *testing.T) {
	t.Parallel()
	devices := []schemas.Device{
		{"app", schemas.APNS, schemas.Production, "t"},
		{"app", schemas.APNS, schemas.Sandbox, "t"},
		{"app", schemas.FCM, schemas.Production, "t"},
		{"app", schemas.FCM, schemas.Production, "tt"},
		{"ap", schemas.FCM, schemas.Production, "pt"},
		{"app2", schemas.FCM, schemas.Production, "t"},
	}
	seen := map[string]schemas.Device{}
	for _, d := range devices {
		key := string(d.AppendKey(nil))
		if other, taken := seen[key]; taken {
			t.Errorf("%v and %v share the key %q", d, other, key)
		}
		seen[key] = d
	}
}

func TestNamesThatCannotStandInKeysAreRefused(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 1025)
	for _, c := range []struct {
		check func(string) error
		good  []string
		bad   []string
		want  error
	}{
		{schemas.CheckToken, []string{"a", "dQw4w9:APA91bF-x_Y", strings.Repeat("é", 512)}, []string{"", long, "a\x00b", "a\nb", "\xff", "a\x7f"}, schemas.ErrToken},
		{schemas.CheckChannel, []string{"default", "d41d8cd9", "Ω channel"}, []string{"", long[:256], "a\x00", "\xc3"}, schemas.ErrChannel},
		{schemas.CheckApp, []string{"commoodlemoodlemobile", "a", "1.b-c_d"}, []string{"", long[:65], "A", "-a", ".a", "a b", "a/b", "é"}, schemas.ErrApp},
	} {
		for _, s := range c.good {
			if err := c.check(s); err != nil {
				t.Errorf("%q: %v", s, err)
			}
		}
		for _, s := range c.bad {
			if err := c.check(s); !errors.Is(err, c.want) {
				t.Errorf("%.20q: want %v, got %v", s, c.want, err)
			}
		}
	}
}

// TestPartitionsAndShardsAreFixed: a change here would send the records of a key to two places.
func TestPartitionsAndShardsAreFixed(t *testing.T) {
	t.Parallel()
	l := schemas.Layout{Partitions: 24}
	d := schemas.Device{App: "commoodlemoodlemobile", Transport: schemas.FCM, Token: "dQw4w9:APA91bF-x_Y"}
	id := schemas.ID{1, 2, 3}
	got := []int32{l.Of(d), l.OfApp(d.App), l.OfID(id), l.OfCursor(id, schemas.APNS, 7), int32(schemas.ShardString(d.Token)), int32(schemas.Shard([]byte(d.Token)))}
	want := []int32{10, 10, 13, 1, 191, 191}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestRangesCoverEachShardOnce(t *testing.T) {
	t.Parallel()
	for _, ranges := range []uint32{1, 16, 64} {
		next := uint32(0)
		for r := range ranges {
			from, to := schemas.ShardRange(r, ranges)
			if from != next || to <= from {
				t.Errorf("range %d of %d: %d to %d after %d", r, ranges, from, to, next)
			}
			next = to
		}
		if next != schemas.Shards {
			t.Errorf("%d ranges end at %d", ranges, next)
		}
	}
}

func TestDerivedIDsAreFixedAndApart(t *testing.T) {
	t.Parallel()
	b := schemas.ID{9}
	d := schemas.Device{Transport: schemas.APNS, Token: "00"}
	got := schemas.BulkSendID(b, d)
	if want := "0f1af6ff-eb81-54b7-82ff-b5cd84c1050e"; got.String() != want {
		t.Errorf("want %s, got %s", want, got)
	}
	space := uuid.NewSHA1(uuid.NameSpaceURL, []byte("https://campanile-push.org/ids/bulk-send"))
	if want := uuid.NewSHA1(space, append(b[:], "a00"...)); got.String() != want.String() {
		t.Errorf("want the UUIDv5 %s, got %s", want, got)
	}
	sandbox := d
	sandbox.Environment = schemas.Sandbox
	seen := map[schemas.ID]bool{got: true}
	for _, id := range []schemas.ID{schemas.BulkSendID(b, sandbox), schemas.BulkSendID(schemas.ID{8}, d), schemas.DirectSendID(b), schemas.RequestID("a", "k", "1"), schemas.RequestID("a", "k1", "")} {
		if seen[id] {
			t.Errorf("%s stands twice", id)
		}
		seen[id] = true
	}
}

func TestIDsParse(t *testing.T) {
	t.Parallel()
	id := schemas.NewID()
	got, err := schemas.ParseID(id.String())
	if err != nil || got != id {
		t.Errorf("want %s, got %s, %v", id, got, err)
	}
	for _, bad := range []string{"", "x", "{" + id.String() + "}", "urn:uuid:" + id.String(), strings.ReplaceAll(id.String(), "-", "")} {
		if _, err := schemas.ParseID(bad); err == nil {
			t.Errorf("%q parsed", bad)
		}
	}
	if schemas.IDFrom(id[:]) != id || !schemas.IDFrom(id[:15]).IsZero() || !schemas.IDFrom(nil).IsZero() {
		t.Error("IDFrom takes what is no id, or not what is one")
	}
}

func TestOutPutsEachEventWhereItBelongs(t *testing.T) {
	t.Parallel()
	l := schemas.Layout{Partitions: 24}
	out := schemas.NewOut(l)
	id, record := schemas.ID{1}, schemas.ID{2}
	d := schemas.Device{App: "app", Transport: schemas.FCM, Token: "tok"}
	out.AppConfigured(&pushv1.AppConfigured{App: "app"})
	out.CredentialsSet(&pushv1.CredentialsSet{App: "app", Transport: schemas.APNS})
	out.AccessKeyIssued(&pushv1.AccessKeyIssued{App: "app", KeyId: "k"})
	out.AccessKeyRevoked(&pushv1.AccessKeyRevoked{App: "app", KeyId: "k"})
	out.TokenRegistered(&pushv1.TokenRegistered{App: "app", Transport: schemas.FCM, Token: "tok"})
	out.TokenUnregistered(&pushv1.TokenUnregistered{App: "app", Transport: schemas.FCM, Token: "tok"})
	out.TokenInvalidated(&pushv1.TokenInvalidated{App: "app", Transport: schemas.FCM, Token: "tok"})
	out.ChannelSubscribed(&pushv1.ChannelSubscribed{App: "app", Transport: schemas.FCM, Token: "tok", Channel: "c"})
	out.ChannelUnsubscribed(&pushv1.ChannelUnsubscribed{App: "app", Transport: schemas.FCM, Token: "tok", Channel: "c"})
	out.NotificationRequested(&pushv1.NotificationRequested{RequestId: id[:]})
	out.BroadcastRequested(&pushv1.BroadcastRequested{BroadcastId: id[:], RecordId: record[:]})
	out.BroadcastPaused(&pushv1.BroadcastPaused{BroadcastId: id[:]})
	out.BroadcastResumed(&pushv1.BroadcastResumed{BroadcastId: id[:]})
	out.BroadcastRateChanged(&pushv1.BroadcastRateChanged{BroadcastId: id[:]})
	out.BroadcastCancelled(&pushv1.BroadcastCancelled{BroadcastId: id[:]})
	out.BroadcastEnded(&pushv1.BroadcastEnded{BroadcastId: id[:]})
	out.ForgetBroadcastRecord(schemas.BroadcastKey{Broadcast: id, Kind: schemas.BroadcastState})
	out.CursorMoved(&pushv1.CursorMoved{BroadcastId: id[:], Transport: schemas.FCM, Range: 3})
	out.ForgetCursor(schemas.CursorKey{Broadcast: id, Transport: schemas.FCM, Range: 3})
	out.SendRequested(schemas.Bulk, d, &pushv1.SendRequested{Token: "tok"})
	out.Retry(schemas.SendTopic{Transport: schemas.FCM, Lane: schemas.Bulk, Tier: 2}, 5, d.AppendKey(nil), &pushv1.SendRequested{Token: "tok"})
	out.DeliveryAttempted(5, 0x0102, &pushv1.DeliveryAttempted{})
	out.DeliveryFinished(5, 0x0102, &pushv1.DeliveryFinished{})
	out.OwnerChanged(&pushv1.OwnerChanged{Transport: schemas.APNS, Lane: schemas.Direct, Tier: 1, Partition: 6})
	out.ProgressCounted(&pushv1.ProgressCounted{BroadcastId: id[:], Partition: 7})
	out.TallyOwnersSeen(&pushv1.TallyOwnersSeen{Partition: 7})
	out.ForgetProgress(schemas.ProgressKey{Broadcast: id, Partition: 7})
	out.DeadLettered(&pushv1.DeadLettered{Partition: 8, Key: []byte("k")})
	out.RequestsRouted(&pushv1.RequestsRouted{Partition: 4})
	out.NotificationRequested(&pushv1.NotificationRequested{RequestId: record[:], RepeatKey: id[:]})

	device := "app\x00ftok"
	of, app, request := l.Of(d), l.OfApp("app"), l.OfID(id)
	type row struct {
		Topic     schemas.Topic
		Partition int32
		Key       string
		Type      byte
	}
	want := []row{
		{"apps", app, "app/config", 1},
		{"apps", app, "app/credentials/apns", 2},
		{"apps", app, "app/key/k", 3},
		{"apps", app, "app/key/k", 4},
		{"devices", of, device + "\x00!r", 16},
		{"devices", of, device + "\x00!u", 17},
		{"devices", of, device + "\x00!i", 18},
		{"devices", of, device + "\x00c/c", 19},
		{"devices", of, device + "\x00c/c", 20},
		{"notifications", request, string(id[:]), 32},
		{"broadcasts", request, id.String() + "/content/" + record.String(), 48},
		{"broadcasts", request, id.String() + "/run", 49},
		{"broadcasts", request, id.String() + "/run", 50},
		{"broadcasts", request, id.String() + "/rate", 51},
		{"broadcasts", request, id.String() + "/cancel", 52},
		{"broadcasts", request, id.String() + "/state", 53},
		{"broadcasts", request, id.String() + "/state", 0},
		{"expansions", l.OfCursor(id, schemas.FCM, 3), id.String() + "/fcm/3", 64},
		{"expansions", l.OfCursor(id, schemas.FCM, 3), id.String() + "/fcm/3", 0},
		{"sends.fcm.bulk", of, device, 80},
		{"retries.fcm.bulk.2", 5, device, 80},
		{"deliveries", 5, "\x00\x00\x00\x00\x00\x00\x01\x02", 96},
		{"deliveries", 5, "\x00\x00\x00\x00\x00\x00\x01\x02", 97},
		{"deliveries", 6, "!owner/retries.apns.direct.1", 98},
		{"progress", 7, id.String() + "/7", 112},
		{"progress", 7, "!owners/7", 113},
		{"progress", 7, id.String() + "/7", 0},
		{"deadletters", 8, "k", 127},
		{"routed", 4, "4", 33},
		{"notifications", request, string(record[:]), 32},
	}
	var got []row
	out.Each(func(topic schemas.Topic, partition int32, key, value []byte) {
		r := row{topic, partition, string(key), 0}
		if value != nil {
			r.Type = value[0]
			if _, err := schemas.Decode(value); err != nil {
				t.Errorf("%s: %v", topic, err)
			}
		}
		if _, ok := schemas.SpecOf(topic); !ok {
			t.Errorf("%s has no spec", topic)
		}
		got = append(got, r)
	})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestOutTruncateAndResetKeepWhatStands(t *testing.T) {
	t.Parallel()
	out := schemas.NewOut(schemas.Layout{Partitions: 1})
	for _, app := range []string{"a", "b", "c"} {
		out.AppConfigured(&pushv1.AppConfigured{App: app})
	}
	out.Truncate(5)
	out.Truncate(1)
	out.AppConfigured(&pushv1.AppConfigured{App: "d"})
	var keys []string
	out.Each(func(_ schemas.Topic, _ int32, key, _ []byte) { keys = append(keys, string(key)) })
	if diff := cmp.Diff([]string{"a/config", "d/config"}, keys); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	out.Reset()
	if out.Len() != 0 || out.Size() != 0 {
		t.Errorf("after Reset: %d records, %d bytes", out.Len(), out.Size())
	}
}

func TestRecordsSayWhatTheyCannotRead(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		value []byte
		want  error
	}{
		{"empty", []byte{}, schemas.ErrMalformed},
		{"type 0", []byte{0}, schemas.ErrMalformed},
		{"a newer type", []byte{200, 1, 2}, schemas.ErrUnknownType},
		{"torn", []byte{16, 0x0a, 200}, schemas.ErrMalformed},
	} {
		r := schemas.Record{Topic: "t", Value: c.value}
		if _, err := r.Event(); !errors.Is(err, c.want) {
			t.Errorf("%s: want %v, got %v", c.name, c.want, err)
		}
	}
	r := schemas.Record{Value: schemas.AppendEvent(nil, &pushv1.TokenRegistered{App: "a"})}
	if err := r.Into(&pushv1.TokenUnregistered{}); !errors.Is(err, schemas.ErrMalformed) {
		t.Errorf("another type: got %v", err)
	}
	var e pushv1.TokenRegistered
	if err := r.Into(&e); err != nil || e.App != "a" {
		t.Errorf("got %v, %v", &e, err)
	}
	if gone := (schemas.Record{}); !gone.Tombstone() || r.Tombstone() {
		t.Error("a tombstone is a nil value and nothing else")
	}
}

func TestAppendEventGrowsByItself(t *testing.T) {
	t.Parallel()
	e := &pushv1.TokenRegistered{App: "a", Token: strings.Repeat("t", 900)}
	want := schemas.AppendEvent(nil, e)
	for spare := range 3 {
		b := make([]byte, 2, 2+spare*600)
		if got := schemas.AppendEvent(b, e)[2:]; !bytes.Equal(want, got) {
			t.Errorf("with %d bytes to spare the encoding differs", spare*600)
		}
	}
}

func TestWatermarkIsReachedNowhereBehind(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		need    schemas.Watermark
		applied []int64
		want    bool
	}{
		{nil, nil, true},
		{schemas.Watermark{0, 0}, nil, true},
		{schemas.Watermark{1}, nil, false},
		{schemas.Watermark{3, 5}, []int64{3, 5}, true},
		{schemas.Watermark{3, 5}, []int64{9, 4}, false},
		{schemas.Watermark{3, 5}, []int64{9}, false},
	} {
		if got := c.need.Reached(c.applied); got != c.want {
			t.Errorf("%v by %v: want %v, got %v", c.need, c.applied, c.want, got)
		}
	}
}

func TestPageKeepsTokensThroughGrowth(t *testing.T) {
	t.Parallel()
	var p schemas.Page
	for round := range 2 {
		p.Reset()
		for i := range 1000 {
			p.Add([]byte{byte(i), byte(i >> 8), byte(round)}, schemas.Production, int64(i), "ios")
		}
		for i, d := range p.Devices {
			if d.Token[0] != byte(i) || d.Token[1] != byte(i>>8) || d.Token[2] != byte(round) {
				t.Fatalf("round %d: device %d has the token %v", round, i, d.Token)
			}
		}
	}
}

func TestOutcomeWordsAreAll(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for n := range pushv1.Outcome_name {
		o := schemas.Outcome(n)
		if o != 0 && (o.Word() == "" || seen[o.Word()]) {
			t.Errorf("%s has the word %q", o, o.Word())
		}
		seen[o.Word()] = true
	}
}

func TestAnAppendedIDIsItsText(t *testing.T) {
	t.Parallel()
	for _, id := range []schemas.ID{{}, schemas.NewID(), schemas.BulkSendID(schemas.NewID(), schemas.Device{App: "a", Token: "b"})} {
		if want, got := "<"+id.String(), string(id.Append([]byte("<"))); got != want {
			t.Errorf("want %s, got %s", want, got)
		}
	}
}
