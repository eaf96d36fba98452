package chdb

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/ClickHouse/ch-go/compress"
)

// memory is an engine that remembers what it was asked.
type memory struct {
	mu       sync.Mutex
	said     []string
	inserted []string
	fail     func(query string) error
	answer   string
}

func (m *memory) connect() (session, error) { return memorySession{m}, nil }
func (m *memory) version() string           { return "26.7.0" }
func (m *memory) close()                    {}

func (m *memory) say(query string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.said = append(m.said, query)
	if m.fail != nil {
		return m.fail(query)
	}
	return nil
}

type memorySession struct{ m *memory }

func (s memorySession) exec(query string) error { return s.m.say(query) }
func (s memorySession) query(query, _ string) ([]byte, error) {
	return []byte(s.m.answer), s.m.say(query)
}

func (s memorySession) stream(query, _ string, chunk func([]byte) error) error {
	if s.m.answer != "" {
		if err := chunk([]byte(s.m.answer)); err != nil {
			return err
		}
	}
	return s.m.say(query)
}

func (s memorySession) insert(query, format string) (insertion, error) {
	return &memoryInsert{m: s.m}, s.m.say(query + " as " + format)
}
func (s memorySession) close() {}

type memoryInsert struct {
	m *memory
	b bytes.Buffer
}

func (i *memoryInsert) Write(p []byte) (int, error) { return i.b.Write(p) }
func (i *memoryInsert) cancel()                     { i.b.Reset() }
func (i *memoryInsert) done() (uint64, error) {
	i.m.mu.Lock()
	defer i.m.mu.Unlock()
	i.m.inserted = append(i.m.inserted, i.b.String())
	return uint64(strings.Count(i.b.String(), "\n")), nil
}

func handlerOn(tb testing.TB, m *memory) *handler {
	tb.Helper()
	h, err := newHandler(m, 1, "key", slog.New(slog.DiscardHandler))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(h.close)
	return h
}

