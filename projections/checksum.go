package projections

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"

	"github.com/campanile-push/campanile/schemas"
)

// Sum adds rows up to a store's checksum. The zero value is ready; the order of rows does not matter. It covers all three
// kinds of rows, so that an audience that does not follow from its devices shows.
type Sum struct {
	total uint64
	buf   []byte
}

// Total is the checksum of the rows so far.
func (s *Sum) Total() uint64 { return s.total }

func (s *Sum) begin(kind byte, d schemas.Device) {
	s.buf = append(s.buf[:0], kind)
	s.text(d.App)
	s.number(int64(d.Transport))
	s.number(int64(d.Environment))
	s.text(d.Token)
}

func (s *Sum) text(v string) {
	s.buf = binary.AppendUvarint(s.buf, uint64(len(v)))
	s.buf = append(s.buf, v...)
}

func (s *Sum) number(v int64) { s.buf = binary.AppendVarint(s.buf, v) }

func (s *Sum) flag(v bool) {
	if v {
		s.buf = append(s.buf, 1)
	} else {
		s.buf = append(s.buf, 0)
	}
}

// end adds the row's hash: a sum, since an exclusive or would not see a row that stands there twice.
func (s *Sum) end() { s.total += xxhash.Sum64(s.buf) }

// Device adds a device's row, its channels apart.
func (s *Sum) Device(d schemas.Device, st *State) {
	s.begin('d', d)
	s.flag(st.Known)
	r := &st.Registration
	s.number(r.AtUS)
	for _, v := range []string{r.Platform, r.AppVersion, r.Locale, r.TimeZone, r.UserID, r.KeyID} {
		s.text(v)
	}
	s.flag(st.Invalidated)
	s.number(st.AsOfUS)
	s.end()
}

// Subscription adds one channel of a device.
func (s *Sum) Subscription(d schemas.Device, channel string) {
	s.begin('s', d)
	s.text(channel)
	s.end()
}

// Audience adds one row of a channel's audience.
func (s *Sum) Audience(channel string, shard uint32, d schemas.Device, row AudienceRow) {
	s.begin('a', d)
	s.text(channel)
	s.number(int64(shard))
	s.number(row.RegisteredAtUS)
	s.text(row.Platform)
	s.end()
}
