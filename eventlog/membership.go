package eventlog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/campanile-push/campanile/schemas"
)

// membership is one life of a transform in its group. Its loop polls, handles, appends and commits; the client's callbacks
// come only while the loop is between two polls.
type membership struct {
	*transform

	client  *kgo.Client
	session *kgo.GroupTransactSession // nil: not transactional
	fail    context.CancelCauseFunc
	delay   time.Duration // before the next poll

	committed chan struct{} // closed when the commit under way has ended; nil: none was begun

	mu    sync.Mutex
	parts map[place]*part
	hurry context.CancelFunc // ends the batch in hand; nil between two
	batch context.Context    //nolint:containedctx // of the batch in hand, for who wants to hurry it
}

// part is one partition that is ours.
type part struct {
	at       place
	pending  []schemas.Record // polled, not committed
	epoch    int32            // leader epoch of the last of them
	failures int              // of the first of them, in a row
	tries    int              // that failed, in a row, also by what says nothing about the records
	wake     time.Time        // not before
	paused   bool
	stands   bool      // until somebody looks
	idle     time.Time // when the Idler is to be called, if nothing comes before
	idled    bool      // it was called in this round, in place of the handler
	fresh    bool      // the state is to be restored first

	out     *schemas.Out
	recs    []kgo.Record
	done    int // of pending, in this round
	letters int
	err     error
}

func (m *membership) run(ctx context.Context) error {
	for {
		if err := m.poll(ctx); err != nil {
			m.client.AllowRebalance()
			return err
		}
		if ready := m.ready(time.Now()); len(ready) > 0 && ctx.Err() == nil {
			if err := m.round(ctx, ready); err != nil {
				m.client.AllowRebalance()
				return err
			}
		}
		m.client.AllowRebalance()
		if m.delay > 0 {
			sleep(ctx, m.delay)
			m.delay = 0
		}
		if ctx.Err() != nil {
			return context.Cause(ctx) //nolint:wrapcheck // the caller's own, or the callbacks'
		}
	}
}

// poll adds what comes to the partitions' pending records. It returns early when a partition's delay is over.
func (m *membership) poll(ctx context.Context) error {
	wake := m.wake()
	if wake.IsZero() && m.idler != nil {
		wake = time.Now().Add(m.o.IdleEvery) // partitions that are assigned meanwhile may be idle
	}
	if !wake.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, wake)
		defer cancel()
	}
	fetches := m.client.PollRecords(ctx, m.o.MaxBatch)
	for _, e := range fetches.Errors() {
		switch {
		case errors.Is(e.Err, context.Canceled), errors.Is(e.Err, context.DeadlineExceeded):
		default: // out of range too: the next session's adjust decides, with all that is needed at hand
			return fmt.Errorf("fetch %s[%d]: %w", e.Topic, e.Partition, e.Err)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	fetches.EachPartition(func(f kgo.FetchTopicPartition) {
		if len(f.Records) == 0 {
			return
		}
		p := m.parts[place{m.l.topic(f.Topic), f.Partition}]
		if p == nil {
			return
		}
		for _, r := range f.Records {
			p.pending = append(p.pending, recordFrom(p.at.topic, r))
		}
		p.epoch = f.Records[len(f.Records)-1].LeaderEpoch
	})
	return nil
}

// wake is when the first delayed partition may go on; zero: none is delayed.
func (m *membership) wake() (first time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.parts {
		at := p.wake
		if len(p.pending) == 0 {
			at = p.idle
		}
		if (len(p.pending) > 0 || m.idler != nil) && !p.stands && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	return first
}

func (m *membership) ready(now time.Time) (ready []*part) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.parts {
		due := len(p.pending) > 0 && !p.wake.After(now) || len(p.pending) == 0 && m.idler != nil && !p.idle.After(now)
		if due && !p.stands {
			p.idle = now.Add(m.o.IdleEvery)
			ready = append(ready, p)
		}
	}
	return ready
}

// round handles what is ready and makes it last.
func (m *membership) round(ctx context.Context, ready []*part) error {
	ctx, end := m.begin(ctx)
	defer end()
	m.handleAll(ctx, ready)
	var err error
	if m.session != nil {
		err = m.transact(ctx, ready)
	} else {
		m.appendAndCommit(ctx, ready)
	}
	for _, p := range ready {
		m.settle(p)
	}
	return err
}

// begin makes the batch's context: it outlives ctx by stopGrace, so that a stop finishes the batch in hand.
func (m *membership) begin(ctx context.Context) (context.Context, func()) {
	batch, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		if sleep(batch, stopGrace) {
			cancel()
		}
	})
	m.mu.Lock()
	m.batch, m.hurry = batch, cancel
	m.mu.Unlock()
	return batch, func() {
		stop()
		cancel()
		m.mu.Lock()
		m.batch, m.hurry = nil, nil
		m.mu.Unlock()
	}
}

