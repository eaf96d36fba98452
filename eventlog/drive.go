package eventlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/campanile-push/campanile/schemas"
)

// Driver schedules over the state in one partition of a topic.
type Driver interface {
	// Drive works on one owned partition until ctx ends, and returns then. Each call begins with the state read to its end.
	// commit is one unit; after it returned an error, Drive returns, and is called again once it is known what the log holds.
	// commit is for one goroutine at a time, and is not cut short by the end of ctx. Drives of several partitions run at once.
	Drive(ctx context.Context, partition int32, commit schemas.Commit) error
}

// DriveOptions say how a Driver is run.
type DriveOptions struct {
	// Stage names the driver in log lines and metrics.
	Stage string
	// Group is the consumer group whose assignment is the ownership. It commits nothing.
	Group string
	// StateTopic is the topic whose partitions are owned.
	StateTopic schemas.Topic
	// Followed have caught up with the ends as read after the ownership began, before Drive is called. They must be running.
	Followed []*Following
	// Transactional makes each commit one transaction, of a producer whose transactional id belongs to the partition, so that a
	// new owner's first act fences the old one. Otherwise a commit is an Append.
	Transactional bool
	// TransactionalPrefix begins the transactional id: <prefix>-<topic>-<partition>.
	TransactionalPrefix string
}

// Times of a drive.
const (
	driveBackoffMin = 100 * time.Millisecond // after a drive that ended with an error, doubled with each that does at once
	driveBackoffMax = 5 * time.Second
	driveLives      = 30 * time.Second     // a drive that ran so long starts the back-off over
	revokeWait      = rebalanceTimeout / 2 // a drive gets so long to end; the group waits for twice that
)

// errRejoin ends a membership in order to begin another.
var errRejoin = errors.New("leave the group and join it again")

// RunDrive joins the group and drives every partition that it is given until ctx ends; it returns nil then, when every Drive
// has returned and the group is left. A partition whose Drive returns an error is driven again, after a back-off.
func (l *Log) RunDrive(ctx context.Context, o DriveOptions, d Driver) error {
	if _, err := l.readyLayout(); err != nil {
		return fmt.Errorf("drive %s: %w", o.Stage, err)
	}
	log := l.log.With("stage", o.Stage)
	for {
		err := l.driveAsMember(ctx, o, d, log)
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // to be ended is no error
		case !errors.Is(err, errRejoin):
			return fmt.Errorf("drive %s: %w", o.Stage, err)
		}
		log.Warn("leaving the group, and joining it again")
	}
}

// driveAsMember is one membership of the group.
func (l *Log) driveAsMember(ctx context.Context, o DriveOptions, d Driver, log *slog.Logger) error {
	ctx, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	m := &driveMember{l: l, o: o, d: d, log: log, ctx: ctx, leave: leave, owned: map[int32]*ownedDrive{}}
	client, err := l.newClient(o.Stage+".group",
		kgo.ConsumerGroup(l.cfg.Prefix+o.Group),
		kgo.ConsumeTopics(l.name(o.StateTopic)),
		kgo.DisableAutoCommit(),
		kgo.SessionTimeout(l.cfg.SessionTimeout),
		kgo.HeartbeatInterval(l.cfg.SessionTimeout/(heartbeatsASession+1)),
		kgo.RebalanceTimeout(rebalanceTimeout),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtEnd()), // nothing is read through this client
		kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd()),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, got map[string][]int32) { m.begin(got) }), //nolint:contextcheck // a drive lives as long as its ownership
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, gone map[string][]int32) { m.end(gone, "revoked") }),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, gone map[string][]int32) { m.end(gone, "lost") }),
	)
	if err != nil {
		return err
	}
	client.PauseFetchTopics(l.name(o.StateTopic)) // membership is all that is wanted
	err = m.watch(client)
	m.endAll()
	client.CloseAllowingRebalance() // leaves the group
	m.drives.Wait()
	return err
}

// driveMember is what a membership owns.
type driveMember struct {
	l     *Log
	o     DriveOptions
	d     Driver
	log   *slog.Logger
	ctx   context.Context //nolint:containedctx // of the membership; drives begin in callbacks of the client
	leave context.CancelCauseFunc

	mu     sync.Mutex
	owned  map[int32]*ownedDrive
	drives sync.WaitGroup
}

