package schemas

import (
	"context"
	"errors"
)

// ErrFenced says that another process owns what a Commit would have written.
var ErrFenced = errors.New("fenced: another process owns this partition")

// Completion ends the records of one partition that a delivering stage was given. Its methods may be called from any goroutine.
type Completion interface {
	// Complete says what follows from the record at offset, and that it is done once the log has acknowledged that. It is called
	// once for each record, in any order, and does not block on the log. say runs before Complete returns; nil says nothing.
	Complete(offset int64, say func(out *Out))
	// Generation of this ownership; DeliveryAttempted, DeliveryFinished and Retry carry it.
	Generation() int64
	// MayPush reports whether the partition is still surely ours. When it is false, nothing may be sent to a provider: drop
	// the record without completing it, and its next owner has it.
	MayPush() bool
}

// Commit appends what say says as one unit: in one transaction where the runner has one. An error means that it is not known
// to be there: return it from the handler, and the runner starts over from what the log holds. ErrFenced ends the ownership.
type Commit func(ctx context.Context, say func(out *Out)) error
