package h2

import (
	"slices"

	"golang.org/x/net/http2/hpack"
)

// maxHeaderBlock bounds a header block as it comes, and its list as SETTINGS_MAX_HEADER_LIST_SIZE counts, in bytes. Providers' are
// below 1 KB.
const maxHeaderBlock = 64 << 10

// decoder reads header blocks of responses. It is used by one goroutine. A connection's blocks must all pass through it, in order.
type decoder struct {
	hpack *hpack.Decoder
	keep  []string // nil: all
	begun bool     // the connection's first frame has come

	block []byte // fragments, until the last has come

	status int // 0: none has come
	fields []Field
	size   int
	bad    bool // the block is malformed, though it could be decoded
	body   bool // a regular field has come: no pseudo-field may follow
}

func newDecoder(keep []string) *decoder {
	d := &decoder{keep: keep}
	d.hpack = hpack.NewDecoder(defaultTableSize, d.emit)
	d.hpack.SetMaxStringLength(maxHeaderBlock)
	return d
}

// decode reads a whole block. False: the connection's table is lost.
func (d *decoder) decode(block []byte) bool {
	d.status, d.fields, d.size, d.bad, d.body = 0, d.fields[:0], 0, false, false
	if _, err := d.hpack.Write(block); err != nil {
		return false
	}
	return d.hpack.Close() == nil
}

func (d *decoder) emit(f hpack.HeaderField) {
	d.size += int(f.Size())
	if f.IsPseudo() {
		if f.Name != ":status" || d.status != 0 || d.body {
			d.bad = true
			return
		}
		d.status = parseStatus(f.Value)
		d.bad = d.bad || d.status == 0
		return
	}
	d.body = true
	if !validName(f.Name) || !clean(f.Value) {
		d.bad = true
		return
	}
	if d.size <= maxHeaderBlock && (d.keep == nil || slices.Contains(d.keep, f.Name)) {
		d.fields = append(d.fields, Field{f.Name, f.Value})
	}
}

// parseStatus reads three digits; 0 is none.
func parseStatus(s string) int {
	if len(s) != 3 || s[0] < '1' || s[0] > '9' || s[1] < '0' || s[1] > '9' || s[2] < '0' || s[2] > '9' {
		return 0
	}
	return int(s[0]-'0')*100 + int(s[1]-'0')*10 + int(s[2]-'0')
}

// headerVerdict says what a decoded block is to its stream.
type headerVerdict int

const (
	interim   headerVerdict = iota // a 1xx answer: more will come
	final                          // the answer's header
	trailer                        // fields behind the body
	malformed                      // the stream is to be reset
)

// judge says what the block is to a stream whose header has come (answered) or not.
func (d *decoder) judge(answered, end bool) headerVerdict {
	switch {
	case d.bad || d.size > maxHeaderBlock:
		return malformed
	case answered && d.status == 0 && end:
		return trailer
	case answered || d.status == 0:
		return malformed
	case d.status >= 200:
		return final
	case end || d.status == 101:
		return malformed
	}
	return interim
}
