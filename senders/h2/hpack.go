package h2

import (
	"bytes"
	"slices"

	"golang.org/x/net/http2/hpack"
)

// entry is a header field of a table, with what is known of it once and for all.
type entry struct {
	Field

	pseudo bool
	bad    bool // no response may have it
	kept   bool // the client wants it
	status int  // of ":status"
}

func (e *entry) size() int { return fieldSize(len(e.Name), len(e.Value)) }

// judged is a field with the verdict on it.
func (d *decoder) judged(name, value string) entry {
	e := entry{Field: Field{name, value}}
	if len(name) > 0 && name[0] == ':' {
		e.pseudo = true
		if name == ":status" {
			e.status = parseStatus(value)
		}
		e.bad = e.status == 0
		return e
	}
	e.bad = !validName(name) || !clean(value)
	e.kept = d.keep == nil || slices.Contains(d.keep, name)
	return e
}

// table is HPACK's (RFC 7541, section 2.3): the static part, and behind it the dynamic one, its newest entry first.
type table struct {
	static  []entry
	dynamic []entry // the oldest first
	size    int
	limit   int // that the peer has chosen, at most defaultTableSize
	changes int
}

// at returns the field of an index; nil: there is none.
func (t *table) at(i int) *entry {
	if i <= 0 || i > len(t.static)+len(t.dynamic) {
		return nil
	}
	if i <= len(t.static) {
		return &t.static[i-1]
	}
	return &t.dynamic[len(t.dynamic)-(i-len(t.static))]
}

func (t *table) add(e entry) {
	t.changes++
	t.dynamic = append(t.dynamic, e)
	t.size += e.size()
	t.evict()
}

func (t *table) resize(limit int) {
	t.changes++
	t.limit = limit
	t.evict()
}

func (t *table) evict() {
	n := 0
	for t.size > t.limit {
		t.size -= t.dynamic[n].size()
		n++
	}
	t.dynamic = slices.Delete(t.dynamic, 0, n)
}

// scanner reads one header block. bad: what was read last could not be.
type scanner struct {
	b   []byte
	bad bool
}

// number reads an integer whose first byte has a prefix of so many bits (RFC 7541, section 5.1).
func (s *scanner) number(bits uint) int {
	if len(s.b) == 0 {
		s.bad = true
		return 0
	}
	most := byte(1)<<bits - 1
	first := s.b[0] & most
	s.b = s.b[1:]
	if first < most {
		return int(first)
	}
	n := uint64(most)
	for shift := uint(0); shift < 28; shift += 7 { // what is longer is above every bound of ours
		if len(s.b) == 0 {
			break
		}
		c := s.b[0]
		s.b = s.b[1:]
		n += uint64(c&0x7f) << shift
		if c&0x80 == 0 {
			return int(n)
		}
	}
	s.bad = true
	return 0
}

// text reads a string; valid until the block or scratch is.
func (s *scanner) text(scratch *bytes.Buffer) []byte {
	huffman := len(s.b) > 0 && s.b[0]&0x80 != 0
	n := s.number(7)
	if s.bad || n > len(s.b) || n > maxHeaderBlock {
		s.bad = true
		return nil
	}
	raw := s.b[:n]
	s.b = s.b[n:]
	if !huffman {
		return raw
	}
	scratch.Reset()
	if _, err := hpack.HuffmanDecode(scratch, raw); err != nil || scratch.Len() > maxHeaderBlock {
		s.bad = true
		return nil
	}
	return scratch.Bytes()
}

// decode reads a whole block into b. False: the connection's table is lost.
func (d *decoder) decode(fragment []byte, b *block) bool {
	if d.table.changes == d.lastChanges && bytes.Equal(fragment, d.last) { // as the one before, and it changed nothing
		end := b.end
		*b = d.lastBlock
		b.end = end
		return true
	}
	before, first := d.table.changes, len(d.fields)
	s := scanner{b: fragment}
	d.body = false
	for begun := false; len(s.b) > 0; {
		switch c := s.b[0]; {
		case c&indexedField != 0:
			e := d.table.at(s.number(7))
			if s.bad || e == nil {
				return false
			}
			d.emit(e, b)
		case c&0xe0 == 0x20: // a new size of the table
			n := s.number(5)
			if s.bad || n > defaultTableSize || begun && len(d.table.dynamic) > 0 {
				return false
			}
			d.table.resize(n)
			continue
		default:
			if !d.literal(&s, c, b) {
				return false
			}
		}
		begun = true
	}
	b.fields = d.fields[first:len(d.fields):len(d.fields)]
	d.last = d.last[:0]
	d.lastChanges = -1
	if d.table.changes == before && len(b.fields) == 0 && len(fragment) <= mostCached {
		d.last, d.lastBlock, d.lastChanges = append(d.last, fragment...), *b, before
	}
	return true
}

// mostCached bounds the block that is remembered: one that is all references.
const mostCached = 64

// literal reads a field whose value, and perhaps name, stands in the block.
func (d *decoder) literal(s *scanner, c byte, b *block) bool {
	index := c&0xc0 == 0x40
	bits := uint(4)
	if index {
		bits = 6
	}
	var name string
	var raw []byte
	known := s.number(bits)
	if known != 0 {
		e := d.table.at(known)
		if s.bad || e == nil {
			return false
		}
		name = e.Name
	} else {
		if s.bad {
			return false
		}
		raw = s.text(&d.name)
	}
	value := s.text(&d.value)
	if s.bad {
		return false
	}
	if !index && d.ignored(name, raw) && clean(value) {
		b.size += fieldSize(len(name)+len(raw), len(value))
		d.body = true
		return true
	}
	if raw != nil {
		name = string(raw)
	}
	e := d.judged(name, string(value))
	d.emit(&e, b)
	if index {
		d.table.add(e)
	}
	return true
}

// ignored reports whether a field, by its name as a string or as bytes, is regular, well formed and not kept.
func (d *decoder) ignored(name string, raw []byte) bool {
	if d.keep == nil {
		return false
	}
	if raw == nil {
		return len(name) > 0 && name[0] != ':' && validName(name) && !slices.Contains(d.keep, name)
	}
	if len(raw) == 0 || raw[0] == ':' || !validName(raw) {
		return false
	}
	return !slices.ContainsFunc(d.keep, func(k string) bool { return k == string(raw) })
}

func (d *decoder) emit(e *entry, b *block) {
	b.size += e.size()
	switch {
	case e.pseudo:
		b.bad = b.bad || e.bad || b.status != 0 || d.body
		if !b.bad {
			b.status = e.status
		}
		return
	case e.bad:
		b.bad = true
	case e.kept && b.size <= maxHeaderBlock:
		d.fields = append(d.fields, e.Field)
	}
	d.body = true
}
