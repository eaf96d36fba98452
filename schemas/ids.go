package schemas

import (
	"crypto/sha1" //nolint:gosec // UUIDv5 is defined on SHA-1; nothing is protected by it.
	"encoding/binary"
	"fmt"

	"github.com/google/uuid"
)

// ID is a UUID. The zero ID means none.
type ID [16]byte

// NewID returns a UUIDv7 (RFC 9562): ids made later sort later, to the millisecond.
func NewID() ID { return ID(uuid.Must(uuid.NewV7())) }

// ParseID reads the canonical text form.
func ParseID(s string) (ID, error) {
	id, err := uuid.Parse(s)
	if err != nil || len(s) != 36 {
		return ID{}, fmt.Errorf("%q is no id: want a UUID such as 0198c0de-0000-7000-8000-000000000000", s)
	}
	return ID(id), nil
}

// IDFrom reads the 16 bytes that an event carries; anything else is the zero ID.
func IDFrom(b []byte) ID {
	if len(b) != len(ID{}) {
		return ID{}
	}
	return ID(b)
}

// String is the canonical lower-case text form, as APNs wants it in apns-id.
func (id ID) String() string { return uuid.UUID(id).String() }

// Append appends the text form of String.
func (id ID) Append(b []byte) []byte {
	const digits = "0123456789abcdef"
	for i, c := range id {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			b = append(b, '-')
		}
		b = append(b, digits[c>>4], digits[c&15])
	}
	return b
}

// IsZero reports whether id is none.
func (id ID) IsZero() bool { return id == ID{} }

// Namespaces of derived ids: UUIDv5 of the project's URL and the kind.
var (
	bulkSendSpace   = ID(uuid.NewSHA1(uuid.NameSpaceURL, []byte("https://campanile-push.org/ids/bulk-send")))
	directSendSpace = ID(uuid.NewSHA1(uuid.NameSpaceURL, []byte("https://campanile-push.org/ids/direct-send")))
	requestSpace    = ID(uuid.NewSHA1(uuid.NameSpaceURL, []byte("https://campanile-push.org/ids/request")))
)

// BulkSendID is the id of the one send of a broadcast to a device: the same wherever and however often it is computed.
func BulkSendID(broadcast ID, d Device) ID {
	var buf [160]byte
	b := append(buf[:0], broadcast[:]...)
	b = append(b, d.code())
	b = append(b, d.Token...)
	return derive(bulkSendSpace, b)
}

// DirectSendID is the id of the send that a direct notification becomes.
func DirectSendID(request ID) ID { return derive(directSendSpace, request[:]) }

// RequestID is the id of what a client asked for under its Idempotency-Key.
func RequestID(app, keyID, idempotencyKey string) ID {
	return derive(requestSpace, []byte(app+"\x00"+keyID+"\x00"+idempotencyKey))
}

// RepeatKey is what requests have in common that one key made and that say the same; said is a hash of all that they say. The
// names never meet those of RequestID: an Idempotency-Key is printable.
func RepeatKey(app, keyID string, said [32]byte) ID {
	return derive(requestSpace, []byte(app+"\x00"+keyID+"\x00\x00"+string(said[:])))
}

// RepeatedBroadcastID is the id of a broadcast whose repeats are dropped, in the span of time with that number.
func RepeatedBroadcastID(repeatKey ID, span int64) ID {
	return derive(requestSpace, binary.BigEndian.AppendUint64(repeatKey[:], uint64(span)))
}

// derive is UUIDv5 of name in space (RFC 9562, section 5.5).
func derive(space ID, name []byte) ID {
	var buf [192]byte
	b := append(append(buf[:0], space[:]...), name...)
	sum := sha1.Sum(b) //nolint:gosec // see the import
	id := ID(sum[:16])
	id[6] = id[6]&0x0f | 0x50
	id[8] = id[8]&0x3f | 0x80
	return id
}
