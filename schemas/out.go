package schemas

import (
	"encoding/binary"
	"strconv"

	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// Out collects what a handler says. Each method encodes one event at once, so that the event's memory is free when the
// method returns. Topic, key and partition follow from the event. An Out is for one goroutine.
type Out struct {
	layout  Layout
	arena   []byte
	entries []entry
}

type entry struct {
	topic     Topic
	partition int32
	key, end  int // the key starts at key, the value at value, and the entry ends at end
	value     int // -1: a tombstone
}

// NewOut returns an empty Out for topics of that layout.
func NewOut(l Layout) *Out { return &Out{layout: l} }

// Layout is the layout of the topics that Out writes for.
func (o *Out) Layout() Layout { return o.layout }

// Len is the number of records.
func (o *Out) Len() int { return len(o.entries) }

// Size is the number of bytes of keys and values.
func (o *Out) Size() int { return len(o.arena) }

// Reset empties o and keeps its memory.
func (o *Out) Reset() { o.arena, o.entries = o.arena[:0], o.entries[:0] }

// Truncate drops every record after the first n.
func (o *Out) Truncate(n int) {
	if n >= len(o.entries) {
		return
	}
	o.arena = o.arena[:o.entries[n].key]
	o.entries = o.entries[:n]
}

// Each calls f with every record in order. A nil value is a tombstone. The slices alias o's arena: they are valid until
// the next change of o.
func (o *Out) Each(f func(topic Topic, partition int32, key, value []byte)) {
	for i := range o.entries {
		e := &o.entries[i]
		if e.value < 0 {
			f(e.topic, e.partition, o.arena[e.key:e.end:e.end], nil)
			continue
		}
		f(e.topic, e.partition, o.arena[e.key:e.value:e.value], o.arena[e.value:e.end:e.end])
	}
}

// begin starts a record whose key is appended to o.arena by the caller before end is called.
func (o *Out) begin(topic Topic, partition int32) {
	o.entries = append(o.entries, entry{topic: topic, partition: partition, key: len(o.arena), value: -1})
}

func (o *Out) end(e Event) {
	last := &o.entries[len(o.entries)-1]
	if e != nil {
		last.value = len(o.arena)
		o.arena = AppendEvent(o.arena, e)
	}
	last.end = len(o.arena)
}

func (o *Out) put(topic Topic, partition int32, key string, e Event) {
	o.begin(topic, partition)
	o.arena = append(o.arena, key...)
	o.end(e)
}

// AppConfigured sets an app's settings.
func (o *Out) AppConfigured(e *pushv1.AppConfigured) {
	o.put(Apps, o.layout.OfApp(e.App), appConfigKey(e.App), e)
}

// CredentialsSet sets an app's credentials at one provider.
func (o *Out) CredentialsSet(e *pushv1.CredentialsSet) {
	o.put(Apps, o.layout.OfApp(e.App), appCredentialsKey(e.App, e.Transport), e)
}

// AccessKeyIssued issues, approves or changes a key.
func (o *Out) AccessKeyIssued(e *pushv1.AccessKeyIssued) {
	o.put(Apps, o.layout.OfApp(e.App), appKeyKey(e.App, e.KeyId), e)
}

// AccessKeyRevoked ends a key.
func (o *Out) AccessKeyRevoked(e *pushv1.AccessKeyRevoked) {
	o.put(Apps, o.layout.OfApp(e.App), appKeyKey(e.App, e.KeyId), e)
}

func (o *Out) device(d Device, suffix, channel string, e Event) {
	o.begin(Devices, o.layout.Of(d))
	o.arena = d.AppendKey(o.arena)
	o.arena = append(o.arena, suffix...)
	o.arena = append(o.arena, channel...)
	o.end(e)
}

// TokenRegistered registers a device.
func (o *Out) TokenRegistered(e *pushv1.TokenRegistered) {
	o.device(DeviceOf(e), registeredSuffix, "", e)
}

// TokenUnregistered ends a registration and every subscription before it.
func (o *Out) TokenUnregistered(e *pushv1.TokenUnregistered) {
	o.device(DeviceOf(e), unregisteredSuffix, "", e)
}

// TokenInvalidated says that a provider called the device dead.
func (o *Out) TokenInvalidated(e *pushv1.TokenInvalidated) {
	o.device(DeviceOf(e), invalidatedSuffix, "", e)
}

// ChannelSubscribed puts a device into a channel.
func (o *Out) ChannelSubscribed(e *pushv1.ChannelSubscribed) {
	o.device(DeviceOf(e), channelSuffix, e.Channel, e)
}

// ChannelUnsubscribed takes a device out of a channel.
func (o *Out) ChannelUnsubscribed(e *pushv1.ChannelUnsubscribed) {
	o.device(DeviceOf(e), channelSuffix, e.Channel, e)
}

// deviceEvent is any event that names a device.
type deviceEvent interface {
	GetApp() string
	GetTransport() Transport
	GetEnvironment() Environment
	GetToken() string
}

// DeviceOf is the device that an event of the topic devices, or a NotificationRequested, is about.
func DeviceOf(e deviceEvent) Device {
	return Device{App: e.GetApp(), Transport: e.GetTransport(), Environment: e.GetEnvironment(), Token: e.GetToken()}
}

// NotificationRequested asks for a push to one device.
func (o *Out) NotificationRequested(e *pushv1.NotificationRequested) {
	id := IDFrom(e.RequestId)
	together := id
	if repeat := IDFrom(e.RepeatKey); !repeat.IsZero() {
		together = repeat // so that one router sees all that may be repeats of each other
	}
	o.begin(Notifications, o.layout.OfID(together))
	o.arena = append(o.arena, id[:]...)
	o.end(e)
}

// RequestsRouted records what the direct router must know again.
func (o *Out) RequestsRouted(e *pushv1.RequestsRouted) {
	o.put(Routed, e.Partition, strconv.Itoa(int(e.Partition)), e)
}

func (o *Out) broadcast(k BroadcastKey, e Event) {
	o.put(Broadcasts, o.layout.OfID(k.Broadcast), k.String(), e)
}

// BroadcastRequested asks for a push to every device of some channels.
func (o *Out) BroadcastRequested(e *pushv1.BroadcastRequested) {
	o.broadcast(BroadcastKey{IDFrom(e.BroadcastId), BroadcastContent, IDFrom(e.RecordId)}, e)
}

// BroadcastPaused stops a broadcast's expansion until BroadcastResumed.
func (o *Out) BroadcastPaused(e *pushv1.BroadcastPaused) {
	o.broadcast(BroadcastKey{Broadcast: IDFrom(e.BroadcastId), Kind: BroadcastRun}, e)
}

// BroadcastResumed goes on with a paused broadcast.
func (o *Out) BroadcastResumed(e *pushv1.BroadcastResumed) {
	o.broadcast(BroadcastKey{Broadcast: IDFrom(e.BroadcastId), Kind: BroadcastRun}, e)
}

// BroadcastRateChanged changes a broadcast's own rate.
func (o *Out) BroadcastRateChanged(e *pushv1.BroadcastRateChanged) {
	o.broadcast(BroadcastKey{Broadcast: IDFrom(e.BroadcastId), Kind: BroadcastRate}, e)
}

// BroadcastCancelled ends a broadcast before its end, for ever.
func (o *Out) BroadcastCancelled(e *pushv1.BroadcastCancelled) {
	o.broadcast(BroadcastKey{Broadcast: IDFrom(e.BroadcastId), Kind: BroadcastCancel}, e)
}

// BroadcastEnded records the final counts.
func (o *Out) BroadcastEnded(e *pushv1.BroadcastEnded) {
	o.broadcast(BroadcastKey{Broadcast: IDFrom(e.BroadcastId), Kind: BroadcastState}, e)
}

// ForgetBroadcastRecord tombstones one record of an ended broadcast, or a content record that lost.
func (o *Out) ForgetBroadcastRecord(k BroadcastKey) { o.broadcast(k, nil) }

// CursorMoved records that a page was sent.
func (o *Out) CursorMoved(e *pushv1.CursorMoved) {
	id := IDFrom(e.BroadcastId)
	o.begin(Expansions, o.layout.OfCursor(id, e.Transport, e.Range))
	o.arena = appendCursorKey(o.arena, id, e.Transport, e.Range)
	o.end(e)
}

// ForgetCursor tombstones the cursor of an ended broadcast.
func (o *Out) ForgetCursor(k CursorKey) {
	o.begin(Expansions, o.layout.OfCursor(k.Broadcast, k.Transport, k.Range))
	o.arena = appendCursorKey(o.arena, k.Broadcast, k.Transport, k.Range)
	o.end(nil)
}

// SendRequested asks the senders of d's transport for one push. The event's token and environment are d's.
func (o *Out) SendRequested(lane Lane, d Device, e *pushv1.SendRequested) {
	start := len(o.arena)
	o.arena = d.AppendKey(o.arena) // first, so that the partition comes of the key where it stands
	o.entries = append(o.entries, entry{
		topic:     SendTopic{Transport: d.Transport, Lane: lane}.Topic(),
		partition: o.layout.partitionOf(o.arena[start:]), key: start, value: -1,
	})
	o.end(e)
}

// Retry moves a send to a tier, under the device's key as its first send had it. The partition is that of the send.
func (o *Out) Retry(to SendTopic, partition int32, key []byte, e *pushv1.SendRequested) {
	o.begin(to.Topic(), partition)
	o.arena = append(o.arena, key...)
	o.end(e)
}

// delivery starts a record of deliveries; token is the keyed hash of the device.
func (o *Out) delivery(partition int32, token uint64, e Event) {
	o.begin(Deliveries, partition)
	o.arena = binary.BigEndian.AppendUint64(o.arena, token)
	o.end(e)
}

// DeliveryAttempted records an attempt that did not finish its send. The partition is that of the send.
func (o *Out) DeliveryAttempted(partition int32, token uint64, e *pushv1.DeliveryAttempted) {
	o.delivery(partition, token, e)
}

// DeliveryFinished records the end of a send. The partition is that of the send.
func (o *Out) DeliveryFinished(partition int32, token uint64, e *pushv1.DeliveryFinished) {
	o.delivery(partition, token, e)
}

// OwnerChanged records that a new owner takes a partition of sends over.
func (o *Out) OwnerChanged(e *pushv1.OwnerChanged) {
	topic := SendTopic{Transport: e.Transport, Lane: e.Lane, Tier: e.Tier}.Topic()
	o.put(Deliveries, e.Partition, "!owner/"+string(topic), e)
}

// OwnerChangedIn says the same in a retry tier: what an earlier owner moves there behind it is not to be pushed, since the new owner
// pushes it itself.
func (o *Out) OwnerChangedIn(tier SendTopic, e *pushv1.OwnerChanged) {
	topic := SendTopic{Transport: e.Transport, Lane: e.Lane, Tier: e.Tier}.Topic()
	o.put(tier.Topic(), e.Partition, "!owner/"+string(topic), e)
}

// ProgressCounted records a broadcast's counts so far in one partition of deliveries.
func (o *Out) ProgressCounted(e *pushv1.ProgressCounted) {
	o.put(Progress, e.Partition, ProgressKey{IDFrom(e.BroadcastId), e.Partition}.String(), e)
}

// TallyOwnersSeen records the owners that the counts of a partition rest on.
func (o *Out) TallyOwnersSeen(e *pushv1.TallyOwnersSeen) {
	o.put(Progress, e.Partition, ProgressKey{Partition: e.Partition}.String(), e)
}

// ForgetProgress tombstones the counts of an ended broadcast.
func (o *Out) ForgetProgress(k ProgressKey) { o.put(Progress, k.Partition, k.String(), nil) }

// DeadLettered keeps what could not be decoded or handled, under its own key and partition.
func (o *Out) DeadLettered(e *pushv1.DeadLettered) {
	o.begin(DeadLetters, e.Partition)
	o.arena = append(o.arena, e.Key...)
	o.end(e)
}
