package storetest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/campanile-push/campanile/projections"
	"github.com/campanile-push/campanile/schemas"
)

// RunEpochs runs the suite of a store that can be built anew beside itself.
func RunEpochs(t *testing.T, place func(t *testing.T) Open) {
	t.Helper()
	for _, c := range []struct {
		name string
		test func(t *testing.T, open Open)
	}{
		{"OldOneServesUntilTheSwap", testOldServes},
		{"WhatWasWrongIsMendedByForceAlone", testMended},
		{"ApplyingAndPagingGoOnDuringARebuild", testGoesOn},
		{"InterruptedBuildLeavesTheOldOne", testInterrupted},
		{"OneBuilderAtATime", testOneBuilder},
		{"KeptEpochsStay", testKept},
		{"BadRecordsStopABuild", testBadBuild},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.test(t, place(t))
		})
	}
}

func epochs(t *testing.T, open Open) projections.Epochs {
	t.Helper()
	return epochsOf(t, opened(t, open))
}

func epochsOf(t *testing.T, s projections.DeviceStore) projections.Epochs {
	t.Helper()
	store, ok := s.(projections.Epochs)
	if !ok {
		t.Fatal("the store has no epochs")
	}
	return store
}

// begun begins an epoch, when the lease of a builder that was killed has run out.
func begun(t *testing.T, store projections.Epochs) projections.Epoch {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		e, err := store.BeginEpoch(t.Context())
		if err == nil {
			return e
		}
		if !errors.Is(err, projections.ErrRebuilding) {
			t.Fatal(err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal(err)
		}
	}
}

// fill applies a log to an epoch, from where it stands.
func fill(ctx context.Context, e projections.Epoch, l *Log) error {
	from, err := e.Applied(ctx)
	for p := range from {
		if in := l.Batch(int32(p), from[p]); err == nil && len(in.Records) > 0 {
			err = e.Apply(ctx, in)
		}
	}
	return err
}

// readOf reads pieces of a log as Swap wants them.
func readOf(l *Log) func(context.Context, int32, int64, int64, func(schemas.Batch) error) error {
	return func(_ context.Context, p int32, from, to int64, apply func(schemas.Batch) error) error {
		in := l.Batch(p, from)
		in.Records = slices.Clone(in.Records)
		for len(in.Records) > 0 && in.Records[len(in.Records)-1].Offset >= to {
			in.Records = in.Records[:len(in.Records)-1]
		}
		if len(in.Records) == 0 {
			return nil
		}
		return apply(in)
	}
}

func swapped(t *testing.T, e projections.Epoch, l *Log, keep bool) projections.Swapped {
	t.Helper()
	done, err := e.Swap(t.Context(), projections.SwapOptions{Keep: keep}, readOf(l))
	if err != nil || !done.Swapped {
		t.Fatalf("swap: %v %+v", err, done)
	}
	return done
}

func testOldServes(t *testing.T, open Open) {
	r := random(t)
	s, err := open(layout)
	if err != nil {
		t.Fatal(err)
	}
	store := epochsOf(t, s)
	l, devices := NewLog(layout), RandomDevices(r, 40)
	SayRandom(r, l, devices, 400)
	catchUp(t, store, l)
	e := begun(t, store)
	same(t, store, l) // an empty epoch stands beside it
	if err := fill(t.Context(), e, l); err != nil {
		t.Fatal(err)
	}
	SayRandom(r, l, devices, 100) // the old one lags, and so does the new one
	same(t, store, cut(l, applied(t, store)))
	// The new one is ahead in one partition, the old one in another.
	if err := store.Apply(t.Context(), l.Batch(0, 0)); err != nil {
		t.Fatal(err)
	}
	if err := e.Apply(t.Context(), l.Batch(1, 0)); err != nil {
		t.Fatal(err)
	}
	done := swapped(t, e, l, false)
	if !done.Same() || done.Kept {
		t.Errorf("the two epochs held the same: %+v", done)
	}
	if err := e.Abandon(t.Context()); err != nil {
		t.Errorf("abandon after a swap: %v", err)
	}
	catchUp(t, store, l)
	same(t, store, l)

	again := begun(t, store) // and once more, from there
	if again.Number() <= e.Number() {
		t.Errorf("epoch %d after %d", again.Number(), e.Number())
	}
	if err := fill(t.Context(), again, l.Compacted()); err != nil {
		t.Fatal(err)
	}
	if done := swapped(t, again, l, false); !done.Same() {
		t.Errorf("from the compacted log: %+v", done)
	}
	same(t, store, l)
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	same(t, opened(t, open), l)
}

// cut is a log up to some offsets.
func cut(l *Log, ends []int64) *Log {
	c := NewLog(l.layout)
	for p, records := range l.partitions {
		for _, r := range records {
			if r.Offset < ends[p] {
				c.partitions[p] = append(c.partitions[p], r)
			}
		}
		c.next[p] = ends[p]
	}
	return c
}

