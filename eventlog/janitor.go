package eventlog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/campanile-push/campanile/schemas"
)

// JanitorOptions say how to clean. The zero value works.
type JanitorOptions struct {
	// Interval is the time between two looks; zero means a minute.
	Interval time.Duration
	// Alarm is the age at which something unread that holds deletion back is an alarm; zero means a day.
	Alarm time.Duration
	// Forgotten are registered groups that hold nothing back any longer.
	Forgotten []string
	// Pressed reports whether the log is short of room. While it is, topics that forget by time lose the older half of what is
	// older than KeepPressed and read by every group but those of GiveUp, at each look. Nil: never. It is for the embedded log,
	// whose budget may be used up long before the time is over.
	Pressed func() bool
	// KeepPressed is the age below which nothing is deleted under pressure; zero means 10 minutes. What a new owner of sends
	// needs to know of its predecessor is younger.
	KeepPressed time.Duration
	// GiveUp are groups whose unread records may be deleted under pressure. They record the gap.
	GiveUp []string
}

func (o JanitorOptions) withDefaults() JanitorOptions {
	if o.Interval <= 0 {
		o.Interval = time.Minute
	}
	if o.Alarm <= 0 {
		o.Alarm = 24 * time.Hour
	}
	if o.KeepPressed <= 0 {
		o.KeepPressed = 10 * time.Minute
	}
	return o
}

// Cleaned is what one look found in one partition.
type Cleaned struct {
	Topic     schemas.Topic
	Partition int32
	// From is the first record that was there, and To the first that is there now.
	From, To int64
	// Late are the groups that have left something unread for longer than JanitorOptions.Alarm, sorted.
	Late []string
}

// RunJanitor looks after the topics that forget when everybody has read them, until ctx ends; it returns nil then. One is
// enough, and several do no harm. What holds deletion back for too long is an error in the log and
// campanile_janitor_late{group,topic}, the number of such partitions; what the cluster may delete before a group has read it is
// campanile_retention_at_risk{group,topic}, as AtRisk counts it.
func (l *Log) RunJanitor(ctx context.Context, o JanitorOptions) error {
	o = o.withDefaults()
	late := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: "campanile", Name: "janitor_late", Help: "Partitions whose deletion a group has held back for too long.",
	}, []string{"group", "topic"})
	risk := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: "campanile", Name: "retention_at_risk",
		Help: "Partitions in which a group has left something unread for more than half of the topic's retention.",
	}, []string{"group", "topic"})
	running := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "campanile", Name: "janitor_running", Help: "1: this process deletes what was read."})
	running.Set(1)
	for _, gauge := range []prometheus.Collector{late, risk, running} {
		if err := l.reg.Register(gauge); err != nil {
			return fmt.Errorf("register the janitor's metrics: %w", err)
		}
		defer l.reg.Unregister(gauge) //nolint:gocritic // three of them, until the janitor ends
	}
	known := map[lateness]int{}
	tick := time.NewTicker(o.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			cleaned, err := l.Clean(ctx, o, now)
			if err != nil {
				if ctx.Err() == nil {
					l.log.Warn("cleaning up did not end", "error", err)
				}
				continue
			}
			found := latenesses(cleaned)
			l.alarm(known, found)
			late.Reset()
			for k, n := range found {
				late.WithLabelValues(k.group, string(k.topic)).Set(float64(n))
			}
			known = found
			l.showRisk(ctx, risk, now)
		}
	}
}

// showRisk puts what AtRisk counts into the gauge; what could not be read leaves it as it was.
func (l *Log) showRisk(ctx context.Context, gauge *prometheus.GaugeVec, now time.Time) {
	groups, err := l.AtRisk(ctx, now)
	if err != nil {
		if ctx.Err() == nil {
			l.log.Warn("what retention may delete unread is unknown", "error", err)
		}
		return
	}
	gauge.Reset()
	for group, topics := range groups {
		for topic, partitions := range topics {
			gauge.WithLabelValues(group, string(topic)).Set(float64(partitions))
		}
	}
}

// lateness is one reason for an alarm.
type lateness struct {
	group string
	topic schemas.Topic
}

// latenesses counts the partitions for each reason.
func latenesses(cleaned []Cleaned) map[lateness]int {
	found := map[lateness]int{}
	for _, c := range cleaned {
		for _, g := range c.Late {
			found[lateness{g, c.Topic}]++
		}
	}
	return found
}

// alarm says what has changed.
func (l *Log) alarm(known, found map[lateness]int) {
	for k, n := range found {
		if known[k] == 0 {
			l.log.Error("a group holds deletion back: it has left records unread for too long; start it, reset it, or forget it",
				"group", k.group, "topic", k.topic, "partitions", n)
		}
	}
	for k := range known {
		if found[k] == 0 {
			l.log.Info("a group holds deletion back no longer", "group", k.group, "topic", k.topic)
		}
	}
}