// blocked is called, in a goroutine of the client's, when a rebalance waits for the batch in hand.
func (m *membership) blocked(context.Context, *kgo.Client) {
	m.mu.Lock()
	batch, hurry := m.batch, m.hurry
	m.mu.Unlock()
	if batch != nil && sleep(batch, rebalanceGrace) { //nolint:contextcheck // the batch's own context
		hurry()
	}
}

func (m *membership) handleAll(ctx context.Context, ready []*part) {
	if len(ready) == 1 {
		m.handle(ctx, ready[0])
		return
	}
	var workers sync.WaitGroup
	var next atomic.Int64
	for range min(m.o.Parallel, len(ready)) {
		workers.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(ready)); i = next.Add(1) - 1 {
				m.handle(ctx, ready[i])
			}
		})
	}
	workers.Wait()
}

func (m *membership) handle(ctx context.Context, p *part) {
	p.done, p.letters, p.err, p.idled = 0, 0, nil, len(p.pending) == 0
	p.out.Reset()
	if m.restorer != nil && p.fresh {
		if p.err = m.restore(ctx, p.at.partition); p.err != nil {
			return
		}
		p.fresh = false
	}
	if p.idled {
		p.err = m.idler.Idle(ctx, p.at.partition, p.out)
		return
	}
	batch := schemas.Batch{Topic: p.at.topic, Partition: p.at.partition}
	s := solver{
		stage: m.o.Stage, truth: m.l.topics[p.at.topic].spec.Truth, patient: p.failures < triesWhole-1, out: p.out, now: time.Now,
		handle: func(part []schemas.Record) error {
			batch.Records = part
			return m.handler.Handle(ctx, batch, p.out)
		},
	}
	if m.restorer != nil {
		s.rebuild = func() error { return m.restore(ctx, p.at.partition) }
	}
	p.done, p.err = s.solve(p.pending)
	p.letters = s.letters
	for _, d := range s.done {
		if d.reason != nil {
			m.log.Error("record put among the dead letters", "topic", p.at.topic, "partition", p.at.partition,
				"offset", d.part[0].Offset, "reason", d.reason)
		}
	}
}

// restore rebuilds a partition's state. The group's offset was read when the partition was assigned, once it was stable; so
// the state read now cannot be older than the offset.
func (m *membership) restore(ctx context.Context, partition int32) error {
	m.restorer.Reset(partition)
	ends, err := m.l.Ends(ctx, m.o.StateTopic)
	if err != nil {
		return notNowError{err}
	}
	err = m.l.readSpans(ctx, fmt.Sprintf("restore-%s-%d", m.o.Stage, partition),
		[]span{{place{m.o.StateTopic, partition}, 0, ends[partition]}},
		func(r schemas.Record) error {
			err := m.restorer.Restore(partition, r)
			if errors.Is(err, schemas.ErrMalformed) { // by nobody of ours: it must not stop the partition for ever
				m.log.Error("state record passed over", "topic", r.Topic, "partition", r.Partition, "offset", r.Offset, "error", err)
				return nil
			}
			return err
		})
	if err != nil {
		return notNowError{fmt.Errorf("restore the state of partition %d: %w", partition, err)}
	}
	return nil
}

