package chaos

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/schemas"
)

// expectation is what settled means while something is away. The zero value is that nothing is.
type expectation struct {
	storeAway, engineAway bool
	absent                string // a role that is stopped or cut off
	quiet                 bool   // nothing may be left to do
}

// How long things may take, and what counts as caught up.
const (
	settlePatience = 4 * time.Minute
	settleTick     = 300 * time.Millisecond
	lagBound       = 3000 // records that a group is behind, under load
	lagSeconds     = 10   // of what comes, where that is more
)

// settle waits until every process is ready, every group has exactly its members and is stable, and no group is far behind.
func (w *world) settle(ctx context.Context, e expectation) error {
	return w.await(ctx, settlePatience, func(ctx context.Context) string { return w.unsettled(ctx, e) })
}

// await polls until why is empty, and fails with it when patience ends.
func (w *world) await(ctx context.Context, patience time.Duration, why func(ctx context.Context) string) error {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(settleTick)
	defer tick.Stop()
	for {
		reason := why(ctx)
		if reason == "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", reason, ctx.Err())
		case <-deadline.C:
			return fmt.Errorf("after %s: %s", patience, reason)
		case <-tick.C:
		}
	}
}

// unsettled is the first thing that is not as it should be; "": all is.
func (w *world) unsettled(ctx context.Context, e expectation) string {
	for _, name := range slices.Sorted(maps.Keys(w.roles)) {
		if name != e.absent && !answers(ctx, "http://"+w.roles[name].ops+"/readyz") {
			return name + " is not ready"
		}
	}
	if why := w.unstable(ctx, e); why != "" {
		return why
	}
	for _, group := range eventlog.Groups() {
		if e.engineAway && group == schemas.GroupAnalytics || e.storeAway && group == schemas.GroupProjector {
			continue
		}
		offsets, err := w.log.GroupOffsets(ctx, group)
		if err != nil {
			return err.Error()
		}
		var lag, end int64
		for _, o := range offsets {
			lag += o.Lag()
			end += o.End
		}
		bound := w.bearable(group, end, time.Now())
		if e.quiet {
			bound = 0
		}
		if lag > bound {
			return fmt.Sprintf("%s is %d records behind", group, lag)
		}
	}
	return ""
}

// pace is how fast the topics of a group grow.
type pace struct {
	at     time.Time
	end    int64
	second float64 // records a second, between the last two looks
}

// bearable is the lag that a group may have under load: it works in batches, so that it is behind by what comes meanwhile.
func (w *world) bearable(group string, end int64, now time.Time) int64 {
	last := w.paces[group]
	if passed := now.Sub(last.at).Seconds(); !last.at.IsZero() && passed > 0 {
		last.second = float64(end-last.end) / passed
	}
	last.at, last.end = now, end
	w.paces[group] = last
	return max(lagBound, int64(lagSeconds*last.second))
}

// groupKinds says which kind of role is in which group.
func groupKinds() map[string]string {
	kinds := map[string]string{
		schemas.GroupDirectRouter: "router", schemas.GroupBroadcastRouter: "router", schemas.GroupCloser: "router", schemas.GroupTally: "router",
		schemas.GroupProjector: "projector", schemas.GroupAnalytics: "analytics",
	}
	for _, t := range schemas.Transports {
		for _, lane := range schemas.Lanes {
			kinds[schemas.SenderGroup(t, lane)] = t.Word()
		}
	}
	return kinds
}

// unstable is the first group that is not stable with exactly the members that it should have.
func (w *world) unstable(ctx context.Context, e expectation) string {
	kinds := groupKinds()
	described, err := w.describe(ctx, slices.Collect(maps.Keys(kinds))...)
	if err != nil {
		return err.Error()
	}
	for _, group := range slices.Sorted(maps.Keys(kinds)) {
		kind := kinds[group]
		g, want := described[w.kafka.Prefix+group], w.counts[kind]
		if kindOf(e.absent) == kind {
			want--
		}
		if e.engineAway && kind == "analytics" || e.storeAway && kind == "projector" {
			continue // it may be starting over and over
		}
		if g.State != "Stable" && want > 0 || len(g.Members) != want {
			return fmt.Sprintf("%s is %s with %d members, wanted %d", group, g.State, len(g.Members), want)
		}
	}
	return ""
}

func (w *world) describe(ctx context.Context, groups ...string) (kadm.DescribedGroups, error) {
	names := make([]string, 0, len(groups))
	for _, g := range groups {
		names = append(names, w.kafka.Prefix+g)
	}
	described, err := w.admin.DescribeGroups(ctx, names...)
	if err == nil {
		err = described.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("look at the groups: %w", err)
	}
	return described, nil
}

// replicated waits until as many replicas of every partition are in sync as are alive.
func (w *world) replicated(ctx context.Context, alive int) error {
	return w.await(ctx, settlePatience, func(ctx context.Context) string {
		topics, err := w.admin.ListTopicsWithInternal(ctx)
		if err == nil {
			err = topics.Error()
		}
		if err != nil {
			return err.Error()
		}
		for _, topic := range topics.Sorted() {
			for _, p := range topic.Partitions.Sorted() {
				if p.Err != nil || p.Leader < 0 || len(p.ISR) != alive {
					return fmt.Sprintf("%s[%d] is led by %d, in sync are %v, wanted %d replicas", p.Topic, p.Partition, p.Leader, p.ISR, alive)
				}
			}
		}
		return ""
	})
}
