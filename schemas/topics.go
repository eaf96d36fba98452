package schemas

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"
)

// Topic is a topic's name, before any prefix that a cluster's operator wants.
type Topic string

// The topics whose names are fixed; Sends and Retries name the others.
const (
	Apps          Topic = "apps"
	Devices       Topic = "devices"
	Notifications Topic = "notifications"
	Routed        Topic = "routed"
	Broadcasts    Topic = "broadcasts"
	Expansions    Topic = "expansions"
	Deliveries    Topic = "deliveries"
	Progress      Topic = "progress"
	DeadLetters   Topic = "deadletters"
)

// Tiers of retries, in the order of their delays; the last holds the sends of parked apps.
const (
	Tiers      = 4
	ParkedTier = 4
)

// SendTopic is one of a lane's topics: sends.<t>.<lane> is tier 0, retries.<t>.<lane>.<tier> are the others.
type SendTopic struct {
	Transport Transport
	Lane      Lane
	Tier      uint32
}

// Topic is the topic's name.
func (s SendTopic) Topic() Topic {
	if s.Tier == 0 { // once for every send: without building a string
		switch s {
		case SendTopic{Transport: APNS, Lane: Direct}:
			return "sends.apns.direct"
		case SendTopic{Transport: APNS, Lane: Express}:
			return "sends.apns.express"
		case SendTopic{Transport: APNS, Lane: Bulk}:
			return "sends.apns.bulk"
		case SendTopic{Transport: FCM, Lane: Direct}:
			return "sends.fcm.direct"
		case SendTopic{Transport: FCM, Lane: Express}:
			return "sends.fcm.express"
		case SendTopic{Transport: FCM, Lane: Bulk}:
			return "sends.fcm.bulk"
		}
		return Topic("sends." + s.Transport.Word() + "." + s.Lane.Word())
	}
	return Topic("retries." + s.Transport.Word() + "." + s.Lane.Word() + "." + strconv.Itoa(int(s.Tier)))
}

// ParseSendTopic is the inverse of SendTopic.Topic; ok is false for any other topic.
func ParseSendTopic(t Topic) (s SendTopic, ok bool) {
	parts := strings.Split(string(t), ".")
	if len(parts) < 3 {
		return SendTopic{}, false
	}
	for _, transport := range Transports {
		if transport.Word() == parts[1] {
			s.Transport = transport
		}
	}
	for _, lane := range Lanes {
		if lane.Word() == parts[2] {
			s.Lane = lane
		}
	}
	switch {
	case parts[0] == "retries" && len(parts) == 4:
		tier, err := strconv.ParseUint(parts[3], 10, 8)
		if err != nil || tier == 0 || tier > Tiers {
			return SendTopic{}, false
		}
		s.Tier = uint32(tier)
	case parts[0] != "sends" || len(parts) != 3:
		return SendTopic{}, false
	}
	return s, s.Transport != 0 && s.Lane != 0 && s.Topic() == t
}

// SendTopics are the topics that the senders of a transport consume on one lane, tier 0 first.
func SendTopics(t Transport, lane Lane) []SendTopic {
	topics := make([]SendTopic, 0, Tiers+1)
	for tier := range uint32(Tiers + 1) {
		topics = append(topics, SendTopic{t, lane, tier})
	}
	return topics
}

// Cleanup is how a topic forgets.
type Cleanup int

// The ways to forget.
const (
	Compacted     Cleanup = iota // the last record of each key stays
	ByTime                       // after Spec.Retention
	UntilConsumed                // when every registered group has committed it, and Spec.Retention is over
)

// Spec is what a topic is created with.
type Spec struct {
	Topic   Topic
	Cleanup Cleanup
	// Retention is the age at which a ByTime topic forgets, and the least age at which the janitor deletes from an
	// UntilConsumed one.
	Retention time.Duration
	// Truth: an event of an unknown type stops the partition, since to skip it would be to forget it.
	Truth bool
	// CloudEvents: records carry CloudEvents attributes as headers.
	CloudEvents bool
	// Groups consume the topic: they get offset 0 at its creation, and hold the janitor back.
	Groups []string
}

