package router_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/campanile-push/campanile/router"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// bench is a tally with the log around one partition of it.
type tallyBench struct {
	t     *testing.T
	log   *memlog
	tally *router.Tally
	from  int64
}

func newTallyBench(t *testing.T, o router.TallyOptions) *tallyBench {
	t.Helper()
	return &tallyBench{t: t, log: newMemlog(1), tally: router.NewTally(o, quiet())}
}

func (b *tallyBench) say(say func(out *schemas.Out)) { b.log.append(say) }

// count handles what is new as one batch.
func (b *tallyBench) count() []said {
	b.t.Helper()
	records, _ := b.log.read(schemas.Deliveries, 0, b.from, 1<<30)
	in := schemas.Batch{Topic: schemas.Deliveries, Records: records}
	out := schemas.NewOut(b.log.layout)
	if err := b.tally.Handle(b.t.Context(), in, out); err != nil {
		b.t.Fatal(err)
	}
	b.from = in.Next()
	b.log.appendOut(out, nil)
	var list []said
	out.Each(func(topic schemas.Topic, p int32, key, value []byte) {
		if value == nil {
			list = append(list, said{topic, p, slices.Clone(key), nil})
			return
		}
		e, err := schemas.Decode(value)
		if err != nil {
			b.t.Fatal(err)
		}
		list = append(list, said{topic, p, slices.Clone(key), e})
	})
	return list
}

// restart restores the tally from its own output.
func (b *tallyBench) restart() {
	b.t.Helper()
	b.tally.Reset(0)
	for _, r := range b.log.all(schemas.Progress) {
		if err := b.tally.Restore(0, r); err != nil {
			b.t.Fatal(err)
		}
	}
}

// counts are the newest of a broadcast on FCM.
func (b *tallyBench) counts(id schemas.ID) *pushv1.TransportCounts {
	b.t.Helper()
	state := router.NewState(router.StateOptions{}, b.log.layout)
	record := schemas.NewID()
	b.log.append(func(out *schemas.Out) {
		out.BroadcastRequested(&pushv1.BroadcastRequested{BroadcastId: id[:], RecordId: record[:], App: "app", Channels: []string{"c"}})
	})
	for _, topic := range []schemas.Topic{schemas.Broadcasts, schemas.Progress} {
		for _, r := range b.log.all(topic) {
			if err := state.Apply(r); err != nil {
				b.t.Fatal(err)
			}
		}
	}
	status, ok := state.Broadcast(id)
	if !ok {
		b.t.Fatal("no such broadcast")
	}
	return status.Counts[1]
}

func finished(id schemas.ID, o schemas.Outcome, first bool, tier uint32, generation int64) *pushv1.DeliveryFinished {
	return &pushv1.DeliveryFinished{
		BroadcastId: id[:], App: "app", Transport: schemas.FCM, Outcome: o, First: first,
		Source: &pushv1.Source{Lane: schemas.Bulk, Tier: tier}, Generation: generation,
	}
}

func owner(tier uint32, generation int64) *pushv1.OwnerChanged {
	return &pushv1.OwnerChanged{Transport: schemas.FCM, Lane: schemas.Bulk, Tier: tier, Generation: generation}
}

const accepted = pushv1.Outcome_OUTCOME_ACCEPTED

func TestWhatAnOldOwnerFinishesIsARepeat(t *testing.T) {
	t.Parallel()
	for _, restarts := range []bool{false, true} {
		b := newTallyBench(t, router.TallyOptions{})
		id := schemas.NewID()
		step := func(say func(out *schemas.Out)) {
			b.say(say)
			b.count()
			if restarts {
				b.restart()
			}
		}
		step(func(out *schemas.Out) { out.OwnerChanged(owner(0, 3)) })
		step(func(out *schemas.Out) { out.DeliveryFinished(0, 1, finished(id, accepted, true, 0, 3)) })
		step(func(out *schemas.Out) { out.DeliveryFinished(0, 1, finished(id, accepted, true, 1, 2)) }) // another tier has no owner yet
		step(func(out *schemas.Out) {
			out.DeliveryFinished(0, 1, finished(id, accepted, true, 0, 3)) // still the owner
			out.OwnerChanged(owner(0, 4))
			out.DeliveryFinished(0, 1, finished(id, accepted, true, 0, 3)) // no longer
			out.OwnerChanged(owner(0, 2))                                  // an older one says so late
			out.OwnerChanged(owner(0, 4))                                  // the same one once more
			out.DeliveryAttempted(0, 1, &pushv1.DeliveryAttempted{
				BroadcastId: id[:], Transport: schemas.FCM, First: true, Generation: 3, Source: &pushv1.Source{Lane: schemas.Bulk},
			})
		})
		step(func(out *schemas.Out) { out.DeliveryFinished(0, 1, finished(id, accepted, false, 0, 3)) })
		step(func(out *schemas.Out) { out.DeliveryFinished(0, 1, finished(id, accepted, true, 0, 4)) })
		got := b.counts(id)
		if got.Accepted != 4 || got.FirstOutcomes != 4 || got.Repeats != 2 {
			t.Errorf("restarts=%v: want 4 accepted, 4 first and 2 repeats, got %v", restarts, got)
		}
	}
}

