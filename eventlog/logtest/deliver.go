package logtest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// pusher holds what it is given until the test answers it.
type pusher struct {
	mu         sync.Mutex
	held       map[string]push
	order      []string // tokens as they came
	remembered int
	auto       bool // answer at once
	owned      map[schemas.Topic]int
}

type push struct {
	at   schemas.SendTopic
	p    int32
	off  int64
	done schemas.Completion
	key  []byte
}

func newPusher() *pusher { return &pusher{held: map[string]push{}} }

// Deliver implements eventlog.Deliverer.
func (p *pusher) Deliver(_ context.Context, in schemas.Batch, done schemas.Completion) error {
	at, _ := schemas.ParseSendTopic(in.Topic)
	for i := range in.Records {
		var e pushv1.SendRequested
		if err := in.Records[i].Into(&e); err != nil {
			return err
		}
	}
	for i := range in.Records {
		var e pushv1.SendRequested
		if err := in.Records[i].Into(&e); err != nil {
			return err
		}
		token := strings.Clone(e.Token)
		it := push{at, in.Partition, in.Records[i].Offset, done, append([]byte(nil), in.Records[i].Key...)}
		p.mu.Lock()
		p.order = append(p.order, token)
		auto := p.auto
		if !auto {
			p.held[token] = it
		}
		p.mu.Unlock()
		if auto {
			it.finish()
		}
	}
	return nil
}

// Remember implements eventlog.Rememberer.
func (p *pusher) Remember(int32, *pushv1.DeliveryFinished) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.remembered++
}

// Owns implements eventlog.Sharer.
func (p *pusher) Owns(topic schemas.Topic, owned, partitions int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.owned == nil {
		p.owned = map[schemas.Topic]int{}
	}
	if p.owned[topic] = owned; partitions != Partitions {
		p.owned[topic] = -1
	}
}

// owns is how many partitions of a topic were said to be this one's; -1: nothing was said, or nonsense.
func (p *pusher) owns(topic schemas.Topic) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n, ok := p.owned[topic]
	if !ok {
		return -1
	}
	return n
}

func (q push) source() *pushv1.Source {
	return &pushv1.Source{Lane: q.at.Lane, Tier: q.at.Tier, Offset: q.off}
}

func (q push) finish() {
	q.done.Complete(q.off, func(out *schemas.Out) {
		out.DeliveryFinished(q.p, 7, &pushv1.DeliveryFinished{
			Transport: q.at.Transport, Outcome: pushv1.Outcome_OUTCOME_ACCEPTED, Source: q.source(), Generation: q.done.Generation(),
		})
	})
}

func (q push) move(tier uint32, token string) {
	to := q.at
	to.Tier = tier
	q.done.Complete(q.off, func(out *schemas.Out) {
		out.DeliveryAttempted(q.p, 7, &pushv1.DeliveryAttempted{Transport: q.at.Transport, Source: q.source(), Generation: q.done.Generation()})
		out.Retry(to, q.p, q.key, &pushv1.SendRequested{Token: token, Source: q.source(), Attempt: 1, Generation: q.done.Generation()})
	})
}

func (p *pusher) has(token string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.held[token]
	return ok
}

func (p *pusher) take(token string) push {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := p.held[token]
	delete(p.held, token)
	return q
}

func (p *pusher) pushed() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.order)
}

func (p *pusher) times() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := map[string]int{}
	for _, token := range p.order {
		n[token]++
	}
	return n
}

func sender() eventlog.DeliverOptions {
	o := eventlog.DeliverOptions{
		Group: schemas.SenderGroup(schemas.FCM, schemas.Direct), Stage: "sender", LookBack: 1000,
		NotBefore: func(r schemas.Record) int64 {
			var e pushv1.SendRequested
			if r.Into(&e) != nil {
				return 0
			}
			return e.NotBeforeUs
		},
	}
	for _, s := range schemas.SendTopics(schemas.FCM, schemas.Direct) {
		o.Topics = append(o.Topics, s.Topic())
	}
	return o
}

// device is one whose sends go to partition p.
func (b *bench) device(p int32, i int) schemas.Device {
	for try := 0; ; try++ {
		d := schemas.Device{App: "moodle", Transport: schemas.FCM, Token: fmt.Sprintf("p%d-%d-%d", p, i, try)}
		if b.log.Layout().Of(d) == p {
			return d
		}
	}
}

