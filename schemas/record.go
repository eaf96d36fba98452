package schemas

import (
	"errors"
	"fmt"

	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// Errors of reading a record.
var (
	// ErrUnknownType is an event of a newer Campanile. In a topic of truth it stops the partition.
	ErrUnknownType = errors.New("event type unknown to this version")
	// ErrMalformed is a value that no version ever wrote: a dead letter.
	ErrMalformed = errors.New("malformed event")
)

// Record is one record as the log keeps it. Key and Value belong to the log: they are valid until the handler returns.
type Record struct {
	Topic     Topic
	Partition int32
	Offset    int64
	TimeUS    int64 // the broker's, Unix microseconds
	Key       []byte
	Value     []byte // nil: a tombstone
}

// Tombstone reports whether the record only says that its key is gone.
func (r *Record) Tombstone() bool { return r.Value == nil }

// Type is the event's type; EVENT_TYPE_UNSPECIFIED for a tombstone or an empty value.
func (r *Record) Type() pushv1.EventType {
	if len(r.Value) == 0 {
		return pushv1.EventType_EVENT_TYPE_UNSPECIFIED
	}
	return pushv1.EventType(r.Value[0])
}

// Event decodes the record into a new event. It returns ErrUnknownType or ErrMalformed, wrapped.
func (r *Record) Event() (Event, error) {
	e, err := Decode(r.Value)
	if err != nil {
		return nil, fmt.Errorf("%s[%d]@%d: %w", r.Topic, r.Partition, r.Offset, err)
	}
	return e, nil
}

// Into decodes the record into e, which is reset first and must not outlive the record: strings alias it. It returns
// ErrMalformed, wrapped, also for an event of another type; look at Type first.
func (r *Record) Into(e Event) error {
	if r.Type() != e.EventType() {
		return fmt.Errorf("%s[%d]@%d: type %d where %d was wanted: %w", r.Topic, r.Partition, r.Offset, r.Type(), e.EventType(), ErrMalformed)
	}
	e.Reset()
	if err := e.UnmarshalVTUnsafe(r.Value[1:]); err != nil {
		return fmt.Errorf("%s[%d]@%d: %w: %w", r.Topic, r.Partition, r.Offset, ErrMalformed, err)
	}
	return nil
}

// Decode reads the wire form: the type's byte, then the message. The event owns its memory.
func Decode(value []byte) (Event, error) {
	if len(value) == 0 {
		return nil, fmt.Errorf("empty value: %w", ErrMalformed)
	}
	e := pushv1.New(pushv1.EventType(value[0]))
	if e == nil {
		if value[0] == 0 {
			return nil, fmt.Errorf("type 0: %w", ErrMalformed)
		}
		return nil, fmt.Errorf("type %d: %w", value[0], ErrUnknownType)
	}
	if err := e.UnmarshalVT(value[1:]); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return e, nil
}

// AppendEvent appends e's wire form to b.
func AppendEvent(b []byte, e Event) []byte {
	n := e.SizeVT()
	start := len(b)
	b = append(b, byte(e.EventType()))
	if cap(b)-len(b) < n {
		grown := make([]byte, len(b), 2*cap(b)+n)
		copy(grown, b)
		b = grown
	}
	b = b[:start+1+n]
	if _, err := e.MarshalToSizedBufferVT(b[start+1:]); err != nil {
		panic("schemas: an event does not fit its own size: " + err.Error()) // the generated code's contract
	}
	return b
}

// Batch is a run of records of one partition in log order. Offsets may have gaps: compaction and transactions leave them.
type Batch struct {
	Topic     Topic
	Partition int32
	Records   []Record
}

// Next is the offset after the last record; zero for an empty batch.
func (b Batch) Next() int64 {
	if len(b.Records) == 0 {
		return 0
	}
	return b.Records[len(b.Records)-1].Offset + 1
}
