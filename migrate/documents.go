package migrate

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"unicode/utf8"
)

// maxDocument is the longest document that is read, in bytes. MongoDB's limit is 16 MiB of BSON; as Extended JSON it grows.
const maxDocument = 64 << 20

const chunkSize = 1 << 20

// errMalformed says that what stood there is no document. Reading goes on behind it.
var errMalformed = errors.New("malformed document")

// documents splits mongoexport's output into its documents: one a line, an array of them, or written over several lines. It does
// not load the stream.
type documents struct {
	r        io.Reader
	chunk    []byte
	pos, end int
	err      error // of r, when the chunk is used up
	doc      []byte
	begun    bool
}

func newDocuments(r io.Reader) *documents { return &documents{r: r, chunk: make([]byte, chunkSize)} }

// next returns one document, valid JSON, until the next call. It returns errMalformed for what is none, io.EOF at the end, or the
// reader's error.
func (d *documents) next() ([]byte, error) {
	if err := d.begin(); err != nil {
		return nil, err
	}
	if err := d.collect(); err != nil {
		return nil, err
	}
	if !json.Valid(d.doc) {
		return nil, errMalformed
	}
	return d.doc, nil
}

// begin skips what stands between documents, up to a brace.
func (d *documents) begin() error {
	for {
		c, err := d.byte()
		if err != nil {
			return err
		}
		first := !d.begun
		d.begun = true
		switch c {
		case '{':
			d.pos--
			return nil
		case ' ', '\t', '\r', '\n', ',', '[', ']':
		case 0xef: // a byte order mark, which editors on Windows write
			if !first {
				return d.skipLine()
			}
			for range 2 {
				if _, err := d.byte(); err != nil {
					return err
				}
			}
		default:
			return d.skipLine()
		}
	}
}

// skipLine gives a line up.
func (d *documents) skipLine() error {
	for {
		c, err := d.byte()
		switch {
		case errors.Is(err, io.EOF), err == nil && c == '\n':
			return errMalformed
		case err != nil:
			return err
		}
	}
}

// collect moves one document into d.doc. A document that was cut off, as by a full disk, ends where a line begins with a brace: what
// is inside of a document is indented, and no string holds a bare line end.
func (d *documents) collect() error {
	d.doc = d.doc[:0]
	depth, text, escaped, lineStart := 0, false, false, false
	from := d.pos
	for {
		if d.pos == d.end {
			d.doc = append(d.doc, d.chunk[from:d.pos]...)
			if len(d.doc) > maxDocument {
				return d.skipLine()
			}
			if err := d.fill(); errors.Is(err, io.EOF) {
				return errMalformed
			} else if err != nil {
				return err
			}
			from = d.pos
		}
		c := d.chunk[d.pos]
		if lineStart && c == '{' {
			return errMalformed // it stays for the next call
		}
		d.pos++
		lineStart = c == '\n'
		switch {
		case text && lineStart:
			return errMalformed
		case escaped:
			escaped = false
		case text && c == '\\':
			escaped = true
		case c == '"':
			text = !text
		case text:
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			if depth--; depth == 0 {
				d.doc = append(d.doc, d.chunk[from:d.pos]...)
				return nil
			}
		}
	}
}

func (d *documents) byte() (byte, error) {
	if d.pos == d.end {
		if err := d.fill(); err != nil {
			return 0, err
		}
	}
	c := d.chunk[d.pos]
	d.pos++
	return c, nil
}

// fill reads on; d.chunk[d.pos:d.end] has at least one byte if it returns nil.
func (d *documents) fill() error {
	for d.err == nil {
		var n int
		n, d.err = d.r.Read(d.chunk)
		if n > 0 {
			d.pos, d.end = 0, n
			return nil
		}
	}
	return d.err
}

// members calls f with each member of a valid JSON object: its name, unescaped, and its value as it stands there. Names are compared
// by whoever is called, letter by letter, as MongoDB does.
func members(doc []byte, f func(name string, raw []byte)) {
	i := 1
	for {
		i = skipSpace(doc, i)
		if i >= len(doc) || doc[i] != '"' {
			return
		}
		end := skipValue(doc, i)
		name := unquote(doc[i:end])
		i = skipSpace(doc, end)
		i = skipSpace(doc, i+1) // the colon
		end = skipValue(doc, i)
		f(name, doc[i:end])
		i = skipSpace(doc, end)
		if i >= len(doc) || doc[i] != ',' {
			return
		}
		i++
	}
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\n' || b[i] == '\r') {
		i++
	}
	return i
}

// skipValue returns the index behind the value that begins at i, in valid JSON.
func skipValue(b []byte, i int) int {
	depth := 0
	for i < len(b) {
		switch b[i] {
		case '"':
			i = skipText(b, i)
			if depth == 0 {
				return i
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return i // a scalar ended before it
			}
			if depth--; depth == 0 {
				return i + 1
			}
		case ',', ' ', '\t', '\n', '\r':
			if depth == 0 {
				return i
			}
		}
		i++
	}
	return i
}

func skipText(b []byte, i int) int {
	for i++; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(b)
}

// unquote reads a JSON string in its quotes.
func unquote(raw []byte) string {
	if bytes.IndexByte(raw, '\\') < 0 && utf8.Valid(raw) {
		return string(raw[1 : len(raw)-1])
	}
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return "" // valid JSON strings always decode
	}
	return s
}
