package clickhouse

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestSmallBatchWaitsForItsSuccessors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		since   time.Duration // the last insert
		records int
		want    time.Duration
	}{
		{"right after another", 0, 10, time.Second},
		{"a while after another", 700 * time.Millisecond, 10, 300 * time.Millisecond},
		{"long after another", time.Minute, 10, 0},
		{"a large one", 0, largeBatch, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			a := &Analytics{linger: time.Second}
			p := &partition{last: time.Now().Add(-c.since)}
			began := time.Now()
			if err := a.wait(t.Context(), p, c.records); err != nil {
				t.Fatal(err)
			}
			if got := time.Since(began); got != c.want {
				t.Errorf("%s: want %v, got %v", c.name, c.want, got)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := (&Analytics{linger: time.Second}).wait(ctx, &partition{last: time.Now()}, 1); !errors.Is(err, context.Canceled) {
			t.Errorf("want the context's error, got %v", err)
		}
	})
}
