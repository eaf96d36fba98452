package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/campanile-push/campanile/api"
	"github.com/campanile-push/campanile/bench"
	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/eventlog/logtest"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// brokers are three of a Kafka of the test's own, in a folder of its own.
type brokers struct {
	dir string
	env []string
	cfg eventlog.Config
}

// newBrokers starts them. The test is skipped as logtest.Kafka says.
func newBrokers(t *testing.T) *brokers {
	t.Helper()
	logtest.Kafka(t) // the jars are there, or the test is skipped
	libs, err := filepath.Abs(filepath.Join("..", "..", "build", "kafka", "libs"))
	if err != nil {
		t.Fatal(err)
	}
	b := &brokers{dir: t.TempDir()}
	if err := os.Symlink(libs, filepath.Join(b.dir, "libs")); err != nil {
		t.Fatal(err)
	}
	b.env = []string{"KAFKA_DIR=" + b.dir, fmt.Sprintf("KAFKA_PORT=%d", sixPorts(t)), "KAFKA_HEAP=320m", "KAFKA_HOST=127.0.0.1"}
	t.Cleanup(func() {
		if _, err := script(b.env, "kafka.sh", "stop"); err != nil {
			t.Error(err)
		}
	})
	out, err := script(b.env, "kafka.sh", "start", "3")
	if err != nil {
		t.Fatal(err)
	}
	b.cfg = eventlog.Config{Brokers: strings.Split(strings.TrimPrefix(strings.TrimSpace(out), "KAFKA_BROKERS="), ","), Replication: 3}
	return b
}

// sixPorts is the first of six that nobody listens on.
func sixPorts(t *testing.T) int {
	t.Helper()
	for base := 25100; base < 32000; base += 10 {
		free := true
		for offset := range 6 {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", base+offset))
			if err != nil {
				free = false
				break
			}
			_ = l.Close()
		}
		if free {
			return base
		}
	}
	t.Fatal("no free ports")
	return 0
}

// kill ends broker n as a power cut would.
func (b *brokers) kill(t *testing.T, n int) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(b.dir, strconv.Itoa(n)+".pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err == nil {
		err = syscall.Kill(pid, syscall.SIGKILL)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// back starts broker n again.
func (b *brokers) back(t *testing.T, n int) {
	t.Helper()
	if _, err := script(b.env, "kafka.sh", "broker", strconv.Itoa(n)); err != nil {
		t.Fatal(err)
	}
}

// stubborn sends notifications to two ingests under Idempotency-Keys, each again and again until it is answered 2xx.
type stubborn struct {
	clients []*api.Client
	phones  []bench.Phone
	next    atomic.Int64
	busy    atomic.Int64 // answers 503
	bare    atomic.Int64 // of them, without Retry-After

	mu       sync.Mutex
	answered map[string]bool // ids
}

// RoundTrip implements http.RoundTripper.
func (s *stubborn) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := http.DefaultTransport.RoundTrip(r)
	if err == nil && res.StatusCode == http.StatusServiceUnavailable {
		s.busy.Add(1)
		if res.Header.Get("Retry-After") == "" {
			s.bare.Add(1)
		}
	}
	return res, err
}

// work sends one notification after the other until ctx ends or the phones do. The one in hand is finished. Any answer but 2xx and
// 503 is an error, and so is none.
func (s *stubborn) work(ctx context.Context) error {
	for ctx.Err() == nil {
		i := int(s.next.Add(1) - 1)
		if i >= len(s.phones) {
			return errors.New("all phones have their notification before the end")
		}
		for try := i; ; try++ {
			a, err := s.clients[try%len(s.clients)].SendNotification(context.WithoutCancel(ctx), fmt.Sprintf("note-%d", i), api.NotificationRequest{
				Token: s.phones[i].Token, Transport: deviceOf(s.phones[i]).Transport.Word(), Message: api.Message{Text: "the bus leaves at nine"},
			})
			if problem, refused := errors.AsType[*api.Problem](err); refused && problem.Status == http.StatusServiceUnavailable {
				continue // at once: the log is asked harder than by a client who waits
			}
			if err != nil {
				return fmt.Errorf("notification %d: %w", i, err)
			}
			s.mu.Lock()
			s.answered[a.ID] = true
			s.mu.Unlock()
			break
		}
	}
	return nil
}