// produce hands the parts' events to the client and returns when all are acknowledged. An error: some may be there.
func (m *membership) produce(ctx context.Context, ready []*part) error {
	var ack acks
	total := 0
	for _, p := range ready {
		p.recs = m.l.records(p.out, p.recs)
		total += len(p.recs)
	}
	if total == 0 {
		return nil
	}
	ack.expect(total)
	for _, p := range ready {
		for i := range p.recs {
			m.client.Produce(context.WithoutCancel(ctx), &p.recs[i], ack.promise)
		}
	}
	err := ack.wait(ctx)
	if err != nil && ctx.Err() != nil {
		for _, p := range ready { // the client still has them
			p.out, p.recs = schemas.NewOut(m.layout), nil
		}
	}
	if err == nil {
		m.meter.out.Add(float64(total))
	}
	return err
}

// appendAndCommit is at least once: first the events, then the offset. The commit goes on while the next batch is polled and handled, so
// that a record that has just come does not wait for it; nothing is appended before it has ended, so that a killed process repeats its
// last batch and no more.
func (m *membership) appendAndCommit(ctx context.Context, ready []*part) {
	m.awaitCommit()
	if err := m.produce(ctx, ready); err != nil {
		for _, p := range ready {
			p.done, p.fresh, p.err = 0, true, notNowError{fmt.Errorf("append: %w", err)}
		}
		return
	}
	offsets := map[string]map[int32]kgo.EpochOffset{}
	for _, p := range ready {
		if p.done == 0 {
			continue
		}
		set(offsets, m.l.name(p.at.topic), p.at.partition, kgo.EpochOffset{Epoch: p.epoch, Offset: p.pending[p.done-1].Offset + 1})
	}
	if len(offsets) == 0 {
		return
	}
	m.committed = make(chan struct{})
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rebalanceGrace)
	go func(done chan<- struct{}) {
		defer close(done)
		defer cancel()
		if err := commitOffsets(ctx, m.client, offsets); err != nil {
			// The next commit covers it; if there is none, because the partition is gone, its new owner handles the batch again.
			m.log.Warn("offsets not committed", "error", err)
		}
	}(m.committed)
}

// awaitCommit waits for the commit under way. It is called by the loop, by the client's callbacks while the loop waits for them, and at
// the end.
func (m *membership) awaitCommit() {
	if m.committed != nil {
		<-m.committed
	}
}

// set puts a partition's value where franz-go wants it.
func set[V any](byTopic map[string]map[int32]V, topic string, partition int32, v V) {
	if byTopic[topic] == nil {
		byTopic[topic] = map[int32]V{}
	}
	byTopic[topic][partition] = v
}

// commitOffsets commits, and returns the first error of any partition.
func commitOffsets(ctx context.Context, client *kgo.Client, offsets map[string]map[int32]kgo.EpochOffset) (err error) {
	client.CommitOffsetsSync(ctx, offsets, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, failed error) {
		if failed != nil {
			err = failed
			return
		}
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				if e := kerr.ErrorForCode(p.ErrorCode); e != nil && err == nil {
					err = fmt.Errorf("commit %s[%d]: %w", t.Topic, p.Partition, e)
				}
			}
		}
	})
	return err
}

// transact is exactly once: events and offsets are one transaction, of all that was polled or of nothing.
func (m *membership) transact(ctx context.Context, ready []*part) error {
	if !slices.ContainsFunc(ready, func(p *part) bool { return len(p.pending) > 0 || p.out.Len() > 0 }) {
		return nil // all were idle, and said nothing
	}
	try := kgo.TryCommit
	for _, p := range ready {
		if p.err != nil {
			try = kgo.TryAbort
		}
	}
	if try == kgo.TryCommit {
		if err := m.session.Begin(); err != nil {
			return fmt.Errorf("begin a transaction: %w", err)
		}
		if err := m.produce(ctx, ready); err != nil {
			m.log.Warn("transaction aborted", "error", err)
			try = kgo.TryAbort
		}
	}
	committed, err := m.session.End(ctx, try)
	if err != nil {
		return fmt.Errorf("end a transaction: %w", err)
	}
	if committed {
		return nil
	}
	for _, p := range ready { // the client goes back to what is committed, and polls it again
		p.fresh = true
		p.pending, p.done = nil, 0
	}
	return nil
}

