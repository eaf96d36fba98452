package h2

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// RoundTripper lets libraries that want net/http's send through a client: every request to the client's one host. It costs what
// net/http's types cost, and a goroutine for each request is the caller's. Bodies are read whole before they are sent, and answers
// before they are given; of an answer's fields there are those that the client keeps. Trailers, Expect and upgrades are not for it.
type RoundTripper struct {
	client    *Client
	authority string
	maxBody   int
}

// NewRoundTripper sends to the host of c, which is called authority in requests' URLs: host, or host:port where the port is not 443. A
// request's body may have maxBody bytes.
func NewRoundTripper(c *Client, authority string, maxBody int) *RoundTripper {
	return &RoundTripper{c, authority, maxBody}
}

// RoundTrip implements http.RoundTripper.
func (t *RoundTripper) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := t.body(req)
	if err != nil {
		return nil, err
	}
	r, err := t.request(req, body)
	if err != nil {
		return nil, notSent(err)
	}
	res, err := t.client.Do(req.Context(), r)
	if err != nil {
		return nil, err
	}
	header := make(http.Header, len(res.fields))
	for _, f := range res.fields {
		header.Add(f.Name, f.Value)
	}
	answer := &http.Response{
		Status: strconv.Itoa(res.Status) + " " + http.StatusText(res.Status), StatusCode: res.Status, Proto: "HTTP/2.0", ProtoMajor: 2,
		Header: header, Body: io.NopCloser(bytes.NewReader(res.Body)), ContentLength: int64(len(res.Body)), Request: req,
	}
	if res.Cut {
		answer.Body, answer.ContentLength = io.NopCloser(io.MultiReader(bytes.NewReader(res.Body), cut{})), -1
	}
	return answer, nil
}

// cut is the end of a body of which the client kept only a part.
type cut struct{}

func (cut) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// CloseIdleConnections does nothing: the client looks after its own.
func (t *RoundTripper) CloseIdleConnections() {}

func (t *RoundTripper) body(req *http.Request) ([]byte, error) {
	if req.Body == nil || req.Body == http.NoBody {
		return nil, nil
	}
	body, err := io.ReadAll(io.LimitReader(req.Body, int64(t.maxBody)+1))
	if err = errors.Join(err, req.Body.Close()); err != nil {
		return nil, notSent(err)
	}
	if len(body) > t.maxBody {
		return nil, notSent(fmt.Errorf("a body of more than %d bytes", t.maxBody))
	}
	return body, nil
}

func (t *RoundTripper) request(req *http.Request, body []byte) (*Request, error) {
	authority := req.Host
	if authority == "" {
		authority = req.URL.Host
	}
	if req.URL.Scheme != "https" || req.URL.Host != t.authority {
		return nil, fmt.Errorf("want a request to https://%s", t.authority)
	}
	method := req.Method
	if method == "" {
		method = http.MethodGet
	}
	// A head for each request would fill the table with what is met once: only what is nearly constant is in it.
	h, err := t.client.headOf(method, authority)
	if err != nil {
		return nil, err
	}
	r := &Request{Head: h, Path: []byte(req.URL.RequestURI()), Body: body}
	for name, values := range req.Header {
		name = strings.ToLower(name)
		switch name {
		case "host", "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade", "content-length", "expect", "te":
			continue
		}
		for _, v := range values {
			r.Fields.Add(name, strings.Trim(v, " \t"))
		}
	}
	if len(body) > 0 {
		r.Fields.Add("content-length", strconv.Itoa(len(body)))
	}
	return r, r.Fields.err
}

// headOf keeps a head for each method and authority.
func (c *Client) headOf(method, authority string) (*Head, error) {
	k := [2]string{method, authority}
	c.mu.Lock()
	defer c.mu.Unlock()
	if h := c.heads[k]; h != nil {
		return h, nil
	}
	h, err := NewHead(method, "https", authority, "")
	if err != nil {
		return nil, err
	}
	if c.heads == nil || len(c.heads) >= mostHeads {
		c.heads = map[[2]string]*Head{}
	}
	c.heads[k] = h
	return h, nil
}
