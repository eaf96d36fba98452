package broker

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// kfake forgets where a partition stood when its last record is deleted: after the next start, clean or not, its offsets begin
// at zero again, under the offsets that groups have committed. So nothing here, and no client, ever deletes the last batch of a
// partition; and since kfake's own retention would, the retention that a topic is created with is kept under names that kfake
// does not know.
const (
	ownRetentionMS    = "campanile.retention.ms"
	ownRetentionBytes = "campanile.retention.bytes"
)

// guardRequests installs what must be looked at before kfake sees it.
func (b *Broker) guardRequests() {
	observe := func(key kmsg.Key, look func(kmsg.Request)) {
		b.cluster.ControlKey(key.Int16(), func(r kmsg.Request) (kmsg.Response, error, bool) {
			look(r)
			return nil, nil, false
		})
	}
	observe(kmsg.CreateTopics, hideRetention)
	observe(kmsg.AlterConfigs, hideRetention)
	observe(kmsg.IncrementalAlterConfigs, hideRetention)
	observe(kmsg.DeleteRecords, b.keepLast)
	observe(kmsg.DescribeUserSCRAMCredentials, func(kmsg.Request) {
		if job := b.paused.Swap(nil); job != nil {
			(*job)()
		}
	})
	b.cluster.ControlKey(kmsg.DescribeConfigs.Int16(), func(r kmsg.Request) (kmsg.Response, error, bool) {
		resp := b.describe(r)
		if resp == nil {
			return nil, nil, false
		}
		b.cluster.KeepControl()
		return resp, nil, true
	})
	b.cluster.Control(func(kmsg.Request) (kmsg.Response, error, bool) {
		if err := b.failed.Load(); err != nil {
			b.cluster.KeepControl()
			return nil, *err, true // closes the connection
		}
		return nil, nil, false
	})
}

// hidden are the settings that kfake must not see, and their names with us.
func hidden() map[string]string {
	return map[string]string{"retention.ms": ownRetentionMS, "retention.bytes": ownRetentionBytes}
}

// hideRetention renames the retention that a request sets.
func hideRetention(r kmsg.Request) {
	names := hidden()
	rename := func(name *string) {
		if ours, ok := names[*name]; ok {
			*name = ours
		}
	}
	switch r := r.(type) {
	case *kmsg.CreateTopicsRequest:
		for i := range r.Topics {
			for j := range r.Topics[i].Configs {
				rename(&r.Topics[i].Configs[j].Name)
			}
		}
	case *kmsg.AlterConfigsRequest:
		for i := range r.Resources {
			for j := range r.Resources[i].Configs {
				rename(&r.Resources[i].Configs[j].Name)
			}
		}
	case *kmsg.IncrementalAlterConfigsRequest:
		for i := range r.Resources {
			for j := range r.Resources[i].Configs {
				rename(&r.Resources[i].Configs[j].Name)
			}
		}
	}
}

// describe answers for kfake what settings topics have, with retention under its true name. It returns nil for a request about
// anything else.
func (b *Broker) describe(r kmsg.Request) kmsg.Response {
	req, ok := r.(*kmsg.DescribeConfigsRequest)
	if !ok {
		return nil
	}
	resp, ok := req.ResponseKind().(*kmsg.DescribeConfigsResponse)
	if !ok {
		return nil
	}
	for _, asked := range req.Resources {
		if asked.ResourceType != kmsg.ConfigResourceTypeTopic {
			return nil
		}
		answer := kmsg.NewDescribeConfigsResponseResource()
		answer.ResourceType, answer.ResourceName = asked.ResourceType, asked.ResourceName
		info := b.cluster.TopicInfo(asked.ResourceName)
		if info == nil {
			answer.ErrorCode = kerr.UnknownTopicOrPartition.Code
			resp.Resources = append(resp.Resources, answer)
			continue
		}
		for theirs, ours := range hidden() {
			if v, ok := info.Configs[ours]; ok {
				delete(info.Configs, ours)
				info.Configs[theirs] = v
			}
		}
		for _, name := range slices.Sorted(maps.Keys(info.Configs)) {
			if asked.ConfigNames != nil && !slices.Contains(asked.ConfigNames, name) {
				continue
			}
			c := kmsg.NewDescribeConfigsResponseResourceConfig()
			c.Name, c.Value, c.Source = name, info.Configs[name], kmsg.ConfigSourceDynamicTopicConfig
			answer.Configs = append(answer.Configs, c)
		}
		resp.Resources = append(resp.Resources, answer)
	}
	return resp
}

