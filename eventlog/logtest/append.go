package logtest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

func testAppend(t *testing.T, b *bench) {
	b.append(t, func(out *schemas.Out) {
		out.AppConfigured(&pushv1.AppConfigured{App: "moodle"})
		out.NotificationRequested(&pushv1.NotificationRequested{RequestId: make([]byte, 16), App: "moodle"})
	})
	if want, got := 1, sum(t, b, schemas.Apps); want != got {
		t.Errorf("apps: want %d records, got %d", want, got)
	}
	if want, got := 1, sum(t, b, schemas.Notifications); want != got {
		t.Errorf("notifications: want %d records, got %d", want, got)
	}
	got := b.read(t, schemas.Apps)[schemas.Apps]
	if len(got) != 1 || got[0].(*pushv1.AppConfigured).App != "moodle" {
		t.Errorf("want the app, got %v", got)
	}
	b.append(t, func(*schemas.Out) {}) // says nothing, and is no error
}

// sum is the number of offsets in a topic.
func sum(t *testing.T, b *bench, topic schemas.Topic) (n int) {
	t.Helper()
	ends, err := b.log.Ends(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	for _, end := range ends {
		n += int(end)
	}
	return n
}

func testManyAppends(t *testing.T, b *bench) {
	const callers, each = 64, 20
	var wg sync.WaitGroup
	errs := make(chan error, callers*each)
	for i := range callers {
		wg.Go(func() {
			for j := range each {
				errs <- b.log.Append(t.Context(), func(out *schemas.Out) {
					out.AppConfigured(&pushv1.AppConfigured{App: fmt.Sprintf("app-%d-%d", i, j)})
				})
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]int{}
	for _, e := range b.read(t, schemas.Apps)[schemas.Apps] {
		seen[e.(*pushv1.AppConfigured).App]++
	}
	if want, got := callers*each, len(seen); want != got {
		t.Errorf("want %d apps, got %d", want, got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := b.log.Append(ctx, func(out *schemas.Out) { out.AppConfigured(&pushv1.AppConfigured{App: "late"}) })
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("want the context's error, got %v", err)
	}
}

func testCatchUp(t *testing.T, b *bench) {
	var mu sync.Mutex
	seen := map[string]bool{}
	f := b.log.Follow("catch-up", func(r schemas.Record) error {
		e, err := r.Event()
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		seen[e.(*pushv1.AppConfigured).App] = true
		return nil
	}, schemas.Apps)
	run(t, f.Run)
	<-f.CaughtUp()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 25 {
				name := fmt.Sprintf("app-%d-%d", i, j)
				if err := b.log.Append(t.Context(), func(out *schemas.Out) { out.AppConfigured(&pushv1.AppConfigured{App: name}) }); err != nil {
					t.Error(err)
					return
				}
				if err := f.CatchUp(t.Context()); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if !seen[name] {
					t.Errorf("%s was appended before CatchUp, and is not applied after it", name)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
}

func testRefusal(t *testing.T, b *bench) {
	if _, err := b.log.CreateTopics(t.Context(), Partitions+1); !errors.Is(err, eventlog.ErrPartitions) {
		t.Errorf("want ErrPartitions, got %v", err)
	}
	for _, n := range []int32{0, Partitions} {
		layout, err := b.log.CreateTopics(t.Context(), n)
		if err != nil || layout.Partitions != Partitions {
			t.Errorf("asked for %d: want %d partitions, got %d, %v", n, Partitions, layout.Partitions, err)
		}
	}
	plans, err := b.log.PlanTopics(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range plans {
		if p.Action != eventlog.KeepTopic {
			t.Errorf("%s: want nothing to do, got %s %v", p.Topic, p.Action, p.Configs)
		}
	}
	if n := len(plans); n != len(schemas.Specs()) {
		t.Errorf("want a plan for each of %d topics, got %d", len(schemas.Specs()), n)
	}
	second := b.open(t, b.cfg)
	if got := second.Layout().Partitions; got != Partitions {
		t.Errorf("opened again: want %d partitions, got %d", Partitions, got)
	}
	for _, group := range eventlog.Groups() {
		offsets, err := b.log.GroupOffsets(t.Context(), group)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range offsets {
			if o.Committed != 0 {
				t.Errorf("%s in %s[%d]: want offset 0 from the topic's creation, got %d", group, o.Topic, o.Partition, o.Committed)
			}
		}
	}
}