// Consumer groups.
const (
	GroupDirectRouter    = "campanile.router.direct"
	GroupBroadcastRouter = "campanile.router.broadcast"
	GroupCloser          = "campanile.router.closer"
	GroupTally           = "campanile.tally"
	GroupProjector       = "campanile.projector"
	GroupAnalytics       = "campanile.analytics"
)

// SenderGroup is the group of the senders of a transport on one lane.
func SenderGroup(t Transport, lane Lane) string {
	return "campanile.sender." + t.Word() + "." + lane.Word()
}

const day = 24 * time.Hour

// RememberRequests is for how long a notification's Idempotency-Key is known: a request that comes again meanwhile is a repeat.
const RememberRequests = day

// MaxRepeatWithin is the most that NotificationRequested.repeat_within_us may be.
const MaxRepeatWithin = time.Minute

// Specs are all topics, in the order of their creation.
func Specs() []Spec {
	specs := []Spec{
		{Topic: Apps, Cleanup: Compacted, Truth: true, CloudEvents: true},
		{Topic: Devices, Cleanup: Compacted, Truth: true, Groups: []string{GroupProjector, GroupAnalytics}},
		{Topic: Notifications, Cleanup: ByTime, Retention: 7 * day, Groups: []string{GroupDirectRouter}},
		{Topic: Broadcasts, Cleanup: Compacted, Truth: true, CloudEvents: true},
		{Topic: Expansions, Cleanup: Compacted, Truth: true},
		{Topic: Deliveries, Cleanup: ByTime, Retention: 30 * day, Groups: []string{GroupTally, GroupAnalytics}},
		{Topic: Progress, Cleanup: Compacted},
		{Topic: DeadLetters, Cleanup: ByTime, Retention: 30 * day},
		{Topic: Routed, Cleanup: ByTime, Retention: RememberRequests + time.Hour}, // what stands in it was appended after its time
	}
	for _, t := range Transports {
		for _, lane := range Lanes {
			for _, s := range SendTopics(t, lane) {
				specs = append(specs, Spec{Topic: s.Topic(), Cleanup: UntilConsumed, Groups: []string{SenderGroup(t, lane)}})
			}
		}
	}
	return specs
}

// SpecOf is the spec of a topic; ok is false for a topic that is not ours.
func SpecOf(t Topic) (spec Spec, ok bool) {
	for _, s := range Specs() {
		if s.Topic == t {
			return s, true
		}
	}
	return Spec{}, false
}

// Layout is what the topics were created with. Every topic has the same number of partitions: the partition numbers
// of sends, retries, deliveries and progress must agree.
type Layout struct {
	Partitions int32
}

// partitionOf spreads keys; part of the wire form, since a key must never change its partition.
func (l Layout) partitionOf(key []byte) int32 {
	return int32(xxhash.Sum64(key) % uint64(l.Partitions))
}

// Of is the partition of a device, in devices, sends, retries and deliveries.
func (l Layout) Of(d Device) int32 {
	var buf [256]byte
	return l.partitionOf(d.AppendKey(buf[:0]))
}

// OfApp is the partition of an app in apps.
func (l Layout) OfApp(app string) int32 { return l.partitionOf([]byte(app)) }

// OfID is the partition of a request in notifications, or of a broadcast in broadcasts.
func (l Layout) OfID(id ID) int32 { return l.partitionOf(id[:]) }

// OfCursor is the partition of a cursor in expansions.
func (l Layout) OfCursor(broadcast ID, t Transport, rng uint32) int32 {
	var buf [64]byte
	return l.partitionOf(appendCursorKey(buf[:0], broadcast, t, rng))
}

// Check refuses a layout that cannot be.
func (l Layout) Check() error {
	if l.Partitions < 1 || l.Partitions > 1024 {
		return fmt.Errorf("%d partitions: want 1 to 1024", l.Partitions)
	}
	return nil
}