// request asks for n sends in partition p, and returns their tokens in order.
func (b *bench) request(t *testing.T, p int32, from, n int) (tokens []string) {
	t.Helper()
	b.append(t, func(out *schemas.Out) {
		for i := range n {
			d := b.device(p, from+i)
			tokens = append(tokens, d.Token)
			out.SendRequested(schemas.Direct, d, &pushv1.SendRequested{Token: d.Token})
		}
	})
	return tokens
}

func (b *bench) deliver(t *testing.T, log *eventlog.Log, o eventlog.DeliverOptions, p *pusher) (stop func()) {
	t.Helper()
	return run(t, func(ctx context.Context) error { return log.RunDeliver(ctx, o, p) })
}

// committed is the sender group's offset in a partition of its first topic.
func (b *bench) committed(t *testing.T, p int32) int64 {
	t.Helper()
	offsets, err := b.log.GroupOffsets(t.Context(), schemas.SenderGroup(schemas.FCM, schemas.Direct))
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range offsets {
		if o.Topic == sends && o.Partition == p {
			return o.Committed
		}
	}
	t.Fatal("no such partition")
	return -1
}

func testContiguous(t *testing.T, b *bench) {
	tokens := b.request(t, 1, 0, 10)
	h := newPusher()
	b.deliver(t, b.log, sender(), h)
	eventually(t, "all are pushed", func() bool { return h.pushed() == 10 })
	for i := 9; i > 0; i-- {
		h.take(tokens[i]).finish()
	}
	eventually(t, "nine outcomes are recorded", func() bool { return b.finished(t) == 9 })
	tokens = append(tokens, b.request(t, 2, 0, 1)...)
	eventually(t, "another partition goes on", func() bool { return h.has(tokens[10]) })
	h.take(tokens[10]).finish()
	eventually(t, "the other partition's offset is committed", func() bool { return b.committed(t, 2) == 1 })
	if at := b.committed(t, 1); at != 0 {
		t.Errorf("want offset 0 while the first send is open, got %d", at)
	}
	h.take(tokens[0]).finish()
	eventually(t, "the offset is committed", func() bool { return b.committed(t, 1) == 10 })
}

func (b *bench) finished(t *testing.T) (n int) {
	t.Helper()
	for _, e := range b.read(t, schemas.Deliveries)[schemas.Deliveries] {
		if _, ok := e.(*pushv1.DeliveryFinished); ok {
			n++
		}
	}
	return n
}

func testWindow(t *testing.T, b *bench) {
	tokens := b.request(t, 1, 0, 20)
	o := sender()
	o.Window = 4
	h := newPusher()
	b.deliver(t, b.log, o, h)
	other := b.request(t, 2, 0, 1)
	for i, token := range tokens {
		eventually(t, "the next one is pushed", func() bool { return h.has(token) })
		if n := h.pushed(); n > i+o.Window+1 {
			t.Fatalf("want at most %d in flight, got %d pushed after %d finished", o.Window, n, i)
		}
		h.take(token).finish()
	}
	eventually(t, "another partition went on", func() bool { return h.has(other[0]) })
	h.take(other[0]).finish()
	eventually(t, "the offset is committed", func() bool { return b.committed(t, 1) == 20 })
}

func testTotal(t *testing.T, b *bench) {
	const n, most = 300, 50
	tokens := b.request(t, 1, 0, n)
	o := sender()
	o.Total = most
	h := newPusher()
	b.deliver(t, b.log, o, h)
	eventually(t, "as many are pushed as may be", func() bool { return h.pushed() >= most })
	other := b.request(t, 2, 0, 1)
	eventually(t, "another partition has its part", func() bool { return h.has(other[0]) })
	for i, token := range tokens {
		eventually(t, "the next one is pushed", func() bool { return h.has(token) })
		if in := h.pushed() - i; in > most+1 {
			t.Fatalf("want at most %d in memory and the other partition's, got %d", most, in)
		}
		h.take(token).finish()
	}
	h.take(other[0]).finish()
	eventually(t, "the group is at the end", func() bool { return b.lag(t, o.Group, o.Topics...) == 0 })
}

func testNotBefore(t *testing.T, b *bench) {
	later := time.Now().Add(2 * time.Second)
	held := b.device(1, 0)
	b.append(t, func(out *schemas.Out) {
		out.Retry(schemas.SendTopic{Transport: schemas.FCM, Lane: schemas.Direct, Tier: 1}, 1, held.AppendKey(nil),
			&pushv1.SendRequested{Token: held.Token, NotBeforeUs: later.UnixMicro()})
	})
	h := newPusher()
	h.auto = true
	b.deliver(t, b.log, sender(), h)
	free := b.request(t, 1, 1, 1)
	eventually(t, "the others are pushed", func() bool { return h.times()[free[0]] == 1 })
	eventually(t, "the held one is pushed", func() bool {
		pushed := h.times()[held.Token] == 1
		if pushed && time.Now().Before(later) {
			t.Error("pushed before its time")
		}
		return pushed
	})
}

