package projections

import (
	"slices"
	"strings"

	"github.com/campanile-push/campanile/schemas"
)

// Registration is what a device said of itself when it was registered last. Strings are valid UTF-8 without NUL.
type Registration struct {
	AtUS       int64 // Unix microseconds
	Platform   string
	AppVersion string
	Locale     string
	TimeZone   string
	UserID     string
	KeyID      string
}

// State is all that the topic devices says of one device. The zero State is that of a device that the topic never named, and
// needs no row.
//
// It carries no offsets. Of each kind of record only the latest counts, as compaction keeps it, and a store gets each
// partition's records in log order, from its applied offset on: so "the latest" is "the last one folded". What an
// unregistration ends is forgotten at once: personal data does not wait for a compaction.
type State struct {
	// Known: a registration that no unregistration followed. Registration is zero unless Known.
	Known        bool
	Registration Registration
	// Invalidated: a provider called the device dead, for registrations at or before AsOfUS (Unix microseconds). It outlives
	// an unregistration: a registration that was on its way is no less dead.
	Invalidated bool
	AsOfUS      int64
	// Channels are those subscribed to since the last unregistration, sorted; also while the device is dead or not yet known.
	Channels []string
}

// Alive reports whether pushes to the device make sense.
func (s *State) Alive() bool {
	return s.Known && (!s.Invalidated || s.Registration.AtUS > s.AsOfUS)
}

// Empty reports whether the state says nothing, so that a store keeps no row.
func (s *State) Empty() bool { return !s.Known && !s.Invalidated && len(s.Channels) == 0 }

// Equal reports whether both say the same.
func (s *State) Equal(o *State) bool {
	return s.Known == o.Known && s.Registration == o.Registration && s.Invalidated == o.Invalidated && s.AsOfUS == o.AsOfUS &&
		slices.Equal(s.Channels, o.Channels)
}

// Audience is the part of s that the rows of an audience repeat: the device is in the audience of each of its channels
// exactly while it is alive.
func (s *State) Audience() (row AudienceRow, channels []string) {
	if !s.Alive() {
		return AudienceRow{}, nil
	}
	return AudienceRow{RegisteredAtUS: s.Registration.AtUS, Platform: strings.ToLower(s.Registration.Platform)}, s.Channels
}

// AudienceRow is what an audience holds of a device besides its key.
type AudienceRow struct {
	RegisteredAtUS int64
	Platform       string // lower case
}

// DeviceState is s as other rooms see it.
func (s *State) DeviceState() schemas.DeviceState {
	return schemas.DeviceState{
		Known: s.Known, Alive: s.Alive(), RegisteredAtUS: s.Registration.AtUS, Platform: s.Registration.Platform, Channels: s.Channels,
	}
}

// Next is s after f. s and its channels stay as they are.
func (s State) Next(f Fact) State {
	switch f.Kind {
	case Registered:
		s.Known, s.Registration = true, f.Registration
	case Unregistered:
		s.Known, s.Registration, s.Channels = false, Registration{}, nil
	case Invalidated:
		s.Invalidated, s.AsOfUS = true, f.AsOfUS
	case Subscribed:
		if i, found := slices.BinarySearch(s.Channels, f.Channel); !found {
			s.Channels = slices.Insert(slices.Clip(s.Channels), i, f.Channel)
		}
	case Unsubscribed:
		if i, found := slices.BinarySearch(s.Channels, f.Channel); found {
			s.Channels = slices.Delete(slices.Clone(s.Channels), i, i+1)
		}
	}
	return s
}

// Difference is what turns the old rows of a device into the new ones.
type Difference struct {
	// Row stands in every audience that the device is in now. Put are the channels where it is new or other than before.
	Row       AudienceRow
	Put, Drop []string
	// Subscribe and Unsubscribe are the subscriptions that came and went.
	Subscribe, Unsubscribe []string
}

// Diff compares two states of a device.
func Diff(before, after *State) Difference {
	oldRow, oldIn := before.Audience()
	row, in := after.Audience()
	d := Difference{Row: row}
	if oldRow == row {
		d.Put, d.Drop = missing(in, oldIn), missing(oldIn, in)
	} else {
		d.Put, d.Drop = in, missing(oldIn, in)
	}
	d.Subscribe, d.Unsubscribe = missing(after.Channels, before.Channels), missing(before.Channels, after.Channels)
	return d
}

// missing are the elements of a that b lacks. Both are sorted.
func missing(a, b []string) []string {
	if len(b) == 0 {
		return a
	}
	if slices.Equal(a, b) {
		return nil
	}
	var out []string
	for _, x := range a {
		if _, found := slices.BinarySearch(b, x); !found {
			out = append(out, x)
		}
	}
	return out
}