// Clean is one look: it deletes what may go, at the time now. A group without offsets has read nothing.
func (l *Log) Clean(ctx context.Context, o JanitorOptions, now time.Time) ([]Cleaned, error) {
	o = o.withDefaults()
	pressed := o.Pressed != nil && o.Pressed()
	var all []Cleaned
	for _, spec := range schemas.Specs() {
		var rule cleanRule
		switch {
		case spec.Cleanup == schemas.UntilConsumed:
			rule = cleanRule{keep: spec.Retention, ignored: o.Forgotten}
		case spec.Cleanup == schemas.ByTime && pressed:
			rule = cleanRule{keep: o.KeepPressed, ignored: slices.Concat(o.Forgotten, o.GiveUp), half: true}
		default:
			continue
		}
		cleaned, err := l.cleanTopic(ctx, spec, rule, o.Alarm, now)
		if err != nil {
			return all, fmt.Errorf("clean %s: %w", spec.Topic, err)
		}
		all = append(all, cleaned...)
	}
	return all, nil
}

// cleanRule says what of a topic may go.
type cleanRule struct {
	keep    time.Duration // at least
	ignored []string      // groups that hold nothing back
	half    bool          // only the older half of it goes
}

// bounds are what decides about one partition.
type bounds struct {
	start, end int64
	old        int64            // the first record that is not old enough to go
	overdue    int64            // the first record that is too young to be an alarm
	committed  map[string]int64 // by group that counts; -1: none
}

// cut decides where a partition begins from now on, and who is late. The last record always stays: a broker may forget where
// an empty partition stood.
func (b bounds) cut(half bool) (to int64, late []string) {
	to = min(b.old, b.end-1)
	for _, group := range slices.Sorted(maps.Keys(b.committed)) {
		at := max(b.committed[group], b.start)
		to = min(to, at)
		if at < b.overdue {
			late = append(late, group)
		}
	}
	if half {
		to = b.start + (to-b.start+1)/2
	}
	return max(to, b.start), late
}

func (l *Log) cleanTopic(ctx context.Context, spec schemas.Spec, rule cleanRule, alarm time.Duration, now time.Time) ([]Cleaned, error) {
	name := l.name(spec.Topic)
	starts, err := listed(l.admin.ListStartOffsets(ctx, name))
	if err != nil {
		return nil, fmt.Errorf("read where it starts: %w", err)
	}
	ends, err := listed(l.admin.ListEndOffsets(ctx, name))
	if err != nil {
		return nil, fmt.Errorf("read where it ends: %w", err)
	}
	old := ends
	if rule.keep > 0 {
		if old, err = listed(l.admin.ListOffsetsAfterMilli(ctx, now.Add(-rule.keep).UnixMilli(), name)); err != nil {
			return nil, fmt.Errorf("read what is old: %w", err)
		}
	}
	overdue, err := listed(l.admin.ListOffsetsAfterMilli(ctx, now.Add(-alarm).UnixMilli(), name))
	if err != nil {
		return nil, fmt.Errorf("read what is overdue: %w", err)
	}
	parts := map[int32]*bounds{}
	for p, end := range ends[name] {
		parts[p] = &bounds{
			start: starts[name][p].Offset, end: end.Offset, old: old[name][p].Offset, overdue: overdue[name][p].Offset,
			committed: map[string]int64{},
		}
	}
	for _, group := range spec.Groups {
		if slices.Contains(rule.ignored, group) {
			continue
		}
		committed, err := l.committed(ctx, group, []string{name})
		if err != nil {
			return nil, err
		}
		for p, b := range parts {
			b.committed[group] = -1
			if at, ok := committed.Lookup(name, p); ok {
				b.committed[group] = at.At
			}
		}
	}
	return l.deleteBelow(ctx, spec.Topic, parts, rule.half)
}

func (l *Log) deleteBelow(ctx context.Context, topic schemas.Topic, parts map[int32]*bounds, half bool) ([]Cleaned, error) {
	var cleaned []Cleaned
	deletions := kadm.Offsets{}
	for _, p := range slices.Sorted(maps.Keys(parts)) {
		to, late := parts[p].cut(half)
		cleaned = append(cleaned, Cleaned{Topic: topic, Partition: p, From: parts[p].start, To: to, Late: late})
		if to > parts[p].start {
			deletions.AddOffset(l.name(topic), p, to, -1)
		}
	}
	if len(deletions) == 0 {
		return cleaned, nil
	}
	responses, err := l.admin.DeleteRecords(ctx, deletions)
	if err == nil {
		err = responses.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("delete records: %w", err)
	}
	return cleaned, nil
}

// listed returns the offsets only if all of them could be read.
func listed(offsets kadm.ListedOffsets, err error) (kadm.ListedOffsets, error) {
	return offsets, errors.Join(err, offsets.Error())
}
