package eventlog_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/eventlog/broker"
	"github.com/campanile-push/campanile/eventlog/logtest"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

const drivePartitions = 3

// onBrokers runs a test on an embedded broker of its own and on Kafka.
func onBrokers(t *testing.T, test func(t *testing.T, cfg eventlog.Config)) {
	t.Helper()
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		test(t, embedded(t))
	})
	t.Run("kafka", func(t *testing.T) {
		t.Parallel()
		test(t, logtest.Kafka(t))
	})
}

// embedded starts an embedded broker for a test.
func embedded(tb testing.TB) eventlog.Config {
	tb.Helper()
	b, err := broker.Open(broker.Options{Dir: tb.TempDir()})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := b.Close(context.Background()); err != nil {
			tb.Error(err)
		}
	})
	return eventlog.Config{Brokers: b.Brokers(), Dial: b.Dial, Prefix: prefix()}
}

// driveLog opens a log of its own on cfg, with topics.
func driveLog(tb testing.TB, cfg eventlog.Config) *eventlog.Log {
	tb.Helper()
	log := slog.New(slog.NewTextHandler(tb.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	l, err := eventlog.Open(ctx, cfg, log, nil)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := l.Close(context.Background()); err != nil {
			tb.Error(err)
		}
	})
	if _, err := l.CreateTopics(ctx, drivePartitions); err != nil {
		tb.Fatal(err)
	}
	return l
}

// cursors is a follower's state: how far each cursor has come, by partition of expansions.
type cursors struct {
	mu sync.Mutex
	at map[int32]map[string]int64
}

func (c *cursors) apply(r schemas.Record) error {
	var e pushv1.CursorMoved
	if err := r.Into(&e); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at[r.Partition] == nil {
		c.at[r.Partition] = map[string]int64{}
	}
	c.at[r.Partition][string(r.Key)] = e.Emitted
	return nil
}

func (c *cursors) emitted(p int32) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	sum := int64(0)
	for _, n := range c.at[p] {
		sum += n
	}
	return sum
}

// following follows expansions until the test ends.
func following(t *testing.T, l *eventlog.Log) (*eventlog.Following, *cursors) {
	t.Helper()
	c := &cursors{at: map[int32]map[string]int64{}}
	f := l.Follow("test", c.apply, schemas.Expansions)
	running(t, f.Run)
	return f, c
}

// running runs f until the test's cleanup, or until the returned function is called; then it has ended.
func running(t *testing.T, f func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		case <-time.After(40 * time.Second):
			t.Error("it did not end")
		}
	})
	t.Cleanup(stop)
	return stop
}

// driveFunc is a Driver.
type driveFunc func(ctx context.Context, p int32, commit schemas.Commit) error

func (f driveFunc) Drive(ctx context.Context, p int32, commit schemas.Commit) error {
	return f(ctx, p, commit)
}

// drive runs d over expansions with options as the broadcast router has them.
func drive(t *testing.T, l *eventlog.Log, f *eventlog.Following, d driveFunc, change ...func(*eventlog.DriveOptions)) (stop func()) {
	t.Helper()
	o := eventlog.DriveOptions{
		Stage: "driver", Group: "driver", StateTopic: schemas.Expansions, Transactional: true, TransactionalPrefix: "driver",
		Followed: []*eventlog.Following{f},
	}
	for _, c := range change {
		c(&o)
	}
	return running(t, func(ctx context.Context) error { return l.RunDrive(ctx, o, d) })
}

// cursorOf finds a cursor whose partition is p.
func cursorOf(l *eventlog.Log, p int32) (schemas.ID, uint32) {
	for {
		id := schemas.NewID()
		if l.Layout().OfCursor(id, schemas.APNS, 0) == p {
			return id, 0
		}
	}
}

// page says a page of sends and the moved cursor.
func page(id schemas.ID, rng uint32, emitted int64, sends int) func(*schemas.Out) {
	return func(out *schemas.Out) {
		for i := range sends {
			token := "token-" + strconv.FormatInt(emitted, 10) + "-" + strconv.Itoa(i)
			out.SendRequested(schemas.Bulk, schemas.Device{App: "app", Transport: schemas.APNS, Token: token},
				&pushv1.SendRequested{BroadcastId: id[:], Token: token})
		}
		out.CursorMoved(&pushv1.CursorMoved{BroadcastId: id[:], App: "app", Transport: schemas.APNS, Range: rng, Emitted: emitted})
	}
}

