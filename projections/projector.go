package projections

import (
	"context"
	"errors"
	"fmt"

	"github.com/campanile-push/campanile/schemas"
)

// Projector is the stage that keeps a device store up with the log. It appends nothing. The store, not the consumer group,
// says where it goes on: see Positions.
type Projector struct {
	store DeviceStore
}

// NewProjector returns a projector into store, which the caller closes.
func NewProjector(store DeviceStore) *Projector { return &Projector{store} }

// Handle applies a batch. schemas.ErrUnknownType and schemas.ErrMalformed pass through: nothing happened. Any other error is
// temporary (its Temporary method is true) unless the store says that it is not: truth is not skipped because a database
// is away.
func (p *Projector) Handle(ctx context.Context, in schemas.Batch, _ *schemas.Out) error {
	err := p.store.Apply(ctx, in)
	if err == nil || ctx.Err() != nil || errors.Is(err, schemas.ErrUnknownType) || errors.Is(err, schemas.ErrMalformed) {
		return err
	}
	err = fmt.Errorf("project %s[%d]: %w", in.Topic, in.Partition, err)
	// The store's word alone: errors of the network have a Temporary of their own, which is false for a connection that was reset.
	if says := (judged{}); errors.As(err, &says) {
		return err
	}
	return Temporary(err)
}

// Positions are the offsets from which the store needs the given partitions of topic.
func (p *Projector) Positions(ctx context.Context, topic schemas.Topic, partitions []int32) (map[int32]int64, error) {
	if topic != schemas.Devices {
		return nil, fmt.Errorf("positions in %s: the projector reads %s", topic, schemas.Devices)
	}
	applied, err := p.store.Applied(ctx)
	if err != nil {
		return nil, fmt.Errorf("positions in %s: %w", topic, err)
	}
	positions := make(map[int32]int64, len(partitions))
	for _, n := range partitions {
		if n < 0 || int(n) >= len(applied) {
			return nil, fmt.Errorf("positions in %s[%d]: %w: it has %d", topic, n, ErrLayout, len(applied))
		}
		positions[n] = applied[n]
	}
	return positions, nil
}

// Temporary marks an error as one that the same call may not meet again.
func Temporary(err error) error { return judged{err, true} }

// Permanent marks an error as one that the same call will meet again.
func Permanent(err error) error { return judged{err, false} }

type judged struct {
	error
	temporary bool
}

func (j judged) Temporary() bool { return j.temporary }
func (j judged) Unwrap() error   { return j.error }
