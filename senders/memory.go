package senders

import (
	"encoding/binary"
	"sync"
	"time"

	"github.com/campanile-push/campanile/schemas"
)

// What a memory holds: sends are remembered for two to four minutes, or until so many came after them. At the most a generation is a
// table of 8 MiB. Broadcasts' sends are more in a second, and fewer are needed: only an embedded log that was not closed repeats any, and
// what stands between a page and its repeat is the router's lead.
const (
	memoryTurn      = 2 * time.Minute
	memorySize      = mostLoad << 18
	broadcastMemory = memorySize / 2
)

func memorySizeOf(lane schemas.Lane) int {
	if lane == schemas.Direct {
		return memorySize
	}
	return broadcastMemory
}

// memory knows the sends of the last minutes, so that one that stands in the log twice is pushed once. It is safe for concurrent
// use, and bounded: two generations of sets, the older of which is dropped at each turn.
type memory struct {
	mu         sync.Mutex
	size       int
	turnedUS   int64
	young, old idSet
	touched    uint64 // keeps what touch reads from being optimised away
}

func newMemory(size int) *memory {
	return &memory{size: size, young: idSet{most: size}, old: idSet{most: size}}
}

// hop names one stay of a send in one topic, under one ownership: a retry is not its first attempt, and what an earlier ownership
// started may have ended nowhere, since its outcome may not have reached the log.
func hop(id schemas.ID, generation int64, from *source) schemas.ID {
	hi, lo := binary.BigEndian.Uint64(id[:8]), binary.BigEndian.Uint64(id[8:])
	hi ^= uint64(generation) * 0x9e3779b97f4a7c15
	if from != nil {
		lo ^= (uint64(from.tier+1)<<56 ^ uint64(from.offset+1)) * 0xc2b2ae3d27d4eb4f
	}
	binary.BigEndian.PutUint64(id[:8], hi)
	binary.BigEndian.PutUint64(id[8:], lo)
	return id
}

// source is where the record before this one stood.
type source struct {
	tier   uint32
	offset int64
}

// add remembers key and reports whether it was new.
func (m *memory) add(key schemas.ID, nowUS int64) bool {
	if key.IsZero() {
		return true
	}
	mark, place := fingerprint(&key)
	m.mu.Lock()
	defer m.mu.Unlock()
	if nowUS-m.turnedUS > memoryTurn.Microseconds() || m.young.n >= m.size {
		m.turn(nowUS)
	}
	return !m.old.hasMark(mark, place) && m.young.addMark(mark, place)
}

// addAll adds keys, and notes in fresh, by key, which were new. Cheaper than one by one: where a key stands is all over a memory that no
// cache holds, so the places of all are asked for before the first is waited for.
func (m *memory) addAll(keys []schemas.ID, fresh []bool, nowUS int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.touched += m.young.touch(keys) + m.old.touch(keys)
	for i := range keys {
		if keys[i].IsZero() {
			fresh[i] = true
			continue
		}
		if nowUS-m.turnedUS > memoryTurn.Microseconds() || m.young.n >= m.size {
			m.turn(nowUS)
		}
		mark, place := fingerprint(&keys[i])
		fresh[i] = !m.old.hasMark(mark, place) && m.young.addMark(mark, place)
	}
}

// turn drops the older generation. The next one is made as large as the last one was.
func (m *memory) turn(nowUS int64) {
	m.young, m.old = m.old, m.young
	m.young.begin(m.old.n)
	if nowUS-m.turnedUS > 2*memoryTurn.Microseconds() {
		m.old.begin(0)
	}
	m.turnedUS = nowUS
}

// has reports whether key is remembered.
func (m *memory) has(key schemas.ID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.young.has(key) || m.old.has(key)
}

// forget takes key out: nothing came of it.
func (m *memory) forget(key schemas.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.young.remove(key)
	m.old.remove(key)
}
