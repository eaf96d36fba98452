package ingest

import (
	"bytes"
	"fmt"
	"sync"
	"time"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// knownBroadcast is what ingest keeps of a broadcast: who asked for it, and whether it can still be steered.
type knownBroadcast struct {
	contents         []knownContent // in log order: the first counts
	cancelled, ended bool
}

type knownContent struct {
	record   schemas.ID
	app      string
	keyID    string
	bodyHash []byte
	channels []string
	estimate int64
	atUS     int64 // when it was requested
}

// broadcastMemory is every broadcast that the log holds, which is those of the last days.
type broadcastMemory struct {
	mu  sync.RWMutex
	all map[schemas.ID]*knownBroadcast
}

// apply folds a record of the topic broadcasts.
func (m *broadcastMemory) apply(r schemas.Record) error {
	var event schemas.Event
	if !r.Tombstone() {
		var err error
		if event, err = r.Event(); err != nil {
			return fmt.Errorf("read a broadcast: %w", err)
		}
	}
	k, ok := schemas.ParseBroadcastKey(r.Key)
	if !ok {
		return fmt.Errorf("%s[%d]@%d: key: %w", r.Topic, r.Partition, r.Offset, schemas.ErrMalformed)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	b := m.all[k.Broadcast]
	if b == nil {
		b = &knownBroadcast{}
	}
	next := *b // readers hold the old one
	b = &next
	switch k.Kind {
	case schemas.BroadcastContent:
		b.contents = without(b.contents, k.Record)
		if e, ok := event.(*pushv1.BroadcastRequested); ok {
			b.contents = append(b.contents, knownContent{k.Record, e.App, e.KeyId, e.BodyHash, e.Channels, e.AudienceEstimate, e.RequestedAtUs})
		}
	case schemas.BroadcastCancel:
		b.cancelled = event != nil
	case schemas.BroadcastState:
		b.ended = event != nil
	case schemas.BroadcastRun, schemas.BroadcastRate:
	}
	if len(b.contents) == 0 && !b.cancelled && !b.ended {
		delete(m.all, k.Broadcast)
		return nil
	}
	m.all[k.Broadcast] = b
	return nil
}

// without is a copy that lacks a record.
func without(contents []knownContent, record schemas.ID) []knownContent {
	var rest []knownContent
	for _, c := range contents {
		if c.record != record {
			rest = append(rest, c)
		}
	}
	return rest
}

// find returns a snapshot; nil for a broadcast of which no request is known.
func (m *broadcastMemory) find(id schemas.ID) *knownBroadcast {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if b := m.all[id]; b != nil && len(b.contents) > 0 {
		return b
	}
	return nil
}

const (
	rememberFor   = 10 * time.Minute
	maxRemembered = 1 << 16 // requests, a generation
)

// requestMemory is what this process itself took under Idempotency-Keys, for rememberFor at least unless there are very many.
type requestMemory struct {
	mu       sync.Mutex
	now, old map[schemas.ID]*takenRequest
	turned   time.Time
}

type takenRequest struct {
	hash   [32]byte
	logged bool // the log has it
}

// take remembers a request before it is appended. It returns whether the log has the same one already; conflict says that another body
// came under its id.
func (m *requestMemory) take(id schemas.ID, hash [32]byte, now time.Time) (logged, conflict bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.now == nil || now.Sub(m.turned) > rememberFor || len(m.now) >= maxRemembered {
		m.old, m.now, m.turned = m.now, map[schemas.ID]*takenRequest{}, now
	}
	r := m.now[id]
	if r == nil {
		r = m.old[id]
	}
	if r == nil {
		m.now[id] = &takenRequest{hash: hash}
		return false, false
	}
	return r.logged, !bytes.Equal(r.hash[:], hash[:])
}

// done says what became of the append: where it failed and nothing else succeeded, the key is free again.
func (m *requestMemory) done(id schemas.ID, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, generation := range []map[schemas.ID]*takenRequest{m.now, m.old} {
		switch r := generation[id]; {
		case r == nil:
		case ok:
			r.logged = true
		case !r.logged:
			delete(generation, id)
		}
	}
}
