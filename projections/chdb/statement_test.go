package chdb

import (
	"net/url"
	"strings"
	"testing"
)

func TestStatementsAreTold(t *testing.T) {
	t.Parallel()
	for query, want := range map[string]bool{
		"SELECT 1": true, "  select 1": true, "WITH 1 AS x SELECT x": true, "(SELECT 1)": true, "/* a */ -- b\nSELECT 1": true, "# c\nselect": true,
		"SHOW TABLES": false, "INSERT INTO t SELECT 1": false, "": false, "/* open": false, "-- SELECT": false, "SELECTED": false, "DESCRIBE TABLE t": false,
	} {
		if got := reads(query); got != want {
			t.Errorf("%q: want %v", query, want)
		}
	}
	for _, c := range []struct {
		query, statement, format string
		ok                       bool
	}{
		{"INSERT INTO t (a, b) FORMAT Native", "INSERT INTO t (a, b)", "Native", true},
		{"insert into t format  tsv ; ", "insert into t", "tsv", true},
		{"INSERT INTO t", "INSERT INTO t", "", true},
		{"INSERT INTO t SELECT 1 FORMAT Native", "", "", false},
		{"INSERT INTO t VALUES (1)", "", "", false},
		{"INSERT INTO t (a)VALUES(1)", "", "", false},
		{"INSERT INTO t (values_seen, selected) FORMAT Native", "INSERT INTO t (values_seen, selected)", "Native", true},
		{"SELECT 1 FORMAT Native", "", "", false},
	} {
		statement, format, ok := splitInsert(c.query)
		if statement != c.statement || format != c.format || ok != c.ok {
			t.Errorf("%q: got %q, %q, %v", c.query, statement, format, ok)
		}
	}
}

func FuzzStatement(f *testing.F) {
	for _, s := range []string{"INSERT INTO t FORMAT Native", "/*/ SELECT", "--\n(", "INSERT INTO t\tFORMAT\nX;"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, query string) {
		statement, format, ok := splitInsert(query)
		if !ok {
			return
		}
		if !strings.HasPrefix(query, statement) || keyword(statement) != "INSERT" || reads(query) {
			t.Errorf("%q: %q", query, statement)
		}
		for _, c := range format {
			if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
				t.Errorf("%q: format %q", query, format)
			}
		}
	})
}

// FuzzSettings: no value leaves its quotes, and no name is anything but a name.
func FuzzSettings(f *testing.F) {
	f.Add("max_threads", "1")
	f.Add("param_x", `a\'b`)
	f.Add("x = 1; DROP TABLE t; --", `\`)
	f.Fuzz(func(t *testing.T, name, value string) {
		set, _, err := settingsOf(url.Values{name: {value}})
		if err != nil || set == "" {
			return
		}
		rest, ok := strings.CutPrefix(set, "SET "+name+" = '")
		if !ok || !settingName.MatchString(name) {
			t.Fatalf("%q", set)
		}
		var read strings.Builder
		for i := 0; i < len(rest); i++ {
			switch rest[i] {
			case '\\':
				i++
				if i == len(rest) {
					t.Fatalf("%q ends in a backslash", set)
				}
			case '\'':
				if i != len(rest)-1 {
					t.Fatalf("%q leaves its quotes", set)
				}
				if read.String() != value {
					t.Fatalf("%q reads as %q", set, read.String())
				}
				return
			}
			read.WriteByte(rest[i])
		}
		t.Fatalf("%q has no end", set)
	})
}

func FuzzLines(f *testing.F) {
	f.Add([]byte(`{"url":"http://127.0.0.1:1","key":"k"}`))
	f.Add([]byte("\n"))
	f.Fuzz(func(t *testing.T, line []byte) {
		if r, ok := parseReady(line); ok && (r.URL == "" || r.Key == "") {
			t.Errorf("%q: %+v", line, r)
		}
		if o, err := parseOrder(line); err != nil && o != (order{}) {
			t.Errorf("%q: %+v with an error", line, o)
		}
	})
}
