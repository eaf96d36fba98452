package migrate

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

const (
	allPermissions = 31
	maxKeyValue    = 1024 // bytes; ingest reads no longer header
	maxKeyText     = 255  // bytes of contact and description; what is longer is cut
)

// Results of keys, in the words of the report.
const (
	operatorKey   = "of an operator"
	siteKey       = "of a site, to be approved before it broadcasts"
	provenSiteKey = "of a site, proven"
	sharedSiteKey = "of a site that several keys name, to be approved before it broadcasts"
	noKey         = "no key"
	keyUnusable   = "key that no header can carry"
	badPermission = "permission is no number"
	revokedSince  = "revoked since, in Campanile"
	sameKey       = "the same key in several records"
	noKeyApp      = "no app: name the file <app>.keys.json, or give --app"
)

// earliestKey is when AirNotifier's first version had keys; an earlier time was never one.
var earliestKey = time.Date(2012, 1, 1, 0, 0, 0, 0, time.UTC) //nolint:gochecknoglobals // a constant, but for Go

// readKey decides what a document of the collection keys becomes. Its value is kept as its hash alone, under which every site's
// settings go on working.
//
// A key whose description is a site's address was given to that site: it becomes the key of a claim to it, which shares nothing with
// other sites. AirNotifier let each of them reach every phone of the app.
func readKey(app string, doc []byte, unbound bool, now time.Time) (e *pushv1.AccessKeyIssued, reason string) {
	fields := map[string]value{}
	members(doc, func(name string, raw []byte) { fields[name] = readValue(raw) })
	key := fields["key"]
	switch {
	case key.missing():
		return nil, noKey
	case key.kind != text || !headerText(key.text):
		return nil, keyUnusable
	}
	var permissions int64 // a key without the field permits nothing
	if p := fields["permission"]; !p.missing() {
		var ok bool
		if permissions, ok = p.int(); !ok {
			return nil, badPermission
		}
	}
	hash := sha256.Sum256([]byte(key.text))
	e = &pushv1.AccessKeyIssued{
		App: app, KeyId: hex.EncodeToString(hash[:16]), ValueHash: hash[:], Permissions: uint32(permissions & allPermissions),
		Description: cut(fields["description"].string()), Contact: cut(fields["contact"].string()), IssuedAtUs: now.UnixMicro(),
	}
	if s, ok := fields["created"].seconds(); ok && s > float64(earliestKey.Unix()) && s < float64(now.Unix()) {
		e.IssuedAtUs = int64(s * 1e6)
	}
	if site, ok := schemas.SiteURL(fields["description"].string()); ok && !unbound {
		e.Claim = &pushv1.Claim{Url: fields["description"].string(), Channel: importedChannel(app, site, e.KeyId)}
	}
	return e, ""
}

// importedChannel is the channel of a claim that came with its key. AirNotifier kept no siteid, so the claim is this key's alone.
func importedChannel(app, site, keyID string) string {
	sum := sha256.Sum256([]byte("campanile imported claim\x00" + app + "\x00" + site + "\x00" + keyID))
	return "site-" + hex.EncodeToString(sum[:16])
}

// headerText reports whether s can be sent as X-AN-APP-KEY, byte by byte as it stands.
func headerText(s string) bool {
	if s == "" || len(s) > maxKeyValue || strings.TrimSpace(s) != s || strings.ContainsRune(s, utf8.RuneError) {
		return false
	}
	for i := range len(s) {
		if s[i] < 0x20 || s[i] == 0x7f {
			return false
		}
	}
	return true
}

// cut bounds a text that is kept for people to read.
func cut(s string) string {
	if len(s) > maxKeyText {
		s = s[:maxKeyText]
	}
	return strings.ToValidUTF8(s, "")
}

// appKeys are the keys of one app that are to be issued.
type appKeys struct {
	app    string
	issued []*pushv1.AccessKeyIssued
	seen   map[string]bool
}

// prove gives each site that exactly one key names, and nobody has proven, to that key.
func (k *appKeys) prove(s *State) {
	claims, proven := s.sites(k.app)
	for _, e := range k.issued {
		if site, ok := schemas.SiteURL(e.Claim.GetUrl()); ok {
			claims[site]++
		}
	}
	for _, e := range k.issued {
		if site, ok := schemas.SiteURL(e.Claim.GetUrl()); ok && claims[site] == 1 && !proven[site] {
			e.Claim.Proven = true
		}
	}
}

// kindOf says in the report's words what an imported key is.
func (k *appKeys) kindOf(e *pushv1.AccessKeyIssued, prove bool) string {
	switch {
	case e.Claim == nil:
		return operatorKey
	case e.Claim.Proven:
		return provenSiteKey
	case prove:
		return sharedSiteKey
	}
	return siteKey
}
