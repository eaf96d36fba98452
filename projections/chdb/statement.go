package chdb

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// keyword is the first word of a statement in upper case, after white space and comments; "(" for a parenthesis.
func keyword(query string) string {
	for {
		query = strings.TrimLeft(query, " \t\r\n\f\v")
		switch {
		case strings.HasPrefix(query, "--"), strings.HasPrefix(query, "#"):
			_, rest, found := strings.Cut(query, "\n")
			if !found {
				return ""
			}
			query = rest
		case strings.HasPrefix(query, "/*"):
			_, rest, found := strings.Cut(query[2:], "*/")
			if !found {
				return ""
			}
			query = rest
		case strings.HasPrefix(query, "("):
			return "("
		default:
			end := strings.IndexFunc(query, func(r rune) bool {
				return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && r != '_'
			})
			if end < 0 {
				end = len(query)
			}
			return strings.ToUpper(query[:end])
		}
	}
}

// reads reports whether a statement's answer can be streamed; libchdb streams queries only.
func reads(query string) bool {
	switch keyword(query) {
	case "SELECT", "WITH", "(":
		return true
	}
	return false
}

var (
	formatClause = regexp.MustCompile(`(?i)\sFORMAT\s+([A-Za-z][A-Za-z0-9]*)\s*;?\s*$`)
	insertTail   = regexp.MustCompile(`(?i)[\s)](SELECT|VALUES|WITH)[\s(]`)
)

// splitInsert takes an INSERT whose rows come apart from it, as "INSERT INTO t (a, b) FORMAT Native". It returns the
// statement without its FORMAT clause and the format, or ok false for a statement of another kind.
func splitInsert(query string) (statement, format string, ok bool) {
	if keyword(query) != "INSERT" || insertTail.MatchString(query+" ") {
		return "", "", false
	}
	m := formatClause.FindStringSubmatchIndex(query)
	if m == nil {
		return query, "", true
	}
	return query[:m[0]], query[m[2]:m[3]], true
}

// notSettings are the parameters of ClickHouse's HTTP interface that are no settings of the engine.
//
//nolint:gochecknoglobals // a table
var notSettings = map[string]bool{
	"query": true, "default_format": true, "database": true, "query_id": true, "client_protocol_version": true,
	"compress": true, "decompress": true, "network_compression_method": true, "network_zstd_compression_level": true,
	"quota_key": true, "wait_end_of_query": true, "user": true, "password": true, "buffer_size": true,
}

var settingName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)

// settingsOf makes of a request's parameters the statement that sets them and the one that sets them back; both are empty
// where there is nothing to set. Query parameters (param_x) need no setting back: a query that names one has it set.
func settingsOf(params url.Values) (set, reset string, err error) {
	names := make([]string, 0, len(params))
	for name := range params {
		if notSettings[name] {
			continue
		}
		if !settingName.MatchString(name) {
			return "", "", fmt.Errorf("%q is no name of a setting", name)
		}
		if strings.HasPrefix(name, "session_") {
			return "", "", fmt.Errorf("%s: the embedded engine has no sessions", name)
		}
		names = append(names, name)
	}
	slices.Sort(names)
	var sets, resets []string
	for _, name := range names {
		sets = append(sets, name+" = "+literal(params.Get(name)))
		if !strings.HasPrefix(name, "param_") {
			resets = append(resets, name+" = DEFAULT")
		}
	}
	if len(sets) > 0 {
		set = "SET " + strings.Join(sets, ", ")
	}
	if len(resets) > 0 {
		reset = "SET " + strings.Join(resets, ", ")
	}
	return set, reset, nil
}

// literal quotes a string for ClickHouse.
func literal(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}

// identifier quotes a name for ClickHouse.
func identifier(s string) string {
	return "`" + strings.NewReplacer(`\`, `\\`, "`", "\\`").Replace(s) + "`"
}
