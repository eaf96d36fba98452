package chaos

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/campanile-push/campanile/schemas"
)

// A sender that dies has at most a window of sends in flight for each partition that it owns: those are sent again by the next owner
// unless their outcome is in the log. One that is stopped, or cut off from the log, has begun no more than that either.

// owned are the partitions of a sender, by topic: asked for while the groups are stable, and before it is disturbed.
type owned map[schemas.Topic]int

// owns are the partitions that a role owns; none, but for a sender. Without namespaces all members have one address: then they are those of
// the member who owns most.
func (w *world) owns(ctx context.Context, name string) (owned, error) {
	transport, err := schemas.ParseTransport(kindOf(name))
	if err != nil {
		return nil, nil //nolint:nilerr // no sender
	}
	all := owned{}
	for _, lane := range schemas.Lanes {
		group := schemas.SenderGroup(transport, lane)
		described, err := w.describe(ctx, group)
		if err != nil {
			return nil, err
		}
		var most owned
		for _, member := range described[w.kafka.Prefix+group].Members {
			if w.net != nil && strings.TrimPrefix(member.ClientHost, "/") != toKafka.address(w.roles[name].host.n) {
				continue
			}
			assigned, ok := member.Assigned.AsConsumer()
			if !ok {
				return nil, fmt.Errorf("find what %s owns: a member of %s has no assignment", name, group)
			}
			mine := owned{}
			for _, topic := range assigned.Topics {
				mine[schemas.Topic(strings.TrimPrefix(topic.Topic, w.kafka.Prefix))] = len(topic.Partitions)
			}
			if mine.sum() > most.sum() {
				most = mine
			}
		}
		maps.Copy(all, most)
	}
	return all, nil
}

func (o owned) sum() (n int) {
	for _, partitions := range o {
		n += partitions
	}
	return n
}

// inFlight bounds what can have been in flight: a window for each partition, and of a retry topic no more than it has ever held. The
// latter is read now, so it is called after the disturbance.
func (w *world) inFlight(ctx context.Context, o owned) (bound int64, err error) {
	for topic, partitions := range o {
		most := int64(partitions) * int64(w.Window)
		if where, ok := schemas.ParseSendTopic(topic); ok && where.Tier > 0 {
			ends, err := w.log.Ends(ctx, topic)
			if err != nil {
				return 0, fmt.Errorf("bound what was in flight: %w", err)
			}
			most = min(most, sum(ends))
		}
		bound += most
	}
	return bound, nil
}

func sum(all []int64) (n int64) {
	for _, v := range all {
		n += v
	}
	return n
}

// ownedBySenders is what each of the senders owns.
func (w *world) ownedBySenders(ctx context.Context) (all []owned, err error) {
	for name := range w.roles {
		o, err := w.owns(ctx, name)
		if err != nil {
			return nil, err
		}
		all = append(all, o)
	}
	return slices.DeleteFunc(all, func(o owned) bool { return o == nil }), nil
}
