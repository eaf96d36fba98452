package simulator

import (
	"encoding/binary"
	"errors"

	"golang.org/x/net/http2/hpack"
)

// hpackDecoder reads header blocks (RFC 7541). Fields in the tables are kept as strings, so that what a client repeats costs
// a look-up and no copy; the literals of a block share one string. For one goroutine. A connection's blocks must all pass
// through it, in order.
type hpackDecoder struct {
	ring    [dynamicSlots]tableField
	head    int // index of the newest in ring
	entries int
	size    int // as section 4.1 counts
	most    int // at most maxTable, as the peer says

	fields  []decodedField // of the block
	list    int            // size of the block's list, as SETTINGS_MAX_HEADER_LIST_SIZE counts
	tooLong bool           // the list is longer than maxHeaderList; fields has its beginning
	text    []byte         // of literals
	huffman huffmanText
}

// Limits of the tables. An entry counts for 32 bytes and its text, so there are 128 at most.
const (
	maxTable      = defaultTableSize
	dynamicSlots  = maxTable / entryOverhead
	entryOverhead = 32
	maxHeaderList = 8000 // bytes; what we announce as SETTINGS_MAX_HEADER_LIST_SIZE
	staticFields  = 61
)

// tableField is a field of a table.
type tableField struct {
	name, value string
	kind        fieldKind
	checked     bool // the text is known to be valid
}

// decodedField is a field of a block. Where its text is a literal's, the spans say where it stands until the block's end.
type decodedField struct {
	tableField
	nameEnd, valueEnd   int // in text; 0: name or value is set
	nameFrom, valueFrom int
}

var (
	errHPACK = errors.New("malformed header block")
	// errLateResize is a change of the table's size behind a field: section 4.2 has it at the beginning of a block alone.
	errLateResize = errors.New("late change of the table's size")
)

func newHPACKDecoder() *hpackDecoder { return &hpackDecoder{most: maxTable} }

// decode reads a whole block into fields, which are valid until the next one. An error means that the tables are lost.
func (d *hpackDecoder) decode(block []byte) error {
	d.fields, d.text, d.list, d.tooLong = d.fields[:0], d.text[:0], 0, false
	first := true
	for len(block) > 0 {
		b := block[0]
		var err error
		switch {
		case b&0x80 != 0:
			block, err = d.indexed(block)
		case b&0xc0 == 0x40:
			block, err = d.literal(block, 6, true)
		case b&0xe0 == 0x20:
			if !first {
				return errLateResize
			}
			if block, err = d.resize(block); err != nil {
				return err
			}
			continue
		default: // without indexing, or never
			block, err = d.literal(block, 4, false)
		}
		if err != nil {
			return err
		}
		first = false
	}
	if len(d.text) == 0 {
		return nil
	}
	text := string(d.text)
	for i := range d.fields {
		f := &d.fields[i]
		if f.nameEnd > 0 {
			f.name = text[f.nameFrom:f.nameEnd]
		}
		if f.valueEnd > 0 {
			f.value = text[f.valueFrom:f.valueEnd]
		}
	}
	return nil
}

// add puts a field into the list, unless that is too long already.
func (d *hpackDecoder) add(f decodedField, size int) {
	d.list += size
	if d.list > maxHeaderList {
		d.tooLong = true
		return
	}
	d.fields = append(d.fields, f)
}

func (d *hpackDecoder) indexed(block []byte) ([]byte, error) {
	i, rest, ok := readInt(block, 7)
	f, found := d.at(i)
	if !ok || !found {
		return nil, errHPACK
	}
	d.add(decodedField{tableField: f}, entryOverhead+len(f.name)+len(f.value))
	return rest, nil
}

