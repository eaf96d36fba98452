package logtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

const sends schemas.Topic = "sends.fcm.direct"

// expand turns each notification into a send of the same token.
type expand struct {
	mu   sync.Mutex
	seen map[string]int // by token
	fail func(token string) error
}

// Handle implements eventlog.Transformer.
func (e *expand) Handle(_ context.Context, in schemas.Batch, out *schemas.Out) error {
	var tokens []string
	for i := range in.Records {
		var n pushv1.NotificationRequested
		if err := in.Records[i].Into(&n); err != nil {
			return err
		}
		token := strings.Clone(n.Token)
		if e.fail != nil {
			if err := e.fail(token); err != nil {
				return err
			}
		}
		tokens = append(tokens, token)
		out.SendRequested(schemas.Direct, schemas.Device{App: "moodle", Transport: schemas.FCM, Token: token}, &pushv1.SendRequested{Token: token})
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.seen == nil {
		e.seen = map[string]int{}
	}
	for _, token := range tokens {
		e.seen[token]++
	}
	return nil
}

func (e *expand) counts() map[string]int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return maps.Clone(e.seen)
}

func (b *bench) notify(t *testing.T, tokens ...string) {
	t.Helper()
	b.append(t, func(out *schemas.Out) {
		for _, token := range tokens {
			id := schemas.NewID()
			out.NotificationRequested(&pushv1.NotificationRequested{RequestId: id[:], App: "moodle", Token: token})
		}
	})
}

func numbered(prefix string, n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("%s-%d", prefix, i)
	}
	return names
}

func direct(transactional bool) eventlog.TransformOptions {
	return eventlog.TransformOptions{
		Group: schemas.GroupDirectRouter, Topics: []schemas.Topic{schemas.Notifications}, Stage: "expand", Transactional: transactional,
	}
}

func (b *bench) tokens(t *testing.T) map[string]int {
	t.Helper()
	tokens := map[string]int{}
	for _, e := range b.read(t, sends)[sends] {
		tokens[e.(*pushv1.SendRequested).Token]++
	}
	return tokens
}

// once checks that every token came out once and nothing else did.
func once(t *testing.T, got map[string]int, want []string) {
	t.Helper()
	for _, token := range want {
		if got[token] != 1 {
			t.Errorf("%s: want once, got %d", token, got[token])
		}
	}
	if len(got) != len(want) {
		t.Errorf("want %d tokens, got %d", len(want), len(got))
	}
}

func testBisection(t *testing.T, b *bench) {
	for _, transactional := range []bool{false, true} {
		poison := fmt.Sprintf("poison-%t", transactional)
		good := numbered(fmt.Sprintf("good-%t", transactional), 200)
		b.notify(t, append(append([]string{}, good[:100]...), append([]string{poison}, good[100:]...)...)...)
		before := b.tokens(t)
		h := &expand{fail: func(token string) error {
			if token == poison {
				return errors.New("bad")
			}
			return nil
		}}
		stop := run(t, func(ctx context.Context) error { return b.log.RunTransform(ctx, direct(transactional), h) })
		eventually(t, "the group is at the end", func() bool { return b.lag(t, schemas.GroupDirectRouter, schemas.Notifications) == 0 })
		stop()
		after := b.tokens(t)
		for token := range before {
			delete(after, token)
		}
		once(t, after, good)
	}
	letters := b.read(t, schemas.DeadLetters)[schemas.DeadLetters]
	if len(letters) != 2 {
		t.Fatalf("want 2 dead letters, got %d", len(letters))
	}
	for _, e := range letters {
		letter := e.(*pushv1.DeadLettered)
		inner, err := schemas.Decode(letter.Value)
		if err != nil {
			t.Fatal(err)
		}
		if n := inner.(*pushv1.NotificationRequested); !strings.HasPrefix(n.Token, "poison") || letter.Reason != "bad" || letter.Stage != "expand" {
			t.Errorf("want the poison with its reason, got %v", letter)
		}
	}
}

func testPanic(t *testing.T, b *bench) {
	good := numbered("good", 20)
	b.notify(t, append([]string{"poison"}, good...)...)
	h := &expand{fail: func(token string) error {
		if token == "poison" {
			panic("boom")
		}
		return nil
	}}
	run(t, func(ctx context.Context) error { return b.log.RunTransform(ctx, direct(false), h) })
	eventually(t, "the group is at the end", func() bool { return b.lag(t, schemas.GroupDirectRouter, schemas.Notifications) == 0 })
	once(t, b.tokens(t), good)
	if n := sum(t, b, schemas.DeadLetters); n != 1 {
		t.Errorf("want 1 dead letter, got %d", n)
	}
}

