package h2

import "bytes"

// maxHeaderBlock bounds a header block as it comes, and its list as SETTINGS_MAX_HEADER_LIST_SIZE counts, in bytes. Providers' are
// below 1 KB.
const maxHeaderBlock = 64 << 10

// decoder reads header blocks of responses. It is used by one goroutine. A connection's blocks must all pass through it, in order.
type decoder struct {
	table table
	keep  []string // nil: all
	begun bool     // the connection's first frame has come

	continuing uint32 // the stream whose header block is under way; 0: none is
	endsStream bool   // and whether that block ends it
	fragments  []byte // of it

	fields      []Field      // of the blocks since begin
	body        bool         // a regular field has come: no pseudo-field may follow
	name, value bytes.Buffer // out of Huffman's code

	last        []byte // the block before, where it is cheaper to compare than to read again
	lastBlock   block
	lastChanges int // of the table by then; -1: there is none
}

// block is a header block, decoded.
type block struct {
	status int     // 0: none has come
	fields []Field // that are kept; valid until the decoder begins anew
	size   int     // of the list, as SETTINGS_MAX_HEADER_LIST_SIZE counts
	bad    bool    // it is malformed, though it could be decoded
	end    bool    // it ends its stream
}

func newDecoder(keep []string) *decoder {
	d := &decoder{keep: keep, table: table{limit: defaultTableSize}, lastChanges: -1}
	for _, f := range staticFields {
		d.table.static = append(d.table.static, d.judged(f.Name, f.Value))
	}
	return d
}

// begin takes back the memory of the blocks before.
func (d *decoder) begin() {
	clear(d.fields)
	d.fields = d.fields[:0]
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
func (b *block) judge(answered bool) headerVerdict {
	switch {
	case b.bad || b.size > maxHeaderBlock:
		return malformed
	case answered && b.status == 0 && b.end:
		return trailer
	case answered || b.status == 0:
		return malformed
	case b.status >= 200:
		return final
	case b.end || b.status == 101:
		return malformed
	}
	return interim
}
