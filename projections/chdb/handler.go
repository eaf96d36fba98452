package chdb

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// Limits of a request.
const (
	maxStatement = 16 << 20 // bytes of a statement's text; an insert's rows have no limit but the engine's memory
	insertPiece  = 1 << 20  // bytes handed to the engine at a time
)

// handler speaks the part of ClickHouse's HTTP interface that clickhouse-go uses: statements in the body, inserts whose rows
// follow in the body, settings and query parameters in the URL, compression both ways, exceptions, and the end of a query
// whose client is gone. Every request needs the key.
type handler struct {
	key     []byte
	version string
	log     *slog.Logger
	idle    chan *pooled
	queries atomic.Uint64

	killing sync.Mutex // guards killer
	killer  session    // takes no other statement than KILL, so that there is always one to end the others
}

// pooled is a session and the database that it uses.
type pooled struct {
	session
	database string
}

// newHandler opens sessions on the engine: so many statements run at once.
func newHandler(e engine, sessions int, key string, log *slog.Logger) (*handler, error) {
	h := &handler{key: []byte(key), version: e.version(), log: log, idle: make(chan *pooled, sessions)}
	for range sessions {
		s, err := e.connect()
		if err != nil {
			h.close()
			return nil, err
		}
		h.idle <- &pooled{session: s}
	}
	var err error
	if h.killer, err = e.connect(); err != nil {
		h.close()
		return nil, err
	}
	return h, nil
}

// close ends the sessions. No request may be running.
func (h *handler) close() {
	for {
		select {
		case s := <-h.idle:
			s.close()
			continue
		default:
		}
		if h.killer != nil {
			h.killer.close()
		}
		return
	}
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/ping" {
		_, _ = io.WriteString(w, "Ok.\n")
		return
	}
	if !h.allowed(r) {
		w.Header().Set("WWW-Authenticate", `Basic realm="campanile chdb"`)
		refuse(w, http.StatusUnauthorized, engineError("Code: 516. DB::Exception: the key is missing or wrong. (AUTHENTICATION_FAILED)"))
		return
	}
	if r.Method != http.MethodPost {
		refuse(w, http.StatusMethodNotAllowed, errors.New("statements are posted"))
		return
	}
	params, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	if strings.HasPrefix(r.Header.Get("Content-Type"), "multipart/") {
		refuse(w, http.StatusNotImplemented, errors.New("the embedded engine takes no external tables"))
		return
	}
	body, err := requestBody(r, params)
	if err != nil {
		refuse(w, http.StatusUnsupportedMediaType, err)
		return
	}
	h.serve(w, r, params, body)
}

// allowed compares the key, which stands where clickhouse-go puts a password.
func (h *handler) allowed(r *http.Request) bool {
	got := r.Header.Get("X-ClickHouse-Key")
	if _, password, ok := r.BasicAuth(); ok {
		got = password
	}
	return subtle.ConstantTimeCompare([]byte(got), h.key) == 1
}

func (h *handler) serve(w http.ResponseWriter, r *http.Request, params url.Values, body io.Reader) {
	query := params.Get("query")
	statement, rowFormat, insert := "", "", false
	if query != "" {
		statement, rowFormat, insert = splitInsert(query)
	}
	if !insert { // rows given as text, if any, stand in the body after the statement
		rest, err := io.ReadAll(http.MaxBytesReader(w, io.NopCloser(body), maxStatement))
		if err != nil {
			refuse(w, http.StatusBadRequest, fmt.Errorf("read the statement: %w", err))
			return
		}
		query = strings.TrimSpace(query + "\n" + string(rest))
	}
	format := params.Get("default_format")
	if format == "" {
		format = "TabSeparated" // ClickHouse's own default
	}
	if rowFormat == "" {
		rowFormat = format
	}
	if query == helloQuery {
		w.Header().Set("X-ClickHouse-Format", "Native")
		out := newAnswer(w, r, params)
		_, _ = out.Write(hello(h.version))
		_ = out.finish()
		return
	}
	set, reset, err := settingsOf(params)
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}

	var s *pooled
	select {
	case s = <-h.idle:
		defer func() { h.idle <- s }()
	case <-r.Context().Done():
		return
	}
	if err := s.use(params.Get("database")); err != nil {
		h.fail(w, err)
		return
	}
	if set != "" {
		if err := s.exec(set); err != nil {
			h.fail(w, err)
			return
		}
	}
	if reset != "" {
		defer func() {
			if err := s.exec(reset); err != nil {
				h.log.Error("a session keeps the settings of a request", "code", codeOf(err))
			}
		}()
	}
	if insert {
		h.insert(w, s, statement, rowFormat, body)
		return
	}
	h.run(w, r, s, query, format, newAnswer(w, r, params))
}