func testStop(t *testing.T, b *bench) {
	o := sender()
	all := map[string]bool{}
	total := map[string]int{}
	for round := range 4 {
		h := newPusher()
		h.auto = true
		stop := b.deliver(t, b.log, o, h)
		for p := range int32(Partitions) {
			for _, token := range b.request(t, p, round*1000, 100) {
				all[token] = true
			}
		}
		eventually(t, "some are pushed", func() bool { return h.pushed() > 0 })
		stop()
		for token, n := range h.times() {
			total[token] += n
		}
	}
	h := newPusher()
	h.auto = true
	b.deliver(t, b.log, o, h)
	eventually(t, "the group is at the end", func() bool { return b.lag(t, o.Group, o.Topics...) == 0 })
	for token, n := range h.times() {
		total[token] += n
	}
	for token := range all {
		if total[token] != 1 {
			t.Errorf("%s: want pushed once, got %d", token, total[token])
		}
	}
	if got := b.finished(t); got != len(all) {
		t.Errorf("want %d outcomes, got %d", len(all), got)
	}
}

// owner delivers, by a process that can be killed, until so many are pushed.
func (b *bench) owner(t *testing.T, o eventlog.DeliverOptions, what string, pushes int) (h *pusher, kill func()) {
	t.Helper()
	log, kill := b.killable(t)
	h = newPusher()
	b.deliver(t, log, o, h)
	eventually(t, what, func() bool { return h.pushed() == pushes })
	return h, kill
}

func testTakeover(t *testing.T, b *bench) {
	o := sender()
	first := b.request(t, 1, 0, 100)
	h, kill := b.owner(t, o, "all are pushed", 100)
	answered := map[string]bool{}
	for i, token := range first {
		if i%3 != 0 {
			answered[token] = true
			h.take(token).finish()
		}
	}
	eventually(t, "the answers are recorded", func() bool { return b.finished(t) == len(answered) })
	generation := h.take(first[0]).done.Generation()
	kill()

	// A second owner learns what is done, does nothing, and is killed too: the third must inherit it.
	h, kill = b.owner(t, o, "the second owner pushes what was not recorded", 100-len(answered))
	if h.remembered != len(answered) {
		t.Errorf("want %d ends remembered, got %d", len(answered), h.remembered)
	}
	if q := h.take(first[0]); q.done == nil || q.done.Generation() <= generation {
		t.Error("want a higher generation of the second owner")
	}
	eventually(t, "the second owner commits", func() bool { return b.mark(t, 1) != "" })
	kill()

	h = newPusher()
	h.auto = true
	b.deliver(t, b.log, o, h)
	rest := b.request(t, 1, 1000, 10)
	eventually(t, "the group is at the end", func() bool { return b.lag(t, o.Group, o.Topics...) == 0 })
	times := h.times()
	for _, token := range first {
		want := 1
		if answered[token] {
			want = 0
		}
		if times[token] != want {
			t.Errorf("%s: want %d pushes by the third owner, got %d", token, want, times[token])
		}
	}
	for _, token := range rest {
		if times[token] != 1 {
			t.Errorf("%s: want pushed once, got %d", token, times[token])
		}
	}
	owners := 0
	for _, e := range b.read(t, schemas.Deliveries)[schemas.Deliveries] {
		if changed, ok := e.(*pushv1.OwnerChanged); ok && changed.Tier == 0 && changed.Partition == 1 {
			owners++
		}
	}
	if owners < 3 {
		t.Errorf("want OwnerChanged of at least 3 owners, got %d", owners)
	}
}

// mark is the metadata of the sender group's commit.
func (b *bench) mark(t *testing.T, p int32) string {
	t.Helper()
	offsets, err := b.log.GroupOffsets(t.Context(), schemas.SenderGroup(schemas.FCM, schemas.Direct))
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range offsets {
		if o.Topic == sends && o.Partition == p {
			return o.Metadata
		}
	}
	return ""
}

