package migrate

import (
	"math"
	"strconv"
	"strings"
)

// kind is what a value of a document is.
type kind uint8

const (
	absent kind = iota
	null
	text
	number
	other // a truth value, a list, a document
)

// value is a scalar of MongoDB's Extended JSON, relaxed or canonical. The zero value stands for a field that is not there.
type value struct {
	kind   kind
	text   string
	number float64
}

// readValue reads a valid JSON value.
func readValue(raw []byte) value {
	switch raw[0] {
	case 'n':
		return value{kind: null}
	case '"':
		return value{kind: text, text: unquote(raw)}
	case '{':
		return readWrapped(raw)
	case 't', 'f', '[':
		return value{kind: other}
	}
	return readNumber(string(raw))
}

// readWrapped reads {"$numberInt": "15"} and its like. Dates are none of what is needed.
func readWrapped(raw []byte) value {
	v, count := value{kind: other}, 0
	members(raw, func(name string, inner []byte) {
		count++
		switch name {
		case "$numberInt", "$numberLong", "$numberDouble", "$numberDecimal":
			if len(inner) > 0 && inner[0] == '"' {
				v = readNumber(unquote(inner))
			} else if len(inner) > 0 && inner[0] != '{' { // older exports write {"$numberLong": 15}
				v = readNumber(string(inner))
			}
		case "$oid", "$symbol":
			if len(inner) > 0 && inner[0] == '"' {
				v = value{kind: text, text: unquote(inner)}
			}
		}
	})
	if count != 1 {
		return value{kind: other}
	}
	return v
}

func readNumber(s string) value {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
		return value{kind: other}
	}
	return value{kind: number, number: f}
}

// string is the value where it is a text, without the space around it; empty otherwise.
func (v value) string() string {
	if v.kind != text {
		return ""
	}
	return strings.TrimSpace(v.text)
}

// missing reports whether nothing was said: no field, null, or an empty text.
func (v value) missing() bool {
	return v.kind == absent || v.kind == null || v.kind == text && strings.TrimSpace(v.text) == ""
}

// int is the value where it is a whole number, also one written as text, as old versions of AirNotifier stored it.
func (v value) int() (int64, bool) {
	f := v.number
	switch v.kind {
	case number:
	case text:
		n := readNumber(v.string())
		if n.kind != number {
			return 0, false
		}
		f = n.number
	case absent, null, other:
		return 0, false
	}
	if f != math.Trunc(f) || math.Abs(f) > 1<<53 {
		return 0, false
	}
	return int64(f), true
}

// seconds is a time in Unix seconds, with a fraction or without.
func (v value) seconds() (float64, bool) { return v.number, v.kind == number }
