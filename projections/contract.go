package projections

import (
	"context"
	"errors"

	"github.com/campanile-push/campanile/schemas"
)

// Errors that every store uses.
var (
	// ErrLayout says that a store was built for another number of partitions.
	ErrLayout = errors.New("the store was built for another number of partitions")
	// ErrQuery says that a question makes no sense: a page of no devices, a channel that can be no channel.
	ErrQuery = errors.New("not a question for the device store")
)

// DeviceStore keeps what the topic devices says: devices, their subscriptions, and for each channel its audience. All methods
// may be called from any goroutine. An error that is temporary (the database is away, the disk is full) says so by a method
// Temporary() bool; see [NewProjector].
type DeviceStore interface {
	// Applied is, by partition of devices, the offset after the last record that the rows contain.
	Applied(ctx context.Context) ([]int64, error)

	// Apply folds a batch of one partition of devices. Rows and applied offset change together or not at all; records below
	// the applied offset are skipped, and a gap upward is what compaction leaves. Every record is decoded before anything is
	// written: schemas.ErrUnknownType or schemas.ErrMalformed means that nothing happened. After any other error the store
	// holds a prefix of the batch, and the same batch may come again. Two callers with one partition cannot interleave.
	Apply(ctx context.Context, in schemas.Batch) error

	// Lookup returns the state of each device, in the order asked. It returns schemas.ErrBehind unless the partitions of
	// these devices are applied up to need, as seen by the same snapshot; nil need asks for nothing. A device without a row
	// has the zero state.
	Lookup(ctx context.Context, devices []schemas.Device, need schemas.Watermark) ([]schemas.DeviceState, error)

	// FindToken returns the known devices of an app with that token, dead or alive, in the order of [Candidates]. It returns
	// schemas.ErrBehind as Lookup does, by the partitions of all candidates.
	FindToken(ctx context.Context, app, token string, need schemas.Watermark) ([]schemas.Device, error)

	// Page fills page, which it resets first, with the alive devices of q's channels. It returns schemas.ErrBehind unless all
	// of q.Watermark is applied in the snapshot that the rows are from. Rows are in cursor order, a device once, at most
	// q.Limit; page.Done is exact. After an error the page's content means nothing.
	Page(ctx context.Context, q schemas.PageQuery, page *schemas.Page) error

	// Estimate is a rough size of an audience over all transports, from a bounded sample. It is exact while each channel has
	// fewer than [SampleRows] rows on each transport; a device in several of the channels counts several times.
	Estimate(ctx context.Context, app string, channels []string) (int64, error)

	// Checksum reads everything. Equal folds give equal sums in every implementation, whatever the order of rows.
	Checksum(ctx context.Context) (uint64, error)

	// Close ends the store; it waits for nothing but its own files. No method may be running.
	Close() error
}
