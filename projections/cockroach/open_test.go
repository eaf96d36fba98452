package cockroach_test

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/campanile-push/campanile/projections/cockroach"
	"github.com/campanile-push/campanile/projections/storetest"
	"github.com/campanile-push/campanile/schemas"
)

var layout = schemas.Layout{Partitions: 3}

func openAt(tb testing.TB, at string) *cockroach.Store {
	tb.Helper()
	store, err := cockroach.Open(tb.Context(), cockroach.Options{URL: at, Layout: layout})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := store.Close(); err != nil {
			tb.Error(err)
		}
	})
	return store
}

// TestStartingTogetherMigratesOnce starts several processes on an empty database.
func TestStartingTogetherMigratesOnce(t *testing.T) {
	t.Parallel()
	at := newDatabase(t)
	var group sync.WaitGroup
	for range 3 {
		group.Go(func() {
			store, err := cockroach.Open(t.Context(), cockroach.Options{URL: at, Layout: layout})
			if err != nil {
				t.Error(err)
				return
			}
			if err := store.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if !t.Failed() {
		openAt(t, at)
	}
}

func TestNewerSchemaIsRefused(t *testing.T) {
	t.Parallel()
	at := newDatabase(t)
	openAt(t, at)
	execute(t, at, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (999, true)")
	if _, err := cockroach.Open(t.Context(), cockroach.Options{URL: at, Layout: layout}); !errors.Is(err, cockroach.ErrNewer) {
		t.Errorf("want %v, got %v", cockroach.ErrNewer, err)
	}
}

func TestWrongURLHidesThePassword(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"postgres://user:hunter2@127.0.0.1:1/none?sslmode=disable", "postgres://user:hunter2@127.0.0.1:no/none"} {
		_, err := cockroach.Open(t.Context(), cockroach.Options{URL: at, Layout: layout})
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("want an error without the password, got %v", err)
		}
	}
}

// TestTwoProcessesOnOnePartition applies the same log through two stores at once.
func TestTwoProcessesOnOnePartition(t *testing.T) {
	t.Parallel()
	at := newDatabase(t)
	first, second := openAt(t, at), openAt(t, at)
	log := storetest.NewLog(layout)
	d := schemas.Device{App: "moodle", Transport: schemas.FCM, Token: "d"}
	p := layout.Of(d)
	for i := range int64(60) {
		log.Say(storetest.Register(d, i, "Android-fcm"))
		log.Say(storetest.Subscribe(d, "site"))
	}
	end := log.Ends()[p]
	var group sync.WaitGroup
	for n, store := range []*cockroach.Store{first, second} {
		group.Go(func() {
			for from := int64(0); from < end; {
				in := log.Batch(p, from)
				in.Records = in.Records[:min(len(in.Records), 1+n)]
				if err := store.Apply(t.Context(), in); err != nil {
					t.Error(err)
					return
				}
				from = in.Next()
			}
		})
	}
	group.Wait()
	sum, err := first.Checksum(t.Context())
	if want := storetest.ModelOf(t, log).Checksum(); err != nil || want != sum {
		t.Errorf("want %x, got %x, %v", want, sum, err)
	}
	applied, err := second.Applied(t.Context())
	if err != nil || applied[p] != end {
		t.Errorf("applied: want %d, got %v, %v", end, applied, err)
	}
}
