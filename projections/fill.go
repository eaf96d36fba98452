package projections

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/campanile-push/campanile/schemas"
)

// ErrFilled says that a store has rows or offsets already, so that it cannot be filled beside the log.
var ErrFilled = errors.New("the device store is not empty")

// Filled is a device as [Filler] takes it.
type Filled struct {
	Device schemas.Device
	State  State // Channels sorted
}

// Filler is a store that can be given rows without a log: what ten million registrations would take the log long for is there in a
// minute, to measure with. The rows are those that Apply would have written, and the applied offsets stay at zero. Nothing else may use
// the store meanwhile; after an error it holds some of the rows, and is to be thrown away. rows names a device once.
type Filler interface {
	Fill(ctx context.Context, rows iter.Seq[Filled]) error
}

// CheckEmpty returns ErrFilled for a store that has applied anything. Rows of an earlier Fill it does not see.
func CheckEmpty(ctx context.Context, store DeviceStore) error {
	applied, err := store.Applied(ctx)
	if err != nil {
		return fmt.Errorf("fill the device store: %w", err)
	}
	for _, next := range applied {
		if next > 0 {
			return fmt.Errorf("fill the device store: %w", ErrFilled)
		}
	}
	return nil
}