func testMoved(t *testing.T, b *bench) {
	o := sender()
	tokens := b.request(t, 1, 0, 10)
	h, kill := b.owner(t, o, "all are pushed", 10)
	for _, token := range tokens[5:] {
		h.take(token).move(2, token)
	}
	eventually(t, "the moved ones come again from their tier", func() bool { return h.pushed() == 15 })
	// An attempt without its Retry, as a crash between the two leaves it, is no end.
	q := h.take(tokens[1])
	b.append(t, func(out *schemas.Out) {
		out.DeliveryAttempted(q.p, 7, &pushv1.DeliveryAttempted{Transport: schemas.FCM, Source: q.source()})
	})
	kill()
	h = newPusher()
	h.auto = true
	b.deliver(t, b.log, o, h)
	eventually(t, "the group is at the end", func() bool { return b.lag(t, o.Group, o.Topics...) == 0 })
	once(t, h.times(), tokens)
}

// testLateOwner has an owner of before write when its partitions are another's, as a producer does that was cut off and finds its brokers
// again: the sends that it moves are not pushed, and neither they nor its ends prove anything to the owners after.
func testLateOwner(t *testing.T, b *bench) {
	o := sender()
	tokens := b.request(t, 1, 0, 9)
	h, kill := b.owner(t, o, "all are pushed", 9)
	var late []push
	for i, token := range tokens {
		if q := h.take(token); i < 6 {
			late = append(late, q)
		} else {
			q.move(1, token) // in time
		}
	}
	eventually(t, "the moved ones come again from their tier", func() bool { return h.pushed() == 12 })
	kill()

	h, kill = b.owner(t, o, "the second owner pushes what was not finished", 9)
	marker := b.device(1, 100)
	b.append(t, func(out *schemas.Out) {
		tier := schemas.SendTopic{Transport: schemas.FCM, Lane: schemas.Direct, Tier: 1}
		for i, q := range late {
			if i < 3 {
				out.Retry(tier, q.p, q.key, &pushv1.SendRequested{Token: "late", Source: q.source(), Attempt: 1, Generation: q.done.Generation()})
				continue
			}
			out.DeliveryFinished(q.p, 7, &pushv1.DeliveryFinished{
				Transport: q.at.Transport, Outcome: pushv1.Outcome_OUTCOME_ACCEPTED, Source: q.source(), Generation: q.done.Generation(),
			})
		}
		out.Retry(tier, 1, marker.AppendKey(nil), &pushv1.SendRequested{Token: marker.Token})
	})
	eventually(t, "what stands behind the late ones is pushed", func() bool { return h.has(marker.Token) })
	h.take(marker.Token).finish()
	eventually(t, "its end is recorded", func() bool { return b.finished(t) == 4 })
	if h.has("late") {
		t.Error("what an earlier owner moved too late was pushed")
	}
	kill()

	h = newPusher()
	h.auto = true
	b.deliver(t, b.log, o, h)
	eventually(t, "the group is at the end", func() bool { return b.lag(t, o.Group, o.Topics...) == 0 })
	once(t, h.times(), tokens)
	if h.remembered != 1 {
		t.Errorf("want the one end remembered that counts, got %d", h.remembered)
	}
}

// testResetSender loses the group, whose generations start over: what its new owners move and finish counts, although owners of a higher
// number were there before.
func testResetSender(t *testing.T, b *bench) {
	o := sender()
	for range 3 {
		h := newPusher()
		h.auto = true
		stop := b.deliver(t, b.log, o, h)
		b.request(t, 1, 0, 1)
		eventually(t, "it is pushed", func() bool { return h.pushed() > 0 })
		stop()
	}
	before := b.finished(t)
	if err := b.log.ForgetGroup(t.Context(), o.Group); err != nil {
		t.Fatal(err)
	}
	if _, err := b.log.ResetGroup(t.Context(), o.Group, eventlog.ResetEarliest); err != nil {
		t.Fatal(err)
	}
	token := b.request(t, 1, 100, 1)[0]
	h := newPusher()
	stop := b.deliver(t, b.log, o, h)
	eventually(t, "it is pushed", func() bool { return h.has(token) })
	h.take(token).move(1, token)
	eventually(t, "it comes again from its tier", func() bool { return h.has(token) })
	stop()
	log, kill := b.killable(t)
	h = newPusher()
	b.deliver(t, log, o, h)
	eventually(t, "the next owner has it too", func() bool { return h.has(token) })
	h.take(token).finish()
	eventually(t, "its end is recorded", func() bool { return b.finished(t) == before+1 })
	kill()
	h = newPusher()
	h.auto = true
	b.deliver(t, b.log, o, h)
	eventually(t, "the group is at the end", func() bool { return b.lag(t, o.Group, o.Topics...) == 0 })
	if n := h.times()[token]; n != 0 {
		t.Errorf("want what is finished not pushed again, got %d pushes", n)
	}
}