// settle moves a partition's state on after a round.
func (m *membership) settle(p *part) {
	if p.done > 0 {
		m.meter.in[p.at.topic].Add(float64(p.done))
		m.meter.letters[p.at.topic].Add(float64(p.letters))
		m.meter.batches.Inc()
		p.failures, p.tries = 0, 0
	}
	switch {
	case p.err == nil:
		p.pending, p.failures, p.tries = p.pending[:0], 0, 0
		clear(p.pending[:cap(p.pending)]) // lets the fetches' memory go
		m.pause(p, false)
		return
	case errors.Is(p.err, errStands):
		p.pending, p.stands = p.pending[p.done:], true
		m.pause(p, true)
		m.meter.stall(p.at, true)
		m.log.Error("partition stands still: upgrade this process", "topic", p.at.topic, "partition", p.at.partition,
			"offset", p.pending[0].Offset, "error", p.err)
		return
	}
	m.meter.failures.Inc()
	if p.idled { // and is so again
		m.log.Warn("nothing done while idle: trying again later", "topic", p.at.topic, "partition", p.at.partition, "error", p.err)
		return
	}
	if p.done == 0 && !temporary(p.err) {
		p.failures++
	}
	p.tries++
	if errors.Is(p.err, schemas.ErrBehind) {
		p.tries = 1 // soon over
	}
	delay := retryDelay(p.tries)
	m.log.Warn("batch failed", "topic", p.at.topic, "partition", p.at.partition, "records", len(p.pending)-p.done,
		"failures", p.tries, "again_in", delay, "error", p.err)
	if m.session != nil {
		m.delay = max(m.delay, delay) // a transaction holds all that was polled: the partitions wait together
		return
	}
	p.pending, p.wake = p.pending[p.done:], time.Now().Add(delay)
	m.pause(p, true)
}

// pause keeps more of a partition from being fetched while it waits.
func (m *membership) pause(p *part, on bool) {
	if p.paused == on {
		return
	}
	p.paused = on
	which := map[string][]int32{m.l.name(p.at.topic): {p.at.partition}}
	if on {
		m.client.PauseFetchPartitions(which)
	} else {
		m.client.ResumeFetchPartitions(which)
	}
}

func (m *membership) assigned(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.l.inOrder(partitions, func(at place) {
		m.parts[at] = &part{at: at, fresh: true, out: schemas.NewOut(m.layout), idle: time.Now().Add(m.o.IdleEvery)}
		m.log.Debug("partition assigned", "topic", at.topic, "partition", at.partition)
	})
	m.log.Info("partitions assigned", "partitions", len(m.parts))
}

// revoked forgets partitions: everything handled is committed, and the rest is for who comes next.
func (m *membership) revoked(_ context.Context, client *kgo.Client, partitions map[string][]int32) {
	m.awaitCommit()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.l.inOrder(partitions, func(at place) {
		p := m.parts[at]
		if p == nil {
			return
		}
		if p.stands {
			m.meter.stall(at, false)
		}
		delete(m.parts, at)
		m.log.Debug("partition revoked", "topic", at.topic, "partition", at.partition)
	})
	m.log.Info("partitions revoked", "left", len(m.parts))
	client.ResumeFetchPartitions(partitions) // a pause outlives an assignment
}

func (m *membership) stop() {
	m.awaitCommit()
	m.client.CloseAllowingRebalance()
	m.mu.Lock()
	defer m.mu.Unlock()
	for at, p := range m.parts {
		if p.stands {
			m.meter.stall(at, false)
		}
	}
}