// wait fails the test unless c closes or gets a value in time.
func wait[T any](t *testing.T, c <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(40 * time.Second):
		t.Fatalf("waited too long for %s", what)
	}
	return v
}

// sent reads how many sends of the bulk lane are committed.
func sent(t *testing.T, l *eventlog.Log) int {
	t.Helper()
	n := 0
	f := l.Follow("sent", func(schemas.Record) error { n++; return nil }, schemas.SendTopic{Transport: schemas.APNS, Lane: schemas.Bulk}.Topic())
	stop := running(t, f.Run)
	wait(t, f.CaughtUp(), "the sends")
	stop()
	return n
}

func TestDriveBeginsWithTheStateAsTheOwnerBeforeLeftIt(t *testing.T) {
	t.Parallel()
	onBrokers(t, func(t *testing.T, cfg eventlog.Config) {
		l := driveLog(t, cfg)
		f, state := following(t, l)
		id, rng := cursorOf(l, 1)
		const owners, pages = 4, 5
		for owner := range int64(owners) {
			done := make(chan int64, 1)
			stop := drive(t, l, f, func(ctx context.Context, p int32, commit schemas.Commit) error {
				if p != 1 {
					<-ctx.Done()
					return ctx.Err()
				}
				seen := state.emitted(1)
				for n := range int64(pages) {
					if err := commit(ctx, page(id, rng, seen+n+1, 10)); err != nil {
						return err
					}
				}
				done <- seen
				<-ctx.Done()
				return ctx.Err()
			})
			if seen := wait(t, done, "the drive"); seen != owner*pages {
				t.Errorf("owner %d: want a cursor at %d, got %d", owner, owner*pages, seen)
			}
			stop()
		}
		if got := sent(t, l); got != owners*pages*10 {
			t.Errorf("want %d sends, got %d", owners*pages*10, got)
		}
	})
}

// owners counts who drives what.
type owners struct {
	mu     sync.Mutex
	by     map[int32]string
	clash  []int32
	change chan struct{}
}

func (o *owners) driver(name string) driveFunc {
	return func(ctx context.Context, p int32, _ schemas.Commit) error {
		o.set(p, name)
		<-ctx.Done()
		o.set(p, "")
		return ctx.Err()
	}
}

func (o *owners) set(p int32, name string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if name != "" && o.by[p] != "" {
		o.clash = append(o.clash, p)
	}
	o.by[p] = name
	select {
	case o.change <- struct{}{}:
	default:
	}
}

// until waits for the owners of all partitions to be as ok wants.
func (o *owners) until(t *testing.T, what string, ok func(names []string) bool) {
	t.Helper()
	for {
		o.mu.Lock()
		var names []string
		for p := range int32(drivePartitions) {
			names = append(names, o.by[p])
		}
		o.mu.Unlock()
		if ok(names) {
			return
		}
		wait(t, o.change, what)
	}
}

func TestPartitionsAreDrivenByOneMemberAtATime(t *testing.T) {
	t.Parallel()
	onBrokers(t, func(t *testing.T, cfg eventlog.Config) {
		a, b := driveLog(t, cfg), driveLog(t, cfg)
		fa, _ := following(t, a)
		fb, _ := following(t, b)
		o := &owners{by: map[int32]string{}, change: make(chan struct{}, 1)}
		only := func(want string) func([]string) bool {
			return func(names []string) bool {
				return !slices.ContainsFunc(names, func(n string) bool { return n != want })
			}
		}
		stopA := drive(t, a, fa, o.driver("a"))
		o.until(t, "all by a", only("a"))
		stopB := drive(t, b, fb, o.driver("b"))
		o.until(t, "some by each", func(names []string) bool {
			return slices.Contains(names, "a") && slices.Contains(names, "b") && !slices.Contains(names, "")
		})
		stopA()
		o.until(t, "all by b", only("b"))
		stopB()
		if len(o.clash) > 0 {
			t.Errorf("driven by two at a time: %v", o.clash)
		}
	})
}

