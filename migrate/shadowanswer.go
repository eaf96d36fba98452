package migrate

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
)

// longWord is the length from which a word of an answer may be a token or a key, and is not shown. AirNotifier's keys have 32.
const longWord = 24

// describe writes an answer in the one form for comparing and for showing: the status, and of a JSON object the texts of status
// and error and the names of the rest. Tokens and keys are in none of it.
func describe(status int, body []byte) string {
	text := strconv.Itoa(status)
	body = []byte(strings.TrimSpace(string(body)))
	if len(body) == 0 {
		return text
	}
	var object map[string]any
	if json.Unmarshal(body, &object) != nil {
		return text + " (no JSON object)"
	}
	var parts []string
	for name, v := range object {
		s, isText := v.(string)
		if (name == "status" || name == "error") && isText {
			parts = append(parts, name+": "+hideWords(s))
			continue
		}
		parts = append(parts, hideWords(name))
	}
	slices.Sort(parts)
	return text + " {" + strings.Join(parts, ", ") + "}"
}

// hideWords stars what may be a secret.
func hideWords(s string) string {
	words := strings.Fields(s)
	for i, w := range words {
		if len(w) >= longWord {
			words[i] = "***"
		}
	}
	if len(words) > 16 {
		words = append(words[:16], "…")
	}
	return strings.Join(words, " ")
}

// routes of AirNotifier, without the slash at the end.
var routes = []string{ //nolint:gochecknoglobals // a table, which nobody changes
	"", "/notification", "/broadcast", "/accesskeys", "/users", "/tokens",
	"/api/v2/push", "/api/v2/broadcast", "/api/v2/accesskeys", "/api/v2/users", "/api/v2/tokens",
}

// routeOf is a path without the token in it.
func routeOf(path string) string {
	path = strings.TrimRight(path, "/")
	if slices.Contains(routes, path) {
		return path + "/"
	}
	for _, prefix := range []string{"/tokens/", "/api/v2/tokens/"} {
		if rest, ok := strings.CutPrefix(path, prefix); ok {
			if rest == "testtoken" {
				return path
			}
			return prefix + "<token>"
		}
	}
	return "(another path)"
}
