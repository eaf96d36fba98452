package eventlog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/campanile-push/campanile/schemas"
)

// GroupOffset is how far a group is in one partition.
type GroupOffset struct {
	Topic     schemas.Topic
	Partition int32
	Committed int64 // -1: none
	Metadata  string
	Start     int64 // the first record that is still there
	End       int64 // the high watermark
}

// Lost reports whether the group cannot go on there: it has no offset, or one whose record is not there (ErrNoOffset).
func (g GroupOffset) Lost() bool {
	return placed(g.Topic, g.Partition, g.Committed, g.Start, g.End) != nil
}

// Lag is the number of offsets that the group has not committed; all that is there where it has committed none.
func (g GroupOffset) Lag() int64 { return g.End - max(g.Committed, g.Start) }

// GroupTopics are the topics that a group is registered for, in the order of the specs.
func GroupTopics(group string) []schemas.Topic {
	var topics []schemas.Topic
	for _, spec := range schemas.Specs() {
		if slices.Contains(spec.Groups, group) {
			topics = append(topics, spec.Topic)
		}
	}
	return topics
}

// Groups are all registered groups, sorted.
func Groups() []string {
	groups := map[string]bool{}
	for _, spec := range schemas.Specs() {
		for _, g := range spec.Groups {
			groups[g] = true
		}
	}
	return slices.Sorted(maps.Keys(groups))
}

// GroupOffsets is how far a group is in its topics, read now: sorted by the specs' order, then by partition.
func (l *Log) GroupOffsets(ctx context.Context, group string) ([]GroupOffset, error) {
	topics := GroupTopics(group)
	if len(topics) == 0 {
		return nil, fmt.Errorf("%q is no group of Campanile: want one of %q", group, Groups())
	}
	names := l.names(topics)
	committed, err := l.committed(ctx, group, names)
	if err != nil {
		return nil, err
	}
	starts, err := l.admin.ListStartOffsets(ctx, names...)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("read the starts of the topics of %s: %w", group, err)
	}
	ends, err := l.admin.ListEndOffsets(ctx, names...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("read the ends of the topics of %s: %w", group, err)
	}
	var offsets []GroupOffset
	for i, name := range names {
		for _, p := range slices.Sorted(maps.Keys(ends[name])) {
			o := GroupOffset{Topic: topics[i], Partition: p, Committed: -1, Start: starts[name][p].Offset, End: ends[name][p].Offset}
			if at, ok := committed.Lookup(name, p); ok {
				o.Committed, o.Metadata = at.At, at.Metadata
			}
			offsets = append(offsets, o)
		}
	}
	return offsets, nil
}

