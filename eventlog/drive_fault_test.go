package eventlog_test

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/eventlog/logtest"
	"github.com/campanile-push/campanile/schemas"
)

// TestAZombieCannotCommit needs a real Kafka: kfake takes what a stale epoch produces.
func TestAZombieCannotCommit(t *testing.T) {
	t.Parallel()
	cfg := logtest.Kafka(t)
	a, b := driveLog(t, cfg), driveLog(t, cfg)
	fa, state := following(t, a)
	fb, _ := following(t, b)
	id, rng := cursorOf(a, 1)
	type answer struct {
		seen int64
		err  error
	}
	commits, answers := make(chan int64), make(chan answer)
	driver := func(ctx context.Context, p int32, commit schemas.Commit) error {
		for p == 1 {
			select {
			case n := <-commits:
				err := commit(ctx, page(id, rng, n, 5))
				answers <- answer{state.emitted(1), err}
				if err != nil {
					return err
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		<-ctx.Done()
		return ctx.Err()
	}
	drive(t, a, fa, driver)
	commits <- 1
	if got := wait(t, answers, "the first commit"); got.err != nil {
		t.Fatal(got.err)
	}

	// Another group is given the same partitions while the first owner knows nothing of it: that one is the zombie.
	fenced := make(chan struct{})
	stopB := drive(t, b, fb, func(ctx context.Context, p int32, commit schemas.Commit) error {
		if p == 1 {
			if err := commit(ctx, page(id, rng, 2, 5)); err != nil {
				t.Error(err)
			}
			close(fenced)
		}
		<-ctx.Done()
		return ctx.Err()
	}, func(o *eventlog.DriveOptions) { o.Group = "other" })
	wait(t, fenced, "the second owner")
	commits <- 100
	if got := wait(t, answers, "the zombie's commit"); !errors.Is(got.err, schemas.ErrFenced) {
		t.Fatalf("the zombie's commit: want ErrFenced, got %v", got.err)
	}
	stopB()

	// The group still says that the partition is the first owner's: a new assignment makes it whole again, after the second.
	commits <- 3
	if got := wait(t, answers, "the commit after a new assignment"); got.err != nil || got.seen < 2 {
		t.Errorf("want a commit on top of cursor 2, got cursor %d, %v", got.seen, got.err)
	}
	if err := fa.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := state.emitted(1); got != 3 {
		t.Errorf("the cursor at the end: want 3, got %d", got)
	}
	if got := sent(t, a); got != 15 {
		t.Errorf("sends in the log: want 15, got %d", got)
	}
}

const endTxn = 26 // API key of Kafka's protocol

// blackout drops the answer to the next EndTxn when it is armed, and lets nobody connect from then on until it is lifted.
type blackout struct {
	dial func(ctx context.Context, network, host string) (net.Conn, error)

	armed, dark atomic.Bool
	mu          sync.Mutex
	conns       []net.Conn
}

var errDark = errors.New("the network is away")

func (b *blackout) Dial(ctx context.Context, network, host string) (net.Conn, error) {
	if b.dark.Load() {
		return nil, errDark
	}
	conn, err := b.dial(ctx, network, host)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.conns = append(b.conns, conn)
	return &darkConn{Conn: conn, b: b}, nil
}

// fall closes every connection.
func (b *blackout) fall() {
	b.dark.Store(true)
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.conns {
		_ = c.Close()
	}
	b.conns = nil
}

type darkConn struct {
	net.Conn

	b    *blackout
	lose atomic.Bool
}

func (c *darkConn) Write(p []byte) (int, error) {
	if len(p) >= 6 && binary.BigEndian.Uint16(p[4:]) == endTxn && c.b.armed.CompareAndSwap(true, false) {
		c.lose.Store(true)
	}
	return c.Conn.Write(p)
}

func (c *darkConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.lose.Load() { // the broker has done it, and nobody hears of it
		c.b.fall()
		return 0, errDark
	}
	return n, err
}

func TestACommitWhoseAnswerWasLostIsFoundInTheLog(t *testing.T) {
	t.Parallel()
	onBrokers(t, func(t *testing.T, cfg eventlog.Config) {
		b := &blackout{dial: cfg.Dial}
		if b.dial == nil {
			b.dial = func(ctx context.Context, network, host string) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, network, host)
			}
		}
		cfg.Dial, cfg.TransactionTimeout = b.Dial, 2*time.Second
		l := driveLog(t, cfg)
		f, state := following(t, l)
		id, rng := cursorOf(l, 0)
		type call struct {
			seen int64
			err  error
		}
		calls := make(chan call, 2)
		drive(t, l, f, func(ctx context.Context, p int32, commit schemas.Commit) error {
			if p != 0 {
				<-ctx.Done()
				return ctx.Err()
			}
			seen := state.emitted(0)
			b.armed.Store(seen == 0)
			err := commit(ctx, page(id, rng, seen+1, 5))
			again := commit(ctx, page(id, rng, seen+100, 5))
			if err != nil && again == nil {
				t.Error("a commit after one that failed: want its error again, got none")
			}
			b.dark.Store(false)
			calls <- call{seen, err}
			if err != nil {
				return err
			}
			<-ctx.Done()
			return ctx.Err()
		})
		if first := wait(t, calls, "the first call"); first.err == nil || first.seen != 0 {
			t.Fatalf("the commit without an answer: want an error at cursor 0, got %v at %d", first.err, first.seen)
		}
		if second := wait(t, calls, "the second call"); second.err != nil || second.seen != 1 {
			t.Errorf("the drive after it: want cursor 1, which the log has, got %d, %v", second.seen, second.err)
		}
	})
}
