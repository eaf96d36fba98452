package simulator

import (
	"log/slog"
	"strings"
	"time"
)

// fcmDoor is what both servers know of FCM. Safe for concurrent use.
type fcmDoor struct {
	core     *core
	identity *identity
	logger   *slog.Logger
	topics   *topics
}

// SendIDHeader names a push for the ledger; see the package's documentation.
const SendIDHeader = "X-Campanile-Send-Id"

// sendProject is the project of the path of a send; false for any other path.
func sendProject(path string) (project string, ok bool) {
	rest, ok := strings.CutPrefix(path, "/v1/projects/")
	project, method, _ := strings.Cut(rest, "/")
	return project, ok && method == "messages:send"
}

// admit checks the access token and the quota, which 4xx answers use up too. wait is for Retry-After.
func (d *fcmDoor) admit(c *conn, authorization, project string, now time.Time) (problem *fcmProblem, wait time.Duration) {
	if reason := c.access.check(d.identity.secret, authorization, project, now); reason != "" {
		return &fcmProblem{reason: reason}, 0
	}
	if ok, wait := d.core.withinQuota(project); !ok {
		return &fcmProblem{reason: "QUOTA_EXCEEDED"}, wait
	}
	return nil, 0
}

// read turns the body of an admitted request into a valid push, or says why it is none.
func (d *fcmDoor) read(c *conn, project, sendID string, body []byte, p *Push) (validateOnly bool, problem *fcmProblem) {
	valid, ok := scanFCM(body, sendID)
	if !ok {
		if valid, problem = checkFCM(body, sendID); problem != nil {
			return false, problem
		}
	}
	if valid.toToken && !validFCMToken(valid.target) {
		return false, &fcmProblem{reason: fcmInvalidToken}
	}
	*p = Push{Provider: FCM, App: project, Token: valid.target, Priority: valid.priority, Body: body, ID: valid.id, conn: c.number}
	var given bool
	if p.id, given = parseUUID(valid.id); !given {
		p.id = valid.ledgerID()
		p.ID = string(appendUUID(nil, p.id))
	}
	if !valid.toToken {
		p.FanOut = d.topics.reach(project, valid.target)
	}
	if valid.ttl >= 0 {
		seconds := int64(valid.ttl / time.Second)
		p.Expiration = &seconds
	}
	return valid.validateOnly, nil
}

// fill makes the answer to a push that the core has decided.
func (d *fcmDoor) fill(r *reply, p *Push, validateOnly bool, a *answer) {
	r.reset()
	r.end = a.fault == FaultGoAway
	if a.retryAfter > 0 {
		r.retryAfter(a.retryAfter, a.asDate, d.core.now())
	}
	if a.reason != "" {
		d.refuse(r, &fcmProblem{reason: a.reason})
		return
	}
	r.status = 200
	r.set("content-type", fcmJSON)
	r.body = appendName(r.body, p, validateOnly)
}

// refusal makes the answer to what is no valid push.
func (d *fcmDoor) refusal(r *reply, problem *fcmProblem, wait time.Duration) {
	r.reset()
	r.retryAfter(wait, false, d.core.now())
	d.refuse(r, problem)
}

const fcmJSON = "application/json; charset=UTF-8"

func (d *fcmDoor) refuse(r *reply, problem *fcmProblem) {
	e := fcmErrors[problem.reason]
	r.status, r.reason = e.code, problem.reason
	if e.status == "" {
		r.set("content-type", "text/html; charset=UTF-8")
	} else {
		r.set("content-type", fcmJSON)
	}
	if problem.reason == fcmUnauthenticated {
		r.set("www-authenticate", `Bearer realm="https://accounts.google.com/", error="invalid_token"`)
	}
	r.body = appendFCMBody(r.body, problem.reason, problem.message, problem.field)
}
