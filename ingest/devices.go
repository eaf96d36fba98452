package ingest

import (
	"bytes"
	"fmt"
	"sync"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
	"github.com/campanile-push/campanile/vault"
)

// maxKnown is the size of one generation of devices known to be registered: 8 bytes each, two generations.
const maxKnown = 1 << 17

// deviceMemory is what ingest keeps of devices, under keyed hashes: those that may be dead, from the log, and some that are
// surely registered. Neither decides anything against a device: dead ones are asked about at the store, and to be known only spares
// a question.
type deviceMemory struct {
	hasher vault.Hasher

	mu    sync.RWMutex
	dead  map[uint64]int64 // hash to as_of, Unix microseconds; grows with the dead alone
	known recentSet
}

func newDeviceMemory(h vault.Hasher) *deviceMemory {
	return &deviceMemory{hasher: h, dead: make(map[uint64]int64), known: recentSet{limit: maxKnown}}
}

func (m *deviceMemory) hash(d schemas.Device) uint64 {
	var buf [256]byte
	return m.hasher.Hash(d.AppendKey(buf[:0]))
}

// look reports what is remembered of a device; asOf is of the last invalidation, zero if there is none.
func (m *deviceMemory) look(h uint64) (asOf int64, known bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.dead[h], m.known.has(h)
}

func (m *deviceMemory) learn(h uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.known.add(h)
}

func (m *deviceMemory) forget(h uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.known.remove(h)
}

func (m *deviceMemory) deadCount() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return len(m.dead)
}

// apply follows the topic devices. The set may hold devices that live (an invalidation that came after a newer registration),
// since registrations of the living are not kept; it lacks none that the log calls dead.
func (m *deviceMemory) apply(r schemas.Record) error {
	if r.Tombstone() {
		return nil
	}
	switch r.Type() {
	case pushv1.EventType_EVENT_TYPE_CHANNEL_SUBSCRIBED, pushv1.EventType_EVENT_TYPE_CHANNEL_UNSUBSCRIBED:
		return nil
	case pushv1.EventType_EVENT_TYPE_TOKEN_REGISTERED:
		return m.registered(r)
	case pushv1.EventType_EVENT_TYPE_TOKEN_UNREGISTERED:
		m.mu.Lock()
		defer m.mu.Unlock()
		h := m.hashOf(r)
		delete(m.dead, h)
		m.known.remove(h)
		return nil
	case pushv1.EventType_EVENT_TYPE_TOKEN_INVALIDATED:
		var e pushv1.TokenInvalidated
		if err := r.Into(&e); err != nil {
			return fmt.Errorf("read an invalidation: %w", err)
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		h := m.hashOf(r)
		m.dead[h] = max(m.dead[h], e.AsOfUs)
		return nil
	default:
		if _, err := r.Event(); err != nil {
			return fmt.Errorf("read a device: %w", err)
		}
		return nil
	}
}

func (m *deviceMemory) registered(r schemas.Record) error {
	h := m.hashOf(r)
	m.mu.RLock()
	asOf, dead := m.dead[h]
	m.mu.RUnlock()
	if !dead {
		return nil
	}
	var e pushv1.TokenRegistered
	if err := r.Into(&e); err != nil {
		return fmt.Errorf("read a registration: %w", err)
	}
	if e.RegisteredAtUs > asOf { // at or before it: still dead
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.dead, h)
	}
	return nil
}

// hashOf is the hash of the device that a record's key names: everything before the last NUL, which separates the suffix.
func (m *deviceMemory) hashOf(r schemas.Record) uint64 {
	return m.hasher.Hash(r.Key[:max(0, bytes.LastIndexByte(r.Key, 0))])
}
