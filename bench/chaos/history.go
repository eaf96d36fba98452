package chaos

import (
	"context"
	"errors"

	"github.com/campanile-push/campanile/audit"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// history is what the log says of everything, read whole at the end.
type history struct {
	*audit.Reconciler

	notifications map[schemas.ID]bool
	broadcasts    map[schemas.ID]bool
	finished      map[schemas.ID]schemas.Outcome // by send
	counts        map[count]int64
	owners        map[owner]int64
	emitted       map[schemas.CursorKey]int64
	ends          map[schemas.ID]*pushv1.BroadcastEnded
	letters       int // dead letters
}

// count is a line of the statistics.
type count struct {
	transport string
	outcome   string
	repeat    bool
}

type owner struct {
	transport schemas.Transport
	lane      schemas.Lane
	tier      uint32
	partition int32
}

func newHistory() *history {
	return &history{
		Reconciler:    audit.NewReconciler(),
		notifications: map[schemas.ID]bool{}, broadcasts: map[schemas.ID]bool{}, finished: map[schemas.ID]schemas.Outcome{},
		counts: map[count]int64{}, owners: map[owner]int64{}, emitted: map[schemas.CursorKey]int64{}, ends: map[schemas.ID]*pushv1.BroadcastEnded{},
	}
}

// readHistory replays the log from its beginning to its end as it stands now.
func (w *world) readHistory(ctx context.Context) (*history, error) {
	h := newHistory()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	topics := append(audit.Topics(), schemas.Broadcasts, schemas.DeadLetters)
	following := w.log.Follow("chaos", h.Apply, topics...)
	ended := make(chan error, 1)
	go func() { ended <- following.Run(ctx) }()
	select {
	case <-following.CaughtUp():
		stop()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			return nil, err
		}
		return h, nil
	case err := <-ended:
		return nil, err
	}
}

// Apply takes the next record of the log.
func (h *history) Apply(r schemas.Record) error {
	if r.Topic == schemas.DeadLetters {
		h.letters++
		return nil
	}
	if r.Topic != schemas.Broadcasts {
		if err := h.Reconciler.Apply(r); err != nil {
			return err
		}
	}
	if r.Tombstone() {
		return nil
	}
	event, err := r.Event()
	if errors.Is(err, schemas.ErrUnknownType) {
		return nil
	}
	if err != nil {
		return err
	}
	switch e := event.(type) {
	case *pushv1.NotificationRequested:
		h.notifications[schemas.IDFrom(e.RequestId)] = true
	case *pushv1.BroadcastRequested:
		h.broadcasts[schemas.IDFrom(e.BroadcastId)] = true
	case *pushv1.BroadcastEnded:
		h.ends[schemas.IDFrom(e.BroadcastId)] = e
	case *pushv1.CursorMoved:
		h.emitted[schemas.CursorKey{Broadcast: schemas.IDFrom(e.BroadcastId), Transport: e.Transport, Range: e.Range}] = e.Emitted
	case *pushv1.OwnerChanged:
		o := owner{e.Transport, e.Lane, e.Tier, e.Partition}
		h.owners[o] = max(h.owners[o], e.Generation)
	case *pushv1.DeliveryFinished:
		h.finish(r.Partition, e)
	}
	return nil
}

// finish counts as analytics must: by the first finish of a send whose owner had not lost it; all others are repeats.
func (h *history) finish(partition int32, e *pushv1.DeliveryFinished) {
	id := schemas.IDFrom(e.SendId)
	_, again := h.finished[id]
	late := e.Source.GetLane() != schemas.ByRouter && e.Generation < h.owners[owner{e.Transport, e.Source.GetLane(), e.Source.GetTier(), partition}]
	if !again && !late {
		h.finished[id] = e.Outcome
	}
	h.counts[count{e.Transport.Word(), e.Outcome.Word(), again || late}]++
}