func ask(ctx context.Context, h *handler, params url.Values, body io.Reader, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/?"+params.Encode(), body)
	r.Header.Set("X-ClickHouse-Key", "key")
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestSettingsAndDatabaseHoldForOneRequest(t *testing.T) {
	t.Parallel()
	m := &memory{}
	h := handlerOn(t, m)
	ask(t.Context(), h, url.Values{"database": {"a`b"}, "max_threads": {"1'2"}, "param_x": {`\`}, "default_format": {"Native"}}, strings.NewReader("SELECT 1"))
	ask(t.Context(), h, url.Values{}, strings.NewReader("SHOW TABLES"))
	want := []string{
		"USE `a\\`b`", `SET max_threads = '1\'2', param_x = '\\'`, "/*campanile:1*/SELECT 1", "SET max_threads = DEFAULT",
		"USE `default`", "/*campanile:2*/SHOW TABLES",
	}
	if strings.Join(m.said, "\n") != strings.Join(want, "\n") {
		t.Errorf("want\n%s\ngot\n%s", strings.Join(want, "\n"), strings.Join(m.said, "\n"))
	}
}

func TestExceptionsKeepTheirCode(t *testing.T) {
	t.Parallel()
	m := &memory{fail: func(string) error { return engineError("Code: 60. DB::Exception: no table") }}
	w := ask(t.Context(), handlerOn(t, m), url.Values{}, strings.NewReader("SELECT 1"))
	if w.Code != http.StatusInternalServerError || w.Header().Get("X-ClickHouse-Exception-Code") != "60" || !strings.HasPrefix(w.Body.String(), "Code: 60.") {
		t.Errorf("%d %v %q", w.Code, w.Header(), w.Body)
	}
}

func TestExceptionAfterRowsIsFramed(t *testing.T) {
	t.Parallel()
	m := &memory{answer: "rows", fail: func(q string) error {
		if strings.Contains(q, "SELECT") {
			return engineError("Code: 395. DB::Exception: late")
		}
		return nil
	}}
	w := ask(t.Context(), handlerOn(t, m), url.Values{}, strings.NewReader("SELECT 1"))
	tag := w.Header().Get("X-ClickHouse-Exception-Tag")
	want := "rows\r\n__exception__\r\n" + tag + "\r\nCode: 395. DB::Exception: late\n31 " + tag + "\r\n__exception__\r\n"
	if w.Code != http.StatusOK || len(tag) != 16 || w.Body.String() != want {
		t.Errorf("%d want %q, got %q", w.Code, want, w.Body)
	}
}

// tornReader gives some bytes, then what a client that goes away leaves.
type tornReader struct{ r io.Reader }

func (t tornReader) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func TestRowsThatBreakOffAreDropped(t *testing.T) {
	t.Parallel()
	insert := url.Values{"query": {"INSERT INTO t (a)  FORMAT TabSeparated"}}
	var blocks bytes.Buffer
	c := compress.NewWriter(compress.LevelZero, compress.LZ4)
	for range 2 {
		if err := c.Compress([]byte("1\n2\n")); err != nil {
			t.Fatal(err)
		}
		blocks.Write(c.Data)
	}
	compressed := url.Values{"query": insert["query"], "decompress": {"1"}}
	whole := blocks.Bytes()
	for _, c := range []struct {
		name   string
		params url.Values
		body   io.Reader
		want   string // "": nothing
	}{
		{"whole", insert, strings.NewReader("1\n2\n"), "1\n2\n"},
		{"torn", insert, tornReader{strings.NewReader("1\n2\n")}, ""},
		{"whole blocks", compressed, bytes.NewReader(whole), "1\n2\n1\n2\n"},
		{"torn between blocks", compressed, tornReader{bytes.NewReader(whole[:len(whole)/2])}, ""},
		{"ended in a header", compressed, bytes.NewReader(whole[:len(whole)/2+10]), ""},
		{"ended in a block", compressed, bytes.NewReader(whole[:len(whole)-1]), ""},
		{"changed", compressed, bytes.NewReader(append([]byte{whole[0] ^ 1}, whole[1:]...)), ""},
	} {
		m := &memory{}
		w := ask(t.Context(), handlerOn(t, m), c.params, c.body)
		got := strings.Join(m.inserted, "")
		if got != c.want || (w.Code == http.StatusOK) != (c.want != "") {
			t.Errorf("%s: %d, inserted %q", c.name, w.Code, got)
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	h := handlerOn(t, &memory{})
	for _, c := range []struct {
		name   string
		params url.Values
		header []string
		want   int
	}{
		{"another key", nil, []string{"X-ClickHouse-Key", "kez"}, http.StatusUnauthorized},
		{"no key", nil, []string{"X-ClickHouse-Key", ""}, http.StatusUnauthorized},
		{"brotli", nil, []string{"Content-Encoding", "br"}, http.StatusUnsupportedMediaType},
		{"not gzip", nil, []string{"Content-Encoding", "gzip"}, http.StatusUnsupportedMediaType},
		{"external tables", nil, []string{"Content-Type", "multipart/form-data; boundary=x"}, http.StatusNotImplemented},
		{"a session", url.Values{"session_id": {"1"}}, nil, http.StatusBadRequest},
		{"no setting's name", url.Values{"a = 1, b": {"1"}}, nil, http.StatusBadRequest},
	} {
		if w := ask(t.Context(), h, c.params, strings.NewReader("SELECT 1"), c.header...); w.Code != c.want {
			t.Errorf("%s: want %d, got %d %s", c.name, c.want, w.Code, w.Body)
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/ping", nil))
	if w.Code != http.StatusOK || w.Body.String() != "Ok.\n" {
		t.Errorf("ping: %d %q", w.Code, w.Body)
	}
}

func TestListensOnTheLoopbackOnly(t *testing.T) {
	t.Parallel()
	for address, good := range map[string]bool{
		"127.0.0.1:0": true, "[::1]:80": true, "0.0.0.0:1": false, ":1": false, "192.0.2.1:1": false, "localhost": false, "example.org:1": false,
	} {
		if err := checkLoopback(address); (err == nil) != good {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func FuzzHandler(f *testing.F) {
	f.Add("query=INSERT+INTO+t+FORMAT+Native&decompress=1", []byte("abc"), "")
	f.Add("max_threads=1&param_a=b&compress=1&database=x", []byte("SELECT 1"), "gzip")
	f.Add("query=%zz", []byte(nil), "br")
	f.Fuzz(func(t *testing.T, params string, body []byte, encoding string) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", bytes.NewReader(body))
		r.URL.RawQuery = params
		r.Header.Set("X-ClickHouse-Key", "key")
		r.Header.Set("Content-Encoding", encoding)
		h := handlerOn(t, &memory{answer: "x"})
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != http.StatusOK && w.Header().Get("X-ClickHouse-Exception-Code") == "" {
			t.Errorf("%d without a code", w.Code)
		}
		if len(h.idle) != 1 {
			t.Error("the session did not come back")
		}
	})
}
