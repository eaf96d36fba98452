package pebble_test

import (
	"testing"

	"github.com/campanile-push/campanile/projections"
	"github.com/campanile-push/campanile/projections/pebble"
	"github.com/campanile-push/campanile/projections/storetest"
	"github.com/campanile-push/campanile/schemas"
)

func TestStorePassesTheSuite(t *testing.T) {
	t.Parallel()
	storetest.Run(t, place)
}

func TestStoreIsFilledAsApplyWouldFillIt(t *testing.T) {
	t.Parallel()
	storetest.RunFill(t, place)
}

func TestStoreIsRebuiltBesideItself(t *testing.T) {
	t.Parallel()
	storetest.RunEpochs(t, place)
}

func TestRebuildsKilledInTheSwapLeaveOneWholeEpoch(t *testing.T) {
	t.Parallel()
	storetest.RunKilledSwaps(t, place, pebble.BreakOff, "compared", "held", "levelled", "activated")
}

// place is a new directory.
func place(t *testing.T) storetest.Open {
	t.Helper()
	dir := t.TempDir()
	return func(l schemas.Layout) (projections.DeviceStore, error) {
		store, err := pebble.Open(dir, pebble.Options{Layout: l, CacheBytes: 8 << 20})
		if err != nil {
			return nil, err
		}
		return store, nil
	}
}
