package router

import (
	"container/heap"
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// CloserOptions of the closer. The zero value works.
type CloserOptions struct {
	Now func() time.Time // nil: time.Now
	// KeepEnded is how long an ended broadcast's records are kept; zero: 7 days.
	KeepEnded time.Duration
	// Stop is when a broadcast pauses itself. It needs ApplyApps.
	Stop StopRule
	// Registerer of the stage's metrics; nil: none are kept.
	Registerer prometheus.Registerer
}

func (o CloserOptions) withDefaults() CloserOptions {
	if o.Now == nil {
		o.Now = time.Now
	}
	setDefault(&o.KeepEnded, 7*24*time.Hour)
	setDefault(&o.Stop.Least, 200)
	return o
}

// Closer ends broadcasts and forgets them, and pauses those that fail. It is a Drive over broadcasts; its commit need not be a transaction.
type Closer struct {
	options CloserOptions
	state   *State
	log     *slog.Logger
	ended   *prometheus.CounterVec
	stopped *prometheus.CounterVec
	apps    credentialTimes
}

// ApplyApps folds a record of the topic apps, for the rule by which broadcasts stop. It may be called from any goroutine.
func (c *Closer) ApplyApps(r schemas.Record) error { return c.apps.apply(r) }

// NewCloser returns the closer. The state must be followed, and caught up whenever a Drive begins.
func NewCloser(options CloserOptions, state *State, log *slog.Logger) *Closer {
	o := options.withDefaults()
	return &Closer{
		options: o, state: state, log: log,
		ended:   counterVec(o.Registerer, "campanile_router_broadcasts_ended_total", "Broadcasts that ended, by how.", "result"),
		stopped: counterVec(o.Registerer, "campanile_router_broadcasts_stopped_total", "Broadcasts that paused themselves, since too many of their pushes failed."),
	}
}

// maxClosings bounds the broadcasts of one commit.
const maxClosings = 500

// closerDrive is one ownership of one partition of broadcasts. One goroutine uses it.
type closerDrive struct {
	*Closer
	partition int32
	watcher   *watcher
	// held: nothing is said of a broadcast again before so many records of the partition are followed.
	held   map[schemas.ID]int64
	said   map[schemas.ID]struct{} // ended, and not yet seen
	timers timers
	timed  map[schemas.ID]int64
}

// task is what to say of one broadcast.
type task struct {
	id    schemas.ID
	end   *pushv1.BroadcastEnded
	pause *pushv1.BroadcastPaused
	keys  []schemas.BroadcastKey
	after int64 // what hold becomes
}

// Drive closes the broadcasts of one partition until ctx ends, and returns ctx's error, or that of a commit. For one
// partition it must not run twice at once.
func (c *Closer) Drive(ctx context.Context, partition int32, commit schemas.Commit) error {
	d := &closerDrive{
		Closer: c, partition: partition, watcher: c.state.watchPartition(partition),
		held: map[schemas.ID]int64{}, said: map[schemas.ID]struct{}{}, timed: map[schemas.ID]int64{},
	}
	defer c.state.unwatch(d.watcher)
	for ctx.Err() == nil {
		nowUS := c.options.Now().UnixMicro()
		tasks := d.look(nowUS)
		if len(tasks) == 0 {
			if err := d.sleep(ctx, nowUS); err != nil {
				return err
			}
			continue
		}
		if err := d.do(ctx, tasks, commit); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// look decides about every broadcast that changed or is due.
func (d *closerDrive) look(nowUS int64) (tasks []task) {
	s := d.state
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(d.timers) > 0 && d.timers[0].dueUS <= nowUS {
		t, _ := heap.Pop(&d.timers).(timer)
		delete(d.timed, t.id)
		d.watcher.touched[t.id] = struct{}{}
	}
	seen := s.seen[d.partition]
	for id := range d.watcher.touched {
		if len(tasks) == maxClosings {
			break // the rest stays touched
		}
		delete(d.watcher.touched, id)
		b := s.broadcasts[id]
		if b == nil || b.end {
			delete(d.said, id)
		}
		if b == nil {
			delete(d.held, id)
			continue
		}
		if d.held[id] > seen { // the record that it waits for will touch it again
			continue
		}
		delete(d.held, id)
		if t, due := d.task(b, nowUS); due {
			t.after = seen + int64(len(t.keys))
			if t.pause != nil {
				t.after++
			}
			tasks = append(tasks, t)
		}
	}
	return tasks
}

func (d *closerDrive) task(b *broadcast, nowUS int64) (t task, due bool) {
	step := closeStep(b.id, b.standing(), nowUS, d.options.KeepEnded.Microseconds())
	if _, timed := d.timed[b.id]; step.dueUS > 0 && !timed {
		d.timed[b.id] = step.dueUS
		heap.Push(&d.timers, timer{step.dueUS, b.id})
	}
	t = task{id: b.id, keys: step.forget}
	if _, said := d.said[b.id]; step.end && !said {
		t.end = &pushv1.BroadcastEnded{
			BroadcastId: b.id[:], App: b.app, Cancelled: b.cancel, Counts: b.counts(),
			RequestedAtUs: b.request().RequestedAtUs, EndedAtUs: nowUS,
		}
	}
	if reason := d.options.Stop.stop(b, d.apps.of, nowUS); reason != "" {
		t.pause = &pushv1.BroadcastPaused{BroadcastId: b.id[:], PausedAtUs: nowUS, PausedBy: StoppedBy, Reason: reason}
	}
	return t, t.end != nil || t.pause != nil || len(t.keys) > 0
}

func (d *closerDrive) do(ctx context.Context, tasks []task, commit schemas.Commit) error {
	err := commit(ctx, func(out *schemas.Out) {
		for i := range tasks {
			for _, k := range tasks[i].keys {
				out.ForgetBroadcastRecord(k)
			}
			if tasks[i].pause != nil {
				out.BroadcastPaused(tasks[i].pause)
			}
			if tasks[i].end != nil {
				out.BroadcastEnded(tasks[i].end)
			}
		}
	})
	if err != nil {
		return fmt.Errorf("close %d broadcasts: %w", len(tasks), err)
	}
	for i := range tasks {
		t := &tasks[i]
		if t.pause != nil {
			d.stopped.WithLabelValues().Inc()
			d.log.Warn("broadcast paused itself: too many of its pushes fail", "broadcast", t.id.String(), "reason", t.pause.Reason)
		}
		if len(t.keys) > 0 || t.pause != nil {
			d.held[t.id] = t.after
		}
		if t.end == nil {
			continue
		}
		d.said[t.id] = struct{}{}
		result := "finished"
		if t.end.Cancelled {
			result = "cancelled"
		}
		d.ended.WithLabelValues(result).Inc()
		d.log.Info("broadcast ended", "broadcast", t.id.String(), "app", t.end.App, "result", result)
	}
	return nil
}

func (d *closerDrive) sleep(ctx context.Context, nowUS int64) error {
	var clock <-chan time.Time
	if len(d.timers) > 0 {
		t := time.NewTimer(time.Duration(d.timers[0].dueUS-nowUS) * time.Microsecond)
		defer t.Stop()
		clock = t.C
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-d.watcher.signal:
	case <-clock:
	}
	return nil
}

// timer is when an ended broadcast is to be forgotten.
type timer struct {
	dueUS int64
	id    schemas.ID
}

// timers is a heap by time.
type timers []timer

func (t timers) Len() int           { return len(t) }
func (t timers) Less(i, j int) bool { return t[i].dueUS < t[j].dueUS }
func (t timers) Swap(i, j int)      { t[i], t[j] = t[j], t[i] }

// Push implements heap.Interface.
func (t *timers) Push(x any) {
	if v, ok := x.(timer); ok {
		*t = append(*t, v)
	}
}

// Pop implements heap.Interface.
func (t *timers) Pop() any {
	old := *t
	v := old[len(old)-1]
	*t = old[:len(old)-1]
	return v
}