func testTemporary(t *testing.T, b *bench) {
	good := numbered("good", 10)
	b.notify(t, good...)
	var mu sync.Mutex
	failures := 0
	h := &expand{fail: func(string) error {
		mu.Lock()
		defer mu.Unlock()
		if failures++; failures <= 5*Partitions {
			return fmt.Errorf("wrapped: %w", schemas.ErrBehind)
		}
		return nil
	}}
	run(t, func(ctx context.Context) error { return b.log.RunTransform(ctx, direct(false), h) })
	eventually(t, "the group is at the end", func() bool { return b.lag(t, schemas.GroupDirectRouter, schemas.Notifications) == 0 })
	once(t, b.tokens(t), good)
	if n := sum(t, b, schemas.DeadLetters); n != 0 {
		t.Errorf("want no dead letter, got %d", n)
	}
}

// registrations counts devices, by token.
type registrations struct {
	mu   sync.Mutex
	seen map[string]int
}

// Handle implements eventlog.Transformer.
func (c *registrations) Handle(_ context.Context, in schemas.Batch, _ *schemas.Out) error {
	var tokens []string
	for i := range in.Records {
		e, err := in.Records[i].Event()
		if err != nil {
			return err
		}
		tokens = append(tokens, e.(*pushv1.TokenRegistered).Token)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, token := range tokens {
		c.seen[token]++
	}
	return nil
}

func (c *registrations) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.seen)
}

func (b *bench) register(t *testing.T, tokens ...string) {
	t.Helper()
	b.append(t, func(out *schemas.Out) {
		for _, token := range tokens {
			out.TokenRegistered(&pushv1.TokenRegistered{App: "moodle", Transport: schemas.FCM, Token: token})
		}
	})
}

func projector() eventlog.TransformOptions {
	return eventlog.TransformOptions{Group: schemas.GroupProjector, Topics: []schemas.Topic{schemas.Devices}, Stage: "projector"}
}

// produce writes a raw value, as a newer or a broken process would.
func (b *bench) produce(t *testing.T, topic schemas.Topic, partition int32, value []byte) {
	t.Helper()
	opts := []kgo.Opt{kgo.SeedBrokers(b.cfg.Brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner())}
	if b.cfg.Dial != nil {
		opts = append(opts, kgo.Dialer(b.cfg.Dial))
	}
	client, err := kgo.NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	r := &kgo.Record{Topic: b.cfg.Prefix + string(topic), Partition: partition, Key: []byte("key"), Value: value}
	if err := client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

func testUnknownType(t *testing.T, b *bench) {
	before, after := numbered("before", 40), numbered("after", 40)
	b.register(t, before...)
	b.produce(t, schemas.Devices, 1, []byte{126, 1, 2, 3}) // a type of the future
	b.produce(t, schemas.Devices, 2, []byte{0xff})         // and one, too
	b.produce(t, schemas.Devices, 3, []byte{16, 0xff})     // a TokenRegistered that is none
	b.register(t, after...)
	layout := b.log.Layout()
	want := 0
	for _, token := range append(append([]string{}, before...), after...) {
		p := layout.Of(schemas.Device{App: "moodle", Transport: schemas.FCM, Token: token})
		if p == 0 || p == 3 || strings.HasPrefix(token, "before") {
			want++
		}
	}
	h := &registrations{seen: map[string]int{}}
	run(t, func(ctx context.Context) error { return b.log.RunTransform(ctx, projector(), h) })
	eventually(t, "everything but what stands behind the unknown events is handled", func() bool { return h.count() == want })
	eventually(t, "it is committed, up to the unknown events", func() bool {
		offsets, err := b.log.GroupOffsets(t.Context(), schemas.GroupProjector)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range offsets {
			stands := o.Partition == 1 || o.Partition == 2
			if !stands && o.Lag() != 0 || stands && o.Lag() == 0 {
				return false
			}
		}
		return true
	})
	if n := h.count(); n != want {
		t.Errorf("want %d devices, got %d", want, n)
	}
	if n := sum(t, b, schemas.DeadLetters); n != 1 {
		t.Errorf("want the malformed one as the only dead letter, got %d", n)
	}
}

func testTwoMembers(t *testing.T, b *bench) {
	one, two := &expand{}, &expand{}
	second := b.open(t, b.cfg)
	stopOne := run(t, func(ctx context.Context) error { return b.log.RunTransform(ctx, direct(false), one) })
	run(t, func(ctx context.Context) error { return second.RunTransform(ctx, direct(false), two) })
	var all []string
	for i := 0; len(two.counts()) == 0 || len(one.counts()) == 0; i++ {
		tokens := numbered(fmt.Sprintf("round-%d", i), 50)
		all = append(all, tokens...)
		b.notify(t, tokens...)
		eventually(t, "the group is at the end", func() bool { return b.lag(t, schemas.GroupDirectRouter, schemas.Notifications) == 0 })
	}
	stopOne()
	rest := numbered("rest", 50)
	all = append(all, rest...)
	b.notify(t, rest...)
	eventually(t, "the other one has it all", func() bool { return b.lag(t, schemas.GroupDirectRouter, schemas.Notifications) == 0 })
	once(t, b.tokens(t), all)
}

// tally counts the sends that finished, with state restored from progress.
type tally struct {
	mu       sync.Mutex
	counts   map[int32]int64
	restored int
	panics   int
}

// Handle implements eventlog.Transformer.
func (c *tally) Handle(_ context.Context, in schemas.Batch, out *schemas.Out) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.counts[in.Partition]
	for i := range in.Records {
		if in.Records[i].Type() == pushv1.EventType_EVENT_TYPE_DELIVERY_FINISHED {
			n++
			c.counts[in.Partition] = n // a panic leaves the state half changed
		}
		if c.panics > 0 {
			c.panics--
			panic("boom")
		}
	}
	id := schemas.ID{1}
	out.ProgressCounted(&pushv1.ProgressCounted{
		BroadcastId: id[:], Partition: in.Partition, Counts: []*pushv1.TransportCounts{{Accepted: n}}, Through: in.Next(),
	})
	return nil
}

