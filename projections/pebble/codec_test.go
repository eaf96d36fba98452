package pebble

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"testing"

	"github.com/campanile-push/campanile/projections"
	"github.com/campanile-push/campanile/schemas"
)

func states() []projections.State {
	full := projections.Registration{AtUS: math.MaxInt64, Platform: "iOS", AppVersion: "4", Locale: "de", TimeZone: "UTC", UserID: "u", KeyID: "k"}
	return []projections.State{
		{},
		{Known: true, Registration: full},
		{Known: true, Registration: projections.Registration{AtUS: math.MinInt64}, Invalidated: true, AsOfUS: -1, Channels: []string{"a"}},
		{Invalidated: true},
		{Channels: []string{"a", "b", string(bytes.Repeat([]byte("c"), 300))}},
	}
}

func TestStatesComeBack(t *testing.T) {
	t.Parallel()
	for _, s := range states() {
		got, err := parseState(appendState(nil, &s))
		if err != nil || !got.Equal(&s) {
			t.Errorf("want %+v, got %+v, %v", s, got, err)
		}
	}
}

func FuzzParseState(f *testing.F) {
	for _, s := range states() {
		f.Add(appendState(nil, &s))
	}
	f.Add([]byte{0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}) // more channels than bytes
	f.Fuzz(func(t *testing.T, row []byte) {
		s, err := parseState(row)
		if err != nil {
			if !errors.Is(err, errRow) {
				t.Fatalf("want %v, got %v", errRow, err)
			}
			return
		}
		again, err := parseState(appendState(nil, &s))
		if err != nil || !again.Equal(&s) {
			t.Fatalf("%x reads as %+v, which comes back as %+v, %v", row, s, again, err)
		}
	})
}

func FuzzParseKeys(f *testing.F) {
	d := schemas.Device{App: "moodle", Transport: schemas.APNS, Environment: schemas.Sandbox, Token: "é"}
	f.Add(appendDeviceKey(nil, d))
	f.Add(appendAudienceSuffix(appendAudiencePrefix(nil, "moodle", "site", schemas.APNS), 0, "é", schemas.Sandbox))
	f.Fuzz(func(t *testing.T, key []byte) {
		if d, ok := parseDeviceKey(key); ok && d.Transport < 256 && !bytes.Equal(appendDeviceKey(nil, d), key) {
			t.Fatalf("%x reads as %+v", key, d)
		}
		if channel, shard, d, ok := parseAudienceKey(key); ok {
			back := appendAudienceSuffix(appendAudiencePrefix(nil, d.App, channel, d.Transport), shard, d.Token, d.Environment)
			if !bytes.Equal(back, key) {
				t.Fatalf("%x reads as %q %d %+v", key, channel, shard, d)
			}
		}
		_, _, _ = parseAudienceRow(key)
	})
}

func TestMessagesOfTheEngineHoldNoKey(t *testing.T) {
	t.Parallel()
	key := appendDeviceKey(nil, schemas.Device{App: "moodle", Transport: schemas.FCM, Token: "secret"})
	for _, verb := range []string{"%s", "%v", "%q", "%x", "%+v"} {
		if got, want := fmt.Sprintf(verb, redacted(key)), "key of 16 bytes"; got != want {
			t.Errorf("%s: want %q, got %q", verb, want, got)
		}
	}
}