// committed asks for a group's offsets; what was never committed is At -1.
func (l *Log) committed(ctx context.Context, group string, names []string) (kadm.OffsetResponses, error) {
	var responses kadm.OffsetResponses
	err := l.coordinated(ctx, func() (err error) {
		responses, err = l.admin.FetchOffsetsForTopics(ctx, l.cfg.Prefix+group, names...)
		if err == nil {
			err = responses.Error()
		}
		return err
	})
	if errors.Is(err, kerr.GroupIDNotFound) {
		return kadm.OffsetResponses{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the offsets of %s: %w", group, err)
	}
	return responses, nil
}

// startGroups commits offset 0 for registered groups in partitions that have never held a record: those that were just
// created, also where their creator died before it could. Anywhere else a group without offsets is for a person to decide.
func (l *Log) startGroups(ctx context.Context) error {
	ends, err := l.admin.ListEndOffsets(ctx, l.names(allTopics())...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return fmt.Errorf("read the ends of the topics: %w", err)
	}
	for _, group := range Groups() {
		committed, err := l.committed(ctx, group, l.names(GroupTopics(group)))
		if err != nil {
			return err
		}
		var start kadm.Offsets
		for _, topic := range GroupTopics(group) {
			name := l.name(topic)
			for p, end := range ends[name] {
				if at, ok := committed.Lookup(name, p); end.Offset == 0 && (!ok || at.At < 0) {
					start.AddOffset(name, p, 0, -1)
				}
			}
		}
		if len(start) == 0 {
			continue
		}
		if err := l.commit(ctx, group, start); err != nil {
			return fmt.Errorf("start the group %s at the beginning of new topics: %w", group, err)
		}
	}
	return nil
}

// coordinated waits out the time in which a group has no coordinator, on a new cluster, until the brokers have made the topic of
// offsets, and while it moves, or one that has not heard yet of a topic just created.
func (l *Log) coordinated(ctx context.Context, ask func() error) error {
	for try := 1; ; try++ {
		err := ask()
		waits := errors.Is(err, kerr.CoordinatorNotAvailable) || errors.Is(err, kerr.CoordinatorLoadInProgress) || errors.Is(err, kerr.NotCoordinator) ||
			errors.Is(err, kerr.UnknownTopicID)
		if !waits || try == coordinatorTries || !sleep(ctx, retryDelay(try)) {
			return err
		}
	}
}

// coordinatorTries is about 30 s of retryDelay.
const coordinatorTries = 14

// commit writes offsets for a group from outside, which brokers refuse while it has members.
func (l *Log) commit(ctx context.Context, group string, offsets kadm.Offsets) error {
	err := l.coordinated(ctx, func() error { return l.admin.CommitAllOffsets(ctx, l.cfg.Prefix+group, offsets) })
	if errors.Is(err, kerr.UnknownMemberID) || errors.Is(err, kerr.IllegalGeneration) {
		return fmt.Errorf("the group has running members; stop them first: %w", err)
	}
	return err //nolint:wrapcheck // the callers say what it was for
}

// ResetTo is where ResetGroup puts a group.
type ResetTo int

// The places to start from.
const (
	ResetMissing  ResetTo = iota // where the group has no offset or one out of range: the first record that is there
	ResetEarliest                // everywhere: the first record that is there
	ResetLatest                  // everywhere: the end as it stands now; what lies between is never read
)

// ResetGroup commits offsets for a group without members, and returns what it committed. It is a person's decision: the
// records between the old place and the new are skipped, or handled again.
func (l *Log) ResetGroup(ctx context.Context, group string, to ResetTo) ([]GroupOffset, error) {
	return l.ResetGroupAt(ctx, group, func(o GroupOffset) (int64, bool) {
		switch to {
		case ResetMissing:
			return o.Start, o.Lost()
		case ResetLatest:
			return o.End, true
		case ResetEarliest:
		}
		return o.Start, true
	})
}

// ResetGroupAt is ResetGroup with a place for each partition: where place says so, what it says is committed.
func (l *Log) ResetGroupAt(ctx context.Context, group string, place func(GroupOffset) (at int64, commit bool)) ([]GroupOffset, error) {
	offsets, err := l.GroupOffsets(ctx, group)
	if err != nil {
		return nil, err
	}
	var commits kadm.Offsets
	var done []GroupOffset
	now := time.Now()
	for _, o := range offsets {
		at, commit := place(o)
		if !commit {
			continue
		}
		o.Committed, o.Metadata = at, ""
		if _, sends := schemas.ParseSendTopic(o.Topic); sends {
			o.Metadata = resetMark(now).String()
		}
		commits.Add(kadm.Offset{Topic: l.name(o.Topic), Partition: o.Partition, At: at, LeaderEpoch: -1, Metadata: o.Metadata})
		done = append(done, o)
	}
	if len(done) == 0 {
		return nil, nil
	}
	if err := l.commit(ctx, group, commits); err != nil {
		return nil, fmt.Errorf("reset the group %s: %w", group, err)
	}
	for _, o := range done {
		l.log.Warn("group reset", "group", group, "topic", o.Topic, "partition", o.Partition, "offset", o.Committed)
	}
	return done, nil
}

// ForgetGroup deletes a group without members, with its offsets: it holds no deletion back any longer. One that comes back
// stops until it is reset.
func (l *Log) ForgetGroup(ctx context.Context, group string) error {
	if len(GroupTopics(group)) == 0 {
		return fmt.Errorf("%q is no group of Campanile: want one of %q", group, Groups())
	}
	response, err := l.admin.DeleteGroup(ctx, l.cfg.Prefix+group)
	if err == nil {
		err = response.Err
	}
	switch {
	case errors.Is(err, kerr.GroupIDNotFound):
		return nil
	case errors.Is(err, kerr.NonEmptyGroup):
		return fmt.Errorf("forget the group %s: it has running members; stop them first: %w", group, err)
	case err != nil:
		return fmt.Errorf("forget the group %s: %w", group, err)
	}
	l.log.Warn("group forgotten", "group", group)
	return nil
}
