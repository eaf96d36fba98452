package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/campanile-push/campanile/schemas"
)

// Limits of the reading half.
const (
	defaultPage = 50
	maxPage     = 200
	maxStreams  = 1000 // event streams at a time in one process
	catchUpFor  = time.Second
)

// ReadsOptions of the reading half. The zero value works.
type ReadsOptions struct {
	// Every is how often an event stream looks for news; zero: 500 ms. KeepAlive is how long it may be silent; zero: 15 s.
	Every, KeepAlive time.Duration
	// CatchUp returns when everything in Topics that was there at the call has been applied. With it a broadcast is found by whoever
	// has the answer to its request, wherever that was taken; without it, what was applied so far is all there is.
	CatchUp func(ctx context.Context) error
}

// Reads answers GET /api/v3/broadcasts and what is below it, to callers whose key was checked.
type Reads struct {
	options ReadsOptions
	view    *Broadcasts
	ended   chan struct{}
	streams atomic.Int64
}

// NewReads returns the reading half over a followed view.
func NewReads(o ReadsOptions, view *Broadcasts) *Reads {
	if o.Every <= 0 {
		o.Every = 500 * time.Millisecond
	}
	if o.KeepAlive <= 0 {
		o.KeepAlive = 15 * time.Second
	}
	return &Reads{options: o, view: view, ended: make(chan struct{})}
}

// Run ends every event stream when ctx ends, so that a process can stop without waiting for its readers. It is called once, and
// returns nil.
func (r *Reads) Run(ctx context.Context) error {
	<-ctx.Done()
	close(r.ended)
	return nil
}

// Serve answers one request about an app's broadcasts; mine, where it is not nil, tells those that the caller may see by the key that
// asked for them.
func (r *Reads) Serve(w http.ResponseWriter, req *http.Request, app string, mine func(keyID string) bool) {
	rest, _ := strings.CutPrefix(req.URL.Path, Prefix+"/broadcasts")
	id, what, _ := strings.Cut(strings.TrimPrefix(rest, "/"), "/")
	if id == "" {
		r.list(w, req, app, mine)
		return
	}
	b, ok := r.find(req.Context(), id, app, mine)
	switch {
	case !ok:
		refuse(w, http.StatusNotFound, "no-broadcast", "no broadcast of yours has this id")
	case what == "" || what == "progress" && !wantsEvents(req):
		var body any = b
		if what != "" {
			body = update(&b)
		}
		answer(w, req, body)
	case what == "progress":
		r.stream(w, req, &b)
	default:
		refuse(w, http.StatusNotFound, "not-found", "there is nothing here; "+Prefix+"/openapi.json lists what is")
	}
}

func (r *Reads) find(ctx context.Context, text, app string, mine func(keyID string) bool) (Broadcast, bool) {
	id, err := schemas.ParseID(text)
	if err != nil {
		return Broadcast{}, false
	}
	b, ok := r.view.Get(id)
	if !ok && r.options.CatchUp != nil {
		one, cancel := context.WithTimeout(ctx, catchUpFor)
		defer cancel()
		if r.options.CatchUp(one) == nil {
			b, ok = r.view.Get(id)
		}
	}
	return b, ok && b.App == app && (mine == nil || mine(b.KeyID))
}

func (r *Reads) list(w http.ResponseWriter, req *http.Request, app string, mine func(keyID string) bool) {
	query := req.URL.Query()
	q := Query{App: app, Mine: mine, State: query.Get("state"), Limit: defaultPage}
	if text := query.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxPage {
			refuse(w, http.StatusBadRequest, "invalid-field", fmt.Sprintf("limit must be from 1 to %d", maxPage))
			return
		}
		q.Limit = n
	}
	if text := query.Get("before"); text != "" {
		id, err := schemas.ParseID(text)
		if err != nil {
			refuse(w, http.StatusBadRequest, "invalid-field", "before must be the id of a broadcast, such as next of the last page")
			return
		}
		q.Before = id
	}
	if !knownState(q.State) {
		refuse(w, http.StatusBadRequest, "invalid-field", "state is none that a broadcast can be in")
		return
	}
	page, more := r.view.List(q)
	list := BroadcastList{Broadcasts: page}
	if list.Broadcasts == nil {
		list.Broadcasts = []Broadcast{}
	}
	if more {
		list.Next = page[len(page)-1].ID
	}
	answer(w, req, list)
}

