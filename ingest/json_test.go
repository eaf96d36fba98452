package ingest

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"unicode/utf8"
)

// The tests of this file look inside: the reader has no face of its own.

func TestSyntaxErrorsSpeakPython(t *testing.T) {
	t.Parallel()
	for doc, want := range map[string]string{
		"":                    "Expecting value: line 1 column 1 (char 0)",
		"hello":               "Expecting value: line 1 column 1 (char 0)",
		"{":                   "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
		"{\"a\" 1}":           "Expecting ':' delimiter: line 1 column 6 (char 5)",
		"{\"a\":1 \"b\":2}":   "Expecting ',' delimiter: line 1 column 8 (char 7)",
		"{\"a\":\n  \"é\",x}": "Expecting property name enclosed in double quotes: line 2 column 7 (char 12)",
		"{} {}":               "Extra data: line 1 column 4 (char 3)",
		"\"abc":               "Unterminated string starting at: line 1 column 1 (char 0)",
		"\"a\nb\"":            "Invalid control character at: line 1 column 3 (char 2)",
		`"\x"`:                `Invalid \escape: line 1 column 2 (char 1)`,
		`"\u12g4"`:            `Invalid \uXXXX escape: line 1 column 4 (char 3)`,
		"[1,]":                "Expecting value: line 1 column 4 (char 3)",
	} {
		_, err := parseJSON(doc)
		if err == nil || err.Error() != want {
			t.Errorf("%q: want %q, got %v", doc, want, err)
		}
	}
}

func TestValuesAreTypedAsFCMWantsThem(t *testing.T) {
	t.Parallel()
	for doc, want := range map[string]string{
		"true": "1", "false": "0", "1": "1", "-0": "0", "1.50": "1.50", "1e3": "1000", "1.5E-3": "0.0015", "1e999": "1e999",
		`"x"`: "x", `"a\"\\\/\b\f\n\r\tb"`: "a\"\\/\b\f\n\r\tb", `"\u00e9\ud83d\ude00"`: "é😀", `"\ud83d x"`: "\uFFFD x", `"\ud83d\u0041"`: "\uFFFDA",
		`[1, "a b", {"c" : null}]`: `[1,"a b",{"c":null}]`, `{ "a\" " : [ ] }`: `{"a\" ":[]}`,
	} {
		v, err := parseJSON(doc)
		if err != nil {
			t.Fatalf("%s: %v", doc, err)
		}
		if got, ok := v.typed(); !ok || got != want {
			t.Errorf("%s: want %q, got %q", doc, want, got)
		}
	}
	if v, err := parseJSON(" null "); err != nil || !v.isNull() {
		t.Errorf("want null, got %q, %v", v, err)
	} else if _, ok := v.typed(); ok {
		t.Error("want null left out")
	}
}

// FuzzJSON compares the reader with encoding/json: the same documents are good, and hold the same.
func FuzzJSON(f *testing.F) {
	for _, s := range []string{
		`{"a":1,"b":[true,null,{"c":"\u00e9\ud83d\ude00"}]}`, `{"a":`, `[]`, `"x`, ` 1e5 `, `{"a":1,"a":2}`, `[[[[]]]]`, "{\"\\\\\":\"\\\"\"}", `-`, `01`, `1.`, `{ "a" : "b" , "c":{} }`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, doc string) {
		if !utf8.ValidString(doc) {
			return
		}
		v, err := parseJSON(doc)
		if err != nil {
			if json.Valid([]byte(doc)) && !strings.HasPrefix(err.what, "Nested too deep") {
				t.Fatalf("%q is JSON, and was refused: %v", doc, err)
			}
			return
		}
		if !json.Valid([]byte(doc)) {
			t.Fatalf("%q is no JSON, and was taken", doc)
		}
		same(t, v, decode(t, doc))
		members, ok, err := parseObject(doc, nil)
		if err != nil || ok != (v.kind() == '{') {
			t.Fatalf("%q: as an object %v, %v", doc, ok, err)
		}
		n := 0
		for name, m := range v.members() {
			if members[n].name != name || members[n].value != m {
				t.Fatalf("%q: member %d is %q: %s, want %q: %s", doc, n, members[n].name, members[n].value, name, m)
			}
			n++
		}
		same(t, value(v.compact()), decode(t, v.compact()))
	})
}

func decode(t *testing.T, doc string) any {
	t.Helper()
	var want any
	d := json.NewDecoder(strings.NewReader(doc))
	d.UseNumber()
	if err := d.Decode(&want); err != nil {
		t.Fatal(err)
	}
	return want
}

// same compares members and strings all the way down.
func same(t *testing.T, got value, want any) {
	t.Helper()
	switch want := want.(type) {
	case map[string]any:
		last := maps.Collect(got.members())
		if len(last) != len(want) {
			t.Fatalf("%s: want %d members, got %d", got, len(want), len(last))
		}
		for name, w := range want {
			same(t, last[name], w)
		}
	case string:
		if got.text() != want {
			t.Fatalf("%s: want %q, got %q", got, want, got.text())
		}
	case json.Number:
		if string(got) != want.String() {
			t.Fatalf("want %s, got %s", want, got)
		}
	case bool:
		if got.truthy() != want {
			t.Fatalf("want %v, got %s", want, got)
		}
	case nil:
		if !got.isNull() {
			t.Fatalf("want null, got %s", got)
		}
	}
}
