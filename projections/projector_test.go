package projections_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"syscall"
	"testing"

	"github.com/campanile-push/campanile/projections"
	"github.com/campanile-push/campanile/schemas"
)

// answering is a store whose Apply and Applied answer as told.
type answering struct {
	projections.DeviceStore
	err     error
	applied []int64
}

func (a answering) Apply(context.Context, schemas.Batch) error { return a.err }
func (a answering) Applied(context.Context) ([]int64, error)   { return a.applied, a.err }

func TestProjectorTellsAwayFromUnreadable(t *testing.T) {
	t.Parallel()
	away := errors.New("connection refused")
	for name, c := range map[string]struct {
		err       error
		temporary bool
	}{
		"away":         {away, true},
		"cut off":      {fmt.Errorf("apply: %w", &net.OpError{Op: "read", Err: syscall.ECONNRESET}), true}, // it has a Temporary of its own
		"unknown type": {fmt.Errorf("devices[0]@7: %w", schemas.ErrUnknownType), false},
		"malformed":    {fmt.Errorf("devices[0]@7: %w", schemas.ErrMalformed), false},
		"permanent":    {projections.Permanent(away), false},
		"temporary":    {fmt.Errorf("apply: %w", projections.Temporary(away)), true},
	} {
		err := projections.NewProjector(answering{err: c.err}).Handle(t.Context(), schemas.Batch{Topic: schemas.Devices}, nil)
		if !errors.Is(err, c.err) {
			t.Errorf("%s: want %v, got %v", name, c.err, err)
		}
		var says interface{ Temporary() bool }
		if got := errors.As(err, &says) && says.Temporary(); got != c.temporary {
			t.Errorf("%s: want temporary=%v, got %v", name, c.temporary, got)
		}
	}
	if err := projections.NewProjector(answering{}).Handle(t.Context(), schemas.Batch{}, nil); err != nil {
		t.Errorf("a batch that was applied: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	err := projections.NewProjector(answering{err: context.Canceled}).Handle(ended, schemas.Batch{}, nil)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("at the end: want %v, got %v", context.Canceled, err)
	}
}

func TestProjectorGoesOnWhereTheStoreStands(t *testing.T) {
	t.Parallel()
	p := projections.NewProjector(answering{applied: []int64{4, 0, 9}})
	got, err := p.Positions(t.Context(), schemas.Devices, []int32{0, 2})
	if want := map[int32]int64{0: 4, 2: 9}; err != nil || !maps.Equal(want, got) {
		t.Errorf("want %v, got %v, %v", want, got, err)
	}
	if _, err := p.Positions(t.Context(), schemas.Devices, []int32{3}); !errors.Is(err, projections.ErrLayout) {
		t.Errorf("a partition that the store does not have: want %v, got %v", projections.ErrLayout, err)
	}
	if _, err := p.Positions(t.Context(), schemas.Apps, []int32{0}); err == nil {
		t.Error("the projector has a position in another topic")
	}
	if _, err := projections.NewProjector(answering{err: errors.New("away")}).Positions(t.Context(), schemas.Devices, nil); err == nil {
		t.Error("positions of a store that is away")
	}
}
