package h2

import (
	"bytes"

	"golang.org/x/net/http2/hpack"
)

// HPACK's representations (RFC 7541, section 6), by their first byte.
const (
	indexedField = 0x80 // the whole field stands in a table
	neverIndexed = 0x10 // a literal that nobody may put into a table
	pathIndex    = 4    // ":path" in the static table
)

// appendInt appends an integer with a prefix of bits bits, under the high bits of first (RFC 7541, section 5.1).
func appendInt(b []byte, first byte, bits uint, n int) []byte {
	most := 1<<bits - 1
	if n < most {
		return append(b, first|byte(n))
	}
	b = append(b, first|byte(most))
	for n -= most; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}

// appendText appends a string as it is: Huffman's code saves a fifth of an identifier and costs more than that in CPU.
func appendText[T string | []byte](b []byte, s T) []byte {
	return append(appendInt(b, 0, 7, len(s)), s...)
}

func appendLiteral[T string | []byte](b []byte, name string, value T) []byte {
	return appendText(appendText(append(b, neverIndexed), name), value)
}

func appendPath(b, path []byte) []byte {
	return appendText(append(b, neverIndexed|pathIndex), path)
}

// encoder encodes heads for one connection. A head's fields go into the peer's table the first time, and are a few bytes from then on;
// these bytes are kept as long as nothing else goes into the table.
type encoder struct {
	hpack   *hpack.Encoder
	scratch bytes.Buffer
	table   uint32 // size allowed by the peer, at most ours
	changes int    // of the table

	heads    map[*Head]*encodedHead
	last     *Head // the usual one
	lastUsed *encodedHead
	fresh    encodedHead // of a head that just went into the table
}

type encodedHead struct {
	changes        int
	pseudo, fields []byte
}

// mostHeads bounds what is kept; beyond that they are encoded anew.
const mostHeads = 64

func newEncoder() *encoder {
	e := &encoder{heads: map[*Head]*encodedHead{}, table: defaultTableSize}
	e.hpack = hpack.NewEncoder(&e.scratch)
	return e
}

// resize takes the peer's SETTINGS_HEADER_TABLE_SIZE. The next header block tells the peer's decoder.
func (e *encoder) resize(size uint32) {
	size = min(size, defaultTableSize)
	if size == e.table {
		return
	}
	e.table = size
	e.hpack.SetMaxDynamicTableSizeLimit(size)
	e.hpack.SetMaxDynamicTableSize(size)
	e.changes++
}

// head returns h encoded; valid until the next call.
func (e *encoder) head(h *Head) *encodedHead {
	if h == e.last && e.lastUsed.changes == e.changes {
		return e.lastUsed
	}
	if known := e.heads[h]; known != nil && known.changes == e.changes {
		e.last, e.lastUsed = h, known
		return known
	}
	f := &e.fresh
	before := e.changes
	f.pseudo = e.encode(f.pseudo[:0], h.pseudo)
	f.fields = e.encode(f.fields[:0], h.fields)
	if e.changes != before {
		return f // right for once: the next time it is in the table
	}
	if len(e.heads) >= mostHeads {
		clear(e.heads)
	}
	known := &encodedHead{e.changes, bytes.Clone(f.pseudo), bytes.Clone(f.fields)}
	e.heads[h] = known
	e.last, e.lastUsed = h, known
	return known
}

func (e *encoder) encode(b []byte, fields []Field) []byte {
	for _, f := range fields {
		e.scratch.Reset()
		_ = e.hpack.WriteField(hpack.HeaderField{Name: f.Name, Value: f.Value}) // into memory
		out := e.scratch.Bytes()
		// Neither a reference nor a literal without indexing: the field, or a new size, changes the table.
		if out[0]&indexedField == 0 && out[0]&0xf0 != 0 {
			e.changes++
		}
		b = append(b, out...)
	}
	return b
}
