// Command generate writes the Go client of /api/v3 from its OpenAPI document:
//
//	go run ./generate openapi.json client_gen.go
//
// It knows the part of OpenAPI 3.1 that the document uses: JSON bodies by reference, parameters in path, query and header, one type
// for each operation's success.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/format"
	"maps"
	"os"
	"slices"
	"strings"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: generate openapi.json client_gen.go")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func run(from, to string) error {
	text, err := os.ReadFile(from) //nolint:gosec // the file that its user names
	if err != nil {
		return err
	}
	source, err := Client(text)
	if err != nil {
		return err
	}
	return os.WriteFile(to, source, 0o644) //nolint:gosec // source code, for everybody to read
}

type media map[string]struct {
	Schema struct {
		Ref string `json:"$ref"`
	} `json:"schema"`
}

// ref is the name of the JSON body's type; empty for none.
func (m media) ref() string {
	_, name, _ := strings.Cut(m["application/json"].Schema.Ref, "#/components/schemas/")
	return name
}

type operation struct {
	ID         string `json:"operationId"`
	Summary    string `json:"summary"`
	Parameters []struct {
		Name   string
		In     string
		Schema struct{ Type string }
	}
	RequestBody *struct{ Content media }
	Responses   map[string]struct{ Content media }
}

// Client is the source of the client that an OpenAPI document describes.
func Client(document []byte) ([]byte, error) {
	var doc struct {
		Paths map[string]map[string]operation
	}
	if err := json.Unmarshal(document, &doc); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.WriteString("// Code generated from openapi.json by api/generate. DO NOT EDIT.\n\npackage api\n\nimport (\n\"context\"\n\"net/http\"\n\"net/url\"\n\"strconv\"\n)\n")
	for _, path := range slices.Sorted(maps.Keys(doc.Paths)) {
		for _, method := range slices.Sorted(maps.Keys(doc.Paths[path])) {
			o := doc.Paths[path][method]
			if o.ID == "" {
				return nil, fmt.Errorf("%s %s has no operationId", method, path)
			}
			if o.untyped() {
				continue
			}
			o.write(&b, method, path)
		}
	}
	return format.Source(b.Bytes())
}

// untyped reports whether the operation answers JSON of no named type, such as the document itself: nothing for the client.
func (o *operation) untyped() bool {
	answer := o.Responses["200"].Content
	return len(answer) > 0 && answer.ref() == ""
}

// write writes one method.
func (o *operation) write(b *bytes.Buffer, method, path string) {
	name := strings.ToUpper(o.ID[:1]) + o.ID[1:]
	args := []string{"ctx context.Context"}
	target, body := fmt.Sprintf("%q", path), "nil"
	var settings []string
	for _, p := range o.Parameters {
		arg, kind, text := argument(p.Name), "string", argument(p.Name)
		if p.Schema.Type == "integer" {
			kind, text = "int", "strconv.Itoa("+arg+")"
		}
		zero := map[string]string{"string": `""`, "int": "0"}[kind]
		args = append(args, arg+" "+kind)
		switch p.In {
		case "path":
			target = strings.Replace(target, "{"+p.Name+"}", `" + url.PathEscape(`+text+`) + "`, 1)
		case "query":
			settings = append(settings, fmt.Sprintf("if %s != %s {\nr.query.Set(%q, %s)\n}\n", arg, zero, p.Name, text))
		case "header":
			settings = append(settings, fmt.Sprintf("if %s != %s {\nr.header.Set(%q, %s)\n}\n", arg, zero, p.Name, text))
		}
	}
	if o.RequestBody != nil {
		args = append(args, "body "+o.RequestBody.Content.ref())
		body = "body"
	}
	result := ""
	for _, status := range slices.Sorted(maps.Keys(o.Responses)) {
		if ref := o.Responses[status].Content.ref(); ref != "" && strings.HasPrefix(status, "2") {
			result = ref
		}
	}
	target = strings.TrimSuffix(target, ` + ""`)
	fmt.Fprintf(b, "\n// %s is %s %s: %s.\n", name, strings.ToUpper(method), path, lowerFirst(o.Summary))
	returns, into := "error", "nil"
	if result != "" {
		returns, into = "(result "+result+", err error)", "&result"
	}
	fmt.Fprintf(b, "func (c *Client) %s(%s) %s {\n", name, strings.Join(args, ", "), returns)
	fmt.Fprintf(b, "r := call{method: http.Method%s, path: %s, query: url.Values{}, header: http.Header{}}\n", strings.ToUpper(method[:1])+method[1:], target)
	for _, s := range settings {
		b.WriteString(s)
	}
	if result != "" {
		fmt.Fprintf(b, "err = c.do(ctx, &r, %s, %s)\nreturn result, err\n}\n", body, into)
		return
	}
	fmt.Fprintf(b, "return c.do(ctx, &r, %s, %s)\n}\n", body, into)
}

// argument is a parameter's name in Go.
func argument(name string) string {
	words := strings.FieldsFunc(strings.ToLower(name), func(r rune) bool { return r == '-' || r == '_' })
	for i := 1; i < len(words); i++ {
		words[i] = strings.ToUpper(words[i][:1]) + words[i][1:]
	}
	return strings.Join(words, "")
}

func lowerFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToLower(s[:1]) + s[1:]
}
