package ingest

import (
	"bytes"
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// Permission bits of a key, as AirNotifier numbers them.
const (
	bitCreate    = 1
	bitDelete    = 2
	bitNotify    = 4
	bitBroadcast = 8
)

// accessKey is one issued key. It never changes: a new record of it makes a new one.
type accessKey struct {
	id          string
	hash        [32]byte
	permissions uint32
	pending     bool
	issuedAtUS  int64
	claim       *claim // nil: an operator's key
}

// claim is the site that a key was given to: whoever knew that siteid for that URL.
type claim struct {
	url     string // as siteURL writes it, for comparing
	wwwroot string // as claimed
	channel string
	proven  bool // as the record says; who owns the URL is the app's to say
}

// appState is an app as the log has it. Fields other than the maps are replaced, never changed.
type appState struct {
	configured   bool // there is an AppConfigured: keys alone make no app
	blocked      []netip.Prefix
	policy       pushv1.AccessKeyPolicy
	allowed      map[string]bool // by siteURL
	sitesMayNot  bool            // site keys cannot register
	waived       bool            // unproven sites may broadcast
	keys         map[[32]byte]*accessKey
	byID         map[string]*accessKey
	proven       map[string][]*accessKey // by URL, those whose claims are proven
	owners       map[string]string       // URL to the channel of the claim that owns it
	pendingSince map[string]int64        // key id to the time of the request
}

// registry is apps and keys in memory, for every request at once.
type registry struct {
	mu   sync.RWMutex
	apps map[string]*appState
}

// grant is what a request may do: a snapshot, safe to keep.
type grant struct {
	app         string
	blocked     []netip.Prefix
	policy      pushv1.AccessKeyPolicy
	allowed     map[string]bool
	sitesMayNot bool
	waived      bool
	key         *accessKey
	permissions uint32 // those in force
	owner       bool   // the key's claim is the proven one of its URL
}

func (g *grant) may(bit uint32) bool { return g.permissions&bit == bit }

// keyID is the id of the key in force; empty before there is one.
func (g *grant) keyID() string {
	if g.key == nil {
		return ""
	}
	return g.key.id
}

// claim is the site that the key is bound to; nil for an operator's key.
func (g *grant) claim() *claim {
	if g.key == nil {
		return nil
	}
	return g.key.claim
}

// find looks an app and one of its keys up.
func (r *registry) find(name string, hash *[32]byte) (g grant, appThere, keyThere bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	app := r.apps[name]
	if app == nil || !app.configured {
		return grant{}, false, false
	}
	g = grant{app: name, blocked: app.blocked, policy: app.policy, allowed: app.allowed, sitesMayNot: app.sitesMayNot, waived: app.waived}
	key := app.keys[*hash]
	if key == nil {
		return g, true, false
	}
	g.key = key
	g.owner = key.claim != nil && key.claim.proven && app.owners[key.claim.url] == key.claim.channel
	g.permissions = effective(key, g.owner, app.sitesMayNot, app.waived)
	return g, true, true
}

// effective are the permissions in force. The app's settings are read at each request, so that changing one needs no new
// keys: a site key registers unless the app forbids it, and broadcasts only for the owner of its URL, or where the app waives that.
func effective(key *accessKey, owner, sitesMayNot, waived bool) uint32 {
	p := key.permissions
	if key.claim == nil || p == 0 {
		return p
	}
	if sitesMayNot {
		p &^= bitCreate
	}
	if !owner {
		p &^= bitBroadcast
		if waived && p&bitNotify != 0 {
			p |= bitBroadcast
		}
	}
	return p
}

// state is the app's, made if need be. r.mu is held.
func (r *registry) state(name string) *appState {
	app := r.apps[name]
	if app == nil {
		app = &appState{
			keys: map[[32]byte]*accessKey{}, byID: map[string]*accessKey{},
			proven: map[string][]*accessKey{}, owners: map[string]string{}, pendingSince: map[string]int64{},
		}
		r.apps[name] = app
	}
	return app
}

// apply folds a record of the topic apps. What it holds depends only on the last record of each key, never on the order among
// keys: compaction changes that order.
func (r *registry) apply(rec schemas.Record) error {
	if rec.Tombstone() {
		r.forget(rec.Key)
		return nil
	}
	e, err := rec.Event()
	if err != nil {
		return fmt.Errorf("read an app: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch e := e.(type) {
	case *pushv1.AppConfigured:
		r.state(e.App).configure(e)
	case *pushv1.AccessKeyIssued:
		r.state(e.App).issue(e)
	case *pushv1.AccessKeyRevoked:
		r.state(e.App).drop(e.KeyId)
	}
	return nil // credentials are the senders'
}

// forget applies a tombstone: <app>/config or <app>/key/<id>.
func (r *registry) forget(key []byte) {
	name, rest, _ := bytes.Cut(key, []byte{'/'})
	r.mu.Lock()
	defer r.mu.Unlock()
	app := r.apps[string(name)]
	if app == nil {
		return
	}
	if id, ok := bytes.CutPrefix(rest, []byte("key/")); ok {
		app.drop(string(id))
	} else if string(rest) == "config" {
		app.configured = false
	}
}

func (a *appState) configure(e *pushv1.AppConfigured) {
	a.configured, a.policy = true, e.AccessKeyPolicy
	a.sitesMayNot, a.waived = e.SiteKeysCannotRegister, e.UnprovenSitesMayBroadcast
	a.blocked = networks(e.BlockedNetworks)
	a.allowed = make(map[string]bool, len(e.AllowedSites))
	for _, s := range e.AllowedSites {
		if u, ok := schemas.SiteURL(s); ok {
			a.allowed[u] = true
		}
	}
}

func (a *appState) issue(e *pushv1.AccessKeyIssued) {
	a.drop(e.KeyId)
	if len(e.ValueHash) != len([32]byte{}) {
		return // a key that nobody can hold
	}
	key := &accessKey{
		id: e.KeyId, hash: [32]byte(e.ValueHash), permissions: e.Permissions, pending: e.Pending, issuedAtUS: e.IssuedAtUs,
	}
	if c := e.Claim; c != nil {
		u, _ := schemas.SiteURL(c.Url)
		key.claim = &claim{url: u, wwwroot: c.Url, channel: c.Channel, proven: c.Proven && !e.Pending}
	}
	a.keys[key.hash], a.byID[key.id] = key, key
	if key.pending {
		a.pendingSince[key.id] = key.issuedAtUS
	}
	a.own(key, true)
}

func (a *appState) drop(id string) {
	key := a.byID[id]
	if key == nil {
		return
	}
	delete(a.byID, id)
	delete(a.pendingSince, id)
	if a.keys[key.hash] == key {
		delete(a.keys, key.hash)
	}
	a.own(key, false)
}

// own finds the owner of a key's URL again: of its proven claims, that of the key issued last (of two at once, that with
// the greater id), so that a site which got a new siteid takes its URL along.
func (a *appState) own(changed *accessKey, there bool) {
	if changed.claim == nil || !changed.claim.proven {
		return
	}
	u := changed.claim.url
	keys := slices.DeleteFunc(a.proven[u], func(k *accessKey) bool { return k.id == changed.id })
	if there {
		keys = append(keys, changed)
	}
	if len(keys) == 0 {
		delete(a.proven, u)
		delete(a.owners, u)
		return
	}
	a.proven[u] = keys
	last := slices.MaxFunc(keys, func(x, y *accessKey) int {
		return cmp.Or(cmp.Compare(x.issuedAtUS, y.issuedAtUS), strings.Compare(x.id, y.id))
	})
	a.owners[u] = last.claim.channel
}

// claimIsProven reports whether a claim's channel is that of the URL's owner already.
func (r *registry) claimIsProven(app, u, channel string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	a := r.apps[app]
	return a != nil && a.owners[u] == channel
}

// pending counts an app's keys that wait for approval, and names some that waited too long.
func (r *registry) pending(app string, before time.Time, most int) (waiting int, expired []string) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	a := r.apps[app]
	if a == nil {
		return 0, nil
	}
	for id, since := range a.pendingSince {
		switch {
		case since >= before.UnixMicro():
			waiting++
		case len(expired) < most:
			expired = append(expired, id)
		}
	}
	return waiting, expired
}

// networks reads addresses and CIDRs; blank and malformed lines block nobody.
func networks(lines []string) (nets []netip.Prefix) {
	for _, text := range lines {
		for line := range strings.FieldsSeq(text) { // one setting may hold several lines
			if p, err := netip.ParsePrefix(line); err == nil {
				nets = append(nets, p.Masked())
			} else if a, err := netip.ParseAddr(line); err == nil {
				nets = append(nets, netip.PrefixFrom(a, a.BitLen()))
			}
		}
	}
	return nets
}

func blocks(nets []netip.Prefix, address string) bool {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return false
	}
	for _, n := range nets {
		if n.Contains(a.Unmap()) || n.Contains(a) {
			return true
		}
	}
	return false
}
