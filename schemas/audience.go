package schemas

import (
	"errors"

	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// ErrBehind says that a store has not applied what the answer would need. Ask again later.
var ErrBehind = errors.New("the store has not applied the log that far yet")

// Watermark is, by partition of devices, the offset after the last record that must have been applied. Nil asks for nothing.
type Watermark []int64

// Reached reports whether applied, in the same form, is nowhere behind w.
func (w Watermark) Reached(applied []int64) bool {
	for p, end := range w {
		if end > 0 && (p >= len(applied) || applied[p] < end) {
			return false
		}
	}
	return true
}

// Cursor is a place in an audience, in the order shard, token (bytewise), environment: after that device. The zero Cursor is
// before the first.
type Cursor struct {
	Shard       uint32
	Token       string
	Environment Environment
	Set         bool
}

// CursorFrom reads an event's cursor; nil is the zero Cursor.
func CursorFrom(c *pushv1.Cursor) Cursor {
	return Cursor{c.GetShard(), c.GetToken(), c.GetEnvironment(), c.GetSet()}
}

// Event is the cursor as events carry it.
func (c Cursor) Event() *pushv1.Cursor {
	return &pushv1.Cursor{Shard: c.Shard, Token: c.Token, Environment: c.Environment, Set: c.Set}
}

// ShardRange is the half-open range of shards that number rng of ranges equal ranges covers. ranges is a power of two up to Shards.
func ShardRange(rng, ranges uint32) (from, to uint32) {
	width := uint32(Shards) / ranges
	return rng * width, (rng + 1) * width
}

// PageQuery asks for the devices of some channels of an app on one transport, in cursor order, each device once.
type PageQuery struct {
	App                string
	Channels           []string // at least one, unique
	Transport          Transport
	ShardFrom, ShardTo uint32 // half-open
	After              Cursor
	Limit              int       // devices, at least 1
	Watermark          Watermark // ErrBehind unless applied, checked in the same snapshot as the rows
}

// Page is a reusable answer to a PageQuery.
type Page struct {
	Devices []AudienceDevice
	// Next stands after the last device; where there was none, it is the query's After.
	Next Cursor
	// Done: no device of the range comes after Next.
	Done  bool
	arena []byte
}

// AudienceDevice is one row of an audience. Token belongs to the page.
type AudienceDevice struct {
	Token          []byte
	Environment    Environment
	RegisteredAtUS int64
	Platform       string // lower case
}

// Reset empties the page and keeps its memory.
func (p *Page) Reset() {
	p.Devices, p.Next, p.Done, p.arena = p.Devices[:0], Cursor{}, false, p.arena[:0]
}

// Add appends a device with a copy of its token.
func (p *Page) Add(token []byte, env Environment, registeredAtUS int64, platform string) {
	start := len(p.arena)
	p.arena = append(p.arena, token...) // a grown arena leaves the older tokens where they are
	p.Devices = append(p.Devices, AudienceDevice{p.arena[start:len(p.arena):len(p.arena)], env, registeredAtUS, platform})
}

// DeviceState is what a store knows of a device.
type DeviceState struct {
	// Known: the log holds a registration that no unregistration followed.
	Known bool
	// Alive: known, and registered after the last invalidation's as_of.
	Alive          bool
	RegisteredAtUS int64
	Platform       string   // as sent
	Channels       []string // subscribed, sorted; also while the device is dead
}
