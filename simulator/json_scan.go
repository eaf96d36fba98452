package simulator

import (
	"encoding/binary"
	"encoding/json"
	"math/bits"
)

// jsonScan walks a JSON text (RFC 8259) without building anything. It takes what encoding/json takes, neither more nor less, up
// to a depth of maxScanDepth.
type jsonScan struct {
	b []byte
	i int
	// cost bounds how many bytes more than its text a value has when encoding/json writes it: it escapes <, > and &, and the two
	// line ends of Unicode.
	cost int
}

// maxScanDepth keeps the walk from recursing for long; what is deeper goes to encoding/json.
const maxScanDepth = 60

// validJSON is json.Valid at a third of its time.
func validJSON(b []byte) bool {
	s := jsonScan{b: b}
	s.space()
	ok, deep := s.value(0)
	if deep {
		return json.Valid(b)
	}
	s.space()
	return ok && s.i == len(b)
}

func (s *jsonScan) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\r', '\n':
			s.i++
		default:
			return
		}
	}
}

// next takes c, after space.
func (s *jsonScan) next(c byte) bool {
	s.space()
	if s.i < len(s.b) && s.b[s.i] == c {
		s.i++
		return true
	}
	return false
}

// peek is the next byte after space; 0 at the end.
func (s *jsonScan) peek() byte {
	s.space()
	if s.i < len(s.b) {
		return s.b[s.i]
	}
	return 0
}

// value skips one; deep: it is nested too deeply to tell.
func (s *jsonScan) value(depth int) (ok, deep bool) {
	if depth > maxScanDepth {
		return false, true
	}
	switch c := s.peek(); {
	case c == '"':
		_, _, ok = s.str()
		return ok, false
	case c == '{':
		return s.members(depth, '}', true)
	case c == '[':
		return s.members(depth, ']', false)
	case c == 't':
		return s.word("true"), false
	case c == 'f':
		return s.word("false"), false
	case c == 'n':
		return s.word("null"), false
	case c == '-' || c >= '0' && c <= '9':
		return s.number(), false
	}
	return false, false
}

func (s *jsonScan) members(depth int, end byte, named bool) (ok, deep bool) {
	s.i++
	if s.next(end) {
		return true, false
	}
	for {
		if named {
			if s.peek() != '"' {
				return false, false
			}
			if _, _, ok := s.str(); !ok || !s.next(':') {
				return false, false
			}
		}
		if ok, deep := s.value(depth + 1); !ok {
			return false, deep
		}
		if s.next(end) {
			return true, false
		}
		if !s.next(',') {
			return false, false
		}
	}
}

func (s *jsonScan) word(w string) bool {
	if len(s.b)-s.i < len(w) || string(s.b[s.i:s.i+len(w)]) != w {
		return false
	}
	s.i += len(w)
	return true
}

func (s *jsonScan) digits() bool {
	from := s.i
	for s.i < len(s.b) && s.b[s.i] >= '0' && s.b[s.i] <= '9' {
		s.i++
	}
	return s.i > from
}

func (s *jsonScan) at(c byte) bool { return s.i < len(s.b) && s.b[s.i] == c }

// number takes the grammar of RFC 8259, section 6.
func (s *jsonScan) number() bool {
	if s.at('-') {
		s.i++
	}
	if s.at('0') {
		s.i++
	} else if !s.digits() {
		return false
	}
	if s.at('.') {
		s.i++
		if !s.digits() {
			return false
		}
	}
	if s.at('e') || s.at('E') {
		s.i++
		if s.at('+') || s.at('-') {
			s.i++
		}
		return s.digits()
	}
	return true
}

// str takes a string that begins here. raw is what stands between the quotes; most bounds its length when it is decoded, and
// equals it where plain.
func (s *jsonScan) str() (raw []byte, plain, ok bool) {
	s.i++
	from := s.i
	plain = true
	for {
		s.plainRun()
		if s.i >= len(s.b) {
			return nil, false, false
		}
		switch c := s.b[s.i]; {
		case c == '"':
			raw = s.b[from:s.i]
			s.i++
			return raw, plain, true
		case c == '\\':
			plain = false
			if !s.escape() {
				return nil, false, false
			}
		case c < ' ':
			return nil, false, false
		default:
			switch c {
			case '<', '>', '&':
				s.cost += 5
			case 0xe2:
				s.cost += 3
			}
			s.i++
		}
	}
}

// plainRun skips eight bytes at a time while none of them needs a look.
func (s *jsonScan) plainRun() {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	for len(s.b)-s.i >= 8 {
		v := binary.LittleEndian.Uint64(s.b[s.i:])
		// Each term has the high bit of a byte set that is of the kind; bits of a lower byte's borrow can only add others.
		has := func(c uint64) uint64 { x := v ^ (ones * c); return (x - ones) & ^x }
		special := (v - ones*0x20) | v | has('"') | has('\\') | has('<') | has('>') | has('&')
		if special &= highs; special != 0 {
			s.i += bits.TrailingZeros64(special) / 8 // the lowest is genuine
			return
		}
		s.i += 8
	}
}

func (s *jsonScan) escape() bool {
	s.i++
	if s.i >= len(s.b) {
		return false
	}
	c := s.b[s.i]
	s.i++
	switch c {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return true
	case 'u':
		if len(s.b)-s.i < 4 {
			return false
		}
		for _, h := range s.b[s.i : s.i+4] {
			if (h < '0' || h > '9') && (h < 'a' || h > 'f') && (h < 'A' || h > 'F') {
				return false
			}
		}
		s.i += 4
		return true
	}
	return false
}