// Reset implements eventlog.Restorer.
func (c *tally) Reset(partition int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts[partition] = 0
}

// Restore implements eventlog.Restorer.
func (c *tally) Restore(partition int32, r schemas.Record) error {
	e, err := r.Event()
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.restored++
	c.counts[partition] = e.(*pushv1.ProgressCounted).Counts[0].Accepted
	return nil
}

func (b *bench) finish(t *testing.T, n int) {
	t.Helper()
	b.append(t, func(out *schemas.Out) {
		for i := range n {
			out.DeliveryFinished(int32(i%Partitions), uint64(i), &pushv1.DeliveryFinished{})
		}
	})
}

func testRestore(t *testing.T, b *bench) {
	o := eventlog.TransformOptions{
		Group: schemas.GroupTally, Topics: []schemas.Topic{schemas.Deliveries}, Stage: "tally", Transactional: true,
		StateTopic: schemas.Progress, MaxBatch: 50,
	}
	total := 0
	for round, panics := range []int{0, 0, 4} {
		h := &tally{counts: map[int32]int64{0: 1000, 1: 1000, 2: 1000, 3: 1000}, panics: panics} // Reset must throw this away
		stop := run(t, func(ctx context.Context) error { return b.log.RunTransform(ctx, o, h) })
		b.finish(t, 300)
		total += 300
		eventually(t, "the group is at the end", func() bool { return b.lag(t, schemas.GroupTally, schemas.Deliveries) == 0 })
		stop()
		if round > 0 && h.restored == 0 {
			t.Error("nothing was restored")
		}
		last := map[int32]int64{}
		for _, e := range b.read(t, schemas.Progress)[schemas.Progress] {
			counted := e.(*pushv1.ProgressCounted)
			last[counted.Partition] = counted.Counts[0].Accepted
		}
		got := 0
		for _, n := range last {
			got += int(n)
		}
		got += sum(t, b, schemas.DeadLetters)
		if got != total {
			t.Errorf("round %d: want %d counted, got %d", round, total, got)
		}
	}
}

func testPositions(t *testing.T, b *bench) {
	tokens := numbered("token", 40)
	b.register(t, tokens...)
	o := projector()
	o.Positions = func(_ context.Context, _ schemas.Topic, partitions []int32) (map[int32]int64, error) {
		own := map[int32]int64{}
		for _, p := range partitions {
			if p != 0 {
				own[p] = 1 // the first record is in the rows already; of partition 0 the stage knows nothing
			}
		}
		return own, nil
	}
	layout := b.log.Layout()
	first := map[int32]bool{0: true}
	want := 0
	for _, token := range tokens {
		p := layout.Of(schemas.Device{App: "moodle", Transport: schemas.FCM, Token: token})
		if p == 0 || first[p] {
			want++
		}
		first[p] = true
	}
	h := &registrations{seen: map[string]int{}}
	run(t, func(ctx context.Context) error { return b.log.RunTransform(ctx, o, h) })
	eventually(t, "the group is at the end", func() bool { return b.lag(t, schemas.GroupProjector, schemas.Devices) == 0 })
	if got := h.count(); got != want {
		t.Errorf("want %d devices handled, got %d", want, got)
	}
}

