package router

import (
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// resumeReach is how many answered notifications may stand behind one of their partition that was not routed: a router takes at most
// two polls of 10,000 at once, and appends what follows from them in no order. What stands further before an answered one was routed.
const resumeReach = 20_000

// Resume finds in the log where the direct router stood whose committed offsets are gone: each notification leads to one send, one
// delivery or one dead letter, so that the first without any is the next to route. Answered is fed first, with every record of
// ResumeTopics in their order, and then Asked with notifications, both from the beginning; no direct router may run meanwhile. It
// holds about 60 bytes for each answer. It is not safe for concurrent use.
type Resume struct {
	reach      int64
	answers    map[schemas.ID]struct{}      // by request
	letters    map[int32]map[int64]struct{} // offsets of dead letters, by partition of notifications
	partitions map[int32]*resumed           // of notifications
	asked      pushv1.NotificationRequested // scratch, as are the others
	sent       pushv1.SendRequested
	finished   pushv1.DeliveryFinished
	lettered   pushv1.DeadLettered
}

// resumed is one partition of notifications.
type resumed struct {
	next     int64 // after the last one
	answered int64
	waiting  []unrouted // those within reach
}

// unrouted is a notification without an answer.
type unrouted struct {
	offset, before int64 // before: of the partition, answered before it
}

// ResumePlace is where to go on in one partition of notifications.
type ResumePlace struct {
	Offset int64
	Again  int64 // notifications from there on that were routed already: the part that a killed router repeats
}

// NewResume returns a Resume that has seen nothing.
func NewResume() *Resume {
	return &Resume{
		reach: resumeReach, answers: map[schemas.ID]struct{}{}, letters: map[int32]map[int64]struct{}{}, partitions: map[int32]*resumed{},
	}
}

// ResumeTopics are where answers to notifications stand, in the order in which they move on, so that what moves while they are read one
// after the other is met all the same. Parked sends come back to their own topic, which is therefore read twice.
func ResumeTopics() []schemas.Topic {
	var topics []schemas.Topic
	for _, t := range schemas.Transports {
		for _, s := range schemas.SendTopics(t, schemas.Direct) {
			topics = append(topics, s.Topic())
		}
		topics = append(topics, schemas.SendTopic{Transport: t, Lane: schemas.Direct, Tier: schemas.ParkedTier}.Topic())
	}
	return append(topics, schemas.DeadLetters, schemas.Deliveries)
}

// Answered takes the next record of ResumeTopics. What cannot be read answers nothing.
func (r *Resume) Answered(rec schemas.Record) error {
	switch rec.Type() { //nolint:exhaustive // other events follow from one of these
	case pushv1.EventType_EVENT_TYPE_SEND_REQUESTED:
		if rec.Into(&r.sent) == nil {
			r.answer(r.sent.RequestId)
		}
		r.sent.Reset() // it aliases the record
	case pushv1.EventType_EVENT_TYPE_DELIVERY_FINISHED:
		if rec.Into(&r.finished) == nil {
			r.answer(r.finished.RequestId)
		}
		r.finished.Reset()
	case pushv1.EventType_EVENT_TYPE_DEAD_LETTERED:
		if rec.Into(&r.lettered) == nil && r.lettered.Topic == string(schemas.Notifications) {
			offsets := r.letters[r.lettered.Partition]
			if offsets == nil {
				offsets = map[int64]struct{}{}
				r.letters[r.lettered.Partition] = offsets
			}
			offsets[r.lettered.Offset] = struct{}{}
		}
		r.lettered.Reset()
	}
	return nil
}

func (r *Resume) answer(request []byte) {
	if id := schemas.IDFrom(request); !id.IsZero() {
		r.answers[id] = struct{}{}
	}
}

// Asked takes the next record of notifications.
func (r *Resume) Asked(rec schemas.Record) error {
	p := r.partitions[rec.Partition]
	if p == nil {
		p = &resumed{}
		r.partitions[rec.Partition] = p
	}
	p.next = rec.Offset + 1
	if !r.isAnswered(rec) {
		p.waiting = append(p.waiting, unrouted{rec.Offset, p.answered})
		return nil
	}
	p.answered++
	for len(p.waiting) > 0 && p.answered-p.waiting[0].before > r.reach {
		p.waiting = p.waiting[1:]
	}
	return nil
}

func (r *Resume) isAnswered(rec schemas.Record) bool {
	if _, dead := r.letters[rec.Partition][rec.Offset]; dead {
		return true
	}
	if rec.Into(&r.asked) != nil {
		return false // it becomes a dead letter when it is routed
	}
	_, answered := r.answers[schemas.IDFrom(r.asked.RequestId)]
	r.asked.Reset()
	return answered
}

// Place is where to go on in a partition; ok is false where it holds no notification.
func (r *Resume) Place(partition int32) (place ResumePlace, ok bool) {
	p := r.partitions[partition]
	switch {
	case p == nil:
		return ResumePlace{}, false
	case len(p.waiting) == 0:
		return ResumePlace{Offset: p.next}, true
	}
	first := p.waiting[0]
	return ResumePlace{Offset: first.offset, Again: p.answered - first.before}, true
}