func TestADriverThatReturnsIsDrivenAgainFromWhatTheLogHolds(t *testing.T) {
	t.Parallel()
	onBrokers(t, func(t *testing.T, cfg eventlog.Config) {
		l := driveLog(t, cfg)
		f, state := following(t, l)
		id, rng := cursorOf(l, 0)
		done := make(chan struct{})
		calls := 0
		drive(t, l, f, func(ctx context.Context, p int32, commit schemas.Commit) error {
			if p == 0 {
				if got := state.emitted(0); got != int64(calls) {
					t.Errorf("call %d: want a cursor at %d, got %d", calls, calls, got)
				}
				calls++
				if err := commit(ctx, page(id, rng, int64(calls), 1)); err != nil {
					t.Error(err)
				}
				if calls == 4 {
					close(done)
				} else if calls < 4 {
					return errors.New("again")
				}
			}
			<-ctx.Done()
			return ctx.Err()
		})
		wait(t, done, "four calls")
	})
}

func TestACommitThatHasBegunIsNotCutShort(t *testing.T) {
	t.Parallel()
	onBrokers(t, func(t *testing.T, cfg eventlog.Config) {
		l := driveLog(t, cfg)
		f, state := following(t, l)
		id, rng := cursorOf(l, 2)
		begun, result := make(chan struct{}), make(chan error, 2)
		stop := drive(t, l, f, func(ctx context.Context, p int32, commit schemas.Commit) error {
			if p != 2 {
				<-ctx.Done()
				return ctx.Err()
			}
			result <- commit(ctx, func(out *schemas.Out) {
				close(begun)
				<-ctx.Done()
				page(id, rng, 7, 3)(out)
			})
			result <- commit(ctx, page(id, rng, 8, 3))
			return ctx.Err()
		})
		wait(t, begun, "the commit")
		stop()
		if err := wait(t, result, "its answer"); err != nil {
			t.Errorf("a commit that had begun: want no error, got %v", err)
		}
		if err := wait(t, result, "the second answer"); !errors.Is(err, context.Canceled) {
			t.Errorf("a commit after the end: want context.Canceled, got %v", err)
		}
		if err := f.CatchUp(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := state.emitted(2); got != 7 {
			t.Errorf("want the cursor at 7, got %d", got)
		}
	})
}

func TestAPlainDriveCommitsToo(t *testing.T) {
	t.Parallel()
	onBrokers(t, func(t *testing.T, cfg eventlog.Config) {
		l := driveLog(t, cfg)
		var id schemas.ID
		for l.Layout().OfID(id) != 1 {
			id = schemas.NewID()
		}
		ended := make(chan struct{}, 1)
		f := l.Follow("ended", func(schemas.Record) error { ended <- struct{}{}; return nil }, schemas.Broadcasts)
		running(t, f.Run)
		drive(t, l, f, func(ctx context.Context, p int32, commit schemas.Commit) error {
			if p == 1 {
				if err := commit(ctx, func(out *schemas.Out) { out.BroadcastEnded(&pushv1.BroadcastEnded{BroadcastId: id[:]}) }); err != nil {
					t.Error(err)
				}
			}
			<-ctx.Done()
			return ctx.Err()
		}, func(o *eventlog.DriveOptions) { o.Transactional, o.StateTopic = false, schemas.Broadcasts })
		wait(t, ended, "the event")
	})
}

func TestNothingRunsAfterADrive(t *testing.T) { //nolint:paralleltest // it looks at every goroutine
	before := goleak.IgnoreCurrent()
	t.Run("a whole life", func(t *testing.T) { //nolint:paralleltest // as above
		l := driveLog(t, embedded(t))
		f, _ := following(t, l)
		o := &owners{by: map[int32]string{}, change: make(chan struct{}, 1)}
		stop := drive(t, l, f, o.driver("a"))
		o.until(t, "all by a", func(names []string) bool { return !slices.Contains(names, "") })
		stop()
	})
	goleak.VerifyNone(t, before)
}
