package simulator

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// nesting is the depth of a JSON text, counted over braces outside strings.
func nesting(body []byte) (deepest int) {
	depth, inString := 0, false
	for i := 0; i < len(body); i++ {
		switch c := body[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			depth++
			deepest = max(deepest, depth)
		case c == '}' || c == ']':
			depth--
		}
	}
	return deepest
}

// get reads a field under its proto name or its lowerCamelCase name.
func get(m map[string]any, name string) any {
	if v, ok := m[name]; ok {
		return v
	}
	return m[camel(name)]
}

func camel(name string) string {
	if !strings.Contains(name, "_") {
		return name
	}
	parts := strings.Split(name, "_")
	for i, p := range parts[1:] {
		if p != "" {
			parts[i+1] = strings.ToUpper(p[:1]) + p[1:]
		}
	}
	return strings.Join(parts, "")
}

// checkFields walks an object in the order of its names, so that the same body is always refused for the same reason.
func checkFields(path string, object map[string]any, fields map[string]fieldSpec) *fcmProblem {
	names := sortedKeys(object)
	for _, name := range names {
		spec, ok := fields[name]
		if !ok {
			spec, ok = fields[snake(name)]
			ok = ok && camel(snake(name)) == name
		}
		at := name
		if path != "" {
			at = path + "." + name
		}
		if !ok {
			where := ""
			if path != "" {
				where = " at '" + path + "'"
			}
			return invalid(fmt.Sprintf("Invalid JSON payload received. Unknown name %q%s: Cannot find field.", name, where), path)
		}
		if object[name] == nil {
			continue // JSON null means the default (proto3's JSON mapping)
		}
		if problem := checkValue(at, object[name], spec); problem != nil {
			return problem
		}
	}
	return nil
}

func snake(name string) string {
	var b []byte
	for i := range len(name) {
		if c := name[i]; c >= 'A' && c <= 'Z' {
			b = append(b, '_', c+'a'-'A')
		} else {
			b = append(b, c)
		}
	}
	return string(b)
}

func checkValue(at string, value any, spec fieldSpec) *fcmProblem {
	switch spec.kind {
	case kindString:
		if _, ok := value.(string); !ok {
			return wrong(at, "TYPE_STRING")
		}
	case kindBool:
		if _, ok := value.(bool); !ok {
			return wrong(at, "TYPE_BOOL")
		}
	case kindInteger:
		if !isInteger(value) {
			return wrong(at, "TYPE_INT32")
		}
	case kindNumber:
		if _, ok := value.(json.Number); !ok {
			return wrong(at, "TYPE_FLOAT")
		}
	case kindDuration:
		if _, ok := parseProtoDuration(value); !ok {
			return wrong(at, "type.googleapis.com/google.protobuf.Duration")
		}
	case kindEnum:
		if s, ok := value.(string); !ok || !slices.ContainsFunc(spec.values, func(v string) bool { return strings.EqualFold(v, s) }) {
			return wrong(at, "TYPE_ENUM")
		}
	case kindStrings, kindDurations:
		return checkList(at, value, spec.kind)
	case kindStringMap:
		return checkStringMap(at, value)
	case kindStruct:
		if _, ok := value.(map[string]any); !ok {
			return wrong(at, "type.googleapis.com/google.protobuf.Struct")
		}
	case kindMessage:
		object, ok := value.(map[string]any)
		if !ok {
			return wrong(at, "TYPE_MESSAGE")
		}
		return checkFields(at, object, spec.fields)
	}
	return nil
}

func checkList(at string, value any, k kind) *fcmProblem {
	list, ok := value.([]any)
	if !ok {
		return wrong(at, "TYPE_LIST")
	}
	element := map[kind]kind{kindStrings: kindString, kindDurations: kindDuration}[k]
	for i, v := range list {
		if problem := checkValue(at+"["+strconv.Itoa(i)+"]", v, fieldSpec{kind: element}); problem != nil {
			return problem
		}
	}
	return nil
}

func checkStringMap(at string, value any) *fcmProblem {
	object, ok := value.(map[string]any)
	if !ok {
		return wrong(at, "TYPE_MESSAGE")
	}
	for i, key := range sortedKeys(object) {
		if _, ok := object[key].(string); !ok {
			return wrong(at+"["+strconv.Itoa(i)+"].value", "TYPE_STRING")
		}
	}
	return nil
}

// wrong refuses a value of another type. It does not repeat the value, as Google does: it may be personal.
func wrong(at, want string) *fcmProblem {
	return invalid("Invalid value at '"+at+"' ("+want+")", at)
}

func isInteger(value any) bool {
	switch v := value.(type) {
	case json.Number:
		_, err := v.Int64()
		return err == nil
	case string:
		_, err := strconv.ParseInt(v, 10, 64)
		return err == nil
	}
	return false
}

func parseProtoDuration(value any) (time.Duration, bool) {
	s, ok := value.(string)
	if !ok {
		return 0, false
	}
	m := durationForm.FindStringSubmatch(s)
	if m == nil {
		return 0, false
	}
	seconds, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil || seconds > int64(100*365*24*time.Hour/time.Second) {
		return 0, false
	}
	return time.Duration(seconds) * time.Second, true
}
