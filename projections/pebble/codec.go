package pebble

import (
	"encoding/binary"
	"errors"

	"github.com/campanile-push/campanile/projections"
)

var errRow = errors.New("a row that this version did not write")

// Bits of a device row's first byte.
const (
	flagKnown = 1 << iota
	flagInvalidated
)

// appendState is the value of a device row: flags, times, texts and channels, each text with its length before it.
func appendState(b []byte, s *projections.State) []byte {
	var flags byte
	if s.Known {
		flags |= flagKnown
	}
	if s.Invalidated {
		flags |= flagInvalidated
	}
	b = append(b, flags)
	if s.Known {
		r := &s.Registration
		b = binary.AppendVarint(b, r.AtUS)
		for _, text := range [...]string{r.Platform, r.AppVersion, r.Locale, r.TimeZone, r.UserID, r.KeyID} {
			b = appendText(b, text)
		}
	}
	if s.Invalidated {
		b = binary.AppendVarint(b, s.AsOfUS)
	}
	b = binary.AppendUvarint(b, uint64(len(s.Channels)))
	for _, channel := range s.Channels {
		b = appendText(b, channel)
	}
	return b
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// parseState is the inverse of appendState. The state owns its memory.
func parseState(value []byte) (s projections.State, err error) {
	p := rowParser{rest: string(value)} // one copy; the texts are slices of it
	flags := p.byte()
	if s.Known = flags&flagKnown != 0; s.Known {
		r := &s.Registration
		r.AtUS = p.varint()
		for _, text := range [...]*string{&r.Platform, &r.AppVersion, &r.Locale, &r.TimeZone, &r.UserID, &r.KeyID} {
			*text = p.text()
		}
	}
	if s.Invalidated = flags&flagInvalidated != 0; s.Invalidated {
		s.AsOfUS = p.varint()
	}
	n := p.uvarint()
	if n > uint64(len(p.rest)) { // each takes a byte at least
		p.bad = true
	}
	if n > 0 && !p.bad {
		s.Channels = make([]string, n)
		for i := range s.Channels {
			s.Channels[i] = p.text()
		}
	}
	if p.bad || p.rest != "" || flags&^(flagKnown|flagInvalidated) != 0 {
		return projections.State{}, errRow
	}
	return s, nil
}

// rowParser reads a row from its start; after the first thing that does not fit, bad is true and all values are zero.
type rowParser struct {
	rest string
	bad  bool
}

func (p *rowParser) byte() byte {
	if p.bad || p.rest == "" {
		p.bad = true
		return 0
	}
	b := p.rest[0]
	p.rest = p.rest[1:]
	return b
}

func (p *rowParser) uvarint() uint64 {
	var v uint64
	for shift := 0; shift < 64; shift += 7 {
		b := p.byte()
		if p.bad || shift == 63 && b > 1 {
			break
		}
		v |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return v
		}
	}
	p.bad = true
	return 0
}

func (p *rowParser) varint() int64 {
	u := p.uvarint()
	v := int64(u >> 1)
	if u&1 != 0 {
		v = ^v
	}
	return v
}

func (p *rowParser) text() string {
	n := p.uvarint()
	if p.bad || n > uint64(len(p.rest)) {
		p.bad = true
		return ""
	}
	s := p.rest[:n]
	p.rest = p.rest[n:]
	return s
}
