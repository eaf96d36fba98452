package clickhouse

import (
	"encoding/binary"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
	"github.com/campanile-push/campanile/vault"
)

// owners is the generation of the last owner of each source of sends, by topic, in one partition.
type owners map[string]int64

// deliveryRows are columns of deliveries_log.
type deliveryRows struct {
	app, transport, lane, outcome, reason []string
	kind                                  []int8
	tier                                  []uint8
	repeat, first                         []bool
	attempt, part                         []uint16
	off, sourceOff, generation, latencyUS []int64
	at, requestedAt                       []time.Time
	token                                 []uint64
	send, broadcast, request              []uuid.UUID
}

// deviceRows are columns of devices_log.
type deviceRows struct {
	app, event, transport, environment, channel, keyID []string
	platform, appVersion, locale, timeZone, reason     []string
	part                                               []uint16
	off                                                []int64
	at, asOf                                           []time.Time
	token, userHash                                    []uint64
	send                                               []uuid.UUID
}

// Kinds of deliveries_log.
const (
	kindAttempted = 1
	kindFinished  = 2
)

// newDeliveryRows has room for n rows: columns that grow would be copied a dozen times, and leave twice their size as garbage.
func newDeliveryRows(n int) *deliveryRows {
	return &deliveryRows{
		app: make([]string, 0, n), transport: make([]string, 0, n), lane: make([]string, 0, n), outcome: make([]string, 0, n), reason: make([]string, 0, n),
		kind: make([]int8, 0, n), tier: make([]uint8, 0, n), repeat: make([]bool, 0, n), first: make([]bool, 0, n),
		attempt: make([]uint16, 0, n), part: make([]uint16, 0, n),
		off: make([]int64, 0, n), sourceOff: make([]int64, 0, n), generation: make([]int64, 0, n), latencyUS: make([]int64, 0, n),
		at: make([]time.Time, 0, n), requestedAt: make([]time.Time, 0, n), token: make([]uint64, 0, n),
		send: make([]uuid.UUID, 0, n), broadcast: make([]uuid.UUID, 0, n), request: make([]uuid.UUID, 0, n),
	}
}

// foldDeliveries makes rows of the records at from and after, and returns them with the owners after the last. It is a
// function of its arguments alone, so that a batch read again gives the same rows. The owners given are not changed.
func foldDeliveries(in schemas.Batch, from int64, before owners) (*deliveryRows, owners, error) {
	rows, now := newDeliveryRows(len(in.Records)), maps.Clone(before)
	if now == nil {
		now = owners{}
	}
	var (
		attempted pushv1.DeliveryAttempted
		finished  pushv1.DeliveryFinished
		owner     pushv1.OwnerChanged
	)
	for i := range in.Records {
		r := &in.Records[i]
		if r.Offset < from || r.Tombstone() {
			continue
		}
		switch r.Type() {
		case pushv1.EventType_EVENT_TYPE_OWNER_CHANGED:
			if err := r.Into(&owner); err != nil {
				return nil, nil, err
			}
			source := string(schemas.SendTopic{Transport: owner.Transport, Lane: owner.Lane, Tier: owner.Tier}.Topic())
			now[source] = max(now[source], owner.Generation)
		case pushv1.EventType_EVENT_TYPE_DELIVERY_ATTEMPTED:
			if err := r.Into(&attempted); err != nil {
				return nil, nil, err
			}
			rows.attempted(r, &attempted, now)
		case pushv1.EventType_EVENT_TYPE_DELIVERY_FINISHED:
			if err := r.Into(&finished); err != nil {
				return nil, nil, err
			}
			rows.finished(r, &finished, now)
		default:
			e, err := r.Event()
			if err != nil {
				return nil, nil, err
			}
			return nil, nil, fmt.Errorf("%s[%d]@%d: type %d does not belong here: %w", r.Topic, r.Partition, r.Offset, e.EventType(), schemas.ErrMalformed)
		}
	}
	return rows, now, nil
}