// ownedDrive is the drive of one assignment of one partition.
type ownedDrive struct {
	stop context.CancelFunc
	done chan struct{}
}

// watch returns when the membership must end. Polling yields only what goes wrong with it.
func (m *driveMember) watch(client *kgo.Client) error {
	for {
		fetches := client.PollFetches(m.ctx)
		if m.ctx.Err() != nil {
			return context.Cause(m.ctx)
		}
		if fetches.IsClientClosed() {
			return kgo.ErrClientClosed
		}
		fetches.EachError(func(_ string, p int32, err error) {
			if m.ctx.Err() == nil { // the client goes on by itself
				m.log.Warn("group membership in trouble", "group", m.o.Group, "partition", p, "error", err)
			}
		})
	}
}

func (m *driveMember) begin(got map[string][]int32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range got[m.l.name(m.o.StateTopic)] {
		if m.ctx.Err() != nil || m.owned[p] != nil {
			continue
		}
		ctx, stop := context.WithCancel(m.ctx)
		owned := &ownedDrive{stop: stop, done: make(chan struct{})}
		m.owned[p] = owned
		m.drives.Go(func() {
			defer close(owned.done)
			m.own(ctx, p)
		})
	}
}

// end stops the drives of partitions that are no longer ours, and waits for them, but not so long that the group would put us
// out. What does not end in time can commit nothing once the new owner has begun.
func (m *driveMember) end(gone map[string][]int32, how string) {
	partitions := gone[m.l.name(m.o.StateTopic)]
	var ending []*ownedDrive
	m.mu.Lock()
	for _, p := range partitions {
		if owned := m.owned[p]; owned != nil {
			delete(m.owned, p)
			ending = append(ending, owned)
		}
	}
	m.mu.Unlock()
	for _, owned := range ending {
		owned.stop()
	}
	if len(ending) > 0 {
		m.log.Info("partitions given up", "how", how, "partitions", partitions)
	}
	limit := time.NewTimer(revokeWait)
	defer limit.Stop()
	for _, owned := range ending {
		select {
		case <-owned.done:
		case <-limit.C:
			m.log.Error("a drive did not end when its partition was taken away", "partitions", partitions)
			return
		}
	}
}

func (m *driveMember) endAll() {
	m.mu.Lock()
	partitions := make([]int32, 0, len(m.owned))
	for p := range m.owned {
		partitions = append(partitions, p)
	}
	m.mu.Unlock()
	slices.Sort(partitions)
	m.end(map[string][]int32{m.l.name(m.o.StateTopic): partitions}, "ended")
}

// own drives one partition, again and again, until ctx ends with the ownership.
func (m *driveMember) own(ctx context.Context, p int32) {
	log := m.log.With("partition", p)
	backoff := driveBackoffMin
	for ctx.Err() == nil {
		began := time.Now()
		err := m.l.driveOnce(ctx, m.o, m.d, p)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, schemas.ErrFenced):
			m.fenced(ctx, log)
			return
		case err == nil:
			err = errors.New("the driver returned before its time")
		}
		m.l.metrics.failures.WithLabelValues(m.o.Stage).Inc()
		if time.Since(began) > driveLives {
			backoff = driveBackoffMin
		}
		log.Warn("the drive ended, and begins again", "error", err, "in_ms", backoff.Milliseconds())
		if !waitOut(ctx, backoff) {
			return
		}
		backoff = min(2*backoff, driveBackoffMax)
	}
}

// fenced waits for the group to say what the fence said: that the partition is another's. Where the group still says that it is
// ours after a session, nobody else has it (the broker itself fences, when it ends a transaction that took too long): only a
// new assignment makes a new producer, so the membership ends for one.
func (m *driveMember) fenced(ctx context.Context, log *slog.Logger) {
	log.Warn("fenced: another owner, or the broker, ended this one's transactions")
	if waitOut(ctx, m.l.cfg.SessionTimeout) {
		m.leave(errRejoin)
	}
}

// waitOut reports whether d went by before ctx ended.
func waitOut(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
