package h2

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Field is one header field. Names are in lower case.
type Field struct {
	Name, Value string
}

// Head is the part of a header block that many requests share: method, scheme, authority, perhaps the path, and constant fields. A
// connection sends it once and refers to it by a few bytes afterwards. It never changes, and is safe for concurrent use. It is known
// by its address: keep one for many requests, do not make one for each.
type Head struct {
	pseudo, fields []Field
	hasPath        bool
	size           int // as SETTINGS_MAX_HEADER_LIST_SIZE counts
}

// NewHead makes a head. An empty path leaves the path to each request.
func NewHead(method, scheme, authority, path string, fields ...Field) (*Head, error) {
	h := &Head{hasPath: path != ""}
	h.pseudo = []Field{{":method", method}, {":scheme", scheme}, {":authority", authority}}
	if h.hasPath {
		h.pseudo = append(h.pseudo, Field{":path", path})
	}
	for _, f := range h.pseudo {
		if f.Value == "" || !validValue(f.Value) {
			return nil, fmt.Errorf("h2: head with a bad %s", f.Name)
		}
		h.size += fieldSize(len(f.Name), len(f.Value))
	}
	for _, f := range fields {
		if !validName(f.Name) || !validValue(f.Value) {
			return nil, fmt.Errorf("h2: head with a bad field %q", f.Name)
		}
		h.fields = append(h.fields, f)
		h.size += fieldSize(len(f.Name), len(f.Value))
	}
	return h, nil
}

// fieldSize is a field's share of a header list (RFC 9113, section 6.5.2).
func fieldSize(name, value int) int { return name + value + 32 }

// Fields are a request's own header fields, encoded as they are added: as literals that no table keeps, because they are different
// each time. The zero value is empty. Reset keeps the memory.
type Fields struct {
	block []byte
	size  int
	err   error
}

// Name is a field's name that many requests use: checked and encoded once.
type Name struct {
	literal []byte
	size    int
	err     error
}

// NewName prepares a name, in lower case. What is wrong with it, Start says.
func NewName(name string) *Name {
	n := &Name{literal: appendText([]byte{neverIndexed}, name), size: len(name)}
	if !validName(name) {
		n.err = fmt.Errorf("h2: bad header field %q", name)
	}
	return n
}

// Put adds a field whose value is known to be clean: letters, digits and the like, as a number or an id.
func (f *Fields) Put(name *Name, value []byte) {
	if name.err != nil && f.err == nil {
		f.err = name.err
	}
	f.block = appendText(append(f.block, name.literal...), value)
	f.size += fieldSize(name.size, len(value))
}

// PutID adds 16 bytes as a UUID.
func (f *Fields) PutID(name *Name, id [16]byte) {
	const digits = "0123456789abcdef"
	var text [36]byte
	at := 0
	for i, c := range id {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			text[at] = '-'
			at++
		}
		text[at], text[at+1] = digits[c>>4], digits[c&15]
		at += 2
	}
	f.Put(name, text[:])
}

// PutInt adds a number.
func (f *Fields) PutInt(name *Name, value int64) {
	var digits [20]byte
	f.Put(name, strconv.AppendInt(digits[:0], value, 10))
}

// Use lends it memory to begin with. It empties it.
func (f *Fields) Use(memory []byte) { f.block, f.size, f.err = memory[:0], 0, nil }

// Reset empties it.
func (f *Fields) Reset() { f.block, f.size, f.err = f.block[:0], 0, nil }

// Add adds a field. What is wrong with it, Start says.
func (f *Fields) Add(name, value string) { add(f, name, value) }

// AddBytes is Add of a value that need not be a string.
func (f *Fields) AddBytes(name string, value []byte) { add(f, name, value) }

func add[T string | []byte](f *Fields, name string, value T) {
	if !validName(name) || !validValue(value) {
		if f.err == nil {
			f.err = fmt.Errorf("h2: bad header field %q", name)
		}
		return
	}
	f.block = appendLiteral(f.block, name, value)
	f.size += fieldSize(len(name), len(value))
}

// validName reports whether a regular field may be called so (RFC 9113, section 8.2.1).
func validName[T string | []byte](s T) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c >= 'A' && c <= 'Z' || c == ':' {
			return false
		}
	}
	switch string(s) {
	case "", "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
		return false
	}
	return true
}

// validValue reports whether a value could pass through HTTP/1 too: what cannot is a way to smuggle fields in.
func validValue[T string | []byte](s T) bool {
	return (len(s) == 0 || !isBlank(s[0]) && !isBlank(s[len(s)-1])) && clean(s)
}

// clean reports whether a value is free of control characters.
func clean[T string | []byte](s T) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

