package ingest

import (
	"fmt"
	"iter"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// A small JSON reader. encoding/json cannot keep the order of members and costs several times the rest of a push; here a
// document is checked once (RFC 8259), and what is wanted is read from it in place.

// maxDepth is how deep a document may nest. Python gives up near 1000, Moodle stays below 5.
const maxDepth = 64

// syntaxError says what is wrong with a document as Python's json module says it, which AirNotifier's clients see.
type syntaxError struct {
	what string
	line int // from 1
	col  int // from 1, in characters
	char int // from 0, in characters
}

func (e *syntaxError) Error() string {
	return fmt.Sprintf("%s: line %d column %d (char %d)", e.what, e.line, e.col, e.char)
}

// value is a checked piece of a document: its text without surrounding space. The zero value is an absent one.
type value string

// kind is the value's first byte: { [ " t f n, - or a digit; 0 for an absent value.
func (v value) kind() byte {
	if v == "" {
		return 0
	}
	return v[0]
}

func (v value) isNull() bool { return v.kind() == 'n' }

// parseJSON checks a whole document, which must be valid UTF-8.
func parseJSON(doc string) (value, *syntaxError) {
	p := checker{s: doc}
	p.space()
	start := p.i
	if !p.value(0) {
		return "", p.failure()
	}
	end := p.i
	p.space()
	if p.i < len(doc) {
		p.fail("Extra data", p.i)
		return "", p.failure()
	}
	return value(doc[start:end]), nil
}

// member is one of an object's.
type member struct {
	name string
	value
}

// parseObject checks a whole document that must be an object, and appends its own members to into while it does: the body of a push is
// nearly all in one of them, which so is not walked once more. ok is false for another kind of document.
func parseObject(doc string, into []member) (members []member, ok bool, err *syntaxError) {
	p := checker{s: doc, top: into, collect: true}
	p.space()
	ok = p.peek() == '{'
	if !p.value(0) {
		return p.top, false, p.failure()
	}
	p.space()
	if p.i < len(doc) {
		p.fail("Extra data", p.i)
		return p.top, false, p.failure()
	}
	return p.top, ok, nil
}

// checker walks a document that may be wrong.
type checker struct {
	s       string
	i       int
	what    string
	at      int
	collect bool
	top     []member
}

func (p *checker) fail(what string, at int) bool {
	p.what, p.at = what, at
	return false
}

func (p *checker) failure() *syntaxError {
	before := p.s[:min(p.at, len(p.s))]
	lastLine := before[strings.LastIndexByte(before, '\n')+1:]
	return &syntaxError{p.what, 1 + strings.Count(before, "\n"), 1 + utf8.RuneCountInString(lastLine), utf8.RuneCountInString(before)}
}

func (p *checker) space() {
	for p.i < len(p.s) {
		switch p.s[p.i] {
		case ' ', '\t', '\n', '\r':
			p.i++
		default:
			return
		}
	}
}

func (p *checker) peek() byte {
	if p.i < len(p.s) {
		return p.s[p.i]
	}
	return 0
}

func (p *checker) value(depth int) bool {
	switch c := p.peek(); {
	case c == '"':
		return p.str()
	case c == '{' || c == '[':
		if depth >= maxDepth {
			return p.fail("Nested too deep", p.i)
		}
		if c == '{' {
			return p.object(depth + 1)
		}
		return p.array(depth + 1)
	case c == 't':
		return p.word("true")
	case c == 'f':
		return p.word("false")
	case c == 'n':
		return p.word("null")
	case c == '-' || isDigit(c):
		return p.number()
	}
	return p.fail("Expecting value", p.i)
}

func (p *checker) word(w string) bool {
	if !strings.HasPrefix(p.s[p.i:], w) {
		return p.fail("Expecting value", p.i)
	}
	p.i += len(w)
	return true
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func (p *checker) digits() bool {
	start := p.i
	for isDigit(p.peek()) {
		p.i++
	}
	return p.i > start
}

func (p *checker) number() bool {
	start := p.i
	if p.peek() == '-' {
		p.i++
	}
	if p.peek() == '0' {
		p.i++
	} else if !p.digits() {
		return p.fail("Expecting value", start)
	}
	if p.peek() == '.' {
		p.i++
		if !p.digits() {
			return p.fail("Extra data", p.i-1)
		}
	}
	if c := p.peek(); c == 'e' || c == 'E' {
		p.i++
		if c := p.peek(); c == '+' || c == '-' {
			p.i++
		}
		if !p.digits() {
			return p.fail("Extra data", p.i)
		}
	}
	return true
}

func (p *checker) str() bool {
	start := p.i
	for i := p.i + 1; i < len(p.s); i++ {
		switch c := p.s[i]; {
		case c == '"':
			p.i = i + 1
			return true
		case c < 0x20:
			return p.fail("Invalid control character at", i)
		case c != '\\':
		case i+1 < len(p.s) && strings.IndexByte(`"\/bfnrt`, p.s[i+1]) >= 0:
			i++
		case i+1 < len(p.s) && p.s[i+1] == 'u':
			if _, ok := hex4(p.s[i+2:]); !ok {
				return p.fail("Invalid \\uXXXX escape", i+2)
			}
			i += 5
		default:
			return p.fail("Invalid \\escape", i)
		}
	}
	return p.fail("Unterminated string starting at", start)
}

func hex4(s string) (r rune, ok bool) {
	if len(s) < 4 {
		return 0, false
	}
	for i := range 4 {
		c := s[i]
		switch {
		case isDigit(c):
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

func (p *checker) object(depth int) bool {
	p.i++
	p.space()
	if p.peek() == '}' {
		p.i++
		return true
	}
	for {
		if p.peek() != '"' {
			return p.fail("Expecting property name enclosed in double quotes", p.i)
		}
		name := p.i
		if !p.str() {
			return false
		}
		nameEnd := p.i
		p.space()
		if p.peek() != ':' {
			return p.fail("Expecting ':' delimiter", p.i)
		}
		p.i++
		p.space()
		start := p.i
		if !p.value(depth) {
			return false
		}
		if p.collect && depth == 1 {
			p.top = append(p.top, member{unquote(p.s[name:nameEnd]), value(p.s[start:p.i])})
		}
		p.space()
		switch p.peek() {
		case ',':
			p.i++
			p.space()
		case '}':
			p.i++
			return true
		default:
			return p.fail("Expecting ',' delimiter", p.i)
		}
	}
}

func (p *checker) array(depth int) bool {
	p.i++
	p.space()
	if p.peek() == ']' {
		p.i++
		return true
	}
	for {
		if !p.value(depth) {
			return false
		}
		p.space()
		switch p.peek() {
		case ',':
			p.i++
			p.space()
		case ']':
			p.i++
			return true
		default:
			return p.fail("Expecting ',' delimiter", p.i)
		}
	}
}

// members walks an object's members in order; anything else has none.
func (v value) members() iter.Seq2[string, value] {
	return func(yield func(string, value) bool) {
		if v.kind() != '{' {
			return
		}
		s := string(v)
		for i := 1; ; {
			for s[i] != '"' { // space or a comma, in what was checked
				if s[i] == '}' {
					return
				}
				i++
			}
			end := skip(s, i)
			name := unquote(s[i:end])
			for i = end; s[i] == ' ' || s[i] == '\t' || s[i] == '\n' || s[i] == '\r' || s[i] == ':'; {
				i++
			}
			end = skip(s, i)
			if !yield(name, value(s[i:end])) {
				return
			}
			i = end
		}
	}
}

// skip is the end of the value that begins at s[i], in a checked document.
func skip(s string, i int) int {
	switch s[i] {
	case '"':
		for i++; s[i] != '"'; i++ {
			if s[i] == '\\' {
				i++
			}
		}
		return i + 1
	case '{', '[':
		for depth := 0; ; i++ {
			switch s[i] {
			case '"':
				i = skip(s, i) - 1
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return i + 1
				}
			}
		}
	}
	for i < len(s) && strings.IndexByte(" \t\r\n,]}", s[i]) < 0 {
		i++
	}
	return i
}

// text is a string's content; of anything else, nothing.
func (v value) text() string {
	if v.kind() != '"' {
		return ""
	}
	return unquote(string(v))
}

// unquote decodes a checked string. A lone half of a surrogate pair becomes U+FFFD.
func unquote(s string) string {
	s = s[1 : len(s)-1]
	at := strings.IndexByte(s, '\\')
	if at < 0 {
		return s
	}
	b := make([]byte, 0, len(s))
	for ; at >= 0; at = strings.IndexByte(s, '\\') {
		b = append(b, s[:at]...)
		c := s[at+1]
		s = s[at+2:]
		switch c {
		case 'b':
			b = append(b, '\b')
		case 'f':
			b = append(b, '\f')
		case 'n':
			b = append(b, '\n')
		case 'r':
			b = append(b, '\r')
		case 't':
			b = append(b, '\t')
		case 'u':
			r, _ := hex4(s)
			s = s[4:]
			if utf16.IsSurrogate(r) {
				low := rune(0)
				if len(s) >= 6 && s[0] == '\\' && s[1] == 'u' {
					low, _ = hex4(s[2:])
				}
				if r = utf16.DecodeRune(r, low); r != utf8.RuneError {
					s = s[6:]
				}
			}
			b = utf8.AppendRune(b, r)
		default: // " \ /
			b = append(b, c)
		}
	}
	return string(append(b, s...))
}

// compact is the value's text without the space between its parts.
func (v value) compact() string {
	s := string(v)
	if !strings.ContainsAny(s, " \t\r\n") {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case ' ', '\t', '\r', '\n':
		case '"':
			end := skip(s, i)
			b = append(b, s[i:end]...)
			i = end - 1
		default:
			b = append(b, s[i])
		}
	}
	return string(b)
}

// typed is the value as FCM's data wants it, a string (contract 3.3); ok is false for what is left out: null.
func (v value) typed() (s string, ok bool) {
	switch v.kind() {
	case 0, 'n':
		return "", false
	case '"':
		return v.text(), true
	case 't':
		return "1", true
	case 'f':
		return "0", true
	case '{', '[':
		return v.compact(), true
	}
	return decimal(string(v)), true
}

// decimal writes a number without an exponent, as Python writes those of usual size.
func decimal(number string) string {
	if number == "-0" {
		return "0"
	}
	if !strings.ContainsAny(number, "eE") {
		return number
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil { // out of range: what was sent is the best that can be said
		return number
	}
	return strconv.FormatFloat(f, 'f', -1, 64)
}

// truthy reports whether a value says yes: true, a number but 0, "1", "true".
func (v value) truthy() bool {
	switch v.kind() {
	case '"':
		t := v.text()
		return t == "1" || strings.EqualFold(t, "true")
	case 't':
		return true
	case 0, 'n', 'f', '{', '[':
		return false
	}
	f, err := strconv.ParseFloat(string(v), 64)
	return err != nil || f != 0
}
