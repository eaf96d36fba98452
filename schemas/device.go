package schemas

import (
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/cespare/xxhash/v2"

	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

type (
	// Transport is the provider's network that carries a push.
	Transport = pushv1.Transport
	// Environment is APNs' host for a token.
	Environment = pushv1.Environment
	// Lane separates what somebody waits for from what a broadcast sends.
	Lane = pushv1.Lane
	// Outcome of one attempt, or of a send as a whole.
	Outcome = pushv1.Outcome
	// Event is one fact in the log.
	Event = pushv1.Event
)

// The transports and lanes in use.
const (
	APNS = pushv1.Transport_TRANSPORT_APNS
	FCM  = pushv1.Transport_TRANSPORT_FCM

	Production = pushv1.Environment_ENVIRONMENT_PRODUCTION
	Sandbox    = pushv1.Environment_ENVIRONMENT_SANDBOX

	Direct   = pushv1.Lane_LANE_DIRECT
	Express  = pushv1.Lane_LANE_EXPRESS
	Bulk     = pushv1.Lane_LANE_BULK
	ByRouter = pushv1.Lane_LANE_ROUTER
)

// Transports are those that Campanile delivers to, in the order of their cursors.
var Transports = []Transport{APNS, FCM}

// Lanes are those that sends travel on: what one person waits for, broadcasts to few, broadcasts to many.
var Lanes = []Lane{Direct, Express, Bulk}

// ParseTransport reads a transport's word.
func ParseTransport(s string) (Transport, error) {
	for _, t := range Transports {
		if t.Word() == s {
			return t, nil
		}
	}
	return 0, fmt.Errorf("%q is no transport: want apns or fcm", s)
}

// Device is what a provider pushes to. An answer of one provider says nothing of the same token at another, nor of
// APNs' other environment.
type Device struct {
	App         string
	Transport   Transport
	Environment Environment // Production but for APNs tokens of its sandbox
	Token       string
}

// Limits of what identifies a device or an audience, in bytes. FCM and APNs tokens are opaque and have no documented length
// (facts: FCM about 160, APNs 64 hex today); the limits bound keys in the log and in CockroachDB.
const (
	MaxToken   = 1024
	MaxApp     = 64
	MaxChannel = 255
)

// Errors of the checks below.
var (
	ErrToken   = errors.New("a token is 1 to 1024 bytes of UTF-8 without control characters")
	ErrApp     = errors.New("an app name is 1 to 64 of a-z, 0-9, '.', '-' and '_', starting with a letter or digit")
	ErrChannel = errors.New("a channel is 1 to 255 bytes of UTF-8 without control characters")
)

// CheckToken returns ErrToken for what can be no token.
func CheckToken(s string) error {
	if !plain(s, MaxToken) {
		return ErrToken
	}
	return nil
}

// CheckChannel returns ErrChannel for what can be no channel.
func CheckChannel(s string) error {
	if !plain(s, MaxChannel) {
		return ErrChannel
	}
	return nil
}

// CheckApp returns ErrApp for what can be no app name.
func CheckApp(s string) error {
	if s == "" || len(s) > MaxApp {
		return ErrApp
	}
	for i := range len(s) {
		c := s[i]
		alnum := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || c != '.' && c != '-' && c != '_') {
			return ErrApp
		}
	}
	return nil
}

// plain reports whether s can stand in a key: the parts of keys are separated by NUL.
func plain(s string, limit int) bool {
	if s == "" || len(s) > limit || !utf8.ValidString(s) {
		return false
	}
	for i := range len(s) {
		if s[i] < 0x20 || s[i] == 0x7f {
			return false
		}
	}
	return true
}

// code is transport and environment in one printable byte.
func (d Device) code() byte {
	switch {
	case d.Transport == APNS && d.Environment == Sandbox:
		return 's'
	case d.Transport == APNS:
		return 'a'
	case d.Transport == FCM:
		return 'f'
	}
	return 'A' + byte(d.Transport&0x0f)<<1 + byte(d.Environment&1)
}

// AppendKey appends the device's key: app, NUL, one byte of transport and environment, token.
func (d Device) AppendKey(b []byte) []byte {
	b = append(b, d.App...)
	b = append(b, 0, d.code())
	return append(b, d.Token...)
}

// Shards is the number of slices of an audience; fixed, since it stands in the store's keys.
const Shards = 256

// Shard is the device's slice of every audience: a hash of the token, stable for ever.
func Shard(token []byte) uint32 { return uint32(xxhash.Sum64(token) % Shards) }

// ShardString is Shard of a string.
func ShardString(token string) uint32 { return uint32(xxhash.Sum64String(token) % Shards) }