func (d *deliveryRows) attempted(r *schemas.Record, e *pushv1.DeliveryAttempted, now owners) {
	d.common(r, e.App, e.Transport, e.Outcome, e.Reason, e.Source, e.Generation)
	d.kind = append(d.kind, kindAttempted)
	d.repeat = append(d.repeat, late(e.Transport, e.Source, e.Generation, now))
	d.first = append(d.first, e.First)
	d.attempt = append(d.attempt, small(e.Attempt))
	d.latencyUS = append(d.latencyUS, max(e.LatencyUs, 0))
	d.at = append(d.at, moment(e.AttemptedAtUs))
	d.requestedAt = append(d.requestedAt, moment(0))
	d.send = append(d.send, id(e.SendId))
	d.broadcast = append(d.broadcast, id(e.BroadcastId))
	d.request = append(d.request, uuid.UUID{})
}

func (d *deliveryRows) finished(r *schemas.Record, e *pushv1.DeliveryFinished, now owners) {
	outcome := e.Outcome
	if !outcome.Final() { // of a newer sender, which knows more outcomes; tally counts it so too
		outcome = pushv1.Outcome_OUTCOME_REJECTED
	}
	d.common(r, e.App, e.Transport, outcome, e.Reason, e.Source, e.Generation)
	d.kind = append(d.kind, kindFinished)
	d.repeat = append(d.repeat, late(e.Transport, e.Source, e.Generation, now))
	d.first = append(d.first, e.First)
	d.attempt = append(d.attempt, small(e.Attempt))
	d.latencyUS = append(d.latencyUS, max(e.LatencyUs, 0))
	d.at = append(d.at, moment(e.FinishedAtUs))
	d.requestedAt = append(d.requestedAt, moment(e.RequestedAtUs))
	d.send = append(d.send, id(e.SendId))
	d.broadcast = append(d.broadcast, id(e.BroadcastId))
	d.request = append(d.request, id(e.RequestId))
}

// late reports whether a newer owner had taken the source over when the record was written: it has sent the push too, or will.
// What the router itself finished has no owner.
func late(t schemas.Transport, source *pushv1.Source, generation int64, now owners) bool {
	if source.GetLane() == schemas.ByRouter {
		return false
	}
	return generation < now[string(schemas.SendTopic{Transport: t, Lane: source.GetLane(), Tier: source.GetTier()}.Topic())]
}

func (d *deliveryRows) common(r *schemas.Record, app string, t schemas.Transport, o schemas.Outcome, reason string, source *pushv1.Source, generation int64) {
	if n := len(d.app); n > 0 && d.app[n-1] == app {
		app = d.app[n-1] // most rows are of the app of the row before
	} else {
		app = strings.Clone(app) // the event's strings alias the record
	}
	d.app = append(d.app, app)
	d.transport = append(d.transport, t.Word())
	d.outcome = append(d.outcome, o.Word())
	d.reason = append(d.reason, word(reason))
	d.lane = append(d.lane, source.GetLane().Word())
	d.tier = append(d.tier, uint8(min(source.GetTier(), 255)))
	d.sourceOff = append(d.sourceOff, source.GetOffset())
	d.generation = append(d.generation, generation)
	d.part = append(d.part, uint16(r.Partition))
	d.off = append(d.off, r.Offset)
	var token uint64
	if len(r.Key) == 8 {
		token = binary.BigEndian.Uint64(r.Key)
	}
	d.token = append(d.token, token)
}