// keepLast lowers a DeleteRecords request so that the last batch stays.
func (b *Broker) keepLast(r kmsg.Request) {
	req, ok := r.(*kmsg.DeleteRecordsRequest)
	if !ok {
		return
	}
	for i := range req.Topics {
		infos := b.cluster.PartitionInfos(req.Topics[i].Topic)
		for j := range req.Topics[i].Partitions {
			p := &req.Topics[i].Partitions[j]
			if int(p.Partition) < len(infos) && p.Partition >= 0 {
				p.Offset = keepOne(p.Offset, infos[p.Partition])
			}
		}
	}
}

// keepOne is the offset up to which to delete where somebody asked for offset; -1 asks for all.
func keepOne(offset int64, info *kfake.PartitionInfo) int64 {
	last := max(info.HighWatermark-1, info.LogStartOffset)
	if offset < 0 || offset > last && offset <= info.HighWatermark {
		return last
	}
	return offset
}

// topics are the topics of the cluster with their configs.
func (b *Broker) topics(ctx context.Context, cl *kgo.Client) ([]*kfake.TopicInfo, error) {
	resp, err := kmsg.NewPtrMetadataRequest().RequestWith(ctx, cl)
	if err != nil {
		return nil, err //nolint:wrapcheck // sweep says what it did
	}
	var all []*kfake.TopicInfo
	for _, t := range resp.Topics {
		if t.Topic == nil {
			continue
		}
		if info := b.cluster.TopicInfo(*t.Topic); info != nil {
			all = append(all, info)
		}
	}
	return all, nil
}

// retain deletes what is too old or too much by the topics' own retention.
func (b *Broker) retain(ctx context.Context, cl *kgo.Client, topics []*kfake.TopicInfo, now time.Time) error {
	for _, t := range topics {
		ms, byTime := number(t.Configs[ownRetentionMS])
		limit, bySize := number(t.Configs[ownRetentionBytes])
		if !byTime && !bySize {
			continue
		}
		for _, info := range b.cluster.PartitionInfos(t.Topic) {
			to := info.LogStartOffset
			if bySize {
				to = max(to, sizeCut(info, limit))
			}
			if byTime && info.HighWatermark-info.LogStartOffset > 1 {
				cut, err := timeCut(ctx, cl, t.Topic, info, now.UnixMilli()-ms)
				if err != nil {
					return err
				}
				to = max(to, cut)
			}
			if to = keepOne(to, info); to <= info.LogStartOffset {
				continue
			}
			if err := b.cluster.DeleteRecords(t.Topic, info.Partition, to); err != nil {
				return err //nolint:wrapcheck // sweep says what it did
			}
		}
	}
	return nil
}

// number reads a retention; a negative one means none.
func number(s *string) (n int64, ok bool) {
	if s == nil {
		return 0, false
	}
	n, err := strconv.ParseInt(*s, 10, 64)
	return n, err == nil && n >= 0
}

// sizeCut is the offset below which a partition's bytes beyond limit lie, on the assumption that records are of one size.
func sizeCut(info *kfake.PartitionInfo, limit int64) int64 {
	if info.NumBytes <= limit || info.NumBytes == 0 {
		return info.LogStartOffset
	}
	records := info.HighWatermark - info.LogStartOffset
	share := float64(info.NumBytes-limit) / float64(info.NumBytes)
	return info.LogStartOffset + int64(float64(records)*share)
}

// timeCut is the offset of the first record at or after a time, Unix milliseconds; the end if there is none.
func timeCut(ctx context.Context, cl *kgo.Client, topic string, info *kfake.PartitionInfo, ms int64) (int64, error) {
	if info.MaxTimestamp < ms {
		return info.HighWatermark, nil
	}
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID = -1
	part := kmsg.NewListOffsetsRequestTopicPartition()
	part.Partition, part.Timestamp = info.Partition, ms
	t := kmsg.NewListOffsetsRequestTopic()
	t.Topic, t.Partitions = topic, []kmsg.ListOffsetsRequestTopicPartition{part}
	req.Topics = []kmsg.ListOffsetsRequestTopic{t}
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return 0, err //nolint:wrapcheck // sweep says what it did
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if p.ErrorCode == 0 && p.Offset >= 0 {
				return p.Offset, nil
			}
		}
	}
	return info.LogStartOffset, nil
}
