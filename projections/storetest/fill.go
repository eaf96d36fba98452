package storetest

import (
	"errors"
	"slices"
	"testing"

	"github.com/campanile-push/campanile/projections"
)

// RunFill runs the suite of a store that can be filled without a log.
func RunFill(t *testing.T, place func(t *testing.T) Open) {
	t.Helper()
	t.Run("FilledRowsAreThoseThatApplyWrites", func(t *testing.T) { t.Parallel(); testFilled(t, place(t)) })
	t.Run("AStoreThatAppliedIsNotFilled", func(t *testing.T) { t.Parallel(); testFilledTwice(t, place(t)) })
}

func filler(t *testing.T, store projections.DeviceStore) projections.Filler {
	t.Helper()
	f, ok := store.(projections.Filler)
	if !ok {
		t.Fatal("the store cannot be filled")
	}
	return f
}

func rowsOf(m Model) []projections.Filled {
	rows := make([]projections.Filled, 0, len(m))
	for d, state := range m {
		rows = append(rows, projections.Filled{Device: d, State: state})
	}
	return rows
}

func testFilled(t *testing.T, open Open) {
	store, r := opened(t, open), random(t)
	l := NewLog(layout)
	SayRandom(r, l, RandomDevices(r, 60), 600)
	m := ModelOf(t, l)
	if err := filler(t, store).Fill(t.Context(), slices.Values(rowsOf(m))); err != nil {
		t.Fatal(err)
	}
	if want, got := m.Checksum(), checksum(t, store); want != got {
		t.Errorf("checksum: want that of applied rows, %x, got %x", want, got)
	}
	for p, at := range applied(t, store) {
		if at != 0 {
			t.Errorf("partition %d: no record was applied, and it stands at %d", p, at)
		}
	}
	// Fill moves no offset, so that the projector reads the log from its start, and changes nothing.
	catchUp(t, store, l)
	same(t, store, l)
}

func testFilledTwice(t *testing.T, open Open) {
	store, r := opened(t, open), random(t)
	l := NewLog(layout)
	SayRandom(r, l, RandomDevices(r, 5), 50)
	catchUp(t, store, l)
	if err := filler(t, store).Fill(t.Context(), slices.Values(rowsOf(ModelOf(t, l)))); !errors.Is(err, projections.ErrFilled) {
		t.Errorf("want ErrFilled, got %v", err)
	}
	same(t, store, l)
}
