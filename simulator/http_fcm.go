package simulator

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"
)

// fcmHTTP speaks FCM's HTTP v1 API, Google's token endpoint and that of topic subscriptions through net/http, over HTTP/2 and HTTP/1.1.
type fcmHTTP struct{ *fcmDoor }

const accessTokenLife = time.Hour

// ServeHTTP answers one request.
func (h *fcmHTTP) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/token":
		h.token(w, r)
		return
	case pathBatchAdd, pathBatchRemove:
		h.subscribe(w, r)
		return
	}
	project, ok := sendProject(r.URL.Path)
	if !ok || r.Method != http.MethodPost {
		h.core.stats.answered(serviceFCM, http.StatusNotFound, "unknown_path")
		w.Header().Set("Content-Type", "text/html; charset=UTF-8")
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, "<!DOCTYPE html>\n<html lang=en>\n  <title>Error 404 (Not Found)!!1</title>\n")
		return
	}
	h.core.stats.begin()
	defer h.core.stats.end()
	h.send(w, r, project)
}

func (h *fcmHTTP) send(w http.ResponseWriter, r *http.Request, project string) {
	var out reply
	var p Push
	c := connOf(r.Context())
	// Read before anything is said, so that no body is left over on the connection.
	body, err := io.ReadAll(io.LimitReader(r.Body, maxFCMBody+1))
	if err != nil {
		body = nil // the client broke off: it will not read the answer
	}
	if problem, wait := h.admit(c, r.Header.Get("Authorization"), project, h.core.now()); problem != nil {
		h.refusal(&out, problem, wait)
		h.say(w, c, &out)
		return
	}
	validateOnly, problem := h.read(c, project, r.Header.Get(SendIDHeader), body, &p)
	if problem != nil {
		h.refusal(&out, problem, 0)
		h.say(w, c, &out)
		return
	}
	a, err := h.decide(&p, validateOnly)
	if err != nil {
		h.logger.Error("push could not be recorded", "error", err)
		h.refusal(&out, &fcmProblem{reason: "INTERNAL"}, 0)
		h.say(w, c, &out)
		return
	}
	if !sustain(r.Context(), a, h.core.stats, serviceFCM) {
		return
	}
	h.fill(&out, &p, validateOnly, &a)
	h.say(w, c, &out)
}

func (h *fcmHTTP) say(w http.ResponseWriter, c *conn, out *reply) {
	h.core.stats.answered(serviceFCM, out.status, out.reason)
	if c.badToken(out.reason, h.core.state.Load().scenario.FCM.Connections.BadTokens) {
		out.end = true
	}
	out.write(w)
}

func (h *fcmHTTP) decide(p *Push, validateOnly bool) (answer, error) {
	if validateOnly {
		return h.core.rehearse(p), nil
	}
	return h.core.take(p)
}

// appendName appends the body of a success.
func appendName(b []byte, p *Push, validateOnly bool) []byte {
	b = append(b, "{\n  \"name\": \"projects/"...)
	b = append(b, p.App...)
	b = append(b, "/messages/"...)
	if validateOnly {
		b = append(b, "fake_message_id"...)
	} else {
		b = append(b, "0:"...)
		b = strconv.AppendInt(b, p.TimeUS, 10)
		b = append(b, '%')
		b = appendHex64(b, p.tokenHash^hashOfID(p.id))
	}
	return append(b, "\"\n}\n"...)
}

func hashOfID(id [16]byte) uint64 {
	return mix(binary.LittleEndian.Uint64(id[:8]) ^ mix(binary.LittleEndian.Uint64(id[8:])))
}

// token answers a service account's request for an access token.
func (h *fcmHTTP) token(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		h.oauthError(w, &oauthProblem{"invalid_request", "Only POST requests are allowed."})
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxFCMBody)
	if err := r.ParseForm(); err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			h.oauthError(w, &oauthProblem{"invalid_request", "Request too large."})
			return
		}
		h.oauthError(w, &oauthProblem{"invalid_request", "Bad Request"})
		return
	}
	now := h.core.now()
	project, problem := checkAssertion(assertion{r.PostForm.Get("grant_type"), r.PostForm.Get("assertion")}, "https://"+r.Host+"/token", now, h.account)
	if problem != nil {
		h.oauthError(w, problem)
		return
	}
	life := h.core.state.Load().scenario.FCM.TokenLifetime.D()
	if life == 0 {
		life = accessTokenLife
	}
	h.core.stats.tokens.Add(1)
	h.writeJSON(w, http.StatusOK, map[string]any{
		"access_token": accessToken(h.identity.secret, project, now.Add(life)),
		"expires_in":   max(int(life/time.Second)-1, 0),
		"token_type":   "Bearer",
	})
}

// account verifies for every service account: they share one key.
func (h *fcmHTTP) account(email string) (string, func(*jwt) bool) {
	return projectOf(email), func(t *jwt) bool { return t.rs256(&h.identity.account.PublicKey) }
}

func (h *fcmHTTP) oauthError(w http.ResponseWriter, p *oauthProblem) {
	h.core.stats.answered(serviceFCM, http.StatusBadRequest, p.code)
	h.writeJSON(w, http.StatusBadRequest, map[string]any{"error": p.code, "error_description": p.description})
}

func (h *fcmHTTP) writeJSON(w http.ResponseWriter, status int, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		h.logger.Error("answer has no JSON form", "error", err)
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(text) // as above
}
