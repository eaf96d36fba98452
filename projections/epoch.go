package projections

import (
	"context"
	"errors"
	"fmt"

	"github.com/campanile-push/campanile/schemas"
)

// Errors of epochs.
var (
	// ErrRebuilding says that somebody builds an epoch already, or died while doing so: a lease runs out by itself.
	ErrRebuilding = errors.New("a rebuild of the device store runs already, or was killed less than half a minute ago")
	// ErrHeld says that a rebuild is about to swap the rows under the appliers; it takes milliseconds. It is temporary.
	ErrHeld = Temporary(errors.New("a rebuild is about to take the device store over"))
	// ErrReplaced says that an epoch is the builder's no longer: another rebuild took its place.
	ErrReplaced = errors.New("another rebuild took this one's place")
	// ErrOther says that the serving epoch and the new one do not hold the same rows, so that they were not swapped.
	ErrOther = errors.New("the device store that serves does not hold what the log says")
	// ErrMoved says that the serving epoch moved while it was to stand still; Swap can be called again.
	ErrMoved = errors.New("the device store moved on before it could be swapped")
)

// Epochs is a device store that can be built anew beside itself. An epoch is a set of rows with applied offsets of its own. One is active:
// every read and every Apply of every process finds it in the snapshot of its rows, so that promise 4 of the design holds across a swap.
type Epochs interface {
	DeviceStore
	// BeginEpoch makes an empty epoch, after the remains of earlier builders are dropped. It returns ErrRebuilding while there is
	// another builder.
	BeginEpoch(ctx context.Context) (Epoch, error)
}

// Epoch is an epoch in the making. One goroutine uses it. It ends with Swap or Abandon; one that ends with its process is dropped by the
// next BeginEpoch.
type Epoch interface {
	// Number tells it from others; the first epoch of a store is 0.
	Number() int64
	// Applied and Apply are as DeviceStore has them, of this epoch.
	Applied(ctx context.Context) ([]int64, error)
	Apply(ctx context.Context, in schemas.Batch) error
	// Swap makes this epoch the active one: both or neither, whatever happens. It levels the two epochs to the same offsets by read, which
	// hands on a partition's records in [from, to), and compares them by checksum there. Where the sums differ, what serves goes on to serve and
	// ErrOther is returned, unless o.Force. Then it holds appliers back for a moment, levels them again, and swaps. The old epoch is dropped,
	// unless o.Keep is set or the sums differ. After ErrMoved and ErrOther it can be called again; an error that comes with swapped is of what
	// came after.
	Swap(ctx context.Context, o SwapOptions, read func(ctx context.Context, partition int32, from, to int64, apply func(schemas.Batch) error) error) (Swapped, error)
	// Abandon drops it; after Swap it does nothing.
	Abandon(ctx context.Context) error
}

// SwapOptions of Epoch.Swap.
type SwapOptions struct {
	Keep  bool // the old epoch stays
	Force bool // also where the two do not hold the same rows
}

// Swapped is what a swap came to.
type Swapped struct {
	Swapped  bool
	Compared bool   // Old and New are known
	Old, New uint64 // checksums of the two epochs, at the same offsets
	Kept     bool   // the old epoch is still there
}

// Same reports whether both epochs held the same rows.
func (s Swapped) Same() bool { return s.Compared && s.Old == s.New }

// Applier is one epoch as Level needs it.
type Applier struct {
	Applied func(ctx context.Context) ([]int64, error)
	Apply   func(ctx context.Context, in schemas.Batch) error
}

// Level applies to each of two epochs what the other is ahead by, and returns the offsets at which both stand then.
func Level(ctx context.Context, a, b Applier, read func(ctx context.Context, partition int32, from, to int64, apply func(schemas.Batch) error) error) ([]int64, error) {
	ofA, err := a.Applied(ctx)
	if err != nil {
		return nil, err
	}
	ofB, err := b.Applied(ctx)
	if err != nil {
		return nil, err
	}
	if len(ofA) != len(ofB) {
		return nil, fmt.Errorf("level %d partitions with %d: %w", len(ofA), len(ofB), ErrLayout)
	}
	for p := range ofA {
		to := max(ofA[p], ofB[p])
		for _, behind := range []struct {
			from int64
			on   Applier
		}{{ofA[p], a}, {ofB[p], b}} {
			if behind.from == to {
				continue
			}
			err := read(ctx, int32(p), behind.from, to, func(in schemas.Batch) error { return behind.on.Apply(ctx, in) })
			if err == nil {
				// Compaction may have taken the last records before to: the offset moves past them all the same.
				err = behind.on.Apply(ctx, schemas.Batch{Topic: schemas.Devices, Partition: int32(p), Records: []schemas.Record{{
					Topic: schemas.Devices, Partition: int32(p), Offset: to - 1,
				}}})
			}
			if err != nil {
				return nil, fmt.Errorf("level partition %d: %w", p, err)
			}
		}
		ofA[p] = to
	}
	return ofA, nil
}
