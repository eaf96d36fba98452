package pebble

import (
	"bytes"
	"encoding/binary"

	"github.com/campanile-push/campanile/projections"
	"github.com/campanile-push/campanile/schemas"
)

// The first byte of every key. Texts in keys end in NUL, which none contains (package projections checks), so that the order
// of keys is the order of their parts.
//
//	m name                                                    format and layout
//	o partition                                               applied offset
//	d app NUL transport environment token                     a device's state
//	a app NUL channel NUL transport shard token NUL environment    a row of an audience
//
// Transport, environment and shard take one byte, partition four.
const (
	metaSpace     = 'm'
	appliedSpace  = 'o'
	deviceSpace   = 'd'
	audienceSpace = 'a'
)

func appendAppliedKey(b []byte, partition int32) []byte {
	return binary.BigEndian.AppendUint32(append(b, appliedSpace), uint32(partition))
}

func appendDeviceKey(b []byte, d schemas.Device) []byte {
	b = append(b, deviceSpace)
	b = append(b, d.App...)
	b = append(b, 0, byte(d.Transport), byte(d.Environment))
	return append(b, d.Token...)
}

// parseDeviceKey is the inverse of appendDeviceKey.
func parseDeviceKey(key []byte) (d schemas.Device, ok bool) {
	if len(key) == 0 || key[0] != deviceSpace {
		return d, false
	}
	app, rest, ok := bytes.Cut(key[1:], []byte{0})
	if !ok || len(rest) < 3 {
		return d, false
	}
	return schemas.Device{App: string(app), Transport: schemas.Transport(rest[0]), Environment: schemas.Environment(rest[1]), Token: string(rest[2:])}, true
}

// appendAudiencePrefix is what the keys of a channel's audience on one transport start with; shard, token and environment
// follow, which makes the cursor's order.
func appendAudiencePrefix(b []byte, app, channel string, t schemas.Transport) []byte {
	b = append(b, audienceSpace)
	b = append(b, app...)
	b = append(b, 0)
	b = append(b, channel...)
	return append(b, 0, byte(t))
}

func appendAudienceSuffix(b []byte, shard uint32, token string, env schemas.Environment) []byte {
	b = append(b, byte(shard))
	b = append(b, token...)
	return append(b, 0, byte(env))
}

// parseAudienceSuffix splits what appendAudienceSuffix appended; token aliases b.
func parseAudienceSuffix(b []byte) (shard uint32, token []byte, env schemas.Environment, ok bool) {
	n := len(b)
	if n < 4 || b[n-2] != 0 {
		return 0, nil, 0, false
	}
	return uint32(b[0]), b[1 : n-2], schemas.Environment(b[n-1]), true
}

// parseAudienceKey reads a whole key.
func parseAudienceKey(key []byte) (channel string, shard uint32, d schemas.Device, ok bool) {
	if len(key) == 0 || key[0] != audienceSpace {
		return "", 0, d, false
	}
	app, rest, ok := bytes.Cut(key[1:], []byte{0})
	if !ok {
		return "", 0, d, false
	}
	name, rest, ok := bytes.Cut(rest, []byte{0})
	if !ok || len(rest) < 2 {
		return "", 0, d, false
	}
	shard, token, env, ok := parseAudienceSuffix(rest[1:])
	return string(name), shard, schemas.Device{App: string(app), Transport: schemas.Transport(rest[0]), Environment: env, Token: string(token)}, ok
}

// afterSpace is the end, exclusive, of the keys that start with space.
func afterSpace(space byte) []byte { return []byte{space + 1} }

// appendAudienceRow is the value of a row of an audience: time, then platform.
func appendAudienceRow(b []byte, row projections.AudienceRow) []byte {
	return append(binary.AppendVarint(b, row.RegisteredAtUS), row.Platform...)
}

// parseAudienceRow is its inverse; platform aliases v.
func parseAudienceRow(v []byte) (registeredAtUS int64, platform []byte, ok bool) {
	at, n := binary.Varint(v)
	if n <= 0 {
		return 0, nil, false
	}
	return at, v[n:], true
}
