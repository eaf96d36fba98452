package senders

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"
)

const hexDigits = "0123456789abcdef"

// appendString appends s as a JSON string. It escapes what JSON demands and nothing else: encoding/json's HTML escaping makes six
// bytes of each '<', and providers count bytes. Invalid UTF-8 becomes U+FFFD.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 {
				b = append(append(b, s[start:i]...), "\ufffd"...)
				start = i + 1
			}
			i += n
			continue
		}
		if c >= 0x20 && c != '"' && c != '\\' {
			i++
			continue
		}
		b = append(b, s[start:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		i++
		start = i
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}

// cut returns the longest beginning of s, in whole runes, whose JSON form without quotes is at most limit bytes.
func cut(s string, limit int) string {
	size := 0
	for i, r := range s {
		n := utf8.RuneLen(r)
		switch {
		case r == utf8.RuneError:
			n = len("\ufffd")
		case r == '"', r == '\\', r == '\n', r == '\r', r == '\t':
			n = 2
		case r < 0x20:
			n = 6
		}
		if size+n > limit {
			return s[:i]
		}
		size += n
	}
	return s
}

// object is a JSON object that somebody else wrote: its values stay as they are.
type object map[string]json.RawMessage

var errNoObject = errors.New("want a JSON object")

// readObject reads a JSON object; empty, blank and null are none.
func readObject(raw []byte) (object, error) {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil
	}
	if raw[0] != '{' {
		return nil, errNoObject
	}
	var o object
	if err := json.Unmarshal(raw, &o); err != nil {
		return nil, fmt.Errorf("%w: %w", errNoObject, err)
	}
	return o, nil
}

// child reads the object under key; nil where there is none or the value is null.
func (o object) child(key string) (object, error) {
	c, err := readObject(o[key])
	if err != nil {
		return nil, fmt.Errorf("%q: %w", key, err)
	}
	return c, nil
}

// has reports whether one of the spellings stands in o.
func (o object) has(spellings ...string) bool {
	for _, s := range spellings {
		if v, ok := o[s]; ok && string(bytes.TrimSpace(v)) != "null" {
			return true
		}
	}
	return false
}

// setDefault sets the first spelling to raw JSON where none of them stands.
func (o object) setDefault(raw string, spellings ...string) {
	if !o.has(spellings...) {
		o[spellings[0]] = json.RawMessage(raw)
	}
}

// text is the string under key, or "".
func (o object) text(key string) string {
	var s string
	if json.Unmarshal(o[key], &s) != nil {
		return ""
	}
	return s
}

func quoted(s string) string { return string(appendString(nil, s)) }

// append appends o with sorted keys, so that equal objects have equal bytes. Null values are left out.
func (o object) append(b []byte) []byte {
	keys := make([]string, 0, len(o))
	for k := range o {
		if o.has(k) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	b = append(b, '{')
	for i, k := range keys {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendString(b, k), ':')
		b = appendCompact(b, o[k])
	}
	return append(b, '}')
}

// appendCompact appends valid JSON without its white space; unlike json.Compact through Marshal, without HTML escaping.
func appendCompact(b []byte, raw []byte) []byte {
	buf := bytes.NewBuffer(b)
	if err := json.Compact(buf, raw); err != nil { // not JSON: readObject never lets it in
		return append(b, "null"...)
	}
	return buf.Bytes()
}

// raw is o as a JSON value.
func (o object) raw() json.RawMessage { return o.append(nil) }