// testPositionsAhead: a stage that was killed between its rows and its commit has nothing left to handle, and is not behind for ever.
func testPositionsAhead(t *testing.T, b *bench) {
	b.register(t, numbered("token", 40)...)
	o := projector()
	o.Positions = func(ctx context.Context, topic schemas.Topic, _ []int32) (map[int32]int64, error) {
		ends, err := b.log.Ends(ctx, topic)
		own := map[int32]int64{}
		for p, end := range ends {
			own[int32(p)] = end
		}
		return own, err
	}
	h := &registrations{seen: map[string]int{}}
	run(t, func(ctx context.Context) error { return b.log.RunTransform(ctx, o, h) })
	eventually(t, "the group is where the stage is", func() bool { return b.lag(t, schemas.GroupProjector, schemas.Devices) == 0 })
	if got := h.count(); got != 0 {
		t.Errorf("want nothing handled, got %d devices", got)
	}
}

func testLostPlace(t *testing.T, b *bench) {
	b.notify(t, numbered("token", 10)...)
	if err := b.log.ForgetGroup(t.Context(), schemas.GroupDirectRouter); err != nil {
		t.Fatal(err)
	}
	h := &expand{}
	if err := b.log.RunTransform(t.Context(), direct(false), h); !errors.Is(err, eventlog.ErrNoOffset) {
		t.Fatalf("want ErrNoOffset, got %v", err)
	}
	if n := len(h.counts()); n != 0 {
		t.Errorf("a group without offsets handled %d records", n)
	}
	placed := make(chan error, 1)
	go func() { placed <- b.log.AwaitPlace(t.Context(), schemas.GroupDirectRouter) }()
	done, err := b.log.ResetGroup(t.Context(), schemas.GroupDirectRouter, eventlog.ResetMissing)
	if err != nil || len(done) != Partitions {
		t.Fatalf("want %d partitions reset, got %v, %v", Partitions, done, err)
	}
	if err := <-placed; err != nil {
		t.Errorf("after the reset the group has a place again: %v", err)
	}
	run(t, func(ctx context.Context) error { return b.log.RunTransform(ctx, direct(false), h) })
	eventually(t, "the group is at the end", func() bool { return b.lag(t, schemas.GroupDirectRouter, schemas.Notifications) == 0 })
	once(t, b.tokens(t), numbered("token", 10))
}

// idle says one thing for each partition into which nothing comes.
type idle struct {
	expand
	mu      sync.Mutex
	visited map[int32]int
}

// Idle implements eventlog.Idler.
func (i *idle) Idle(_ context.Context, partition int32, out *schemas.Out) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.visited[partition]++; i.visited[partition] == 1 {
		return errors.New("not at the first time")
	}
	if i.visited[partition] == 2 {
		out.RequestsRouted(&pushv1.RequestsRouted{Partition: partition})
	}
	return nil
}

// testIdle has partitions without records visited, again and again, also after an error, and what is said there appended. Records that
// come later are handled.
func testIdle(t *testing.T, b *bench) {
	for _, transactional := range []bool{false, true} {
		before := len(b.read(t, schemas.Routed)[schemas.Routed])
		h := &idle{visited: map[int32]int{}}
		o := direct(transactional)
		o.IdleEvery = 20 * time.Millisecond
		stop := run(t, func(ctx context.Context) error { return b.log.RunTransform(ctx, o, h) })
		partitions := b.log.Layout().Partitions
		eventually(t, "every partition is visited", func() bool {
			h.mu.Lock()
			defer h.mu.Unlock()
			n := int32(0)
			for _, visits := range h.visited {
				if visits >= 3 {
					n++
				}
			}
			return n == partitions
		})
		tokens := numbered(fmt.Sprintf("idle-%t", transactional), 20)
		b.notify(t, tokens...)
		eventually(t, "the group is at the end", func() bool { return b.lag(t, schemas.GroupDirectRouter, schemas.Notifications) == 0 })
		stop()
		once(t, h.counts(), tokens)
		if n := len(b.read(t, schemas.Routed)[schemas.Routed]) - before; n != int(partitions) {
			t.Errorf("transactional %t: want one record of each partition, got %d", transactional, n)
		}
	}
}
