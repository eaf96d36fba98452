package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/campanile-push/campanile/bench"
	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/eventlog/broker"
	"github.com/campanile-push/campanile/eventlog/logtest"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// plant appends records as they are to the log of a running campanile.
func (w *world) plant(t *testing.T, records ...schemas.Record) {
	t.Helper()
	dial, ok := broker.Running(filepath.Join(w.data(), "log"))
	if !ok {
		t.Fatal("no campanile runs on " + w.data())
	}
	if err := logtest.Raw(t.Context(), eventlog.Config{Brokers: broker.Brokers(), Dial: dial}, records...); err != nil {
		t.Fatal(err)
	}
}

// offline opens the embedded log of a stopped campanile, and closes it cleanly.
func (w *world) offline(t *testing.T, do func(b *broker.Broker, cfg eventlog.Config)) {
	t.Helper()
	b, err := broker.Open(broker.Options{Dir: filepath.Join(w.data(), "log"), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	do(b, eventlog.Config{Brokers: b.Brokers(), Dial: b.Dial})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := b.Close(ctx); err != nil {
		t.Fatal(err)
	}
}

// compact forces a compaction of everything that is compacted.
func compact(t *testing.T, b *broker.Broker) {
	t.Helper()
	if err := b.Sweep(t.Context(), time.Now(), true); err != nil {
		t.Fatal(err)
	}
}

// letters are the dead letters by topic and stage.
func (w *world) letters(t *testing.T) map[string]int {
	t.Helper()
	all := map[string]int{}
	err := replay(t.Context(), w.open(t), "letters", func(r schemas.Record) error {
		if r.Type() != pushv1.EventType_EVENT_TYPE_DEAD_LETTERED {
			return nil // what was planted there
		}
		var e pushv1.DeadLettered
		if err := r.Into(&e); err != nil {
			return nil //nolint:nilerr // as above
		}
		all[e.Topic+" "+e.Stage]++
		return nil
	}, schemas.DeadLetters)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// fetch gets a page of the ops port.
func (u *up) fetch(t *testing.T, path string) (status int, body string) {
	t.Helper()
	res, err := http.Get(u.info.Ops + path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

// works registers, notifies and broadcasts, and fails unless every phone gets both. It returns the number of pushes.
func (w *world) works(t *testing.T, m bench.Moodle, set string) (pushes int) {
	t.Helper()
	all := phones(set, 24) // in every partition, on both transports
	for _, p := range all {
		if err := m.Register(t.Context(), p.Token, p.Platform, set); err != nil {
			t.Fatal(err)
		}
		if a, err := m.Push(t.Context(), p.Token, p.Platform, "hello"); err != nil || a.Status != http.StatusAccepted {
			t.Fatalf("push: %d %s, %v", a.Status, a.Body, err)
		}
	}
	if _, err := m.Broadcast(t.Context(), set, "to all of "+set); err != nil {
		t.Fatal(err)
	}
	var got []int
	eventually(t, time.Minute, "every phone of "+set+" has its two pushes", func() bool {
		got = w.pushes(t, all...)
		n := 0
		for _, c := range got {
			n += min(c, 2)
		}
		return n == 2*len(all)
	})
	w.settled(t, time.Minute)
	for i, c := range got {
		if c != 2 {
			t.Errorf("phone %d of %s got %d pushes, want 2", i, set, c)
		}
	}
	return 2 * len(all)
}

// newerEvent is of a type that this version does not know.
const newerEvent = "\xc8of a newer version"

// poisons are what no version ever wrote, for every partition of every topic: no event at all, events that break off, events without
// anything in them where they mean nothing, and those of other topics. Outside of the topics of truth there are events of a newer
// version too.
func poisons() (all []schemas.Record) {
	// An empty event of its own topic is no poison: it is a push to nobody, and is counted as one.
	meant := func(topic schemas.Topic, kind pushv1.EventType) bool {
		switch _, sends := schemas.ParseSendTopic(topic); kind { //nolint:exhaustive // what is counted
		case pushv1.EventType_EVENT_TYPE_NOTIFICATION_REQUESTED:
			return topic == schemas.Notifications
		case pushv1.EventType_EVENT_TYPE_SEND_REQUESTED:
			return sends
		case pushv1.EventType_EVENT_TYPE_DELIVERY_FINISHED, pushv1.EventType_EVENT_TYPE_DELIVERY_ATTEMPTED:
			return topic == schemas.Deliveries
		}
		return false
	}
	for _, spec := range schemas.Specs() {
		values := []string{"", "\x00of no type"}
		for kind := range pushv1.EventType_name {
			if kind == 0 {
				continue
			}
			values = append(values, string(kind)+"\xff\xff\xff") // all types are below 128
			if !meant(spec.Topic, pushv1.EventType(kind)) {
				values = append(values, string(kind))
			}
		}
		if !spec.Truth {
			values = append(values, newerEvent)
		}
		for p := range int32(embeddedPartitions) {
			for i, v := range values {
				all = append(all, schemas.Record{Topic: spec.Topic, Partition: p, Key: fmt.Appendf(nil, "poison %d", i), Value: []byte(v)})
			}
		}
	}
	return all
}

// TestPoisonIsSetAside puts what no version ever wrote into every partition of every topic: it becomes a dead letter, or is passed
// over by who follows the topic, and nothing stands still, neither at once nor after restarts.
func TestPoisonIsSetAside(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	u := w.up(t)
	w.app(t, app)
	key := w.key(t, app, "all")
	w.works(t, u.moodle(app, key), "before")

	poison := poisons()
	w.plant(t, poison...)
	w.works(t, u.moodle(app, key), "poisoned")
	letters := w.letters(t)
	t.Logf("%d records planted; dead letters: %v", len(poison), letters)
	for _, want := range []string{
		"notifications router.direct", "sends.fcm.direct sender.fcm.direct", "sends.apns.bulk sender.apns.bulk", "retries.fcm.bulk.2 sender.fcm.bulk",
		"deliveries tally", "devices projector",
	} {
		if letters[want] < 7*embeddedPartitions { // devices has one value less
			t.Errorf("dead letters of %s: want at least %d, got %d", want, 7*embeddedPartitions, letters[want])
		}
	}
	if status, body := u.fetch(t, "/readyz"); status != http.StatusOK {
		t.Errorf("not ready: %s", body)
	}
	if _, body := u.fetch(t, "/metrics"); strings.Contains(body, "campanile_partition_stalled{") {
		t.Errorf("a partition stands still: %s", line(body, "campanile_partition_stalled{"))
	}

	u.stop(t)
	u = w.up(t)
	w.works(t, u.moodle(app, key), "restarted")
	u.kill()
	u = w.up(t)
	w.works(t, u.moodle(app, key), "killed")
	again := w.letters(t)
	for _, all := range []map[string]int{letters, again} { // analytics may have been behind when these were counted
		maps.DeleteFunc(all, func(kind string, _ int) bool { return strings.HasSuffix(kind, " analytics") })
	}
	if len(again) != len(letters) {
		t.Errorf("dead letters of %v before the restarts, of %v after them", letters, again)
	}
	u.stop(t)
}

// line is the first line of text that holds what.
func line(text, what string) string {
	for l := range strings.Lines(text) {
		if strings.Contains(l, what) {
			return strings.TrimSpace(l)
		}
	}
	return ""
}

// TestUnknownEventStandsStill puts an event of a newer version into a topic of truth: its partition stands still with an alarm, also
// after a restart, and the rest goes on. When the event can be passed, nothing that came behind it is lost.
func TestUnknownEventStandsStill(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	u := w.up(t, withoutAnalytics)
	w.app(t, app)
	key := w.key(t, app, "all")
	w.works(t, u.moodle(app, key), "before")

	const stands = int32(1)
	w.plant(t, schemas.Record{Topic: schemas.Devices, Partition: stands, Key: []byte("newer"), Value: []byte(newerEvent)})
	alarm := fmt.Sprintf(`campanile_partition_stalled{partition="%d",stage="projector",topic="devices"} 1`, stands)
	eventually(t, time.Minute, "an alarm says that the partition stands still", func() bool {
		_, body := u.fetch(t, "/metrics")
		return strings.Contains(body, alarm)
	})
	if !strings.Contains(u.output.String(), "partition stands still: upgrade this process") {
		t.Error("the log does not say what to do")
	}

	// Registrations and notifications go on in every partition; the broadcast waits, since it could not reach everybody.
	m := u.moodle(app, key)
	all := phones("meanwhile", 40)
	behind := 0
	for _, p := range all {
		if (schemas.Layout{Partitions: embeddedPartitions}).Of(deviceOf(p)) == stands {
			behind++
		}
		if err := m.Register(t.Context(), p.Token, p.Platform, "room"); err != nil {
			t.Fatal(err)
		}
		if a, err := m.Push(t.Context(), p.Token, p.Platform, "hello"); err != nil || a.Status != http.StatusAccepted {
			t.Fatalf("push: %d %s, %v", a.Status, a.Body, err)
		}
	}
	if behind == 0 || behind == len(all) {
		t.Fatalf("%d of %d phones are in the partition that stands: nothing is shown", behind, len(all))
	}
	if _, err := m.Broadcast(t.Context(), "room", "to all"); err != nil {
		t.Fatal(err)
	}
	w.settled(t, time.Minute)
	for i, got := range w.pushes(t, all...) {
		if got != 1 {
			t.Errorf("phone %d got %d pushes, want its notification alone", i, got)
		}
	}

	// A restart passes nothing over either, and says who waits for what.
	u.stop(t)
	u = w.upUnready(t, withoutAnalytics)
	eventually(t, time.Minute, "the alarm is there again", func() bool {
		_, body := u.fetch(t, "/metrics")
		return strings.Contains(body, alarm)
	})
	if status, body := u.fetch(t, "/readyz"); status != http.StatusServiceUnavailable || !strings.Contains(body, "ingest.devices") {
		t.Errorf("/readyz: %d %s", status, body)
	}
	u.stop(t)

	// What a newer version would do: here the event is taken back, and compaction removes it.
	w.offline(t, func(b *broker.Broker, cfg eventlog.Config) {
		gone := schemas.Record{Topic: schemas.Devices, Partition: stands, Key: []byte("newer")}
		// Twice: compaction leaves a partition's last batch alone, and what that one says of a key.
		if err := logtest.Raw(t.Context(), cfg, gone, gone); err != nil {
			t.Fatal(err)
		}
		compact(t, b)
	})
	u = w.up(t, withoutAnalytics)
	eventually(t, time.Minute, "the broadcast that waited is delivered", func() bool {
		n := 0
		for _, got := range w.pushes(t, all...) {
			n += got
		}
		return n >= 2*len(all)
	})
	w.settled(t, time.Minute)
	for i, got := range w.pushes(t, all...) {
		if got != 2 {
			t.Errorf("phone %d got %d pushes, want 2", i, got)
		}
	}
	w.works(t, u.moodle(app, key), "after")
	u.stop(t)
}

func deviceOf(p bench.Phone) schemas.Device {
	tr := schemas.FCM
	if p.Platform == "ios" {
		tr = schemas.APNS
	}
	return schemas.Device{App: app, Transport: tr, Token: p.Token}
}

// upUnready starts campanile and waits until it serves, ready or not.
func (w *world) upUnready(t *testing.T, extra ...string) *up {
	t.Helper()
	u := &up{running: start(t, w.env(extra...), "up"), w: w}
	eventually(t, time.Minute, "campanile serves", func() bool {
		info, err := readRunFile(&Config{Data: w.data()})
		u.info = info
		return err == nil && info.PID == u.cmd.Process.Pid
	})
	return u
}
