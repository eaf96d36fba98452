package eventlog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/campanile-push/campanile/schemas"
)

// Action is what a Plan wants done.
type Action string

// The actions of a plan.
const (
	KeepTopic   Action = "keep"
	CreateTopic Action = "create"
	AlterTopic  Action = "alter"  // the configuration
	RefuseTopic Action = "refuse" // another partition count: nothing can be done to the topic in place
)

// Plan is what has to be done to one topic.
type Plan struct {
	Topic       schemas.Topic
	Name        string // in the cluster
	Action      Action
	Partitions  int32 // wanted
	Has         int32 // what it has; 0: it is not there
	Replication int16 // wanted at creation; -1: the broker's default
	// Configs are the settings wanted at creation, or those that differ, as key and value.
	Configs map[string]string
	// Groups get offset 0 when the topic is created.
	Groups []string
}

// ErrPartitions says that topics have another number of partitions than was asked for.
var ErrPartitions = errors.New("partition counts differ")

// configs are the settings that a topic of ours needs.
func (c Config) configs(spec schemas.Spec) map[string]string {
	// Events carry their own times; the broker's is the one that retention goes by, whatever the clock of a producer.
	configs := map[string]string{"message.timestamp.type": "LogAppendTime"}
	switch spec.Cleanup {
	case schemas.Compacted:
		configs["cleanup.policy"] = "compact"
		configs["min.cleanable.dirty.ratio"] = "0.2"
		configs["segment.ms"] = millis(24 * time.Hour)          // so that a quiet topic is compacted too
		configs["delete.retention.ms"] = millis(24 * time.Hour) // a follower that replays for longer than a day is lost anyway
	case schemas.ByTime:
		configs["cleanup.policy"] = "delete"
		configs["retention.ms"] = millis(spec.Retention)
		configs["retention.bytes"] = "-1"
	case schemas.UntilConsumed:
		configs["cleanup.policy"] = "delete"
		configs["retention.ms"] = "-1" // the janitor deletes
		configs["retention.bytes"] = "-1"
	}
	switch {
	case c.MinISR > 0:
		configs["min.insync.replicas"] = strconv.Itoa(c.MinISR)
	case c.Replication >= 3:
		configs["min.insync.replicas"] = "2"
	}
	if c.SegmentBytes > 0 {
		configs["segment.bytes"] = strconv.Itoa(c.SegmentBytes)
	}
	return configs
}

func millis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// PlanTopics says what CreateTopics and ApplyTopics would do. It changes nothing.
func (l *Log) PlanTopics(ctx context.Context, partitions int32) ([]Plan, error) {
	details, err := l.admin.ListTopics(ctx, l.names(allTopics())...)
	if err != nil {
		return nil, fmt.Errorf("list the topics: %w", err)
	}
	var present []string
	have := map[schemas.Topic]int32{}
	for name, d := range details {
		switch {
		case errors.Is(d.Err, kerr.UnknownTopicOrPartition):
		case d.Err != nil:
			return nil, fmt.Errorf("list the topic %s: %w", name, d.Err)
		default:
			have[l.topic(name)] = int32(len(d.Partitions))
			present = append(present, name)
		}
	}
	if partitions == 0 {
		partitions = DefaultPartitions
		for _, topic := range allTopics() { // what is there decides; the first in the order of creation, should they differ
			if n := have[topic]; n > 0 {
				partitions = n
				break
			}
		}
	}
	if err := (schemas.Layout{Partitions: partitions}).Check(); err != nil {
		return nil, err
	}
	settings, err := l.settings(ctx, present)
	if err != nil {
		return nil, err
	}
	var plans []Plan
	for _, spec := range schemas.Specs() {
		plans = append(plans, l.plan(spec, partitions, have[spec.Topic], settings[l.name(spec.Topic)]))
	}
	return plans, nil
}

func (l *Log) plan(spec schemas.Spec, partitions, has int32, settings map[string]string) Plan {
	p := Plan{Topic: spec.Topic, Name: l.name(spec.Topic), Action: KeepTopic, Partitions: partitions, Has: has, Replication: l.cfg.Replication}
	if p.Replication == 0 {
		p.Replication = -1
	}
	wanted := l.cfg.configs(spec)
	switch {
	case has == 0:
		p.Action, p.Configs, p.Groups = CreateTopic, wanted, spec.Groups
	case has != partitions:
		p.Action = RefuseTopic
	default:
		maps.DeleteFunc(wanted, func(k, v string) bool { return settings[k] == v })
		if len(wanted) > 0 {
			p.Action, p.Configs = AlterTopic, wanted
		}
	}
	return p
}

func (l *Log) settings(ctx context.Context, names []string) (map[string]map[string]string, error) {
	if len(names) == 0 {
		return nil, nil
	}
	described, err := l.admin.DescribeTopicConfigs(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("read the topics' settings: %w", err)
	}
	settings := map[string]map[string]string{}
	for _, d := range described {
		if d.Err != nil {
			return nil, fmt.Errorf("read the settings of %s: %w", d.Name, d.Err)
		}
		settings[d.Name] = map[string]string{}
		for _, c := range d.Configs {
			settings[d.Name][c.Key] = c.MaybeValue()
		}
	}
	return settings, nil
}