func (s *stubborn) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.answered)
}

// TestABrokerOfThreeDiesAndReturns kills each broker of three in turn and starts it again, under load. Ingest answers 2xx, or 503 with
// Retry-After; a retry under the same Idempotency-Key is safe at any ingest; everything acknowledged is in the log, and is pushed once.
func TestABrokerOfThreeDiesAndReturns(t *testing.T) {
	t.Parallel()
	if !proof(false, true) {
		t.Skip("three brokers beside everything else take too long: `make proofs` runs it")
	}
	const window = 64
	b := newBrokers(t)
	w := newWorldOn(t, b.cfg)
	c := w.startRoles(t, map[string][]string{
		"ingest-1": {"ingest"}, "ingest-2": {"ingest"}, "projector": {"projector"}, "router": {"router"},
		"apns": {"sender", "--platform", "apns"}, "fcm": {"sender", "--platform", "fcm"},
	}, fmt.Sprintf("CAMPANILE_SENDERS_WINDOW=%d", window))
	w.app(t, app)
	key := w.key(t, app, "all")
	s := &stubborn{phones: phones("stubborn", proof(20_000, 200_000)), answered: map[string]bool{}}
	w.load(t, app, "room", s.phones)
	for _, name := range []string{"ingest-1", "ingest-2"} {
		s.clients = append(s.clients, &api.Client{URL: "http://" + c.roles[name].api, App: app, Key: key, HTTP: &http.Client{Transport: s, Timeout: time.Minute}})
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var workers sync.WaitGroup
	failed := make(chan error, 8)
	for range cap(failed) {
		workers.Go(func() {
			if err := s.work(ctx); err != nil {
				failed <- err
			}
		})
	}
	more := func(n int, when string) {
		t.Helper()
		want := s.count() + n
		eventually(t, 2*time.Minute, "notifications are answered "+when, func() bool {
			select {
			case err := <-failed:
				t.Fatalf("%s: %v", when, err)
			default:
			}
			return s.count() >= want
		})
	}
	more(100, "before anything dies")
	kills := proof(2, 12)
	for i := range kills {
		n := i%3 + 1
		b.kill(t, n)
		more(200, "while a broker is dead")
		b.back(t, n)
		more(200, "when it is back")
	}
	stop()
	workers.Wait()
	close(failed)
	for err := range failed {
		t.Error(err)
	}
	if bare := s.bare.Load(); bare > 0 {
		t.Errorf("%d answers 503 without Retry-After", bare)
	}

	there := map[string]int{}
	err := replay(t.Context(), w.open(t), "test", func(r schemas.Record) error {
		e, err := r.Event()
		if err != nil {
			return err
		}
		if n, ok := e.(*pushv1.NotificationRequested); ok {
			there[schemas.IDFrom(n.RequestId).String()]++
		}
		return nil
	}, schemas.Notifications)
	if err != nil {
		t.Fatal(err)
	}
	twice := 0
	for id := range s.answered {
		if there[id] == 0 {
			t.Errorf("notification %s was acknowledged and is not in the log", id)
		}
		twice += there[id] - 1
	}
	if len(there) != len(s.answered) {
		t.Errorf("%d notifications were acknowledged, and the log has %d", len(s.answered), len(there))
	}
	r := w.accounts(t, 2*time.Minute, int64(len(s.answered)))
	if want := int64(len(s.answered)); r.Accepted != want || r.Delivered != want {
		t.Errorf("want %d accepted and delivered, got %+v", want, r)
	}
	missed, again := 0, 0
	for _, got := range w.pushes(t, s.phones[:len(s.answered)]...) {
		if got == 0 {
			missed++
		}
		again += max(got-1, 0)
	}
	if missed > 0 {
		t.Errorf("%d phones got nothing", missed)
	}
	t.Logf("brokers: kills=%d acknowledged=%d answers_503=%d taken_twice=%d repeats=%d", kills, len(s.answered), s.busy.Load(), twice, again)
	// A sender that loses its partitions with a broker makes at most a window of each again.
	if bound := 2 * clusterPartitions * window * kills; again > bound {
		t.Errorf("%d repeats at the providers, of at most %d", again, bound)
	}
	c.stop(t)
}
