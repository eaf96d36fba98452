package router_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/campanile-push/campanile/router"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// keyed is a request under an Idempotency-Key, as any ingest would append it.
func keyed(key, text string) *pushv1.NotificationRequested {
	id, hash := schemas.RequestID("app", "k", key), sha256.Sum256([]byte(text))
	return push("of-"+key, func(e *pushv1.NotificationRequested) {
		e.RequestId, e.BodyHash, e.Content.Text = id[:], hash[:], text
	})
}

// alike is a push that says what others say, where repeats are dropped.
func alike(text string, within time.Duration) *pushv1.NotificationRequested {
	id, repeat := schemas.NewID(), schemas.RepeatKey("app", "k", sha256.Sum256([]byte(text)))
	return push("of-"+text, func(e *pushv1.NotificationRequested) {
		e.RequestId, e.RepeatKey, e.RepeatWithinUs, e.Content.Text = id[:], repeat[:], within.Microseconds(), text
	})
}

// routedLog is one partition of notifications, and what a direct router made of it.
type routedLog struct {
	t             *testing.T
	notifications []schemas.Record
	routed        []schemas.Record
	committed     int
	sentAt        map[int64]bool // offsets that became a send
	conflicts     map[string]int
	copies        map[schemas.ID]bool
}

func newRoutedLog(t *testing.T) *routedLog {
	t.Helper()
	return &routedLog{t: t, sentAt: map[int64]bool{}, conflicts: map[string]int{}, copies: map[schemas.ID]bool{}}
}

// add appends a request, which carries its offset as its time.
func (l *routedLog) add(atUS int64, e *pushv1.NotificationRequested) {
	e.RequestedAtUs = int64(len(l.notifications))
	l.notifications = append(l.notifications, schemas.Record{
		Topic: schemas.Notifications, Offset: int64(len(l.notifications)), TimeUS: atUS, Key: e.RequestId, Value: schemas.AppendEvent(nil, e),
	})
}

// life is one ownership of the partition: state restored, some batches handled, and at last perhaps a batch whose offset is not
// committed, or of which nothing reached the log.
func (l *routedLog) life(d *router.Direct, batches int) {
	l.t.Helper()
	d.Reset(0)
	for _, r := range l.routed {
		if err := d.Restore(0, r); err != nil {
			l.t.Fatal(err)
		}
	}
	for i := range batches {
		n := min(1+rand.IntN(20), len(l.notifications)-l.committed)
		if n == 0 {
			return
		}
		in := schemas.Batch{Topic: schemas.Notifications, Records: l.notifications[l.committed : l.committed+n]}
		out := schemas.NewOut(schemas.Layout{Partitions: 1})
		if err := d.Handle(l.t.Context(), in, out); err != nil {
			l.t.Fatal(err)
		}
		last := i == batches-1
		if last && rand.IntN(3) == 0 {
			return // killed before the append
		}
		l.take(out)
		if last && rand.IntN(2) == 0 {
			return // killed before the commit
		}
		l.committed += n
	}
}

// take appends what was said.
func (l *routedLog) take(out *schemas.Out) {
	l.t.Helper()
	out.Each(func(topic schemas.Topic, p int32, key, value []byte) {
		if topic == schemas.Routed {
			l.routed = append(l.routed, schemas.Record{
				Topic: topic, Partition: p, Offset: int64(len(l.routed)), Key: append([]byte{}, key...), Value: append([]byte{}, value...),
			})
			return
		}
		e, err := schemas.Decode(value)
		if err != nil {
			l.t.Fatal(err)
		}
		switch e := e.(type) {
		case *pushv1.SendRequested:
			l.sentAt[e.RequestedAtUs] = true
		case *pushv1.DeliveryAttempted:
			l.conflicts[string(e.SendId)]++
		case *pushv1.DeliveryFinished:
			l.copies[schemas.IDFrom(e.RequestId)] = true
		}
	})
}

