package projections

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// Kind is what a record of the topic devices says.
type Kind uint8

// The kinds of facts.
const (
	Registered Kind = iota + 1
	Unregistered
	Invalidated
	Subscribed
	Unsubscribed
)

// Fact is a record of the topic devices, checked.
type Fact struct {
	Offset       int64
	Kind         Kind
	Channel      string       // Subscribed and Unsubscribed
	Registration Registration // Registered
	AsOfUS       int64        // Invalidated, Unix microseconds
}

// Facts is a batch of devices as the fold wants it. Its strings may alias the batch: neither outlives it.
type Facts struct {
	// Next is the offset after the batch.
	Next    int64
	devices []schemas.Device
	facts   []fact
}

type fact struct {
	device int32 // its place in devices
	Fact
}

// Change is a device whose state a batch changed. Before and After share no memory that Fold would write to.
type Change struct {
	Device        schemas.Device
	Before, After State
}

// Read decodes a batch. It returns schemas.ErrUnknownType or schemas.ErrMalformed, wrapped, for the first record that cannot
// be folded. Tombstones say nothing: compaction makes them of nothing that we wrote, and the offset moves past them.
func Read(in schemas.Batch) (*Facts, error) {
	if in.Topic != schemas.Devices {
		return nil, fmt.Errorf("fold a batch of %s: only %s makes devices", in.Topic, schemas.Devices)
	}
	f := &Facts{Next: in.Next(), facts: make([]fact, 0, len(in.Records))}
	var d decoder
	seen := make(map[schemas.Device]int32, len(in.Records))
	for i := range in.Records {
		r := &in.Records[i]
		if r.Tombstone() {
			continue
		}
		device, said, err := d.decode(r)
		if err != nil {
			return nil, err
		}
		n, known := seen[device]
		if !known {
			n = int32(len(f.devices))
			f.devices = append(f.devices, device)
			seen[device] = n
		}
		f.facts = append(f.facts, fact{n, said})
	}
	f.sortDevices()
	return f, nil
}

// sortDevices brings the devices into the order of [Compare], so that stores read and write (and lock) in key order.
func (f *Facts) sortDevices() {
	if slices.IsSortedFunc(f.devices, Compare) {
		return
	}
	order := make([]int32, len(f.devices))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortFunc(order, func(a, b int32) int { return Compare(f.devices[a], f.devices[b]) })
	sorted, place := make([]schemas.Device, len(order)), make([]int32, len(order))
	for i, from := range order {
		sorted[i], place[from] = f.devices[from], int32(i)
	}
	f.devices = sorted
	for i := range f.facts {
		f.facts[i].device = place[f.facts[i].device]
	}
}

// Devices are those that the batch is about, once each, in the order of [Compare].
func (f *Facts) Devices() []schemas.Device { return f.devices }

// Fold moves the states of f's devices, given in the order of Devices, over the facts at or above the offset from, and
// returns what changed, in the same order. The states themselves are not written to.
func (f *Facts) Fold(from int64, states []State) []Change {
	after := slices.Clone(states)
	for i := range f.facts {
		if said := &f.facts[i]; said.Offset >= from {
			after[said.device] = after[said.device].Next(said.Fact)
		}
	}
	changes := make([]Change, 0, len(after))
	for i := range after {
		if !after[i].Equal(&states[i]) {
			changes = append(changes, Change{Device: f.devices[i], Before: states[i], After: after[i]})
		}
	}
	return changes
}

// Compare orders devices as the stores' keys do: app, transport, environment, token.
func Compare(a, b schemas.Device) int {
	return cmp.Or(strings.Compare(a.App, b.App), cmp.Compare(a.Transport, b.Transport),
		cmp.Compare(a.Environment, b.Environment), strings.Compare(a.Token, b.Token))
}

// Candidates are the devices that a token of an app can be.
func Candidates(app, token string) []schemas.Device {
	var all []schemas.Device
	for _, t := range schemas.Transports {
		all = append(all, schemas.Device{App: app, Transport: t, Token: token})
		if t == schemas.APNS {
			all = append(all, schemas.Device{App: app, Transport: t, Environment: schemas.Sandbox, Token: token})
		}
	}
	return all
}