// CreateTopics creates the topics that are missing, commits offset 0 for each registered group of what it creates, and reads
// the layout, which it returns. partitions 0 takes what is there, or DefaultPartitions. It refuses with ErrPartitions where
// a topic has another count than asked, and leaves the settings of topics that are there to ApplyTopics.
func (l *Log) CreateTopics(ctx context.Context, partitions int32) (schemas.Layout, error) {
	plans, err := l.PlanTopics(ctx, partitions)
	if err != nil {
		return schemas.Layout{}, err
	}
	if err := l.apply(ctx, plans, false); err != nil {
		return schemas.Layout{}, err
	}
	return l.Layout(), nil
}

// ApplyTopics does what the plans say, the settings of topics that are there included.
func (l *Log) ApplyTopics(ctx context.Context, plans []Plan) error { return l.apply(ctx, plans, true) }

func (l *Log) apply(ctx context.Context, plans []Plan, alter bool) error {
	if err := refused(plans); err != nil {
		return err
	}
	for _, p := range plans {
		switch p.Action {
		case CreateTopic:
			if err := l.create(ctx, p); err != nil {
				return err
			}
		case AlterTopic:
			if !alter {
				continue
			}
			var changes []kadm.AlterConfig
			for _, k := range slices.Sorted(maps.Keys(p.Configs)) {
				changes = append(changes, kadm.AlterConfig{Op: kadm.SetConfig, Name: k, Value: new(p.Configs[k])})
			}
			responses, err := l.admin.AlterTopicConfigs(ctx, changes, p.Name)
			if err == nil {
				_, err = responses.On(p.Name, func(r *kadm.AlterConfigsResponse) error { return r.Err })
			}
			if err != nil {
				return fmt.Errorf("change the settings of %s: %w", p.Name, err)
			}
			l.log.Info("topic changed", "topic", p.Topic)
		case KeepTopic, RefuseTopic:
		}
	}
	if err := l.awaitLayout(ctx); err != nil {
		return err
	}
	return l.settle(ctx, l.startGroups)
}

// settle tries again while brokers have not yet heard of topics just created, or of the coordinators of their groups.
func (l *Log) settle(ctx context.Context, f func(context.Context) error) error {
	for {
		err := f(ctx)
		var broker *kerr.Error
		if err == nil || !errors.As(err, &broker) || !broker.Retriable {
			return err
		}
		if !sleep(ctx, 100*time.Millisecond) {
			return fmt.Errorf("%w; the last answer: %w", ctx.Err(), err)
		}
	}
}

func refused(plans []Plan) error {
	var wrong []string
	var wanted int32
	for _, p := range plans {
		if p.Action == RefuseTopic {
			wanted = p.Partitions
			wrong = append(wrong, fmt.Sprintf("%s has %d", p.Name, p.Has))
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %d were asked for, but %s; keys would change their partition. Start with the count that is there, "+
		"or move to new topics with another prefix", ErrPartitions, wanted, strings.Join(wrong, ", "))
}

func (l *Log) create(ctx context.Context, p Plan) error {
	configs := map[string]*string{}
	for k, v := range p.Configs {
		configs[k] = new(v)
	}
	_, err := l.admin.CreateTopic(ctx, p.Partitions, p.Replication, configs, p.Name)
	switch {
	case errors.Is(err, kerr.TopicAlreadyExists): // by another process, just now, from the same specs; the layout is read after
	case err != nil:
		return fmt.Errorf("create the topic %s: %w", p.Name, err)
	default:
		l.log.Info("topic created", "topic", p.Topic, "partitions", p.Partitions)
	}
	return nil
}

// readLayout learns the partition count from the cluster. It returns ErrNoTopics if any topic is missing.
func (l *Log) readLayout(ctx context.Context) error {
	details, err := l.admin.ListTopics(ctx, l.names(allTopics())...)
	if err != nil {
		return fmt.Errorf("list the topics: %w", err)
	}
	layout, err := layoutOf(details)
	if err == nil {
		l.setLayout(layout)
	}
	return err
}

// awaitLayout is readLayout for topics that were just created: the answer may be older than they are (metadataMinAge), or
// they have no leaders yet.
func (l *Log) awaitLayout(ctx context.Context) error {
	ticker := time.NewTicker(metadataMinAge / 2)
	defer ticker.Stop()
	for {
		err := l.readLayout(ctx)
		if !errors.Is(err, errElecting) && !errors.Is(err, ErrNoTopics) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for new topics: %w (%w)", ctx.Err(), err)
		case <-ticker.C:
		}
	}
}

var errElecting = errors.New("partitions without a leader")

func layoutOf(details kadm.TopicDetails) (schemas.Layout, error) {
	var layout schemas.Layout
	for _, d := range details.Sorted() {
		if errors.Is(d.Err, kerr.UnknownTopicOrPartition) || len(d.Partitions) == 0 && d.Err == nil {
			return schemas.Layout{}, fmt.Errorf("%w (%s is missing)", ErrNoTopics, d.Topic)
		}
		if d.Err != nil {
			return schemas.Layout{}, fmt.Errorf("read the topic %s: %w", d.Topic, d.Err)
		}
		n := int32(len(d.Partitions))
		if layout.Partitions != 0 && layout.Partitions != n {
			return schemas.Layout{}, fmt.Errorf("%w: %s has %d where others have %d", ErrPartitions, d.Topic, n, layout.Partitions)
		}
		layout.Partitions = n
	}
	for _, d := range details {
		for _, p := range d.Partitions {
			if errors.Is(p.Err, kerr.LeaderNotAvailable) {
				return schemas.Layout{}, errElecting
			}
		}
	}
	return layout, nil
}

func allTopics() []schemas.Topic {
	var topics []schemas.Topic
	for _, spec := range schemas.Specs() {
		topics = append(topics, spec.Topic)
	}
	return topics
}