// TestRepeatsAreWhatTheLogSaysWhateverDies compares with a plain reading of the log: the first of an id is sent, and again when its
// time is over; what comes meanwhile is not.
func TestRepeatsAreWhatTheLogSaysWhateverDies(t *testing.T) {
	t.Parallel()
	for round := range 20 {
		l := newRoutedLog(t)
		const within = 20 * time.Second
		atUS := int64(1_780_000_000_000_000)
		var requests []*pushv1.NotificationRequested
		for range 600 {
			e := push("plain")
			switch rand.IntN(4) {
			case 0, 1:
				e = keyed(fmt.Sprint("key-", rand.IntN(60)), fmt.Sprint("text-", rand.IntN(2)))
			case 2:
				e = alike(fmt.Sprint("text-", rand.IntN(20)), within)
			default:
				id := schemas.NewID()
				e.RequestId = id[:]
			}
			atUS += rand.Int64N(10_000) * 1000 // the time of a log is in milliseconds
			if rand.IntN(100) == 0 {
				atUS += (11 * time.Hour).Microseconds()
			}
			l.add(atUS, e)
			requests = append(requests, e)
		}
		for l.committed < len(l.notifications) {
			l.life(router.NewDirect(router.DirectOptions{}, &devices{}, hasher(t), quiet()), 1+rand.IntN(5))
		}

		type first struct {
			atUS int64
			text string
		}
		seen := map[schemas.ID]first{}
		conflicts := 0
		for i, e := range requests {
			at, key, keep := l.notifications[i].TimeUS, schemas.IDFrom(e.RequestId), schemas.RememberRequests
			if e.RepeatKey != nil {
				key, keep = schemas.IDFrom(e.RepeatKey), within
			}
			f, ok := seen[key]
			again := ok && at-f.atUS <= keep.Microseconds()
			if !again {
				seen[key] = first{at, e.Content.Text}
			}
			if got := l.sentAt[int64(i)]; got == again {
				t.Fatalf("round %d, request %d (%x): it is a repeat: %v; it was sent: %v", round, i, key, again, got)
			}
			if again && e.RepeatKey == nil && f.text != e.Content.Text {
				conflicts++
			}
			if got := l.copies[schemas.IDFrom(e.RequestId)]; got != (again && e.RepeatKey != nil) {
				t.Fatalf("round %d, request %d: a dropped copy must end, and nothing else: %v", round, i, got)
			}
		}
		said := 0
		for _, n := range l.conflicts {
			said += n
		}
		if said < conflicts || conflicts == 0 {
			t.Errorf("round %d: %d requests met another one's id, the log says so of %d", round, conflicts, said)
		}
	}
}

// TestAFailedBatchIsNoRepeatOfItself: the runner handles a batch again, whole and in halves, when an append failed.
func TestAFailedBatchIsNoRepeatOfItself(t *testing.T) {
	t.Parallel()
	d := router.NewDirect(router.DirectOptions{}, &devices{}, hasher(t), quiet())
	in := notifications(t, keyed("a", "one"), keyed("a", "one"), keyed("b", "two"))
	for _, part := range []schemas.Batch{in, in, {Topic: in.Topic, Records: in.Records[:1]}, {Topic: in.Topic, Records: in.Records[1:]}} {
		out := schemas.NewOut(layout3)
		if err := d.Handle(t.Context(), part, out); err != nil {
			t.Fatal(err)
		}
		sends, remembered := 0, 0
		for _, s := range listOut(t, out) {
			switch e := s.event.(type) {
			case *pushv1.SendRequested:
				sends++
			case *pushv1.RequestsRouted:
				remembered += len(e.Offsets)
			}
		}
		want := min(2, len(part.Records))
		if len(part.Records) == 2 {
			want = 1 // the first of them is a repeat of what stands before
		}
		if sends != want || remembered != want {
			t.Errorf("%d records: want %d sends, and as many to remember; got %d and %d", len(part.Records), want, sends, remembered)
		}
	}
}

func TestWhatIsNoStateIsPassedOver(t *testing.T) {
	t.Parallel()
	d := router.NewDirect(router.DirectOptions{}, &devices{}, hasher(t), quiet())
	for _, value := range []string{"", "\x00", "\x21\xff\xff", "\xc8newer", "\x21\x12\x03abc", "\x20"} {
		if err := d.Restore(0, schemas.Record{Topic: schemas.Routed, Value: []byte(value)}); err != nil {
			t.Errorf("%q: %v", value, err)
		}
	}
}

// TestKnownRequestsAreBounded: beyond the bound the oldest are forgotten early, and the newest are still known.
func TestKnownRequestsAreBounded(t *testing.T) {
	t.Parallel()
	const most = 1000
	d := router.NewDirect(router.DirectOptions{MaxKnown: most}, &devices{}, hasher(t), quiet())
	handle := func(offset int64, at time.Duration, key string) (sent bool) {
		e := keyed(key, "x")
		in := schemas.Batch{Topic: schemas.Notifications, Records: []schemas.Record{{
			Topic: schemas.Notifications, Offset: offset, TimeUS: at.Microseconds(), Key: e.RequestId, Value: schemas.AppendEvent(nil, e),
		}}}
		out := schemas.NewOut(layout3)
		if err := errors.Join(d.Handle(t.Context(), in, out)); err != nil {
			t.Fatal(err)
		}
		return out.Len() > 0
	}
	for i := range int64(3 * most) {
		handle(i, time.Duration(i)*20*time.Second, fmt.Sprint(i))
	}
	now := 3 * most * 20 * time.Second
	if handle(3*most, now, fmt.Sprint(3*most-1)) {
		t.Error("the newest is not known")
	}
	if !handle(3*most+1, now, "0") {
		t.Error("the oldest is still known")
	}
}
