package eventlog

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"

	"github.com/campanile-push/campanile/schemas"
)

// Append writes what say says and returns when every replica that must have it has it (acks=all, idempotent, not
// transactional). An error means that some of it may be there, now or later: also when ctx ends. Without topics it returns
// ErrNoTopics.
func (l *Log) Append(ctx context.Context, say func(out *schemas.Out)) error {
	layout, err := l.readyLayout()
	if err != nil {
		return err
	}
	call := l.newCall(layout)
	say(call.out)
	n := call.out.Len()
	if n == 0 {
		l.calls.Put(call)
		return nil
	}
	call.room = min(int64(call.out.Size()), int64(l.cfg.BufferedBytes))
	if err := l.room.Acquire(ctx, call.room); err != nil {
		return fmt.Errorf("wait for room to append: %w", err)
	}
	call.recs = l.records(call.out, call.recs)
	call.left.Store(int64(n))
	for i := range call.recs {
		// The records' context is not the caller's: a batch holds many callers' records, and fails as a whole with its first.
		l.client.Produce(context.Background(), &call.recs[i], call.promise) //nolint:contextcheck // see above
	}
	select {
	case <-call.done:
	case <-ctx.Done():
		return fmt.Errorf("wait for the log: %w", ctx.Err()) // the promises keep the call; it is not pooled again
	}
	if failed := call.failed.Swap(nil); failed != nil {
		err = fmt.Errorf("append: %w", *failed)
	}
	l.calls.Put(call)
	return err
}

// appendCall is one Append's memory, pooled. It may be used again when every promise has been kept.
type appendCall struct {
	log     *Log
	out     *schemas.Out
	recs    []kgo.Record
	room    int64
	left    atomic.Int64
	failed  atomic.Pointer[error]
	done    chan struct{} // gets one value when left reaches zero
	promise func(*kgo.Record, error)
}

func (l *Log) newCall(layout schemas.Layout) *appendCall {
	if call, ok := l.calls.Get().(*appendCall); ok && call.out.Layout() == layout {
		call.out.Reset()
		return call
	}
	call := &appendCall{log: l, out: schemas.NewOut(layout), done: make(chan struct{}, 1)}
	call.promise = call.keep
	return call
}

func (c *appendCall) keep(_ *kgo.Record, err error) {
	if err != nil {
		first := err // a copy, so that the parameter does not go to the heap for every record
		c.failed.CompareAndSwap(nil, &first)
	}
	if c.left.Add(-1) == 0 {
		c.log.room.Release(c.room)
		c.done <- struct{}{}
	}
}

// records fills recs with what out says. They alias out's arena: both may be changed when every promise has been kept.
func (l *Log) records(out *schemas.Out, recs []kgo.Record) []kgo.Record {
	n := out.Len()
	if cap(recs) < n {
		recs = make([]kgo.Record, n+n/4)
	}
	recs = recs[:n]
	now := time.Now()
	i := 0
	var last schemas.Topic
	var name string
	var events bool
	out.Each(func(topic schemas.Topic, partition int32, key, value []byte) {
		if topic != last {
			last, name, events = topic, l.name(topic), l.topics[topic].spec.CloudEvents
		}
		r := &recs[i] // in its place: a record is large
		*r = kgo.Record{Topic: name, Partition: partition, Key: key, Value: value, Timestamp: now}
		if events && value != nil {
			r.Headers = l.cloudEvent(value, now)
		}
		i++
	})
	return recs
}

// cloudEvent are the attributes of CloudEvents 1.0 in Kafka's binary mode.
func (l *Log) cloudEvent(value []byte, now time.Time) []kgo.RecordHeader {
	header := func(key, value string) kgo.RecordHeader { return kgo.RecordHeader{Key: key, Value: []byte(value)} }
	return []kgo.RecordHeader{
		header("ce_specversion", "1.0"),
		header("ce_id", schemas.NewID().String()),
		header("ce_source", "/"+l.cfg.ClientID),
		header("ce_type", "push.v1."+pushv1.EventType(value[0]).String()),
		header("ce_time", now.UTC().Format(time.RFC3339Nano)),
		header("content-type", "application/protobuf"),
	}
}
