package eventlog

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kgo"
)

// acks counts the promises of a number of records. It is used once.
type acks struct {
	left   atomic.Int64
	failed atomic.Pointer[error]
	done   chan struct{}
}

func (a *acks) expect(n int) {
	a.left.Store(int64(n))
	a.done = make(chan struct{})
}

func (a *acks) promise(_ *kgo.Record, err error) {
	if err != nil {
		first := err // a copy, so that the parameter does not go to the heap for every record
		a.failed.CompareAndSwap(nil, &first)
	}
	if a.left.Add(-1) == 0 {
		close(a.done)
	}
}

// wait returns when every promise is kept, with the first error. If ctx ends first, the client still holds the records.
func (a *acks) wait(ctx context.Context) error {
	select {
	case <-a.done:
	case <-ctx.Done():
		return fmt.Errorf("wait for the log: %w", ctx.Err())
	}
	if err := a.failed.Load(); err != nil {
		return *err
	}
	return nil
}
