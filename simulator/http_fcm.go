package simulator

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// fcmHTTP speaks FCM's HTTP v1 API and Google's token endpoint through net/http, over HTTP/2 and HTTP/1.1.
type fcmHTTP struct {
	core     *core
	identity *identity
	logger   *slog.Logger
}

// SendIDHeader names a push for the ledger; see the package's documentation.
const SendIDHeader = "X-Campanile-Send-Id"

const accessTokenLife = time.Hour

// ServeHTTP answers one request.
func (h *fcmHTTP) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/token" {
		h.token(w, r)
		return
	}
	rest, ok := strings.CutPrefix(r.URL.Path, "/v1/projects/")
	project, method, _ := strings.Cut(rest, "/")
	if !ok || method != "messages:send" || r.Method != http.MethodPost {
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
	if reason := checkAccess(h.identity.secret, r.Header.Get("Authorization"), project, h.core.now()); reason != "" {
		h.refuse(w, &fcmProblem{reason: reason})
		return
	}
	if ok, wait := h.core.withinQuota(project); !ok {
		setRetryAfter(w, answer{retryAfter: wait}, h.core.now())
		h.refuse(w, &fcmProblem{reason: "QUOTA_EXCEEDED"})
		return
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxFCMBody+1))
	if err != nil {
		h.refuse(w, &fcmProblem{reason: fcmInvalidArgument}) // the client broke off: it will not read this
		return
	}
	valid, problem := checkFCM(body, r.Header.Get(SendIDHeader))
	if problem == nil && valid.toToken && !validFCMToken(valid.target) {
		problem = &fcmProblem{reason: fcmInvalidToken}
	}
	if problem != nil {
		h.refuse(w, problem)
		return
	}
	p := &Push{Provider: FCM, App: project, Token: valid.target, Priority: valid.priority, Body: body, id: valid.ledgerID()}
	p.ID = string(appendUUID(nil, p.id))
	if valid.ttl >= 0 {
		seconds := int64(valid.ttl / time.Second)
		p.Expiration = &seconds
	}
	a, err := h.decide(p, valid.validateOnly)
	if err != nil {
		h.logger.Error("push could not be recorded", "error", err)
		h.refuse(w, &fcmProblem{reason: "INTERNAL"})
		return
	}
	if !sustain(r.Context(), w, a, h.core.stats, serviceFCM) {
		return
	}
	if a.retryAfter > 0 {
		setRetryAfter(w, a, h.core.now())
	}
	if a.reason != "" {
		h.refuse(w, &fcmProblem{reason: a.reason})
		return
	}
	h.core.stats.answered(serviceFCM, http.StatusOK, "")
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	_, _ = w.Write(appendName(nil, p, valid.validateOnly)) // whoever went away does not read it
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

func hashOfID(id [16]byte) (h uint64) {
	for _, c := range id {
		h = h<<8 ^ mix(h^uint64(c))
	}
	return h
}

func (h *fcmHTTP) refuse(w http.ResponseWriter, problem *fcmProblem) {
	e := fcmErrors[problem.reason]
	h.core.stats.answered(serviceFCM, e.code, problem.reason)
	if e.status == "" {
		w.Header().Set("Content-Type", "text/html; charset=UTF-8")
	} else {
		w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	}
	if problem.reason == fcmUnauthenticated {
		w.Header().Set("Www-Authenticate", `Bearer realm="https://accounts.google.com/", error="invalid_token"`)
	}
	w.WriteHeader(e.code)
	_, _ = w.Write(appendFCMBody(nil, problem.reason, problem.message, problem.field)) // as above
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