func (d *hpackDecoder) literal(block []byte, prefix uint, index bool) ([]byte, error) {
	i, rest, ok := readInt(block, prefix)
	if !ok {
		return nil, errHPACK
	}
	var f decodedField
	fineName := true
	mark := len(d.text)
	if i > 0 {
		known, found := d.at(i)
		if !found {
			return nil, errHPACK
		}
		f.name, f.kind = known.name, known.kind
		fineName = known.checked || known.kind != fieldOther
	} else {
		if rest, ok = d.string(rest); !ok {
			return nil, errHPACK
		}
		name := d.text[mark:]
		if f.kind, f.name = kindOf(name); f.kind == fieldOther {
			f.nameFrom, f.nameEnd = mark, len(d.text)
			fineName = false // nobody has looked
		} else {
			d.text = d.text[:mark]
		}
	}
	from := len(d.text)
	if rest, ok = d.string(rest); !ok {
		return nil, errHPACK
	}
	clean := cleanBytes(d.text[from:])
	f.checked = clean && fineName
	size := entryOverhead + len(d.text) - from
	if f.nameEnd > 0 {
		size += f.nameEnd - f.nameFrom
	} else {
		size += len(f.name)
	}
	if index {
		if f.nameEnd > 0 {
			f.name = string(d.text[f.nameFrom:f.nameEnd])
			f.nameEnd = 0
		}
		f.value = string(d.text[from:])
		f.checked = clean && (f.kind != fieldOther || validFieldName(f.name))
		d.insert(f.tableField, size)
		d.text = d.text[:mark]
	} else if len(d.text) > from {
		f.valueFrom, f.valueEnd = from, len(d.text)
	}
	d.add(f, size)
	if d.tooLong {
		d.text = d.text[:mark] // nobody will read it
	}
	return rest, nil
}

// string appends a string literal to text.
func (d *hpackDecoder) string(b []byte) (rest []byte, ok bool) {
	if len(b) == 0 {
		return nil, false
	}
	coded := b[0]&0x80 != 0
	n, b, ok := readInt(b, 7)
	if !ok || n > uint64(len(b)) {
		return nil, false
	}
	if !coded {
		d.text = append(d.text, b[:n]...)
		return b[n:], true
	}
	d.huffman.text = d.text
	_, err := hpack.HuffmanDecode(&d.huffman, b[:n])
	d.text, d.huffman.text = d.huffman.text, nil
	return b[n:], err == nil
}

// huffmanText takes what hpack.HuffmanDecode writes.
type huffmanText struct{ text []byte }

func (w *huffmanText) Write(b []byte) (int, error) {
	w.text = append(w.text, b...)
	return len(b), nil
}

// cleanBytes reports whether a value is free of control characters. It may say no to one that is, which is then looked at again.
func cleanBytes(b []byte) bool {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	for ; len(b) >= 8; b = b[8:] {
		v := binary.LittleEndian.Uint64(b)
		if ((v-ones*0x20)|v|(v+ones))&highs != 0 { // below 0x20, above 0x7f, 0x7f
			return false
		}
	}
	for _, c := range b {
		if c < ' ' || c >= 0x7f {
			return false
		}
	}
	return true
}

func (d *hpackDecoder) at(i uint64) (tableField, bool) {
	switch {
	case i == 0:
		return tableField{}, false
	case i <= staticFields:
		f := staticTable[i-1]
		f.checked = true
		return f, true
	case i-staticFields <= uint64(d.entries):
		return d.ring[(d.head-int(i-staticFields-1)+dynamicSlots)%dynamicSlots], true
	}
	return tableField{}, false
}

func (d *hpackDecoder) insert(f tableField, size int) {
	d.evict(d.most - size)
	if size > d.most {
		return // the table is empty now: section 4.4
	}
	d.head = (d.head + 1) % dynamicSlots
	d.ring[d.head] = f
	d.entries++
	d.size += size
}

// evict drops the oldest until at most limit bytes are left.
func (d *hpackDecoder) evict(limit int) {
	for d.entries > 0 && d.size > limit {
		oldest := &d.ring[(d.head-d.entries+1+dynamicSlots)%dynamicSlots]
		d.size -= entryOverhead + len(oldest.name) + len(oldest.value)
		*oldest = tableField{}
		d.entries--
	}
}

func (d *hpackDecoder) resize(block []byte) ([]byte, error) {
	n, rest, ok := readInt(block, 5)
	if !ok || n > maxTable {
		return nil, errHPACK
	}
	d.most = int(n)
	d.evict(d.most)
	return rest, nil
}

// readInt reads an integer with a prefix of that many bits (section 5.1).
func readInt(b []byte, prefix uint) (n uint64, rest []byte, ok bool) {
	if len(b) == 0 {
		return 0, nil, false
	}
	most := uint64(1)<<prefix - 1
	n = uint64(b[0]) & most
	b = b[1:]
	if n < most {
		return n, b, true
	}
	for shift := uint(0); shift < 63; shift += 7 {
		if len(b) == 0 {
			return 0, nil, false
		}
		c := b[0]
		b = b[1:]
		n += uint64(c&0x7f) << shift
		if c&0x80 == 0 {
			return n, b, true
		}
	}
	return 0, nil, false
}
