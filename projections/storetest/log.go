package storetest

import (
	"bytes"
	"slices"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// Log is the topic devices in memory. One goroutine uses it; the batches that it gave may be read by others.
type Log struct {
	layout     schemas.Layout
	partitions [][]schemas.Record
	next       []int64
	out        *schemas.Out
}

// NewLog returns an empty log.
func NewLog(l schemas.Layout) *Log {
	return &Log{layout: l, partitions: make([][]schemas.Record, l.Partitions), next: make([]int64, l.Partitions), out: schemas.NewOut(l)}
}

// Say appends events.
func (l *Log) Say(say func(out *schemas.Out)) {
	l.out.Reset()
	say(l.out)
	l.out.Each(func(_ schemas.Topic, partition int32, key, value []byte) {
		l.Append(partition, bytes.Clone(key), bytes.Clone(value))
	})
}

// Append appends a record as it is; a nil value is a tombstone.
func (l *Log) Append(partition int32, key, value []byte) {
	l.partitions[partition] = append(l.partitions[partition],
		schemas.Record{Topic: schemas.Devices, Partition: partition, Offset: l.next[partition], Key: key, Value: value})
	l.next[partition]++
}

// Skip leaves a gap in a partition, as a transaction's marker does.
func (l *Log) Skip(partition int32) { l.next[partition]++ }

// Ends are, by partition, the offsets after the last record.
func (l *Log) Ends() schemas.Watermark {
	ends := make(schemas.Watermark, len(l.partitions))
	for p, records := range l.partitions {
		ends[p] = schemas.Batch{Records: records}.Next()
	}
	return ends
}

// Batch is what a partition holds from an offset on.
func (l *Log) Batch(partition int32, from int64) schemas.Batch {
	records := l.partitions[partition]
	i, _ := slices.BinarySearchFunc(records, from, func(r schemas.Record, at int64) int { return int(r.Offset - at) })
	return schemas.Batch{Topic: schemas.Devices, Partition: partition, Records: slices.Clip(records[i:])}
}

// Compacted is the log as compaction leaves it: of each key the last record, at its offset.
func (l *Log) Compacted() *Log {
	c := NewLog(l.layout)
	copy(c.next, l.next)
	for p, records := range l.partitions {
		last := make(map[string]int64, len(records))
		for _, r := range records {
			last[string(r.Key)] = r.Offset
		}
		for _, r := range records {
			if last[string(r.Key)] == r.Offset {
				c.partitions[p] = append(c.partitions[p], r)
			}
		}
	}
	return c
}

// Register says that a device was registered at a time.
func Register(d schemas.Device, atUS int64, platform string) func(*schemas.Out) {
	return func(out *schemas.Out) {
		out.TokenRegistered(&pushv1.TokenRegistered{
			App: d.App, Transport: d.Transport, Environment: d.Environment, Token: d.Token, Platform: platform, RegisteredAtUs: atUS,
			AppVersion: "4.5.0", Locale: "de-CH", TimeZone: "Europe/Zurich", UserId: "u-" + platform, KeyId: "k",
		})
	}
}

// Unregister says that a device is gone.
func Unregister(d schemas.Device) func(*schemas.Out) {
	return func(out *schemas.Out) {
		out.TokenUnregistered(&pushv1.TokenUnregistered{App: d.App, Transport: d.Transport, Environment: d.Environment, Token: d.Token})
	}
}

// Invalidate says that a provider called a device dead as of a time.
func Invalidate(d schemas.Device, asOfUS int64) func(*schemas.Out) {
	return func(out *schemas.Out) {
		out.TokenInvalidated(&pushv1.TokenInvalidated{
			App: d.App, Transport: d.Transport, Environment: d.Environment, Token: d.Token, AsOfUs: asOfUS, Reason: "Unregistered",
		})
	}
}

// Subscribe puts a device into a channel.
func Subscribe(d schemas.Device, channel string) func(*schemas.Out) {
	return func(out *schemas.Out) {
		out.ChannelSubscribed(&pushv1.ChannelSubscribed{App: d.App, Transport: d.Transport, Environment: d.Environment, Token: d.Token, Channel: channel})
	}
}

// Unsubscribe takes it out.
func Unsubscribe(d schemas.Device, channel string) func(*schemas.Out) {
	return func(out *schemas.Out) {
		out.ChannelUnsubscribed(&pushv1.ChannelUnsubscribed{App: d.App, Transport: d.Transport, Environment: d.Environment, Token: d.Token, Channel: channel})
	}
}
