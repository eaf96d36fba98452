package migrate

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

// split reads everything; a malformed document stands as "!".
func split(t *testing.T, r io.Reader) (docs []string) {
	t.Helper()
	d := newDocuments(r)
	for {
		doc, err := d.next()
		switch {
		case errors.Is(err, io.EOF):
			return docs
		case errors.Is(err, errMalformed):
			docs = append(docs, "!")
		case err != nil:
			t.Fatal(err)
		default:
			docs = append(docs, string(doc))
		}
	}
}

func TestDocumentsAreSplitInEveryForm(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"empty":                       {"", nil},
		"blank":                       {" \n\n", nil},
		"lines":                       {"{\"a\":1}\n{\"b\":2}\n", []string{`{"a":1}`, `{"b":2}`}},
		"no end of line":              {`{"a":1}`, []string{`{"a":1}`}},
		"windows":                     {"\xef\xbb\xbf{\"a\":1}\r\n{}\r\n", []string{`{"a":1}`, `{}`}},
		"array":                       {`[{"a":1},{"b":[{}]}]`, []string{`{"a":1}`, `{"b":[{}]}`}},
		"empty array":                 {"[]\n", nil},
		"array, pretty":               {"[{\n\t\"a\": {\n\t\t\"b\": 1\n\t}\n},\n{}\n]\n", []string{"{\n\t\"a\": {\n\t\t\"b\": 1\n\t}\n}", "{}"}},
		"pretty":                      {"{\n\t\"a\": 1\n}\n{\n\t\"b\": 2\n}\n", []string{"{\n\t\"a\": 1\n}", "{\n\t\"b\": 2\n}"}},
		"braces in text":              {`{"a":"}{\"\\"}{"b":1}`, []string{`{"a":"}{\"\\"}`, `{"b":1}`}},
		"cut off":                     {"{\"a\":1}\n{\"b\":\n{\"c\":3}\n", []string{`{"a":1}`, "!", `{"c":3}`}},
		"cut off in text":             {"{\"a\":\"x\n{\"c\":3}\n", []string{"!", `{"c":3}`}},
		"cut off at the end":          {"{\"a\":1}\n{\"b\"", []string{`{"a":1}`, "!"}},
		"no JSON between the braces":  {"{a:1}\n{\"b\":2}", []string{"!", `{"b":2}`}},
		"mongoexport's words between": {"connected to: localhost\n{\"a\":1}\n", []string{"!", `{"a":1}`}},
		"too deep a bracket":          {"{\"a\":1]\n{\"b\":2}", []string{"!", `{"b":2}`}},
	} {
		for form, r := range map[string]io.Reader{
			"at once": strings.NewReader(c.text), "byte by byte": iotest.OneByteReader(strings.NewReader(c.text)), "with EOF": iotest.DataErrReader(strings.NewReader(c.text)),
		} {
			if diff := cmp.Diff(c.want, split(t, r)); diff != "" {
				t.Errorf("%s, %s (-want +got):\n%s", name, form, diff)
			}
		}
	}
}

func TestAReadersErrorIsNoMalformedDocument(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	d := newDocuments(io.MultiReader(strings.NewReader(`{"a":1}{"b"`), iotest.ErrReader(broken)))
	if doc, err := d.next(); err != nil || string(doc) != `{"a":1}` {
		t.Fatalf("got %q, %v", doc, err)
	}
	if _, err := d.next(); !errors.Is(err, broken) {
		t.Errorf("want the reader's error, got %v", err)
	}
}

func TestExtendedJSONIsReadRelaxedAndCanonical(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]value{
		`"a\u0062"`:                  {kind: text, text: "ab"},
		`null`:                       {kind: null},
		`true`:                       {kind: other},
		`[1]`:                        {kind: other},
		`15`:                         {kind: number, number: 15},
		`-1.5e3`:                     {kind: number, number: -1500},
		`{"$numberInt":"15"}`:        {kind: number, number: 15},
		`{"$numberLong":"15"}`:       {kind: number, number: 15},
		`{"$numberLong":15}`:         {kind: number, number: 15},
		`{ "$numberDouble" : "1.4"}`: {kind: number, number: 1.4},
		`{"$numberDouble":"NaN"}`:    {kind: other},
		`{"$numberInt":{}}`:          {kind: other},
		`{"$oid":"5f"}`:              {kind: text, text: "5f"},
		`{"$date":"2020"}`:           {kind: other},
		`{"a":1,"$numberInt":"2"}`:   {kind: other},
		`{}`:                         {kind: other},
	} {
		if got := readValue([]byte(raw)); got != want {
			t.Errorf("%s: want %+v, got %+v", raw, want, got)
		}
	}
	for raw, want := range map[string]int64{`15`: 15, `15.0`: 15, `"15"`: 15, `{"$numberDouble":"15.0"}`: 15} {
		if got, ok := readValue([]byte(raw)).int(); !ok || got != want {
			t.Errorf("%s: want %d, got %d, %v", raw, want, got, ok)
		}
	}
	for _, raw := range []string{`1.5`, `"x"`, `null`, `1e300`} {
		if got, ok := readValue([]byte(raw)).int(); ok {
			t.Errorf("%s is taken for %d", raw, got)
		}
	}
}

// FuzzDocuments holds the splitter and the walk over members to encoding/json.
func FuzzDocuments(f *testing.F) {
	f.Add([]byte("{\"a\":1}\n{\"b\":\"}\"}"))
	f.Add([]byte("[{\"token\":{\"$numberInt\":\"1\"}},{\"\":[{}]}]"))
	f.Add([]byte("{\"a\":\n{\"b\":2}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		d := newDocuments(bytes.NewReader(b))
		for range len(b) + 2 {
			doc, err := d.next()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				continue
			}
			var want map[string]json.RawMessage
			if err := json.Unmarshal(doc, &want); err != nil {
				t.Fatalf("%q is taken for a document: %v", doc, err)
			}
			got := map[string]json.RawMessage{}
			members(doc, func(name string, raw []byte) {
				got[name] = raw
				readValue(raw)
			})
			if len(got) != len(want) {
				t.Fatalf("%q: want %d members, got %d", doc, len(want), len(got))
			}
			for name, raw := range want {
				if !bytes.Equal(bytes.TrimSpace(raw), bytes.TrimSpace(got[name])) {
					t.Fatalf("%q: member %q: want %q, got %q", doc, name, raw, got[name])
				}
			}
			readApplication(doc)
		}
		t.Fatal("it does not end")
	})
}
