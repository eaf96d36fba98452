package migrate_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/campanile-push/campanile/migrate"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
	"github.com/campanile-push/campanile/vault"
)

// memoryLog is a log in memory: what was appended, in order.
type memoryLog struct {
	layout  schemas.Layout
	records []schemas.Record
	// room is how many records it takes before it fails; negative: all.
	room int
}

var errFull = errors.New("the test's log is full")

func newLog() *memoryLog { return &memoryLog{layout: schemas.Layout{Partitions: 4}, room: -1} }

// Append takes record by record, so that one which fails has taken a part, as a killed process's has.
func (l *memoryLog) Append(_ context.Context, say func(*schemas.Out)) error {
	out := schemas.NewOut(l.layout)
	say(out)
	var err error
	out.Each(func(topic schemas.Topic, partition int32, key, value []byte) {
		if l.room == 0 {
			err = errFull
			return
		}
		l.room--
		r := schemas.Record{Topic: topic, Partition: partition, Offset: int64(len(l.records)), Key: append([]byte(nil), key...), Value: append([]byte(nil), value...)}
		l.records = append(l.records, r)
	})
	return err
}

func (l *memoryLog) state(t *testing.T) *migrate.State {
	t.Helper()
	s := migrate.NewState()
	for _, r := range l.records {
		if err := s.Apply(r); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// contents are what the log says in the end.
type contents struct {
	apps        map[string]*pushv1.AppConfigured
	credentials map[string]*pushv1.CredentialsSet
	keys        map[string]*pushv1.AccessKeyIssued
	devices     map[schemas.Device]*pushv1.TokenRegistered
	channels    map[schemas.Device]map[string]bool
}

func (l *memoryLog) contents(t *testing.T) contents {
	t.Helper()
	c := contents{
		map[string]*pushv1.AppConfigured{},
		map[string]*pushv1.CredentialsSet{},
		map[string]*pushv1.AccessKeyIssued{},
		map[schemas.Device]*pushv1.TokenRegistered{},
		map[schemas.Device]map[string]bool{},
	}
	for _, r := range l.records {
		event, err := r.Event()
		if err != nil {
			t.Fatal(err)
		}
		switch e := event.(type) {
		case *pushv1.AppConfigured:
			c.apps[e.App] = e
		case *pushv1.CredentialsSet:
			c.credentials[e.App+"/"+e.Transport.Word()] = e
		case *pushv1.AccessKeyIssued:
			c.keys[e.KeyId] = e
		case *pushv1.TokenRegistered:
			c.devices[schemas.DeviceOf(e)] = e
		case *pushv1.ChannelSubscribed:
			d := schemas.DeviceOf(e)
			if c.channels[d] == nil {
				c.channels[d] = map[string]bool{}
			}
			c.channels[d][e.Channel] = true
		default:
			t.Fatalf("an import says %T", event)
		}
	}
	return c
}

func options(t testing.TB) migrate.Options {
	t.Helper()
	ring, err := vault.ParseKeyring(vault.NewKeyLine("1"))
	if err != nil {
		t.Fatal(err)
	}
	return migrate.Options{
		Now: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC), By: "test", Prefix: "app_", Keyring: ring,
		CheckAPNs: func(*pushv1.ApnsCredentials) error { return nil },
		CheckFCM:  func(*pushv1.FcmCredentials) error { return nil },
	}
}

func find(t *testing.T, paths ...string) []migrate.File {
	t.Helper()
	files, _, err := migrate.Find(paths...)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func run(t *testing.T, log *memoryLog, o migrate.Options, paths ...string) *migrate.Report {
	t.Helper()
	report, err := migrate.AirNotifier(t.Context(), log, log.state(t), find(t, paths...), o)
	if err != nil {
		t.Fatal(err)
	}
	return report
}
