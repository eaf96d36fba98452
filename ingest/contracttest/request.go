package contracttest

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"strings"
)

//go:embed moodle.php
var moodle string

// MoodlePHP asks a list of requests as Moodle's curl class does; its head says how to call it.
func MoodlePHP() string { return moodle }

const formLabel = "application/x-www-form-urlencoded"

// Request is a case as a client has it: what it puts into its headers and its body.
type Request struct {
	Says    string       `json:"says"`
	Method  string       `json:"method"`
	Path    string       `json:"path"`
	App     *string      `json:"app"` // nil: no such header
	Key     *string      `json:"key"`
	Headers []string     `json:"headers"` // further ones, as lines
	Fields  *[][2]string `json:"fields"`  // multipart; nil: Body
	Body    string       `json:"body"`
	Keep    string       `json:"keep"`
}

// Request is what a client sends for c. A key that an earlier answer gave stands as "$" and its name.
func (c *Contract) Request(one *Case) Request {
	method, path, _ := strings.Cut(one.Ask, " ")
	r := Request{Says: one.Says, Method: method, Path: path, App: &c.App, Key: &one.Key, Fields: one.Fields, Keep: one.Keep, Headers: []string{}}
	if one.App != nil {
		r.App = one.App
		if *one.App == "-" {
			r.App = nil
		}
	}
	if one.Key == "-" {
		r.Key = nil
	} else if k, ok := c.Keys[one.Key]; ok {
		r.Key = &k.Value
	}
	for name, value := range one.Headers {
		r.Headers = append(r.Headers, name+": "+value)
	}
	label := one.Label
	switch {
	case one.Form != nil:
		r.Body, label = *one.Form, formLabel
	case one.Raw != nil:
		r.Body = *one.Raw
	case one.JSON != nil:
		r.Body = string(one.JSON)
	}
	if label != "" && label != formLabel { // which is curl's own for a body that is a string
		r.Headers = append(r.Headers, "Content-Type: "+label)
	}
	return r
}

// AppOf is the app that a case calls; empty where it names none.
func (c *Contract) AppOf(one *Case) string {
	switch {
	case one.App == nil:
		return c.App
	case *one.App == "-":
		return ""
	}
	return *one.App
}

// Send asks a server as a Go client does, and returns its answer. kept are the keys of earlier answers.
func (r *Request) Send(ctx context.Context, base string, kept map[string]string) (*Answer, error) {
	body, label := io.Reader(strings.NewReader(r.Body)), ""
	if r.Method == http.MethodPost {
		label = formLabel
	}
	if r.Fields != nil {
		var b bytes.Buffer
		w := multipart.NewWriter(&b)
		for _, f := range *r.Fields {
			if err := w.WriteField(f[0], f[1]); err != nil {
				return nil, err
			}
		}
		if err := w.Close(); err != nil {
			return nil, err
		}
		body, label = &b, w.FormDataContentType()
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, base+r.Path, body)
	if err != nil {
		return nil, err
	}
	if label != "" {
		req.Header.Set("Content-Type", label)
	}
	req.Header.Set("Accept", "application/json")
	for name, value := range map[string]*string{"X-AN-APP-NAME": r.App, "X-AN-APP-KEY": r.Key} {
		if value == nil {
			continue
		}
		text := *value
		if name, ok := strings.CutPrefix(text, "$"); ok {
			text = kept[name]
		}
		req.Header[name] = []string{text}
	}
	for _, line := range r.Headers {
		name, value, _ := strings.Cut(line, ": ")
		req.Header[name] = []string{value}
		if strings.EqualFold(name, "Content-Type") {
			req.Header.Set(name, value)
		}
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	a := &Answer{res.StatusCode, res.Header.Get("Content-Type"), res.Header.Get("X-Campanile-Id"), string(text)}
	if r.Keep != "" {
		kept[r.Keep], err = a.Key()
	}
	return a, err
}

// Key is the access key that an answer holds.
func (a *Answer) Key() (string, error) {
	var answer struct {
		AccessKey string `json:"accesskey"`
	}
	if err := json.Unmarshal([]byte(a.Body), &answer); err != nil || answer.AccessKey == "" {
		return "", fmt.Errorf("an answer without a key: %d %s", a.Status, a.Body)
	}
	return answer.AccessKey, nil
}
