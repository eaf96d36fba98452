package storetest

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
	"testing"

	"github.com/campanile-push/campanile/projections"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// Model is what a log says, worked out by the rule as the design states it: of each kind the latest record by offset, then
// compared. It shares no code with the fold.
type Model map[schemas.Device]projections.State

type latest struct {
	registered                   *pushv1.TokenRegistered
	invalidated                  *pushv1.TokenInvalidated
	registeredAt, unregisteredAt int64 // offsets + 1; zero: never
	channelAt                    map[string]int64
	subscribed                   map[string]bool
}

// ModelOf reads a whole log.
func ModelOf(t *testing.T, l *Log) Model {
	t.Helper()
	all := map[schemas.Device]*latest{}
	for _, records := range l.partitions {
		for i := range records {
			if !records[i].Tombstone() {
				note(t, all, &records[i])
			}
		}
	}
	m := Model{}
	for d, last := range all {
		m[d] = last.state()
	}
	return m
}

func note(t *testing.T, all map[schemas.Device]*latest, r *schemas.Record) {
	t.Helper()
	event, err := r.Event()
	if err != nil {
		t.Fatal(err)
	}
	of := func(d schemas.Device) *latest {
		if all[d] == nil {
			all[d] = &latest{channelAt: map[string]int64{}, subscribed: map[string]bool{}}
		}
		return all[d]
	}
	switch e := event.(type) {
	case *pushv1.TokenRegistered:
		of(schemas.DeviceOf(e)).registered, of(schemas.DeviceOf(e)).registeredAt = e, r.Offset+1
	case *pushv1.TokenUnregistered:
		of(schemas.DeviceOf(e)).unregisteredAt = r.Offset + 1
	case *pushv1.TokenInvalidated:
		of(schemas.DeviceOf(e)).invalidated = e
	case *pushv1.ChannelSubscribed:
		of(schemas.DeviceOf(e)).channelAt[e.Channel], of(schemas.DeviceOf(e)).subscribed[e.Channel] = r.Offset+1, true
	case *pushv1.ChannelUnsubscribed:
		of(schemas.DeviceOf(e)).channelAt[e.Channel], of(schemas.DeviceOf(e)).subscribed[e.Channel] = r.Offset+1, false
	default:
		t.Fatalf("%T in the topic devices", e)
	}
}

func (l *latest) state() (s projections.State) {
	if s.Known = l.registeredAt > l.unregisteredAt; s.Known {
		e := l.registered
		s.Registration = projections.Registration{
			AtUS: e.RegisteredAtUs, Platform: e.Platform, AppVersion: e.AppVersion, Locale: e.Locale, TimeZone: e.TimeZone, UserID: e.UserId, KeyID: e.KeyId,
		}
	}
	if l.invalidated != nil {
		s.Invalidated, s.AsOfUS = true, l.invalidated.AsOfUs
	}
	for channel, at := range l.channelAt {
		if l.subscribed[channel] && at > l.unregisteredAt {
			s.Channels = append(s.Channels, channel)
		}
	}
	slices.Sort(s.Channels)
	return s
}

// Row is a device in an audience.
type Row struct {
	Shard          uint32
	Token          string
	Environment    schemas.Environment
	RegisteredAtUS int64
	Platform       string
}

func compareRows(a, b Row) int {
	return cmp.Or(cmp.Compare(a.Shard, b.Shard), bytes.Compare([]byte(a.Token), []byte(b.Token)), cmp.Compare(a.Environment, b.Environment))
}

// Audience is what pages over all shards add up to.
func (m Model) Audience(app string, t schemas.Transport, channels ...string) []Row {
	var rows []Row
	for d, s := range m {
		dead := s.Invalidated && s.Registration.AtUS <= s.AsOfUS
		in := slices.ContainsFunc(channels, func(c string) bool { return slices.Contains(s.Channels, c) })
		if d.App == app && d.Transport == t && s.Known && !dead && in {
			rows = append(rows, Row{schemas.ShardString(d.Token), d.Token, d.Environment, s.Registration.AtUS, strings.ToLower(s.Registration.Platform)})
		}
	}
	slices.SortFunc(rows, compareRows)
	return rows
}

// Checksum is the sum that every store must give.
func (m Model) Checksum() uint64 {
	var sum projections.Sum
	for d, s := range m {
		if s.Known || s.Invalidated || len(s.Channels) > 0 {
			sum.Device(d, &s)
		}
		for _, channel := range s.Channels {
			sum.Subscription(d, channel)
			for _, row := range (Model{d: s}).Audience(d.App, d.Transport, channel) {
				sum.Audience(channel, row.Shard, d, projections.AudienceRow{RegisteredAtUS: row.RegisteredAtUS, Platform: row.Platform})
			}
		}
	}
	return sum.Total()
}

// DeviceState is what Lookup must say.
func (m Model) DeviceState(d schemas.Device) schemas.DeviceState {
	s := m[d]
	return schemas.DeviceState{
		Known: s.Known, Alive: s.Known && (!s.Invalidated || s.Registration.AtUS > s.AsOfUS),
		RegisteredAtUS: s.Registration.AtUS, Platform: s.Registration.Platform, Channels: s.Channels,
	}
}
