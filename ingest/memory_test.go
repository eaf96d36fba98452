package ingest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
	"github.com/campanile-push/campanile/vault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestRandomKeysAmplifyNothing asks with thousands of keys in five seconds and counts the reads of apps.
func TestRandomKeysAmplifyNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var reads atomic.Int64
		c := newCatchUp(func(context.Context) error {
			reads.Add(1)
			return nil
		})
		ctx, stop := context.WithCancel(context.Background())
		var running, asking sync.WaitGroup
		running.Go(func() { c.run(ctx) })
		for range 1000 {
			for range 5 {
				asking.Go(func() {
					if err := c.wait(ctx); err != nil {
						t.Error(err)
					}
				})
			}
			<-time.After(5 * time.Millisecond)
		}
		asking.Wait()
		if got := reads.Load(); got < 10 || got > 22 {
			t.Errorf("want about four reads a second for five seconds, got %d", got)
		}
		stop()
		running.Wait()
	})
}

// TestAWaitIsForAReadThatBeganAfterIt holds a read and asks meanwhile.
func TestAWaitIsForAReadThatBeganAfterIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var began atomic.Int64
		hold := make(chan struct{})
		c := newCatchUp(func(context.Context) error {
			if began.Add(1) == 1 {
				<-hold
				return errors.New("of the first read")
			}
			return nil
		})
		ctx, stop := context.WithCancel(context.Background())
		var running sync.WaitGroup
		running.Go(func() { c.run(ctx) })
		first, second := make(chan error, 1), make(chan error, 1)
		go func() { first <- c.wait(ctx) }()
		synctest.Wait()
		go func() { second <- c.wait(ctx) }()
		synctest.Wait()
		close(hold)
		if err := <-first; err == nil {
			t.Error("want the error of the first read")
		}
		if err := <-second; err != nil || began.Load() != 2 {
			t.Errorf("want a read of its own, got %v after %d", err, began.Load())
		}
		stop()
		running.Wait()
	})
}

func TestAWaitEndsWhenNothingAnswers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCatchUp(func(context.Context) error { return nil }) // run is not running
		if err := c.wait(context.Background()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("want a deadline, got %v", err)
		}
	})
}

func TestRefusedKeysAreRememberedBoundedAndShortly(t *testing.T) {
	t.Parallel()
	c := newCatchUp(nil)
	for i := range uint64(3 * maxRefused) {
		c.refuse(i)
	}
	if n := len(c.refused.now) + len(c.refused.old); n > 2*maxRefused {
		t.Errorf("want at most %d, got %d", 2*maxRefused, n)
	}
	if !c.wasRefused(3*maxRefused - 1) {
		t.Error("want the last one remembered")
	}
	c.upkeep()
	c.upkeep()
	if c.wasRefused(3*maxRefused - 1) {
		t.Error("want it forgotten after two turns")
	}
}

func TestALimiterRefillsAndForgets(t *testing.T) {
	t.Parallel()
	now := time.Unix(1800000000, 0)
	l := newLimiter(2, time.Minute)
	for i, want := range []bool{true, true, false} {
		if got := l.take("a", now); got != want {
			t.Errorf("go %d: want %v", i, want)
		}
	}
	if !l.take("b", now) {
		t.Error("want another name free")
	}
	if now = now.Add(time.Minute); !l.take("a", now) || l.take("a", now) {
		t.Error("want one go after one interval")
	}
	for i := range maxBuckets + 100 {
		l.take(fmt.Sprint("n", i), now)
	}
	if len(l.buckets) > maxBuckets+1 {
		t.Errorf("want %d names at most, got %d", maxBuckets+1, len(l.buckets))
	}
	l.upkeep(now.Add(time.Hour))
	if len(l.buckets) != 0 {
		t.Errorf("want all forgotten, got %d", len(l.buckets))
	}
	for address, want := range map[string]string{
		"192.0.2.7": "192.0.2.7", "::ffff:192.0.2.7": "192.0.2.7", "2001:db8:1:2:3::4": "2001:db8:1:2::/64", "nonsense": "nonsense",
	} {
		if got := addressName(address); got != want {
			t.Errorf("%s: want %s, got %s", address, want, got)
		}
	}
}

