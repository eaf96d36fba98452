package simulator

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
)

// fcmFrames speaks FCM in frames. What is no push goes the way of net/http, one at a time.
type fcmFrames struct {
	*fcmDoor
	handler http.Handler
}

func (d fcmFrames) provider() Provider { return FCM }
func (d fcmFrames) service() service   { return serviceFCM }
func (d fcmFrames) maxBody() int       { return maxFCMBody }

func (d fcmFrames) decide(s *h2Stream, body []byte, tooLarge bool) {
	if s.ready != nil {
		return
	}
	project, ok := sendProject(s.request.path)
	if !ok || s.request.values[fieldMethod] != http.MethodPost {
		s.ready = d.handle(s, body)
		return
	}
	s.counted = true
	c := s.conn
	if s.problem, s.wait = d.admit(c.under, s.request.values[fieldAuthorization], project, c.now); s.problem != nil {
		return
	}
	c.trusted = true
	if tooLarge {
		s.problem = bodyTooLarge()
		return
	}
	if s.dry, s.problem = d.read(c.under, project, s.request.values[fieldSendID], body, &s.push); s.problem != nil {
		return
	}
	s.decided = true
	s.answer = d.core.rehearseAt(&s.push, c.now)
}

func (d fcmFrames) fill(r *reply, s *h2Stream) {
	if s.problem != nil {
		d.refusal(r, s.problem, s.wait)
		return
	}
	d.fcmDoor.fill(r, &s.push, s.dry, &s.answer)
}

func (d fcmFrames) fail(s *h2Stream) { s.problem, s.wait = &fcmProblem{reason: "INTERNAL"}, 0 }

// handle has net/http's handler answer.
func (d fcmFrames) handle(s *h2Stream, body []byte) *reply {
	r, err := s.request.http()
	if err != nil {
		return &reply{status: http.StatusBadRequest}
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	r.TLS = nil
	w := &recorder{header: http.Header{}}
	d.handler.ServeHTTP(w, r.WithContext(context.WithValue(context.Background(), connKey{}, s.conn.under)))
	out := &reply{status: w.status, body: w.body}
	if out.status == 0 {
		out.status = http.StatusOK
	}
	for _, name := range sortedKeys(w.header) {
		for _, v := range w.header[name] {
			out.set(strings.ToLower(name), v)
		}
	}
	return out
}

// recorder is an http.ResponseWriter in memory.
type recorder struct {
	header http.Header
	status int
	body   []byte
}

// Header is the header.
func (w *recorder) Header() http.Header { return w.header }

// WriteHeader keeps the first status.
func (w *recorder) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

// Write keeps the body.
func (w *recorder) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	w.body = append(w.body, b...)
	return len(b), nil
}
