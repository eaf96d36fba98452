package senders

import (
	"fmt"
	"testing"

	"github.com/campanile-push/campanile/schemas"
)

func TestASmallBroadcastDoesNotStandBehindABigOne(t *testing.T) {
	t.Parallel()
	var b backlog
	big, small := schemas.ID{1}, schemas.ID{2}
	for range 1000 {
		b.push(&flight{broadcast: big})
	}
	for range 5 {
		b.push(&flight{broadcast: small})
	}
	b.push(&flight{})
	seen := map[schemas.ID]int{}
	for range 12 {
		if f := b.peek(); b.pop() != f {
			t.Fatal("want what was looked at")
		} else {
			seen[f.broadcast]++
		}
	}
	if seen[small] != 5 || seen[schemas.ID{}] != 1 {
		t.Errorf("want all of the small ones among the first twelve, got %v", seen)
	}
	left := 0
	b.each(func(f *flight) {
		left++
		if f.broadcast != big {
			t.Errorf("want the big one's left, got %v", f.broadcast)
		}
	})
	for b.len() > 0 {
		b.pop()
		left--
	}
	if left != 0 || len(b.lines) != 0 {
		t.Errorf("want nothing left, got %d and %d lines", left, len(b.lines))
	}
}

func TestADeviceHasItsOwnLimit(t *testing.T) {
	t.Parallel()
	d, now := newDevices(), 1000*second
	for i := range devicePerMinute {
		if d.wait("chatty", now+int64(i)) != 0 {
			t.Fatalf("want %d a minute, got %d", devicePerMinute, i)
		}
	}
	if wait := d.wait("chatty", now+second); wait <= 0 || wait > 60*second {
		t.Errorf("want to wait for the minute's end, got %d µs", wait)
	}
	for i := range 10_000 {
		if d.wait(fmt.Sprint(i), now+second) != 0 {
			t.Fatal("want others let through")
		}
	}
	sent := 0
	for minute := int64(1); minute < 59; minute++ {
		for range devicePerMinute {
			if d.wait("chatty", now+minute*61*second) == 0 {
				sent++
			}
		}
	}
	if sent > devicePerHour-devicePerMinute {
		t.Errorf("want at most %d an hour, got %d", devicePerHour, sent+devicePerMinute)
	}
}

func TestParkedSendsAreLookedAtSeldomWhenTheyAreManyAndAtOnceWhenAnAppIsFree(t *testing.T) {
	t.Parallel()
	now := 1000 * second
	r := recheck{baseUS: 30 * second}
	r.count(now)
	if due := r.due(now, now+30*second, now+26*second); due != now+30*second {
		t.Errorf("want a look after 30 s, got %d", due-now)
	}
	if due := r.due(now, now+3*second, now); due != now+3*second {
		t.Errorf("want a look at its end, got %d", due-now)
	}
	for range 200_000 {
		r.count(now + second)
	}
	if due := r.due(now, now+30*second, now+31*second); due != now+36*second {
		t.Errorf("want to be asked again in 5 s, got %d", due-now)
	}
	if due := r.due(now, now+30*second, now+601*second); due > now+601*second {
		t.Errorf("want a look after 20 times as long, got %d", due-now)
	}
	r = recheck{baseUS: 30 * second}
	r.free(now + 10*second)
	if due := r.due(now, now+30*second, now+11*second); due > now+11*second {
		t.Errorf("want a look at once when an app is free, got %d", due-now)
	}
	if due := r.due(now+12*second, now+42*second, now+12*second); due <= now+12*second {
		t.Error("want those that were parked later to wait")
	}
}
