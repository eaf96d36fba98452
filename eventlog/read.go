package eventlog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/campanile-push/campanile/schemas"
)

// idleBeforeProbe is how long a reader waits for the record before an end until it asks whether there is one: compaction
// and deletion can leave an end with nothing in front of it.
const idleBeforeProbe = 100 * time.Millisecond

// probeBytes is what a probe asks for; a broker answers with one batch at least, whatever its size.
const probeBytes = 4 << 10

// place is one partition of a topic.
type place struct {
	topic     schemas.Topic
	partition int32
}

// span is a piece of one partition: [from, to).
type span struct {
	place
	from, to int64
}

// recordFrom is a client's record as handlers see it. It aliases the client's memory.
func recordFrom(topic schemas.Topic, r *kgo.Record) schemas.Record {
	return schemas.Record{
		Topic: topic, Partition: r.Partition, Offset: r.Offset, TimeUS: r.Timestamp.UnixMicro(), Key: r.Key, Value: r.Value,
	}
}

// readSpans hands every committed record of the spans to f, in order within a partition. It waits for transactions that are
// open below an end. A span whose start has been deleted is read from the first record that is there.
func (l *Log) readSpans(ctx context.Context, name string, spans []span, f func(schemas.Record) error) error {
	left := map[place]*span{}
	partitions := map[string]map[int32]kgo.Offset{}
	for _, s := range spans {
		if s.from >= s.to {
			continue
		}
		left[s.place] = &s
		topic := l.name(s.topic)
		if partitions[topic] == nil {
			partitions[topic] = map[int32]kgo.Offset{}
		}
		partitions[topic][s.partition] = kgo.NewOffset().At(s.from)
	}
	if len(left) == 0 {
		return nil
	}
	client, err := l.newClient(name,
		kgo.ConsumePartitions(partitions),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), // a transactional topic ends in one
	)
	if err != nil {
		return err
	}
	defer client.Close()
	for len(left) > 0 {
		poll, cancel := context.WithTimeout(ctx, idleBeforeProbe)
		fetches := client.PollFetches(poll)
		cancel()
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		if err := fetchError(fetches); err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		for it := fetches.RecordIter(); !it.Done(); {
			r := it.Next()
			topic := l.topic(r.Topic)
			s := left[place{topic, r.Partition}]
			if s == nil || r.Offset >= s.to {
				delete(left, place{topic, r.Partition})
				continue
			}
			s.from = r.Offset + 1
			if !r.Attrs.IsControl() {
				if err := f(recordFrom(topic, r)); err != nil {
					return err
				}
			}
			if s.from >= s.to {
				delete(left, s.place)
			}
		}
		if !fetches.Empty() {
			continue
		}
		for _, s := range left {
			empty, err := l.nothingBetween(ctx, s.topic, s.partition, s.from, s.to)
			if err != nil {
				return err
			}
			if empty {
				delete(left, s.place)
			}
		}
	}
	return nil
}

// fetchError is the first error of a poll that is not just its deadline.
func fetchError(fetches kgo.Fetches) error {
	for _, e := range fetches.Errors() {
		if errors.Is(e.Err, context.DeadlineExceeded) || errors.Is(e.Err, context.Canceled) {
			continue
		}
		return fmt.Errorf("fetch %s[%d]: %w", e.Topic, e.Partition, e.Err)
	}
	return nil
}

// nothingBetween reports whether [from, to) of a partition holds no record and never will: it is settled, and compacted or
// deleted.
func (l *Log) nothingBetween(ctx context.Context, topic schemas.Topic, partition int32, from, to int64) (bool, error) {
	details, err := l.admin.ListTopics(ctx, l.name(topic))
	if err != nil {
		return false, fmt.Errorf("find the leader of %s[%d]: %w", topic, partition, err)
	}
	detail := details[l.name(topic)]
	leader, ok := detail.Partitions[partition]
	if !ok || leader.Err != nil {
		return false, nil //nolint:nilerr // while it is elected, nobody knows
	}
	for from < to {
		req := kmsg.NewPtrFetchRequest()
		req.MaxBytes = probeBytes
		req.IsolationLevel = 1
		req.SessionEpoch = -1 // no fetch session
		rt := kmsg.NewFetchRequestTopic()
		rt.Topic, rt.TopicID = l.name(topic), detail.ID
		rp := kmsg.NewFetchRequestTopicPartition()
		rp.Partition, rp.FetchOffset, rp.PartitionMaxBytes = partition, from, probeBytes
		rt.Partitions = append(rt.Partitions, rp)
		req.Topics = append(req.Topics, rt)
		response, err := l.client.Broker(int(leader.Leader)).RetriableRequest(ctx, req)
		if err != nil {
			return false, fmt.Errorf("look at %s[%d]@%d: %w", topic, partition, from, err)
		}
		resp, ok := response.(*kmsg.FetchResponse)
		if !ok || len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
			return false, nil
		}
		p := &resp.Topics[0].Partitions[0]
		switch err := kerr.ErrorForCode(p.ErrorCode); {
		case errors.Is(err, kerr.OffsetOutOfRange):
			return p.LogStartOffset >= to, nil
		case err != nil:
			return false, nil //nolint:nilerr // the reader meets it too, and tries again
		case len(p.RecordBatches) == 0:
			return p.LastStableOffset >= to, nil
		}
		next, empty := emptyBatches(p.RecordBatches)
		if !empty || next <= from {
			return false, nil
		}
		from = next
	}
	return true, nil
}

// emptyBatches walks record batches (format 2). empty: all of them have lost their records to compaction, which keeps the
// last batch of each producer; next is the offset after them.
func emptyBatches(b []byte) (next int64, empty bool) {
	const (
		length          = 8
		lastOffsetDelta = 23
		numRecords      = 57
		headerEnd       = 61
	)
	for len(b) >= headerEnd {
		if binary.BigEndian.Uint32(b[numRecords:]) != 0 {
			return 0, false
		}
		next = int64(binary.BigEndian.Uint64(b)) + int64(binary.BigEndian.Uint32(b[lastOffsetDelta:])) + 1
		size := 12 + int(binary.BigEndian.Uint32(b[length:]))
		if size > len(b) {
			break
		}
		b = b[size:]
	}
	return next, true
}
