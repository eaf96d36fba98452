package vault

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"strings"

	"github.com/dchest/siphash"
)

// Hasher is a keyed hash of devices, for places where a token must not stand: deliveries, ClickHouse, log lines. SipHash-2-4
// is a pseudo-random function (Aumasson and Bernstein, 2012): without the key a hash tells nothing of the token.
type Hasher struct {
	k0, k1 uint64
}

// hashKeySize is SipHash's key size in bytes.
const hashKeySize = 16

// ParseHasher reads the base64 of 16 bytes, as `campanile key-file --hash` makes it.
func ParseHasher(text string) (Hasher, error) {
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	if err != nil || len(raw) != hashKeySize {
		return Hasher{}, errors.New("token hash key: want the base64 of 16 bytes")
	}
	return Hasher{binary.LittleEndian.Uint64(raw), binary.LittleEndian.Uint64(raw[8:])}, nil
}

// Hash is the keyed hash of a device's key.
func (h Hasher) Hash(deviceKey []byte) uint64 { return siphash.Hash(h.k0, h.k1, deviceKey) }

// NewHashKey returns a fresh key as text for ParseHasher.
func NewHashKey() string {
	raw := make([]byte, hashKeySize)
	_, _ = rand.Read(raw)
	return base64.StdEncoding.EncodeToString(raw) + "\n"
}
