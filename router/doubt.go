package router

import (
	"context"
	"errors"
	"time"

	"github.com/campanile-push/campanile/schemas"
)

// Store says what is known of devices. Both device stores implement it.
type Store interface {
	// Lookup answers in the order of devices, or ErrBehind unless their partitions are applied up to need.
	Lookup(ctx context.Context, devices []schemas.Device, need schemas.Watermark) ([]schemas.DeviceState, error)
}

// doubt is a question to the store: requests of one batch whose devices share a partition of the topic devices.
type doubt struct {
	partition int32
	end       int64 // the highest doubt end of them
	requests  []int // indices in the batch
	devices   []schemas.Device
}

// resolve asks the store about the doubts until each is answered, the patience is over, or the store is away. What stays
// unanswered keeps its zero proof. One slow partition costs the others nothing.
func (d *Direct) resolve(ctx context.Context, doubts []doubt, proofs []proof) error {
	if len(doubts) == 0 {
		return nil
	}
	patience := d.options.DoubtPatience
	if d.options.Now().UnixMicro() < d.hastyUntil.Load() {
		patience = d.options.HastyPatience // a store that was behind a moment ago must not hold up every batch
	}
	ask, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	pause := doubtPause
	for {
		var behind []doubt
		for _, q := range doubts {
			err := d.ask(ask, q, proofs)
			switch {
			case err == nil:
			case ctx.Err() != nil:
				return ctx.Err()
			case errors.Is(err, schemas.ErrBehind):
				behind = append(behind, q)
			default:
				d.giveUp(err)
				return nil
			}
		}
		if doubts = behind; len(doubts) == 0 {
			return nil
		}
		if err := wait(ask, pause); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			d.giveUp(schemas.ErrBehind)
			return nil
		}
		pause = min(2*pause, maxDoubtPause)
	}
}

func (d *Direct) ask(ctx context.Context, q doubt, proofs []proof) error {
	need := make(schemas.Watermark, q.partition+1)
	need[q.partition] = q.end
	states, err := d.store.Lookup(ctx, q.devices, need)
	if err != nil {
		return err
	}
	if len(states) != len(q.devices) {
		return errors.New("the store answered for another number of devices than asked")
	}
	for i, request := range q.requests {
		proofs[request] = proof{given: true, state: states[i]}
	}
	return nil
}

// giveUp makes the next batches hasty.
func (d *Direct) giveUp(err error) {
	d.hastyUntil.Store(d.options.Now().Add(d.options.HastyFor).UnixMicro())
	d.log.Warn("no word of the store in time: sending what is in doubt", "error", err)
}

// Pauses between two questions to a store that is behind: short enough that a push hardly notices.
const (
	doubtPause    = 10 * time.Millisecond
	maxDoubtPause = 100 * time.Millisecond
)

// wait returns nil after d, or ctx's error.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