// testMended plants rows that the log does not say.
func testMended(t *testing.T, open Open) {
	store, r := epochs(t, open), random(t)
	l, devices := NewLog(layout), RandomDevices(r, 30)
	SayRandom(r, l, devices, 200)
	wrong := NewLog(layout)
	SayRandom(r, wrong, devices, 200)
	for p := range l.next { // of the same length, so that it looks applied
		for wrong.next[p] < l.next[p] {
			wrong.Append(int32(p), []byte("k"), nil)
		}
	}
	for p, end := range l.Ends() {
		if err := readOf(wrong)(t.Context(), int32(p), 0, end, func(in schemas.Batch) error { return store.Apply(t.Context(), in) }); err != nil {
			t.Fatal(err)
		}
	}
	e := begun(t, store)
	if err := fill(t.Context(), e, l); err != nil {
		t.Fatal(err)
	}
	done, err := e.Swap(t.Context(), projections.SwapOptions{}, readOf(l))
	if !errors.Is(err, projections.ErrOther) || done.Swapped || !done.Compared || done.Same() {
		t.Fatalf("two epochs that differ: %v %+v", err, done)
	}
	if err := e.Abandon(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Not as it was before: where it was behind, the two were levelled.
	if now := checksum(t, store); now != done.Old {
		t.Errorf("what served does not serve any more: %x, not %x", now, done.Old)
	}
	SayRandom(r, l, devices, 20)
	catchUp(t, store, l) // appliers are held no longer
	e = begun(t, store)
	if err := fill(t.Context(), e, l); err != nil {
		t.Fatal(err)
	}
	if done, err = e.Swap(t.Context(), projections.SwapOptions{Force: true}, readOf(l)); err != nil || !done.Swapped || done.Same() || !done.Kept {
		t.Errorf("forced: the old one was wrong, and is kept to be looked at: %v %+v", err, done)
	}
	catchUp(t, store, l)
	same(t, store, l)
}

// testGoesOn rebuilds twice while a projector applies and broadcasts page.
func testGoesOn(t *testing.T, open Open) {
	store, r := epochs(t, open), random(t)
	l := NewLog(layout)
	const n = 600
	for _, d := range numbered(n) {
		l.Say(Register(d, 1, "ios"))
		l.Say(Subscribe(d, "site"))
	}
	base := l.Ends()
	SayRandom(r, l, RandomDevices(r, 40), 300)
	for p, end := range base {
		in := l.Batch(int32(p), 0)
		i := 0
		for i < len(in.Records) && in.Records[i].Offset < end {
			i++
		}
		in.Records = in.Records[:i]
		if err := store.Apply(t.Context(), in); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	var others sync.WaitGroup
	defer others.Wait()
	defer stop()
	others.Go(func() { // the projector: record by record, and from the start again
		for ctx.Err() == nil {
			for p := range l.partitions {
				for _, rec := range l.partitions[p] {
					in := schemas.Batch{Topic: schemas.Devices, Partition: int32(p), Records: []schemas.Record{rec}}
					for {
						err := store.Apply(ctx, in)
						if err == nil || ctx.Err() != nil {
							break
						}
						if !errors.Is(err, projections.ErrHeld) {
							t.Errorf("apply: %v", err)
							return
						}
					}
				}
			}
		}
	})
	others.Go(func() { // a broadcast: every page from a store that has applied base
		for ctx.Err() == nil {
			q := audience(numbered(1)[0].App, schemas.FCM, 50, "site")
			q.Watermark = base
			var seen int
			var page schemas.Page
			for !page.Done {
				err := store.Page(ctx, q, &page)
				if ctx.Err() != nil {
					return
				}
				if err != nil {
					t.Errorf("page: %v", err)
					return
				}
				seen += len(page.Devices)
				q.After = page.Next
			}
			if seen != n {
				t.Errorf("a broadcast saw %d of %d devices", seen, n)
			}
		}
	})
	for range 2 {
		e := begun(t, store)
		if err := fill(t.Context(), e, l); err != nil {
			t.Fatal(err)
		}
		var done projections.Swapped
		err := projections.ErrMoved
		for errors.Is(err, projections.ErrMoved) {
			done, err = e.Swap(t.Context(), projections.SwapOptions{}, readOf(l))
		}
		if err != nil || !done.Same() {
			t.Fatalf("swap: %v %+v", err, done)
		}
	}
	stop()
	others.Wait()
	catchUp(t, store, l)
	if want, got := ModelOf(t, l).Checksum(), checksum(t, store); want != got {
		t.Errorf("checksum: want %x, got %x", want, got)
	}
}

func numbered(n int) []schemas.Device {
	devices := make([]schemas.Device, n)
	for i := range devices {
		devices[i] = schemas.Device{App: "numbered", Transport: schemas.FCM, Token: "n" + string(rune('a'+i%26)) + string(rune('a'+i/26))}
	}
	return devices
}

// testInterrupted ends builders without a word, as a killed process does.
func testInterrupted(t *testing.T, open Open) {
	r := random(t)
	l, devices := NewLog(layout), RandomDevices(r, 30)
	SayRandom(r, l, devices, 200)
	for round := range 3 {
		s, err := open(layout)
		if err != nil {
			t.Fatal(err)
		}
		store := epochsOf(t, s)
		catchUp(t, store, l)
		same(t, store, l)
		e := begun(t, store)
		if round > 0 {
			if err := e.Apply(t.Context(), l.Batch(0, 0)); err != nil {
				t.Fatal(err)
			}
		}
		if round > 1 { // killed when everybody was held back
			broken := errors.New("killed")
			SayRandom(r, l, devices, 50)
			done, err := e.Swap(t.Context(), projections.SwapOptions{}, func(context.Context, int32, int64, int64, func(schemas.Batch) error) error { return broken })
			if !errors.Is(err, broken) || done.Swapped {
				t.Fatalf("want the reader's error, got %v %+v", err, done)
			}
			catchUp(t, store, l) // nobody is held any longer
		}
		kill(e)
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
	}
	store := epochs(t, open)
	same(t, store, l)
	e := begun(t, store)
	if err := fill(t.Context(), e, l); err != nil {
		t.Fatal(err)
	}
	if done := swapped(t, e, l, false); !done.Same() {
		t.Errorf("the build after it: %+v", done)
	}
	same(t, store, l)
}

// kill lets go of what the process's end would: files, not rows.
func kill(e projections.Epoch) {
	if k, ok := e.(interface{ Kill() }); ok {
		k.Kill()
	}
}

func testOneBuilder(t *testing.T, open Open) {
	store := epochs(t, open)
	e := begun(t, store)
	if _, err := store.BeginEpoch(t.Context()); !errors.Is(err, projections.ErrRebuilding) {
		t.Errorf("a second builder: want ErrRebuilding, got %v", err)
	}
	if err := e.Abandon(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := begun(t, store).Abandon(t.Context()); err != nil {
		t.Error(err)
	}
}

func testKept(t *testing.T, open Open) {
	store, r := epochs(t, open), random(t)
	l := NewLog(layout)
	SayRandom(r, l, RandomDevices(r, 20), 100)
	catchUp(t, store, l)
	for range 2 {
		e := begun(t, store)
		if err := fill(t.Context(), e, l); err != nil {
			t.Fatal(err)
		}
		if done := swapped(t, e, l, true); !done.Kept || !done.Same() {
			t.Errorf("with keep: %+v", done)
		}
	}
	same(t, store, l)
}

func testBadBuild(t *testing.T, open Open) {
	store := epochs(t, open)
	e := begun(t, store)
	l := NewLog(layout)
	l.Append(0, []byte("k"), []byte{0xfe})
	if err := e.Apply(t.Context(), l.Batch(0, 0)); !errors.Is(err, schemas.ErrUnknownType) {
		t.Errorf("want ErrUnknownType, got %v", err)
	}
	if err := e.Abandon(t.Context()); err != nil {
		t.Error(err)
	}
}

// RunKilledSwaps ends the process of a rebuild at each step of its swap: the store serves the one epoch or the other, whole, and is built
// anew afterwards. breakOff plants the end, and reports whether it could.
func RunKilledSwaps(t *testing.T, place func(t *testing.T) Open, breakOff func(e projections.Epoch, at func(step string) error) bool, steps ...string) {
	t.Helper()
	for _, step := range steps {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			open, r := place(t), random(t)
			s, err := open(layout)
			if err != nil {
				t.Fatal(err)
			}
			store := epochsOf(t, s)
			l, devices := NewLog(layout), RandomDevices(r, 30)
			SayRandom(r, l, devices, 300)
			catchUp(t, store, cut(l, l.Ends()))
			e := begun(t, store)
			if err := fill(t.Context(), e, l); err != nil {
				t.Fatal(err)
			}
			SayRandom(r, l, devices, 50)
			killed := errors.New("killed")
			reached := false
			if !breakOff(e, func(at string) error {
				if at == step {
					reached = true
					return killed
				}
				return nil
			}) {
				t.Fatal("no end can be planted")
			}
			if _, err := e.Swap(t.Context(), projections.SwapOptions{}, readOf(l)); !errors.Is(err, killed) || !reached {
				t.Fatalf("want the planted end, got %v", err)
			}
			kill(e)
			if err := store.Close(); err != nil {
				t.Fatal(err)
			}
			again := epochs(t, open)
			catchUp(t, again, l)
			same(t, again, l)
			next := begun(t, again)
			if err := fill(t.Context(), next, l); err != nil {
				t.Fatal(err)
			}
			if done := swapped(t, next, l, false); !done.Same() {
				t.Errorf("the rebuild after it: %+v", done)
			}
			same(t, again, l)
		})
	}
}
