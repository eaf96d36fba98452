package migrate

import (
	"crypto/sha256"
	"fmt"
	"strings"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// digest names a device or a subscription in little memory. 16 bytes of SHA-256 do not meet by chance.
type digest [16]byte

// deviceState is the last thing that the log says of a device.
type deviceState uint8

const (
	deviceNew deviceState = iota
	deviceRegistered
	deviceUnregistered
	deviceDead // called dead by a provider, without any registration
)

// keyState is the last thing that the log says of an access key.
type keyState uint8

const (
	keyNew keyState = iota
	keyIssued
	keyRevoked
)

// State is what the log has decided already: an importer changes none of it. Feed Apply with the topics apps and devices from their
// beginnings. It takes some 40 bytes for each device and subscription. It is for one goroutine.
type State struct {
	configs       map[string]bool
	credentials   map[credentialsOf]bool
	keys          map[keyOf]issuedKey
	devices       map[digest]deviceState
	subscriptions map[digest]subscriptionState
	buf           []byte
	events        stateEvents
}

type credentialsOf struct {
	app       string
	transport schemas.Transport
}

type keyOf struct{ app, id string }

type issuedKey struct {
	state   keyState
	channel string // of its claim; empty for an operator's key
	site    string // the claim's address, as schemas.SiteURL writes it
	proven  bool
}

// subscriptionState is whether a subscription was decided, and counted in this run.
type subscriptionState uint8

const (
	subscriptionInLog subscriptionState = iota + 1
	subscriptionCounted
)

// stateEvents are decoded into again and again.
type stateEvents struct {
	registered   pushv1.TokenRegistered
	unregistered pushv1.TokenUnregistered
	invalidated  pushv1.TokenInvalidated
	subscribed   pushv1.ChannelSubscribed
	unsubscribed pushv1.ChannelUnsubscribed
}

// NewState returns the state of an empty log.
func NewState() *State {
	return &State{
		configs: map[string]bool{}, credentials: map[credentialsOf]bool{}, keys: map[keyOf]issuedKey{},
		devices: map[digest]deviceState{}, subscriptions: map[digest]subscriptionState{},
	}
}

// HasApp reports whether the app was configured.
func (s *State) HasApp(app string) bool { return s.configs[app] }

// key finds the key in force whose id is, or begins with, id.
func (s *State) key(app, id string) (fullID string, key issuedKey, err error) {
	if k := s.keys[keyOf{app, id}]; k.state == keyIssued {
		return id, k, nil
	}
	for k, issued := range s.keys {
		if k.app != app || issued.state != keyIssued || !strings.HasPrefix(k.id, id) {
			continue
		}
		if fullID != "" {
			return "", issuedKey{}, fmt.Errorf("several keys of %s have ids that begin with %q: give more of it", app, id)
		}
		fullID, key = k.id, issued
	}
	if fullID == "" {
		return "", issuedKey{}, fmt.Errorf("app %s has no key in force whose id begins with %q: `campanile key list %s`", app, id, app)
	}
	return fullID, key, nil
}

// sites counts the claims to each address of an app, and says which of them are proven.
func (s *State) sites(app string) (claims map[string]int, proven map[string]bool) {
	claims, proven = map[string]int{}, map[string]bool{}
	for k, key := range s.keys {
		if k.app != app || key.state != keyIssued || key.channel == "" {
			continue
		}
		claims[key.site]++
		proven[key.site] = proven[key.site] || key.proven
	}
	return claims, proven
}

// Apply folds one record of apps or devices.
func (s *State) Apply(r schemas.Record) error {
	if r.Tombstone() {
		return nil
	}
	if r.Topic == schemas.Devices {
		return s.applyDevice(&r)
	}
	event, err := r.Event()
	if err != nil {
		return err //nolint:wrapcheck // it names the record
	}
	switch e := event.(type) {
	case *pushv1.AppConfigured:
		s.configs[e.App] = true
	case *pushv1.CredentialsSet:
		s.credentials[credentialsOf{e.App, e.Transport}] = true
	case *pushv1.AccessKeyIssued:
		site, _ := schemas.SiteURL(e.Claim.GetUrl())
		s.keys[keyOf{e.App, e.KeyId}] = issuedKey{keyIssued, e.Claim.GetChannel(), site, e.Claim.GetProven()}
	case *pushv1.AccessKeyRevoked:
		s.keys[keyOf{e.App, e.KeyId}] = issuedKey{state: keyRevoked}
	}
	return nil
}

func (s *State) applyDevice(r *schemas.Record) (err error) {
	e := &s.events
	switch r.Type() {
	case pushv1.EventType_EVENT_TYPE_TOKEN_REGISTERED:
		if err = r.Into(&e.registered); err == nil {
			s.devices[s.device(schemas.DeviceOf(&e.registered))] = deviceRegistered
		}
	case pushv1.EventType_EVENT_TYPE_TOKEN_UNREGISTERED:
		if err = r.Into(&e.unregistered); err == nil {
			s.devices[s.device(schemas.DeviceOf(&e.unregistered))] = deviceUnregistered
		}
	case pushv1.EventType_EVENT_TYPE_TOKEN_INVALIDATED:
		if err = r.Into(&e.invalidated); err == nil {
			if d := s.device(schemas.DeviceOf(&e.invalidated)); s.devices[d] == deviceNew {
				s.devices[d] = deviceDead
			}
		}
	case pushv1.EventType_EVENT_TYPE_CHANNEL_SUBSCRIBED:
		if err = r.Into(&e.subscribed); err == nil {
			s.subscriptions[s.subscription(schemas.DeviceOf(&e.subscribed), e.subscribed.Channel)] = subscriptionInLog
		}
	case pushv1.EventType_EVENT_TYPE_CHANNEL_UNSUBSCRIBED:
		if err = r.Into(&e.unsubscribed); err == nil {
			s.subscriptions[s.subscription(schemas.DeviceOf(&e.unsubscribed), e.unsubscribed.Channel)] = subscriptionInLog
		}
	default:
		_, err = r.Event()
	}
	return err
}

func (s *State) device(d schemas.Device) digest {
	s.buf = d.AppendKey(s.buf[:0])
	return digestOf(s.buf)
}

func (s *State) subscription(d schemas.Device, channel string) digest {
	s.buf = append(append(d.AppendKey(s.buf[:0]), 0), channel...)
	return digestOf(s.buf)
}

func digestOf(b []byte) digest {
	sum := sha256.Sum256(b)
	return digest(sum[:len(digest{})])
}
