package eventlog_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// outside is a client beside the log, for what only groups do.
func outside(t *testing.T, cfg eventlog.Config) *kadm.Client {
	t.Helper()
	opts := []kgo.Opt{kgo.SeedBrokers(cfg.Brokers...)}
	if cfg.Dial != nil {
		opts = append(opts, kgo.Dialer(cfg.Dial))
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return kadm.NewClient(cl)
}

var bulkAPNS = schemas.SendTopic{Transport: schemas.APNS, Lane: schemas.Bulk}.Topic()

// sendTo appends n sends to one partition of the bulk lane of APNs.
func sendTo(t *testing.T, l *eventlog.Log, p int32, n int) {
	t.Helper()
	err := l.Append(t.Context(), func(out *schemas.Out) {
		for i := 0; out.Len() < n; i++ {
			d := schemas.Device{App: "app", Transport: schemas.APNS, Token: "token-" + strings.Repeat("x", i%40) + string(rune('a'+i%26))}
			if l.Layout().Of(d) == p {
				out.SendRequested(schemas.Bulk, d, &pushv1.SendRequested{Token: d.Token})
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

func startOf(t *testing.T, l *eventlog.Log, topic schemas.Topic, p int32) int64 {
	t.Helper()
	starts, err := l.Starts(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	return starts[p]
}

func cleanedOf(t *testing.T, l *eventlog.Log, o eventlog.JanitorOptions, now time.Time, topic schemas.Topic, p int32) eventlog.Cleaned {
	t.Helper()
	all, err := l.Clean(t.Context(), o, now)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range all {
		if c.Topic == topic && c.Partition == p {
			return c
		}
	}
	return eventlog.Cleaned{}
}

func commitFor(t *testing.T, cfg eventlog.Config, group string, topic schemas.Topic, p int32, at int64) {
	t.Helper()
	offsets := kadm.Offsets{}
	offsets.AddOffset(cfg.Prefix+string(topic), p, at, -1)
	if err := outside(t, cfg).CommitAllOffsets(t.Context(), cfg.Prefix+group, offsets); err != nil {
		t.Fatal(err)
	}
}

func TestTheJanitorDeletesWhatTheGroupHasCommittedAndNothingElse(t *testing.T) {
	t.Parallel()
	onBrokers(t, func(t *testing.T, cfg eventlog.Config) {
		l := driveLog(t, cfg)
		group := schemas.SenderGroup(schemas.APNS, schemas.Bulk)
		sendTo(t, l, 1, 30)
		now := time.Now()
		for _, step := range []struct{ committed, start int64 }{{0, 0}, {12, 12}, {29, 29}, {30, 29}} {
			if step.committed > 0 { // at its creation, the topic got offset 0
				commitFor(t, cfg, group, bulkAPNS, 1, step.committed)
			}
			c := cleanedOf(t, l, eventlog.JanitorOptions{}, now, bulkAPNS, 1)
			if got := startOf(t, l, bulkAPNS, 1); got != step.start || c.To != step.start || len(c.Late) > 0 {
				t.Errorf("committed %d: want a start of %d and nobody late, got %d, %+v", step.committed, step.start, got, c)
			}
		}
	})
}

func TestAGroupWithoutOffsetsHoldsEverythingAndIsAnAlarmAfterADay(t *testing.T) {
	t.Parallel()
	onBrokers(t, func(t *testing.T, cfg eventlog.Config) {
		l := driveLog(t, cfg)
		group := schemas.SenderGroup(schemas.APNS, schemas.Bulk)
		if err := l.ForgetGroup(t.Context(), group); err != nil { // its offsets, as after seven days without members
			t.Fatal(err)
		}
		sendTo(t, l, 0, 10)
		for _, c := range []struct {
			age  time.Duration
			late bool
		}{{time.Hour, false}, {25 * time.Hour, true}} {
			got := cleanedOf(t, l, eventlog.JanitorOptions{}, time.Now().Add(c.age), bulkAPNS, 0)
			if got.To != 0 || slices.Contains(got.Late, group) != c.late {
				t.Errorf("after %v: want nothing deleted, late %v; got %+v", c.age, c.late, got)
			}
		}
		got := cleanedOf(t, l, eventlog.JanitorOptions{Forgotten: []string{group}}, time.Now().Add(25*time.Hour), bulkAPNS, 0)
		if got.To != 9 || len(got.Late) > 0 || startOf(t, l, bulkAPNS, 0) != 9 {
			t.Errorf("forgotten: want a start of 9 and nobody late, got %+v", got)
		}
	})
}

func TestUnderPressureTheOlderHalfOfWhatIsReadGoes(t *testing.T) {
	t.Parallel()
	onBrokers(t, func(t *testing.T, cfg eventlog.Config) {
		l := driveLog(t, cfg)
		err := l.Append(t.Context(), func(out *schemas.Out) {
			for range 100 {
				out.DeliveryFinished(2, 1, &pushv1.DeliveryFinished{App: "app"})
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		commitFor(t, cfg, schemas.GroupTally, schemas.Deliveries, 2, 80) // analytics stays at 0
		o := eventlog.JanitorOptions{Pressed: func() bool { return true }, GiveUp: []string{schemas.GroupAnalytics}}
		late := time.Now().Add(time.Hour)
		if c := cleanedOf(t, l, o, time.Now(), schemas.Deliveries, 2); c.To != 0 {
			t.Errorf("young records: want nothing deleted, got %+v", c)
		}
		if c := cleanedOf(t, l, eventlog.JanitorOptions{Pressed: o.Pressed}, late, schemas.Deliveries, 2); c.To != 0 {
			t.Errorf("analytics not given up: want nothing deleted, got %+v", c)
		}
		if c := cleanedOf(t, l, eventlog.JanitorOptions{}, late, schemas.Deliveries, 2); c.To != 0 {
			t.Errorf("no pressure: want nothing deleted, got %+v", c)
		}
		for _, want := range []int64{40, 60, 70, 75} {
			if c := cleanedOf(t, l, o, late, schemas.Deliveries, 2); c.To != want {
				t.Errorf("want a start of %d, got %+v", want, c)
			}
		}
	})
}

func TestTheJanitorEndsWithItsContext(t *testing.T) {
	t.Parallel()
	onBrokers(t, func(t *testing.T, cfg eventlog.Config) {
		l := driveLog(t, cfg)
		sendTo(t, l, 1, 5)
		commitFor(t, cfg, schemas.SenderGroup(schemas.APNS, schemas.Bulk), bulkAPNS, 1, 4)
		stop := running(t, func(ctx context.Context) error {
			return l.RunJanitor(ctx, eventlog.JanitorOptions{Interval: 10 * time.Millisecond})
		})
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for startOf(t, l, bulkAPNS, 1) != 4 {
			wait(t, tick.C, "the deletion")
		}
		stop()
	})
}
