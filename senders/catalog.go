package senders

import (
	"fmt"
	"sync"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// Catalog keeps the content of live broadcasts by id, as the topic broadcasts tells it. One may serve all senders of a process. It
// is safe for concurrent use.
type Catalog struct {
	mu   sync.RWMutex
	byID map[schemas.ID]*broadcast
}

// broadcast is one entry. Content is nil where only a cancel or an end has been seen.
type broadcast struct {
	record    schemas.ID // of the content that won
	content   *content
	app       string
	requested int64 // µs; of a scheduled broadcast, when it was to be sent
	expires   int64
	cancelled bool
	ended     bool
}

// content is what a broadcast or a direct send says, rendered at most once for each transport.
type content struct {
	raw       *pushv1.Content
	expiresUS int64
	apns      lazy[APNSMessage]
	fcm       lazy[FCMMessage]
}

type lazy[T any] struct {
	once sync.Once
	m    *T
	err  error
}

func (c *content) forAPNS() (*APNSMessage, error) {
	c.apns.once.Do(func() { c.apns.m, c.apns.err = RenderAPNS(c.raw) })
	return c.apns.m, c.apns.err
}

func (c *content) forFCM() (*FCMMessage, error) {
	c.fcm.once.Do(func() { c.fcm.m, c.fcm.err = RenderFCM(c.raw, c.expiresUS) })
	return c.fcm.m, c.fcm.err
}

// NewCatalog returns an empty catalog.
func NewCatalog() *Catalog { return &Catalog{byID: map[schemas.ID]*broadcast{}} }

// ApplyBroadcasts takes one record of the topic broadcasts, in log order within a partition; tombstones included. It returns
// schemas.ErrUnknownType or schemas.ErrMalformed, wrapped.
func (c *Catalog) ApplyBroadcasts(r schemas.Record) error {
	if r.Tombstone() {
		if k, ok := schemas.ParseBroadcastKey(r.Key); ok {
			c.forget(k)
		}
		return nil
	}
	e, err := r.Event()
	if err != nil {
		return fmt.Errorf("follow broadcasts: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch e := e.(type) {
	case *pushv1.BroadcastRequested:
		b := c.entry(schemas.IDFrom(e.BroadcastId))
		if b.content != nil || b.ended {
			return nil // the first record wins, for ever
		}
		b.record, b.app, b.expires = schemas.IDFrom(e.RecordId), e.App, e.ExpiresAtUs
		b.requested = max(e.RequestedAtUs, e.SendAtUs)
		b.content = &content{raw: e.Content, expiresUS: e.ExpiresAtUs}
	case *pushv1.BroadcastCancelled:
		c.entry(schemas.IDFrom(e.BroadcastId)).cancelled = true
	case *pushv1.BroadcastEnded:
		b := c.entry(schemas.IDFrom(e.BroadcastId))
		b.ended, b.content = true, nil
	}
	return nil
}

func (c *Catalog) entry(id schemas.ID) *broadcast {
	b := c.byID[id]
	if b == nil {
		b = &broadcast{}
		c.byID[id] = b
	}
	return b
}

// forget follows a tombstone: that of the content that won ends the content, that of the state ends the entry.
func (c *Catalog) forget(k schemas.BroadcastKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.byID[k.Broadcast]
	switch {
	case b == nil:
	case k.Kind == schemas.BroadcastState:
		delete(c.byID, k.Broadcast)
	case k.Kind == schemas.BroadcastContent && k.Record == b.record:
		b.content, b.ended = nil, true
	}
}

// find returns what a send of the broadcast needs; ok is false where its content is not, or no longer, there.
func (c *Catalog) find(id schemas.ID) (b broadcast, ok bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	found := c.byID[id]
	if found == nil || found.content == nil {
		return broadcast{}, false
	}
	return *found, true
}

// Len is the number of broadcasts that the catalog knows of.
func (c *Catalog) Len() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.byID)
}
