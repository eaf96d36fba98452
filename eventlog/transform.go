package eventlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/campanile-push/campanile/schemas"
)

// Transformer turns records into events. Partitions are handled at the same time; one partition's batches come in order.
type Transformer interface {
	// Handle says in out what follows from in. An error means that nothing happened: in comes again, whole or in parts. in and
	// its bytes are Handle's until it returns. An error that is a schemas.ErrBehind or a context's, or has a method
	// Temporary() bool that says so, is waited out for ever; others lead to the dead letters.
	Handle(ctx context.Context, in schemas.Batch, out *schemas.Out) error
}

// Restorer is a Transformer with state for each partition, restored from what it said before in the same partition number
// of TransformOptions.StateTopic.
type Restorer interface {
	Reset(partition int32)
	Restore(partition int32, r schemas.Record) error
}

// Idler is a Transformer with something to do also where nothing comes: it is called for each partition after
// TransformOptions.IdleEvery without records, with its state restored. What Handle says of errors holds.
type Idler interface {
	Idle(ctx context.Context, partition int32, out *schemas.Out) error
}

// GapHandler is a Transformer that lives with lost records (TransformOptions.Expendable).
type GapHandler interface {
	// Gap records that [from, to) of a partition was deleted before it was read.
	Gap(ctx context.Context, topic schemas.Topic, partition int32, from, to int64) error
}

// TransformOptions say how a Transformer is run.
type TransformOptions struct {
	Group  string
	Topics []schemas.Topic
	Stage  string // in log lines and metrics
	// Transactional: what is said and the offset of what it follows from are one transaction. Not for topics of truth, where a
	// partition may have to stand still alone.
	Transactional bool
	// Instance tells this process from the group's others in its transactional id. A fixed one lets a restarted process end
	// its predecessor's transaction at once; empty: a new one each time, and the old ends by its timeout.
	Instance string
	MaxBatch int // records a poll, over all partitions; 0: 10,000
	Parallel int // partitions handled at once; 0: GOMAXPROCS
	// StateTopic is what a Restorer is restored from.
	StateTopic schemas.Topic
	// Positions is where a stage is that keeps its own offsets beside its rows: by partition, the next one to handle. It is
	// asked on assignment; what it does not name starts at the group's offset, which is committed all the same.
	Positions func(ctx context.Context, topic schemas.Topic, partitions []int32) (map[int32]int64, error)
	// IdleEvery is the time without records after which an Idler is called; zero: it never is.
	IdleEvery time.Duration
	// Expendable: records deleted before they were read are reported to the Transformer (GapHandler) and passed over. Without
	// it they stop the stage.
	Expendable bool
}

const (
	defaultMaxBatch = 10_000
	triesWhole      = 3 // of a failing batch before it is bisected, and of a failing record before it is a dead letter
	stopGrace       = 5 * time.Second
	rebalanceGrace  = rebalanceTimeout / 2 // for the batch in hand when somebody wants a partition
)

// retryDelay before try n of a failing batch.
//
//	n      1       2       3     4     5   6+
//	delay  100 ms  200 ms  400   800   1.6 s  3 s
func retryDelay(failures int) time.Duration {
	return min(100*time.Millisecond<<min(max(failures-1, 0), 10), 3*time.Second)
}

// ErrNoOffset stops a stage whose group has no offset in a partition, or one of a record that is gone.
var ErrNoOffset = errors.New("a consumer group has lost its place")

// RunTransform runs a Transformer as one member of its group until ctx ends, whose error it then returns after the batch in
// hand. Any other error is one for a person (ErrNoOffset); what heals is tried again.
func (l *Log) RunTransform(ctx context.Context, o TransformOptions, t Transformer) error {
	layout, err := l.readyLayout()
	if err != nil {
		return err
	}
	if o.MaxBatch <= 0 {
		o.MaxBatch = defaultMaxBatch
	}
	if o.Parallel <= 0 {
		o.Parallel = runtime.GOMAXPROCS(0)
	}
	if o.Instance == "" {
		o.Instance = schemas.NewID().String()
	}
	if o.Transactional {
		for _, topic := range o.Topics {
			if l.topics[topic].spec.Truth {
				return fmt.Errorf("stage %s: %s is a topic of truth, and cannot be read transactionally", o.Stage, topic)
			}
		}
	}
	s := &transform{
		l: l, o: o, handler: t, layout: layout,
		log:   l.log.With("stage", o.Stage),
		meter: l.stageMeter(o.Stage, o.Topics),
	}
	s.restorer, _ = t.(Restorer)
	if o.IdleEvery > 0 {
		s.idler, _ = t.(Idler)
	}
	for failures := 0; ; {
		started := time.Now()
		err := s.session(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err() //nolint:wrapcheck // the caller's own
		case errors.Is(err, ErrNoOffset):
			s.log.Error("stage stopped: its consumer group has lost its place; decide with `campanile topics reset`",
				"group", o.Group, "error", err)
			l.metrics.lost.WithLabelValues(o.Group).Set(1)
			return err
		}
		if time.Since(started) > time.Minute {
			failures = 0
		}
		failures++
		s.log.Warn("stage starts over", "error", err, "failures", failures)
		if !sleep(ctx, retryDelay(failures)) {
			return ctx.Err() //nolint:wrapcheck // the caller's own
		}
	}
}

// transform is a running Transformer.
type transform struct {
	l        *Log
	o        TransformOptions
	handler  Transformer
	restorer Restorer // nil: no state
	idler    Idler    // nil: it is called with records alone
	layout   schemas.Layout
	log      *slog.Logger
	meter    *meter
}

// session is one membership: it ends with ctx, or with an error that a new client may heal.
func (s *transform) session(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	m := &membership{transform: s, parts: map[place]*part{}, fail: cancel}
	opts := append(s.l.cfg.groupOptions(s.o.Group),
		kgo.ConsumeTopics(s.l.names(s.o.Topics)...),
		kgo.FetchMaxWait(fetchWait),
		kgo.ProducerLinger(0), // a batch is flushed as a whole
		kgo.OnPartitionsAssigned(m.assigned),
		kgo.OnPartitionsRevoked(m.revoked),
		kgo.OnPartitionsLost(m.revoked),
		kgo.OnPartitionsCallbackBlocked(m.blocked),
		kgo.AdjustFetchOffsetsFn(m.adjust),
	)
	name := "transform-" + s.o.Stage
	if s.o.Transactional {
		opts = append(opts,
			kgo.TransactionalID(s.l.cfg.Prefix+s.o.Group+"-"+s.o.Instance),
			kgo.TransactionTimeout(s.l.cfg.TransactionTimeout),
		)
		common, err := s.l.clientOptions(name)
		if err != nil {
			return err
		}
		session, err := kgo.NewGroupTransactSession(append(common, opts...)...)
		if err != nil {
			return fmt.Errorf("open the client %s: %w", name, err)
		}
		m.session, m.client = session, session.Client()
	} else {
		client, err := s.l.newClient(name, opts...)
		if err != nil {
			return err
		}
		m.client = client
	}
	defer m.stop()
	return m.run(ctx)
}

// inOrder are the topics and partitions of a map in a fixed order.
func (l *Log) inOrder(partitions map[string][]int32, f func(place)) {
	for name, ps := range partitions {
		slices.Sort(ps)
		for _, p := range ps {
			f(place{l.topic(name), p})
		}
	}
}

// sleep waits; it reports false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
