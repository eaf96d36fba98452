package pebble_test

import (
	"encoding/binary"
	"errors"
	"log/slog"
	"testing"

	"github.com/campanile-push/campanile/projections/pebble"
	"github.com/campanile-push/campanile/projections/storetest"
	"github.com/campanile-push/campanile/schemas"

	engine "github.com/cockroachdb/pebble/v2"
)

var two = schemas.Layout{Partitions: 2}

func TestNewerFormatIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	store, err := pebble.Open(dir, pebble.Options{Layout: two})
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := engine.Open(dir, &engine.Options{Logger: quiet{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Set([]byte("mformat"), binary.BigEndian.AppendUint64(nil, 2), engine.Sync), db.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := pebble.Open(dir, pebble.Options{Layout: two}); !errors.Is(err, pebble.ErrFormat) {
		t.Errorf("want %v, got %v", pebble.ErrFormat, err)
	}
}

type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(string, ...any) { panic("engine") }

func TestSecondProcessIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	store, err := pebble.Open(dir, pebble.Options{Layout: two, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pebble.Open(dir, pebble.Options{Layout: two}); !errors.Is(err, pebble.ErrInUse) {
		t.Errorf("want %v, got %v", pebble.ErrInUse, err)
	}
	if err := store.Close(); err != nil {
		t.Error(err)
	}
}

func TestLowDiskIsTemporaryAndWritesNothing(t *testing.T) {
	t.Parallel()
	store, err := pebble.Open(t.TempDir(), pebble.Options{Layout: two, MinFreeBytes: 1 << 62})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}()
	log := storetest.NewLog(two)
	d := schemas.Device{App: "moodle", Transport: schemas.FCM, Token: "d"}
	log.Say(storetest.Register(d, 1, "Android-fcm"))
	err = store.Apply(t.Context(), log.Batch(two.Of(d), 0))
	var says interface{ Temporary() bool }
	if !errors.Is(err, pebble.ErrDiskLow) || !errors.As(err, &says) || !says.Temporary() {
		t.Errorf("want a temporary %v, got %v", pebble.ErrDiskLow, err)
	}
	if sum, err := store.Checksum(t.Context()); sum != 0 || err != nil {
		t.Errorf("something was written: %x, %v", sum, err)
	}
}