// use makes database the one that names without a database mean.
func (s *pooled) use(database string) error {
	if database == "" {
		database = "default"
	}
	if s.database == database {
		return nil
	}
	if err := s.exec("USE " + identifier(database)); err != nil {
		return err
	}
	s.database = database
	return nil
}

// insert hands the body's rows to the engine as they come, and inserts all of them or none: a body that is torn ends in an
// error other than io.EOF, and then what came is dropped. io.ReadFull would not do here: it calls a torn body and a short last
// piece by the same name.
func (h *handler) insert(w http.ResponseWriter, s *pooled, statement, format string, body io.Reader) {
	in, err := s.insert(statement, format)
	if err != nil {
		h.fail(w, err)
		return
	}
	piece := make([]byte, insertPiece)
	for {
		n, readErr := fill(body, piece)
		if _, err := in.Write(piece[:n]); err != nil {
			in.cancel()
			h.fail(w, err)
			return
		}
		if readErr == nil {
			continue
		}
		if readErr != io.EOF { //nolint:errorlint // a wrapped io.EOF is not the end of the body
			in.cancel()
			refuse(w, http.StatusBadRequest, fmt.Errorf("the rows broke off, nothing was inserted: %w", readErr))
			return
		}
		break
	}
	rows, err := in.done()
	if err != nil {
		h.fail(w, err)
		return
	}
	w.Header().Set("X-ClickHouse-Summary", `{"written_rows":"`+strconv.FormatUint(rows, 10)+`"}`)
	w.WriteHeader(http.StatusOK)
}

// fill reads until p is full or an error; unlike io.ReadFull it returns the reader's own.
func fill(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var k int
		k, err = r.Read(p[n:])
		n += k
	}
	return n, err
}

// run executes a statement and streams its answer. The statement is killed when its client goes away.
func (h *handler) run(w http.ResponseWriter, r *http.Request, s *pooled, query, format string, out *answer) {
	tag := "/*campanile:" + strconv.FormatUint(h.queries.Add(1), 10) + "*/"
	killed := make(chan struct{})
	stop := context.AfterFunc(r.Context(), func() {
		defer close(killed)
		h.kill(tag)
	})
	defer func() {
		if !stop() {
			<-killed // the session is free for the next only when nobody is about to kill what runs on it
		}
	}()
	w.Header().Set("X-ClickHouse-Format", format)
	var tail [8]byte
	_, _ = rand.Read(tail[:])
	tagged := fmt.Sprintf("%x", tail) // 16 characters, as ClickHouse's
	w.Header().Set("X-ClickHouse-Exception-Tag", tagged)

	var err error
	if reads(query) {
		err = s.stream(tag+query, format, func(chunk []byte) error {
			_, err := out.Write(chunk)
			return err
		})
	} else {
		var whole []byte
		if whole, err = s.query(tag+query, format); err == nil && len(whole) > 0 {
			_, err = out.Write(whole)
		}
	}
	switch {
	case err == nil:
	case r.Context().Err() != nil:
		return // nobody reads what went wrong
	case out.wrote:
		// The status is out. ClickHouse frames what went wrong so that no row can be taken for it.
		message := err.Error()
		out.plain()
		_, _ = fmt.Fprintf(out, "\r\n__exception__\r\n%s\r\n%s\n%d %s\r\n__exception__\r\n", tagged, message, len(message)+1, tagged)
	default:
		w.Header().Del("Content-Encoding")
		h.fail(w, err)
		return
	}
	if err := out.finish(); err != nil {
		h.log.Debug("answer broke off", "error", err)
	}
}

// kill ends the statement that begins with tag. Without it the engine would work to the end for nobody.
func (h *handler) kill(tag string) {
	h.killing.Lock()
	defer h.killing.Unlock()
	if err := h.killer.exec("KILL QUERY WHERE startsWith(query, " + literal(tag) + ") ASYNC"); err != nil {
		h.log.Warn("query of a client that went away is not killed", "code", codeOf(err))
	}
}

// fail answers with an exception of the engine.
func (h *handler) fail(w http.ResponseWriter, err error) {
	refuse(w, http.StatusInternalServerError, err)
}

// refuse answers an error in ClickHouse's form: the code in a header, the text in the body.
func refuse(w http.ResponseWriter, status int, err error) {
	message := err.Error()
	code := codeOf(err)
	if !exceptionCode.MatchString(message) {
		message = fmt.Sprintf("Code: %d. DB::Exception: %s (campanile's embedded engine)", code, message)
	}
	w.Header().Del("Content-Encoding")
	w.Header().Set("X-ClickHouse-Exception-Code", strconv.Itoa(code))
	w.Header().Set("Content-Type", "text/plain; charset=UTF-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, message+"\n")
}