// foldDevices makes rows of the records at from and after.
func foldDevices(in schemas.Batch, from int64, hash vault.Hasher) (*deviceRows, error) {
	rows := &deviceRows{}
	for i := range in.Records {
		r := &in.Records[i]
		if r.Offset < from || r.Tombstone() {
			continue
		}
		e, err := r.Event()
		if err != nil {
			return nil, err
		}
		switch e := e.(type) {
		case *pushv1.TokenRegistered:
			rows.add(r, hash, "registered", schemas.DeviceOf(e), e.RegisteredAtUs, deviceFields{
				keyID: e.KeyId, platform: e.Platform, version: e.AppVersion, locale: e.Locale, zone: e.TimeZone, user: e.UserId,
			})
		case *pushv1.TokenUnregistered:
			rows.add(r, hash, "unregistered", schemas.DeviceOf(e), e.UnregisteredAtUs, deviceFields{keyID: e.KeyId})
		case *pushv1.TokenInvalidated:
			rows.add(r, hash, "invalidated", schemas.DeviceOf(e), e.InvalidatedAtUs, deviceFields{reason: e.Reason, asOfUS: e.AsOfUs, send: e.SendId})
		case *pushv1.ChannelSubscribed:
			rows.add(r, hash, "subscribed", schemas.DeviceOf(e), e.SubscribedAtUs, deviceFields{keyID: e.KeyId, channel: e.Channel})
		case *pushv1.ChannelUnsubscribed:
			rows.add(r, hash, "unsubscribed", schemas.DeviceOf(e), e.UnsubscribedAtUs, deviceFields{keyID: e.KeyId, channel: e.Channel})
		default:
			return nil, fmt.Errorf("%s[%d]@%d: type %d does not belong here: %w", r.Topic, r.Partition, r.Offset, e.EventType(), schemas.ErrMalformed)
		}
	}
	return rows, nil
}

// deviceFields are those that only some events of a device have.
type deviceFields struct {
	keyID, platform, version, locale, zone, user, reason, channel string
	asOfUS                                                        int64
	send                                                          []byte
}

func (d *deviceRows) add(r *schemas.Record, hash vault.Hasher, event string, device schemas.Device, atUS int64, f deviceFields) {
	d.app = append(d.app, device.App)
	d.event = append(d.event, event)
	d.transport = append(d.transport, device.Transport.Word())
	environment := "production"
	if device.Environment == schemas.Sandbox {
		environment = "sandbox"
	}
	d.environment = append(d.environment, environment)
	d.channel = append(d.channel, f.channel)
	d.keyID = append(d.keyID, word(f.keyID))
	d.platform = append(d.platform, word(f.platform))
	d.appVersion = append(d.appVersion, word(f.version))
	d.locale = append(d.locale, word(f.locale))
	d.timeZone = append(d.timeZone, word(f.zone))
	d.reason = append(d.reason, word(f.reason))
	d.part = append(d.part, uint16(r.Partition))
	d.off = append(d.off, r.Offset)
	d.at = append(d.at, moment(atUS))
	d.asOf = append(d.asOf, moment(f.asOfUS))
	d.token = append(d.token, hash.Hash(device.AppendKey(nil)))
	d.userHash = append(d.userHash, UserHash(hash, device.App, f.user))
	d.send = append(d.send, id(f.send))
}

// UserHash is the hash under which a user id stands in device_events; zero for none.
func UserHash(hash vault.Hasher, app, user string) uint64 {
	if user == "" {
		return 0
	}
	// No device's key begins with NUL, so that no user is mistaken for a device.
	return hash.Hash([]byte("\x00user\x00" + app + "\x00" + user))
}

// latest is 1 January 2100: ClickHouse's TTL counts in 32 bits of seconds.
const latest = 4_102_444_800_000_000

// moment is a time of an event; a clock that is out of its mind is brought to the nearest time that the tables can hold.
func moment(us int64) time.Time { return time.UnixMicro(min(max(us, 0), latest)).UTC() }

// id reads the 16 bytes of an id.
func id(b []byte) uuid.UUID { return uuid.UUID(schemas.IDFrom(b)) }

// small is a count in 16 bits.
func small(n uint32) uint16 { return uint16(min(n, 65535)) }

// maxWord bounds what stands in a column of few values; the longest reasons of APNs have some 30 characters.
const maxWord = 64

// word is a copy of a text for a column of few values.
func word(s string) string {
	if len(s) > maxWord {
		s = strings.ToValidUTF8(s[:maxWord], "")
	}
	return strings.Clone(s)
}
