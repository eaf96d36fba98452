package eventlog

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/campanile-push/campanile/schemas"
)

// adjust decides where each assigned partition starts: at the stage's own position, or else at the group's. A place that is
// gone ends the stage, or is a gap. A stage that is ahead of its group was stopped between its rows and its commit, and the
// commit is made up for here: if nothing comes after, no other would be, and the group would seem to be behind for ever.
func (m *membership) adjust(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	late := map[string]map[int32]kgo.EpochOffset{}
	for name, partitions := range offsets {
		topic := m.l.topic(name)
		own, err := m.positions(ctx, topic, slices.Sorted(maps.Keys(partitions)))
		if err != nil {
			return nil, err
		}
		starts, err := m.l.Starts(ctx, topic)
		if err != nil {
			return nil, err
		}
		ends, err := m.l.Ends(ctx, topic)
		if err != nil {
			return nil, err
		}
		for p, offset := range partitions {
			at := offset.EpochOffset().Offset
			if position, ok := own[p]; ok {
				at = position
				partitions[p] = kgo.NewOffset().At(at).WithEpoch(-1)
			}
			err := placed(topic, p, at, starts[p], ends[p])
			if err != nil && m.o.Expendable && at < starts[p] {
				if err = m.gap(ctx, topic, p, max(at, 0), starts[p]); err == nil {
					partitions[p] = kgo.NewOffset().At(starts[p]).WithEpoch(-1)
					continue
				}
				return nil, err
			}
			if err != nil {
				m.fail(err)
				return nil, err
			}
			if at > offset.EpochOffset().Offset {
				set(late, name, p, kgo.EpochOffset{Epoch: -1, Offset: at})
			}
		}
	}
	m.commitLate(ctx, late)
	return offsets, nil
}

func (m *membership) commitLate(ctx context.Context, offsets map[string]map[int32]kgo.EpochOffset) {
	if len(offsets) == 0 || m.session != nil { // a transactional stage's offsets are in its transactions
		return
	}
	ctx, cancel := context.WithTimeout(ctx, rebalanceGrace)
	defer cancel()
	if err := commitOffsets(ctx, m.client, offsets); err != nil {
		m.log.Warn("offsets not committed", "error", err) // a later batch's are, or the next assignment's
	}
}

func (m *membership) positions(ctx context.Context, topic schemas.Topic, partitions []int32) (map[int32]int64, error) {
	if m.o.Positions == nil {
		return nil, nil
	}
	own, err := m.o.Positions(ctx, topic, partitions)
	if err != nil {
		m.log.Warn("the stage's own offsets are not to be had", "topic", topic, "error", err)
		return nil, fmt.Errorf("ask stage %s for its offsets in %s: %w", m.o.Stage, topic, err)
	}
	return own, nil
}

func (m *membership) gap(ctx context.Context, topic schemas.Topic, partition int32, from, to int64) error {
	if from < to {
		m.log.Error("records were deleted before they were read", "topic", topic, "partition", partition, "from", from, "to", to)
	}
	h, ok := m.handler.(GapHandler)
	if !ok {
		return nil
	}
	if err := h.Gap(ctx, topic, partition, from, to); err != nil {
		m.log.Warn("gap not recorded", "topic", topic, "partition", partition, "error", err)
		return fmt.Errorf("record a gap in %s[%d]: %w", topic, partition, err)
	}
	return nil
}

// AwaitPlace waits until a group that has lost its place (ErrNoOffset) has an offset in every partition of its topics from which it
// can go on, as `campanile topics reset` gives it, and ends the alarm campanile_group_lost. It looks every placeInterval, the first
// time after one: what a look cannot see, such as offsets of a stage's own, does not make a hot loop of the caller. It returns
// ctx's error when ctx ends before.
func (l *Log) AwaitPlace(ctx context.Context, group string) error {
	for sleep(ctx, placeInterval) {
		offsets, err := l.GroupOffsets(ctx, group)
		if err != nil {
			l.log.Debug("a group's place is not to be had", "group", group, "error", err)
			continue
		}
		if !slices.ContainsFunc(offsets, GroupOffset.Lost) {
			l.metrics.lost.DeleteLabelValues(group)
			l.log.Info("the group has a place again", "group", group)
			return nil
		}
	}
	return ctx.Err() //nolint:wrapcheck // the caller's own
}

const placeInterval = 2 * time.Second

// placed refuses an offset from which a group cannot go on without skipping or starting over.
func placed(topic schemas.Topic, partition int32, at, start, end int64) error {
	switch {
	case at < 0:
		return fmt.Errorf("%w: it has no offset in %s[%d]", ErrNoOffset, topic, partition)
	case at < start:
		return fmt.Errorf("%w: it stands at %s[%d]@%d, and %d records from there on are deleted", ErrNoOffset, topic, partition, at, start-at)
	case at > end:
		return fmt.Errorf("%w: it stands at %s[%d]@%d, which ends at %d: the log has lost records", ErrNoOffset, topic, partition, at, end)
	}
	return nil
}