func TestAnAttemptCountsOnceAsFirst(t *testing.T) {
	t.Parallel()
	b := newTallyBench(t, router.TallyOptions{})
	id := schemas.NewID()
	b.say(func(out *schemas.Out) {
		for _, first := range []bool{true, false, false} {
			out.DeliveryAttempted(0, 1, &pushv1.DeliveryAttempted{BroadcastId: id[:], Transport: schemas.FCM, First: first})
		}
		out.DeliveryFinished(0, 1, finished(id, pushv1.Outcome_OUTCOME_EXPIRED, false, 2, 0))
		// Direct pushes, and what the router refused, belong to no broadcast.
		out.DeliveryFinished(0, 1, &pushv1.DeliveryFinished{Transport: schemas.FCM, Outcome: accepted, First: true, Source: &pushv1.Source{Lane: schemas.ByRouter}})
	})
	if list := b.count(); len(list) != 1 {
		t.Errorf("want one record of counts, got %d", len(list))
	}
	if got := b.counts(id); got.FirstOutcomes != 1 || got.Expired != 1 || got.Finished() != 1 {
		t.Errorf("want one first outcome and one expired, got %v", got)
	}
}

func TestCountsSayWhatHeldBackMostOfTheLastBatch(t *testing.T) {
	t.Parallel()
	b := newTallyBench(t, router.TallyOptions{})
	id := schemas.NewID()
	held := func(by ...pushv1.Limit) (told pushv1.Limit) {
		t.Helper()
		b.say(func(out *schemas.Out) {
			for i, limit := range by {
				if i%2 == 0 {
					e := finished(id, accepted, true, 0, 0)
					e.LimitedBy = limit
					out.DeliveryFinished(0, 1, e)
				} else {
					out.DeliveryAttempted(0, 1, &pushv1.DeliveryAttempted{BroadcastId: id[:], Transport: schemas.FCM, LimitedBy: limit})
				}
			}
			out.OwnerChanged(owner(0, 1)) // a batch always has something
		})
		for _, said := range b.count() {
			if e, ok := said.event.(*pushv1.ProgressCounted); ok {
				told = e.Counts[0].LimitedBy
			}
		}
		return told
	}
	const none, quota, parked, unknown = pushv1.Limit_LIMIT_UNSPECIFIED, pushv1.Limit_LIMIT_QUOTA, pushv1.Limit_LIMIT_PARKED, pushv1.Limit(99)
	if got := held(quota, none, quota, parked); got != quota {
		t.Errorf("want the quota, got %s", got)
	}
	if got := held(parked, parked, quota); got != parked {
		t.Errorf("want parked, got %s", got)
	}
	b.restart()
	if got := held(unknown); got != parked {
		t.Errorf("want what was said before a batch without a word, got %s", got)
	}
	if got := held(none, none, none, quota); got != none {
		t.Errorf("want nothing any more, got %s", got)
	}
}

func TestABatchThatComesAgainIsNotCountedAgain(t *testing.T) {
	t.Parallel()
	b := newTallyBench(t, router.TallyOptions{})
	id := schemas.NewID()
	b.say(func(out *schemas.Out) {
		out.OwnerChanged(owner(0, 1))
		out.DeliveryFinished(0, 1, finished(id, accepted, true, 0, 1))
		out.DeliveryFinished(0, 1, finished(id, accepted, true, 0, 1))
	})
	b.count()
	b.restart()
	b.from = 0 // its offset was lost, the counts were not
	b.say(func(out *schemas.Out) { out.DeliveryFinished(0, 1, finished(id, accepted, true, 0, 1)) })
	b.count()
	if got := b.counts(id); got.Accepted != 3 {
		t.Errorf("want 3 accepted, got %d", got.Accepted)
	}
}

func TestABatchThatCannotBeReadCountsNothing(t *testing.T) {
	t.Parallel()
	b := newTallyBench(t, router.TallyOptions{})
	id := schemas.NewID()
	b.say(func(out *schemas.Out) {
		out.DeliveryFinished(0, 1, finished(id, accepted, true, 0, 1))
		out.DeliveryFinished(0, 1, finished(id, accepted, true, 0, 1))
	})
	records, _ := b.log.read(schemas.Deliveries, 0, 0, 2)
	for _, c := range []struct {
		value []byte
		want  error
	}{
		{[]byte{97, 0xff}, schemas.ErrMalformed},
		{[]byte{120}, schemas.ErrUnknownType},
		{schemas.AppendEvent(nil, &pushv1.CursorMoved{}), schemas.ErrMalformed},
	} {
		bad := slices.Clone(records)
		bad[1].Value = c.value
		out := schemas.NewOut(b.log.layout)
		err := b.tally.Handle(t.Context(), schemas.Batch{Topic: schemas.Deliveries, Records: bad}, out)
		if !errors.Is(err, c.want) || out.Len() != 0 {
			t.Errorf("want %v and nothing said, got %v and %d records", c.want, err, out.Len())
		}
	}
	b.count()
	if got := b.counts(id); got.Accepted != 2 {
		t.Errorf("want 2 accepted, got %d", got.Accepted)
	}
}

func TestCountsAreForgottenOnlyWhenTheBroadcastIsProvenGone(t *testing.T) {
	t.Parallel()
	id := schemas.NewID()
	behind, caughtUp := true, errors.New("not yet")
	b := newTallyBench(t, router.TallyOptions{
		SweepEvery: 1,
		// The follower of broadcasts lags: it has not seen the request until it is asked to catch up.
		Gone: func(schemas.ID) bool { return behind },
		CatchUp: func(context.Context) error {
			if caughtUp == nil {
				behind = false
			}
			return caughtUp
		},
	})
	forgotten := func() bool {
		b.say(func(out *schemas.Out) { out.DeliveryFinished(0, 1, finished(id, accepted, true, 0, 1)) })
		return slices.ContainsFunc(b.count(), func(s said) bool { return s.event == nil })
	}
	if forgotten() {
		t.Error("forgotten although broadcasts could not be read to its end")
	}
	caughtUp = nil
	if forgotten() {
		t.Error("forgotten although it was only unseen")
	}
}
