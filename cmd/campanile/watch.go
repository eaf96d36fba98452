package main

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// broadcastView is what the log says of one broadcast. It is safe for concurrent use.
type broadcastView struct {
	id schemas.ID

	mu       sync.Mutex
	estimate int64
	emitted  map[schemas.CursorKey]int64
	counts   map[int32]map[schemas.Transport]*pushv1.TransportCounts
	ended    *pushv1.BroadcastEnded
}

func newBroadcastView(id schemas.ID) *broadcastView {
	return &broadcastView{id: id, emitted: map[schemas.CursorKey]int64{}, counts: map[int32]map[schemas.Transport]*pushv1.TransportCounts{}}
}

// apply takes a record of broadcasts, expansions or progress.
func (v *broadcastView) apply(r schemas.Record) error {
	if r.Tombstone() {
		return nil
	}
	event, err := r.Event()
	if err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	switch e := event.(type) {
	case *pushv1.BroadcastRequested:
		if schemas.IDFrom(e.BroadcastId) == v.id && v.estimate == 0 {
			v.estimate = e.AudienceEstimate
		}
	case *pushv1.CursorMoved:
		if schemas.IDFrom(e.BroadcastId) == v.id {
			v.emitted[schemas.CursorKey{Broadcast: v.id, Transport: e.Transport, Range: e.Range}] = e.Emitted
		}
	case *pushv1.ProgressCounted:
		if schemas.IDFrom(e.BroadcastId) == v.id {
			counts := map[schemas.Transport]*pushv1.TransportCounts{}
			for _, c := range e.Counts {
				counts[c.Transport] = c
			}
			v.counts[e.Partition] = counts
		}
	case *pushv1.BroadcastEnded:
		if schemas.IDFrom(e.BroadcastId) == v.id {
			v.ended = e
		}
	}
	return nil
}

// sum adds up all transports; done says that the broadcast has ended.
func (v *broadcastView) sum() (total *pushv1.TransportCounts, estimate int64, done bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	total = &pushv1.TransportCounts{}
	for _, n := range v.emitted {
		total.Emitted += n
	}
	for _, counts := range v.counts {
		for _, c := range counts {
			total.Add(c)
		}
	}
	if v.ended != nil {
		total.Reset()
		for _, c := range v.ended.Counts {
			total.Add(c)
		}
	}
	return total, max(v.estimate, total.Emitted), v.ended != nil
}

func (v *broadcastView) summary() string {
	c, _, _ := v.sum()
	return fmt.Sprintf("%d sent, %d delivered, %d dead tokens, %d rejected, %d expired, %d cancelled", c.Emitted, c.Accepted, c.TokenInvalid, c.Rejected, c.Expired, c.Cancelled)
}

// watchBroadcast shows a broadcast until it has ended: a bar on a terminal, else a line now and then.
func watchBroadcast(ctx context.Context, log *eventlog.Log, v *broadcastView, out io.Writer, plain bool) error {
	reading := follow(ctx, log, "watch", v.apply, schemas.Broadcasts, schemas.Expansions, schemas.Progress)
	defer reading.end()
	bar := newBar(io.Discard, "", 1)
	if !plain {
		bar = newBar(out, "broadcasting", 1)
	}
	every := 100 * time.Millisecond
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for n := 1; ; n++ {
		select {
		case <-reading.ended:
			return reading.err
		case <-ticker.C:
		}
		total, estimate, done := v.sum()
		finished := total.Finished()
		if estimate > 0 {
			bar.ChangeMax64(estimate)
		}
		_ = bar.Set64(finished)
		if plain && n%20 == 0 {
			fmt.Fprintf(out, "  broadcasting: %d expanded, %d finished, of about %d\n", total.Emitted, finished, estimate)
		}
		if done {
			_ = bar.Clear()
			return nil
		}
	}
}
