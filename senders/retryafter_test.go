package senders_test

import (
	"testing"
	"time"

	"github.com/campanile-push/campanile/senders"
)

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for header, want := range map[string]time.Duration{
		"": 0, "0": 0, "7": 7 * time.Second, "-7": 0, "soon": 0, "99999999": 24 * time.Hour,
		"Fri, 02 Jan 2026 03:04:15 GMT": 10 * time.Second, "Fri, 02 Jan 2026 03:04:00 GMT": 0,
	} {
		if got := senders.ReadRetryAfter(header, now); got != want {
			t.Errorf("%q: want %s, got %s", header, want, got)
		}
	}
}

func FuzzReadRetryAfter(f *testing.F) {
	f.Add("7")
	f.Add("Fri, 02 Jan 2026 03:04:15 GMT")
	f.Fuzz(func(t *testing.T, header string) {
		if got := senders.ReadRetryAfter(header, time.Unix(0, 0)); got < 0 || got > 24*time.Hour {
			t.Errorf("want 0 to 24 h, got %s", got)
		}
	})
}
