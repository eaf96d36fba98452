package broker_test

import (
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/campanile-push/campanile/eventlog/broker"
)

// bounds are the start and the end of a partition.
func bounds(t *testing.T, b *broker.Broker, topic string) (start, end int64) {
	t.Helper()
	cl := client(t, b)
	defer cl.Close()
	adm := kadm.NewClient(cl)
	starts, err := adm.ListStartOffsets(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	ends, err := adm.ListEndOffsets(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	s, _ := starts.Lookup(topic, 0)
	e, _ := ends.Lookup(topic, 0)
	return s.Offset, e.Offset
}

// TestRetentionNeverEmptiesAPartition: kfake would begin again at offset 0 after the next start.
func TestRetentionNeverEmptiesAPartition(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := broker.Options{Dir: dir, SegmentBytes: 500}
	b := open(t, o)
	cl := client(t, b)
	create(t, cl, "hour", 1, map[string]string{"retention.ms": "3600000"})
	create(t, cl, "ever", 1, map[string]string{"cleanup.policy": "compact"})
	for i := range 20 {
		put(t, cl, "hour", 0, "k", strconv.Itoa(i))
		put(t, cl, "ever", 0, strconv.Itoa(i), "v")
	}
	sweep := func(age time.Duration) {
		if err := b.Sweep(t.Context(), time.Now().Add(age), true); err != nil {
			t.Fatal(err)
		}
	}
	sweep(59 * time.Minute)
	if s, e := bounds(t, b, "hour"); s != 0 || e != 20 {
		t.Errorf("before the hour is over: want 0 to 20, got %d to %d", s, e)
	}
	for _, how := range []string{"running", "restarted", "killed"} {
		switch how {
		case "restarted":
			cl.Close()
			shut(t, b)
			b = open(t, o)
		case "killed":
			b = open(t, broker.Options{Dir: killed(t, dir), SegmentBytes: 500})
		}
		sweep(61 * time.Minute)
		if s, e := bounds(t, b, "hour"); s != 19 || e != 20 {
			t.Errorf("%s: want 19 to 20, got %d to %d", how, s, e)
		}
		sweep(10000 * time.Hour)
		if got := len(readAll(t, b, "ever")[0]); got != 20 {
			t.Errorf("%s: keys of a compacted topic after 10000 hours: want 20, got %d", how, got)
		}
	}
}

func TestRetentionBySizeKeepsAboutThatMuch(t *testing.T) {
	t.Parallel()
	b := open(t, broker.Options{Dir: t.TempDir()})
	cl := client(t, b, kgo.ProducerBatchCompression(kgo.NoCompression()))
	create(t, cl, "small", 1, map[string]string{"retention.bytes": "5000"})
	value := strings.Repeat("x", 1000)
	for range 50 {
		put(t, cl, "small", 0, "k", value)
	}
	if err := b.Sweep(t.Context(), time.Now(), false); err != nil {
		t.Fatal(err)
	}
	if s, e := bounds(t, b, "small"); s < 44 || s > 47 || e != 50 {
		t.Errorf("want about the last 5 of 50, got %d to %d", s, e)
	}
}

func TestNobodyDeletesTheLastRecord(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := open(t, broker.Options{Dir: dir})
	cl := client(t, b)
	create(t, cl, "a", 1, nil)
	for i := range 5 {
		put(t, cl, "a", 0, "k", strconv.Itoa(i))
	}
	for _, at := range []int64{3, 5, -1} {
		offsets := kadm.Offsets{}
		offsets.AddOffset("a", 0, at, -1)
		if _, err := kadm.NewClient(cl).DeleteRecords(t.Context(), offsets); err != nil {
			t.Fatal(err)
		}
		want := at
		if at != 3 {
			want = 4
		}
		if s, _ := bounds(t, b, "a"); s != want {
			t.Errorf("delete up to %d: want a start of %d, got %d", at, want, s)
		}
	}
	b = open(t, broker.Options{Dir: killed(t, dir)})
	if got := put(t, client(t, b), "a", 0, "k", "v"); got != 5 {
		t.Errorf("the next offset after a kill: want 5, got %d", got)
	}
}

func TestSettingsOfTopicsSurviveARestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := open(t, broker.Options{Dir: dir})
	cl := client(t, b)
	create(t, cl, "a", 1, map[string]string{"cleanup.policy": "compact", "retention.ms": "5", "segment.bytes": "1000"})
	settings := func(b *broker.Broker) map[string]string {
		rs, err := kadm.NewClient(client(t, b)).DescribeTopicConfigs(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		all := make(map[string]string)
		for _, c := range rs[0].Configs {
			all[c.Key] = c.MaybeValue()
		}
		return all
	}
	before := settings(b)
	cl.Close()
	shut(t, b)
	if after := settings(open(t, broker.Options{Dir: dir})); !reflect.DeepEqual(before, after) {
		t.Errorf("want %v, got %v", before, after)
	}
	want := map[string]string{"cleanup.policy": "compact", "retention.ms": "5", "segment.bytes": "1000"}
	if !reflect.DeepEqual(before, want) {
		t.Errorf("want what the topic was created with, %v, got %v", want, before)
	}
}
