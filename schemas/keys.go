package schemas

import (
	"strconv"
	"strings"
)

// Keys are text where people read them. Parts of a device's key are separated by NUL, which no part can contain.

// Suffixes of a device's key: one record of each kind survives compaction.
const (
	registeredSuffix   = "\x00!r"
	unregisteredSuffix = "\x00!u"
	invalidatedSuffix  = "\x00!i"
	channelSuffix      = "\x00c/"
)

func appConfigKey(app string) string                   { return app + "/config" }
func appCredentialsKey(app string, t Transport) string { return app + "/credentials/" + t.Word() }
func appKeyKey(app, keyID string) string               { return app + "/key/" + keyID }

// BroadcastKind is which of a broadcast's records a key names.
type BroadcastKind string

// The kinds, in the order in which a closed broadcast's records are tombstoned: state last, so that a broadcast is never
// found alive without its end.
const (
	BroadcastContent BroadcastKind = "content"
	BroadcastRun     BroadcastKind = "run"
	BroadcastRate    BroadcastKind = "rate"
	BroadcastCancel  BroadcastKind = "cancel"
	BroadcastState   BroadcastKind = "state"
)

// BroadcastKey is a key of the topic broadcasts. Record is zero but for content.
type BroadcastKey struct {
	Broadcast ID
	Kind      BroadcastKind
	Record    ID
}

// String is the key's text.
func (k BroadcastKey) String() string {
	s := k.Broadcast.String() + "/" + string(k.Kind)
	if k.Kind == BroadcastContent {
		s += "/" + k.Record.String()
	}
	return s
}

// ParseBroadcastKey is the inverse of BroadcastKey.String; a tombstone says only by its key what it ends.
func ParseBroadcastKey(key []byte) (k BroadcastKey, ok bool) {
	parts := strings.Split(string(key), "/")
	if len(parts) < 2 {
		return BroadcastKey{}, false
	}
	var err error
	if k.Broadcast, err = ParseID(parts[0]); err != nil {
		return BroadcastKey{}, false
	}
	k.Kind = BroadcastKind(parts[1])
	switch k.Kind {
	case BroadcastContent:
		if len(parts) != 3 {
			return BroadcastKey{}, false
		}
		k.Record, err = ParseID(parts[2])
		return k, err == nil
	case BroadcastRun, BroadcastRate, BroadcastCancel, BroadcastState:
		return k, len(parts) == 2
	}
	return BroadcastKey{}, false
}

// CursorKey is a key of the topic expansions.
type CursorKey struct {
	Broadcast ID
	Transport Transport
	Range     uint32
}

func appendCursorKey(b []byte, broadcast ID, t Transport, rng uint32) []byte {
	b = append(b, broadcast.String()...)
	b = append(b, '/')
	b = append(b, t.Word()...)
	b = append(b, '/')
	return strconv.AppendUint(b, uint64(rng), 10)
}

// String is the key's text.
func (k CursorKey) String() string {
	return string(appendCursorKey(nil, k.Broadcast, k.Transport, k.Range))
}

// ParseCursorKey is the inverse of CursorKey.String.
func ParseCursorKey(key []byte) (k CursorKey, ok bool) {
	parts := strings.Split(string(key), "/")
	if len(parts) != 3 {
		return CursorKey{}, false
	}
	var err error
	if k.Broadcast, err = ParseID(parts[0]); err != nil {
		return CursorKey{}, false
	}
	if k.Transport, err = ParseTransport(parts[1]); err != nil {
		return CursorKey{}, false
	}
	rng, err := strconv.ParseUint(parts[2], 10, 16)
	if err != nil || strconv.FormatUint(rng, 10) != parts[2] {
		return CursorKey{}, false
	}
	k.Range = uint32(rng)
	return k, true
}

// ProgressKey is a key of the topic progress; a zero broadcast names the owners that tally knew.
type ProgressKey struct {
	Broadcast ID
	Partition int32
}

// String is the key's text.
func (k ProgressKey) String() string {
	if k.Broadcast.IsZero() {
		return "!owners/" + strconv.Itoa(int(k.Partition))
	}
	return k.Broadcast.String() + "/" + strconv.Itoa(int(k.Partition))
}

// ParseProgressKey is the inverse of ProgressKey.String.
func ParseProgressKey(key []byte) (k ProgressKey, ok bool) {
	name, number, found := strings.Cut(string(key), "/")
	p, err := strconv.ParseInt(number, 10, 32)
	if !found || err != nil || p < 0 || strconv.FormatInt(p, 10) != number {
		return ProgressKey{}, false
	}
	k.Partition = int32(p)
	if name == "!owners" {
		return k, true
	}
	k.Broadcast, err = ParseID(name)
	return k, err == nil && !k.Broadcast.IsZero()
}