// TestTheDeadSetHoldsWhatTheLogCallsDead feeds it one device's history.
func TestTheDeadSetHoldsWhatTheLogCallsDead(t *testing.T) {
	t.Parallel()
	hasher, err := vault.ParseHasher("AAECAwQFBgcICQoLDA0ODw==")
	if err != nil {
		t.Fatal(err)
	}
	layout := schemas.Layout{Partitions: 2}
	d := schemas.Device{App: "a", Transport: schemas.APNS, Environment: schemas.Sandbox, Token: "t"}
	say := func(m *deviceMemory, f func(*schemas.Out)) {
		out := schemas.NewOut(layout)
		f(out)
		out.Each(func(topic schemas.Topic, p int32, key, val []byte) {
			if err := m.apply(schemas.Record{Topic: topic, Partition: p, Key: key, Value: val}); err != nil {
				t.Fatal(err)
			}
		})
	}
	registered := func(at int64) func(*schemas.Out) {
		return func(o *schemas.Out) {
			o.TokenRegistered(&pushv1.TokenRegistered{App: d.App, Transport: d.Transport, Environment: d.Environment, Token: d.Token, RegisteredAtUs: at})
		}
	}
	invalid := func(asOf int64) func(*schemas.Out) {
		return func(o *schemas.Out) {
			o.TokenInvalidated(&pushv1.TokenInvalidated{App: d.App, Transport: d.Transport, Environment: d.Environment, Token: d.Token, AsOfUs: asOf})
		}
	}
	gone := func(o *schemas.Out) {
		o.TokenUnregistered(&pushv1.TokenUnregistered{App: d.App, Transport: d.Transport, Environment: d.Environment, Token: d.Token})
	}
	joined := func(o *schemas.Out) {
		o.ChannelSubscribed(&pushv1.ChannelSubscribed{App: d.App, Transport: d.Transport, Environment: d.Environment, Token: d.Token, Channel: "c"})
	}
	for _, c := range []struct {
		says    string
		history []func(*schemas.Out)
		dead    bool
	}{
		{"registered", []func(*schemas.Out){registered(5), joined}, false},
		{"invalidated", []func(*schemas.Out){registered(5), invalid(5)}, true},
		{"invalidated before it was created", []func(*schemas.Out){invalid(5), registered(5), joined}, true},
		{"registered again later", []func(*schemas.Out){registered(5), invalid(5), registered(6)}, false},
		{"registered again, and dead again", []func(*schemas.Out){registered(5), invalid(5), registered(6), invalid(6)}, true},
		{"an older answer comes late", []func(*schemas.Out){invalid(9), invalid(5), registered(7)}, true},
		{"unregistered", []func(*schemas.Out){registered(5), invalid(5), gone}, false},
	} {
		m := newDeviceMemory(hasher)
		for _, f := range c.history {
			say(m, f)
		}
		if asOf, _ := m.look(m.hash(d)); asOf != 0 != c.dead {
			t.Errorf("%s: want dead %v, got as_of %d", c.says, c.dead, asOf)
		}
	}
	m := newDeviceMemory(hasher)
	if err := m.apply(schemas.Record{Topic: schemas.Devices, Key: []byte("x"), Value: []byte{200}}); !errors.Is(err, schemas.ErrUnknownType) {
		t.Errorf("want an unknown type refused, got %v", err)
	}
	if err := m.apply(schemas.Record{Topic: schemas.Devices, Key: []byte("x"), Value: []byte{byte(pushv1.EventType_EVENT_TYPE_TOKEN_INVALIDATED), 0xff}}); !errors.Is(err, schemas.ErrMalformed) {
		t.Errorf("want malformed bytes refused, got %v", err)
	}
	if err := m.apply(schemas.Record{Topic: schemas.Devices, Key: []byte("x")}); err != nil {
		t.Errorf("want a tombstone taken, got %v", err)
	}
}
