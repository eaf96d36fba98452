package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// Client speaks to /api/v3 of a running campanile. Its methods, but for Watch, are generated from the OpenAPI document; each returns a
// *Problem, wrapped, where the server refused. It is safe for concurrent use.
type Client struct {
	URL  string       // of the server, without the path of the API
	App  string       // whose key it is
	Key  string       // an access key
	HTTP *http.Client // nil: http.DefaultClient
}

// maxAnswer bounds what is read of an answer, in bytes: a page of 200 broadcasts with 100 channels each stays below.
const maxAnswer = 16 << 20

// call is a request on its way.
type call struct {
	method, path string
	query        url.Values
	header       http.Header
}

func (c *Client) send(ctx context.Context, r *call, body any) (*http.Response, error) {
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(text)
	}
	target := strings.TrimRight(c.URL, "/") + Prefix + r.path
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, target, content)
	if err != nil {
		return nil, err
	}
	if r.header != nil {
		req.Header = r.header
	}
	req.Header.Set("X-Campanile-App", c.App)
	req.Header.Set("Authorization", "Bearer "+c.Key)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	client := c.HTTP
	if client == nil {
		client = http.DefaultClient
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode < http.StatusBadRequest {
		return res, nil
	}
	defer func() { _ = res.Body.Close() }()
	p := &Problem{Title: res.Status, Status: int64(res.StatusCode)}
	_ = json.NewDecoder(io.LimitReader(res.Body, maxAnswer)).Decode(p) // else the status is all there is
	return nil, fmt.Errorf("%s %s: %w", r.method, Prefix+r.path, p)
}

// do sends a request and reads its answer into into; nil reads none.
func (c *Client) do(ctx context.Context, r *call, body, into any) error {
	res, err := c.send(ctx, r, body)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if into == nil {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxAnswer)).Decode(into); err != nil {
		return fmt.Errorf("%s %s: read the answer: %w", r.method, Prefix+r.path, err)
	}
	return nil
}

// ErrCut says that an event stream ended before its broadcast: ask again.
var ErrCut = errors.New("the stream of events was cut")

// Watch calls each with every change of a broadcast's progress until it has ended, ctx ends or each fails. Where the stream is cut
// before, as by a server that stops, it returns ErrCut.
func (c *Client) Watch(ctx context.Context, id string, each func(Update) error) error {
	r := call{method: http.MethodGet, path: "/broadcasts/" + url.PathEscape(id) + "/progress", header: http.Header{"Accept": {"text/event-stream"}}}
	res, err := c.send(ctx, &r, nil)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	lines := bufio.NewScanner(res.Body)
	event := ""
	for lines.Scan() {
		switch field, rest, _ := strings.Cut(lines.Text(), ":"); field {
		case "event":
			event = strings.TrimSpace(rest)
		case "data":
			var u Update
			if err := json.Unmarshal([]byte(rest), &u); err != nil {
				return fmt.Errorf("read an event of broadcast %s: %w", id, err)
			}
			if err := each(u); err != nil || event == "end" {
				return err
			}
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return ErrCut
}