func knownState(s string) bool {
	switch s {
	case "", stateLive, StateScheduled, StateRunning, StatePaused, StateDraining, StateCancelling, StateCancelled, StateEnded:
		return true
	}
	return false
}

func update(b *Broadcast) Update { return Update{b.ID, b.State, b.Progress} }

// stream sends the progress as server-sent events: one at once, one for each change, and the last one as `end`.
func (r *Reads) stream(w http.ResponseWriter, req *http.Request, b *Broadcast) {
	if r.streams.Add(1) > maxStreams {
		r.streams.Add(-1)
		w.Header().Set("Retry-After", "5")
		refuse(w, http.StatusServiceUnavailable, "unavailable", "too many readers follow broadcasts here, try again later")
		return
	}
	defer r.streams.Add(-1)
	id, err := schemas.ParseID(b.ID)
	if err != nil {
		return // it was found under it
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // or nginx would collect what is to be seen at once
	w.WriteHeader(http.StatusOK)
	flusher := http.NewResponseController(w)
	tick := time.NewTicker(r.options.Every)
	defer tick.Stop()
	var last []byte
	var silent time.Duration
	for {
		event := "progress"
		if over := b.State == StateEnded || b.State == StateCancelled; over {
			event = "end"
		}
		text, err := json.Marshal(update(b))
		silent += r.options.Every
		switch {
		case err != nil:
			return
		case string(text) != string(last) || event == "end":
			last, silent = text, 0
			_, err = fmt.Fprintf(w, "event: %s\ndata: %s\n\n", event, text)
		case silent >= r.options.KeepAlive:
			silent = 0
			_, err = fmt.Fprint(w, ":\n\n")
		}
		if err == nil {
			err = flusher.Flush()
		}
		if err != nil || event == "end" {
			return
		}
		select {
		case <-req.Context().Done():
			return
		case <-r.ended:
			return
		case <-tick.C:
		}
		now, ok := r.view.Get(id)
		if !ok {
			return // forgotten
		}
		b = &now
	}
}

func wantsEvents(req *http.Request) bool {
	return strings.Contains(req.Header.Get("Accept"), "text/event-stream")
}

// answer writes JSON with its hash as the ETag.
func answer(w http.ResponseWriter, req *http.Request, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		refuse(w, http.StatusInternalServerError, "internal", "the request met a mistake of ours")
		return
	}
	sum := sha256.Sum256(body)
	tag := `"` + hex.EncodeToString(sum[:12]) + `"`
	h := w.Header()
	h.Set("ETag", tag)
	h.Set("Cache-Control", "private, no-cache")
	h.Set("Vary", "Accept, Authorization, X-Campanile-App, X-An-App-Key, X-An-App-Name")
	if matches(req.Header.Get("If-None-Match"), tag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", "application/json; charset=utf-8")
	_, _ = w.Write(body) // an error: the client is gone
}

func matches(header, tag string) bool {
	for candidate := range strings.SplitSeq(header, ",") {
		if c := strings.TrimPrefix(strings.TrimSpace(candidate), "W/"); c == tag || c == "*" {
			return true
		}
	}
	return false
}

// refuse answers a problem (RFC 9457).
func refuse(w http.ResponseWriter, status int, code, detail string) {
	body, err := json.Marshal(Problem{Type: problemSpace + code, Title: http.StatusText(status), Status: int64(status), Detail: detail})
	if err != nil {
		status = http.StatusInternalServerError
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_, _ = w.Write(body) // an error: the client is gone
}