// testStopWaits stops a stage whose pushes are answered while it stops, and some never.
func testStopWaits(t *testing.T, b *bench) {
	o := sender()
	tokens := b.request(t, 1, 0, 30)
	h := newPusher()
	stop := b.deliver(t, b.log, o, h)
	eventually(t, "all are pushed", func() bool { return h.pushed() == 30 })
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		stop()
	}()
	last := h.take(tokens[29])
	eventually(t, "the stop has waited for answers, and allows no push more", func() bool { return !last.done.MayPush() })
	last.finish()
	for _, token := range tokens[10:29] {
		h.take(token).finish()
	}
	<-stopped
	h.take(tokens[0]).finish() // after the end, and ignored
	if at := b.committed(t, 1); at != 0 {
		t.Errorf("want offset 0 while the first sends are open, got %d", at)
	}
	if got := b.finished(t); got != 20 {
		t.Errorf("want the 20 answers recorded that came in time, got %d", got)
	}
	h = newPusher()
	h.auto = true
	b.deliver(t, b.log, o, h)
	eventually(t, "the group is at the end", func() bool { return b.lag(t, o.Group, o.Topics...) == 0 })
	once(t, h.times(), tokens[:10])
}

// testTransactions sends in transactions, as the broadcast router does: their marks have offsets, and are no sends.
func testTransactions(t *testing.T, b *bench) {
	o := sender()
	opts := []kgo.Opt{kgo.SeedBrokers(b.cfg.Brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.TransactionalID(b.cfg.Prefix + "tx")}
	if b.cfg.Dial != nil {
		opts = append(opts, kgo.Dialer(b.cfg.Dial))
	}
	client, err := kgo.NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	h := newPusher()
	h.auto = true
	b.deliver(t, b.log, o, h)
	var committed []string
	for i, end := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort, kgo.TryCommit, kgo.TryAbort} {
		if err := client.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		for j := range 5 {
			d := b.device(1, 10*i+j)
			value := schemas.AppendEvent(nil, &pushv1.SendRequested{Token: d.Token})
			r := &kgo.Record{Topic: b.cfg.Prefix + string(sends), Partition: 1, Key: d.AppendKey(nil), Value: value}
			if err := client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
				t.Fatal(err)
			}
			if end == kgo.TryCommit {
				committed = append(committed, d.Token)
			}
		}
		if err := client.EndTransaction(t.Context(), end); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the group is at the end, marks included", func() bool { return b.lag(t, o.Group, o.Topics...) == 0 })
	once(t, h.times(), committed)
}

// testUndecodable puts what is no send among the dead letters, and goes on behind it.
func testUndecodable(t *testing.T, b *bench) {
	o := sender()
	b.produce(t, sends, 1, []byte{80, 0xff})
	b.produce(t, sends, 1, []byte{200, 1})
	tokens := b.request(t, 1, 0, 10)
	h := newPusher()
	h.auto = true
	b.deliver(t, b.log, o, h)
	eventually(t, "the group is at the end", func() bool { return b.lag(t, o.Group, o.Topics...) == 0 })
	once(t, h.times(), tokens)
	if n := sum(t, b, schemas.DeadLetters); n != 2 {
		t.Errorf("want 2 dead letters, got %d", n)
	}
}

// testSendersShare has a second sender join and the first one leave, while sends come.
func testSendersShare(t *testing.T, b *bench) {
	o := sender()
	one, two := newPusher(), newPusher()
	one.auto, two.auto = true, true
	stopOne := b.deliver(t, b.log, o, one)
	second := b.open(t, b.cfg)
	var all []string
	ask := func(round int) {
		for p := range int32(Partitions) {
			all = append(all, b.request(t, p, round*1000, 50)...)
		}
	}
	ask(0)
	b.deliver(t, second, o, two)
	for round := 1; two.pushed() == 0; round++ {
		ask(round)
		eventually(t, "the group is at the end", func() bool { return b.lag(t, o.Group, o.Topics...) == 0 })
	}
	for _, topic := range o.Topics {
		eventually(t, "each knows its part", func() bool {
			n, m := one.owns(topic), two.owns(topic)
			return n >= 0 && m >= 0 && n+m == Partitions
		})
	}
	ask(1000)
	stopOne()
	ask(1001)
	eventually(t, "the group is at the end", func() bool { return b.lag(t, o.Group, o.Topics...) == 0 })
	times := one.times()
	for token, n := range two.times() {
		times[token] += n
	}
	once(t, times, all)
	for _, topic := range o.Topics {
		if one.owns(topic) != 0 || two.owns(topic) != Partitions {
			t.Errorf("%s: want all of it with who is left, got %d and %d", topic, one.owns(topic), two.owns(topic))
		}
	}
}