// Request is one request and, once it is done, its response. It may be used again after that, and keeps its memory: pool requests,
// not their parts. From Start until Done everything in it belongs to the client.
type Request struct {
	Head   *Head
	Path   []byte // where the head has none
	Fields Fields
	Body   []byte // not copied: it must stay as it is until Done
	Tail   []byte // what follows Body; it may be shared by many requests
	// Deadline ends the request; zero: the client's Timeout from now.
	Deadline time.Time
	// Done is called exactly once for each Start without an error, perhaps before it returns, by a goroutine that many requests need:
	// it must not wait for other requests. The response is r's own, valid until r is started again. An error means that there is no
	// response: one that wraps ErrNotSent, that the server has seen nothing of the request; any other, that its fate is unknown.
	Done func(r *Request, res *Response, err error)

	response Response

	// What follows is the client's, under its lock.
	ctx      context.Context //nolint:containedctx // the request's own, until it is done
	expires  time.Time
	link     *link // nil: it waits
	id       uint32
	unsent   []byte // of Body
	tail     []byte // unsent of Tail
	window   int64  // of the stream
	received int64  // bytes of DATA
	answered bool   // the final header block has come
	resends  int
	queued   time.Time // since when it waits for a place
	busy     bool      // between Start and Done
}

var (
	errIncomplete = errors.New("a request needs Head and Done")
	errOnePath    = errors.New("want a path in either the head or the request")
	errBadPath    = errors.New("a path with a space or a control character")
	errUnderWay   = errors.New("the request is under way already")
)

// check says why a request cannot be sent.
func (r *Request) check() error {
	switch {
	case r.Head == nil || r.Done == nil:
		return notSent(errIncomplete)
	case r.Head.hasPath != (len(r.Path) == 0):
		return notSent(errOnePath)
	case !validPath(r.Path):
		return notSent(errBadPath)
	case r.Fields.err != nil:
		return notSent(r.Fields.err)
	}
	return nil
}

// begin makes a request ready for its way; Client.mu is held.
func (r *Request) begin(ctx context.Context) {
	r.busy, r.ctx, r.link, r.resends = true, ctx, nil, 0
	r.response.Status, r.response.Cut, r.response.Waited = 0, false, 0
	r.response.Body, r.response.fields = r.response.Body[:0], r.response.fields[:0]
}

// Patterns of eight bytes at a time.
const (
	eachByte  = 0x0101010101010101
	eachHigh  = 0x80 * eachByte
	eachSpace = (' ' + 1) * eachByte
	eachDEL   = 0x7f * eachByte
)

// validPath reports whether there is no space and no control character in p.
func validPath(p []byte) bool {
	for ; len(p) >= 8; p = p[8:] {
		x := binary.LittleEndian.Uint64(p)
		del := x ^ eachDEL
		// A byte below n: a borrow that its own high bit does not explain. It may be told of a byte above such a one too, never of none.
		if (x-eachSpace)&^x&eachHigh != 0 || (del-eachByte)&^del&eachHigh != 0 {
			return false
		}
	}
	for _, b := range p {
		if b <= ' ' || b == 0x7f {
			return false
		}
	}
	return true
}

// Response is an answer, whole.
type Response struct {
	Status int
	Body   []byte
	// Cut says that the body was longer than the client keeps.
	Cut bool
	// At is when it came.
	At time.Time
	// Waited is how long the request waited for a place on a connection.
	Waited time.Duration

	fields []Field
}

// Get returns the first value of a field that the client keeps, by its name in lower case; "" where there is none.
func (r *Response) Get(name string) string {
	for i := range r.fields {
		if r.fields[i].Name == name {
			return r.fields[i].Value
		}
	}
	return ""
}

// Fields are the fields that the client keeps. Valid as long as the response is.
func (r *Response) Fields() []Field { return r.fields }

// Errors of requests.
var (
	// ErrNotSent: the server has not seen the request, or says that it has not touched it. It may be sent again without doubt.
	ErrNotSent = errors.New("h2: not sent")
	// ErrClosed: the client is closed.
	ErrClosed = errors.New("h2: client is closed")
	// ErrTimeout: no answer before the deadline.
	ErrTimeout = fmt.Errorf("h2: %w", context.DeadlineExceeded)
	// ErrSilent: the connection was given up because the peer answered no PING.
	ErrSilent = errors.New("h2: the peer has fallen silent")
)

// StreamError is a stream that the server reset, or that ended against the protocol.
type StreamError struct {
	Code Code
}

// Error implements error.
func (e StreamError) Error() string { return "h2: stream reset: " + e.Code.String() }

// ConnError is the end of a connection, for a breach of the protocol: ours where Remote is set, the peer's otherwise.
type ConnError struct {
	Code   Code
	Remote bool
	// Text is what the peer said in GOAWAY (APNs puts a reason there), or what it did.
	Text string
}

// Error implements error.
func (e ConnError) Error() string {
	by := "connection ended"
	if e.Remote {
		by = "connection ended by the server"
	}
	text := strings.ToValidUTF8(e.Text, "?")
	if text != "" {
		text = ": " + text
	}
	return "h2: " + by + ": " + e.Code.String() + text
}

// left is the number of bytes that have not been sent.
func (r *Request) left() int { return len(r.unsent) + len(r.tail) }

func notSent(err error) error { return fmt.Errorf("%w: %w", ErrNotSent, err) }