// decoder holds one event of each type, so that decoding allocates nothing.
type decoder struct {
	registered   pushv1.TokenRegistered
	unregistered pushv1.TokenUnregistered
	invalidated  pushv1.TokenInvalidated
	subscribed   pushv1.ChannelSubscribed
	unsubscribed pushv1.ChannelUnsubscribed
}

func (d *decoder) decode(r *schemas.Record) (device schemas.Device, said Fact, err error) {
	said.Offset = r.Offset
	switch t := r.Type(); t {
	case pushv1.EventType_EVENT_TYPE_TOKEN_REGISTERED:
		e := &d.registered
		if err = r.Into(e); err != nil {
			return device, said, err
		}
		device, said.Kind = schemas.DeviceOf(e), Registered
		said.Registration = Registration{
			AtUS: e.RegisteredAtUs, Platform: clean(e.Platform), AppVersion: clean(e.AppVersion), Locale: clean(e.Locale),
			TimeZone: clean(e.TimeZone), UserID: clean(e.UserId), KeyID: clean(e.KeyId),
		}
	case pushv1.EventType_EVENT_TYPE_TOKEN_UNREGISTERED:
		err = r.Into(&d.unregistered)
		device, said.Kind = schemas.DeviceOf(&d.unregistered), Unregistered
	case pushv1.EventType_EVENT_TYPE_TOKEN_INVALIDATED:
		err = r.Into(&d.invalidated)
		device, said.Kind, said.AsOfUS = schemas.DeviceOf(&d.invalidated), Invalidated, d.invalidated.AsOfUs
	case pushv1.EventType_EVENT_TYPE_CHANNEL_SUBSCRIBED:
		err = r.Into(&d.subscribed)
		device, said.Kind, said.Channel = schemas.DeviceOf(&d.subscribed), Subscribed, d.subscribed.Channel
	case pushv1.EventType_EVENT_TYPE_CHANNEL_UNSUBSCRIBED:
		err = r.Into(&d.unsubscribed)
		device, said.Kind, said.Channel = schemas.DeviceOf(&d.unsubscribed), Unsubscribed, d.unsubscribed.Channel
	default:
		// A known event of another topic is malformed here; Event says so of one that nobody knows.
		if _, err = r.Event(); err == nil {
			err = fmt.Errorf("%s[%d]@%d: %s: %w", r.Topic, r.Partition, r.Offset, t, schemas.ErrMalformed)
		}
	}
	if err == nil {
		err = check(r, device, said)
	}
	return device, said, err
}

// check refuses what no store could keep under a key of its own: such a record was never written by ingest. The text of the
// token or channel stays out of the error.
func check(r *schemas.Record, device schemas.Device, said Fact) error {
	err := cmp.Or(checkDevice(device), checkChannel(said))
	if err != nil {
		return fmt.Errorf("%s[%d]@%d: %w: %w", r.Topic, r.Partition, r.Offset, schemas.ErrMalformed, err)
	}
	return nil
}

func checkChannel(said Fact) error {
	if said.Kind == Subscribed || said.Kind == Unsubscribed {
		return schemas.CheckChannel(said.Channel)
	}
	return nil
}

func checkDevice(d schemas.Device) error {
	if err := cmp.Or(schemas.CheckApp(d.App), schemas.CheckToken(d.Token)); err != nil {
		return err
	}
	if d.Transport < 1 || d.Transport > maxTransport {
		return fmt.Errorf("transport %d", d.Transport)
	}
	if d.Environment != schemas.Production && (d.Transport != schemas.APNS || d.Environment != schemas.Sandbox) {
		return fmt.Errorf("environment %d on transport %d", d.Environment, d.Transport)
	}
	return nil
}

// maxTransport is the last number that fits into a device's key (schemas.Device.AppendKey keeps four bits of it).
const maxTransport = 15

// clean makes s fit for any database: PostgreSQL takes neither NUL nor broken UTF-8 in a text, and a registration must not be
// lost over a bad locale.
func clean(s string) string {
	if utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 {
		return s
	}
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}
