package simulator

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// admin is the admin API. It has no authentication: the listener is for loopback.
type admin struct {
	s *Simulator
}

// adminIndex is what a person sees who opens the address.
const adminIndex = `Campanile simulator

GET    /stats              what was answered, connections, CPU
GET    /metrics            the same for Prometheus
GET    /ledger             what was accepted: counts in all and by app
GET    /ledger/export      the ledger as CSV
POST   /ledger/counts      {"provider","tokens"}: pushes by token
GET    /pushes             the last pushes whole, where kept: ?provider= &app= &token= &id= &limit=
GET    /identity           addresses and credentials
POST   /keys               {"team_id","environment","topics"}: another APNs key
GET    /service-account    FCM credentials: ?project=
GET    /scenario           PUT replaces it
GET    /rules              PUT replaces them, POST puts more in front, DELETE ?name= removes
POST   /kill               {"provider","tokens","since_ms"}: these devices are dead
POST   /revive             {"provider","tokens"}: these devices live, whatever else was said
POST   /brownout           {"provider","reason","for"}: every push is answered so for a while
POST   /refuse             {"provider","for"}: connections are reset for a while
POST   /tls-failure        {"provider","for"}: TLS handshakes fail for a while
POST   /reset              ?what=ledger,pushes,stats,rules,tokens; without: all of it
GET    /healthz
`

func newAdmin(s *Simulator) http.Handler {
	a := &admin{s}
	registry := prometheus.NewRegistry()
	registry.MustRegister(s.Collector())
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, adminIndex) })
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /stats", func(w http.ResponseWriter, _ *http.Request) { a.write(w, s.Stats()) })
	mux.HandleFunc("GET /ledger", func(w http.ResponseWriter, _ *http.Request) { a.write(w, s.ledger.Summary()) })
	mux.HandleFunc("GET /ledger/export", a.export)
	mux.HandleFunc("POST /ledger/counts", a.counts)
	mux.HandleFunc("GET /pushes", a.pushes)
	mux.HandleFunc("GET /identity", func(w http.ResponseWriter, _ *http.Request) { a.write(w, s.Identity()) })
	mux.HandleFunc("POST /keys", a.newKey)
	mux.HandleFunc("GET /service-account", a.serviceAccount)
	mux.HandleFunc("GET /scenario", func(w http.ResponseWriter, _ *http.Request) { a.write(w, s.core.scenario()) })
	mux.HandleFunc("PUT /scenario", a.setScenario)
	mux.HandleFunc("GET /rules", func(w http.ResponseWriter, _ *http.Request) { a.write(w, rulesOf(s.core)) })
	mux.HandleFunc("PUT /rules", a.rules(s.core.setRules))
	mux.HandleFunc("POST /rules", a.rules(s.core.addRules))
	mux.HandleFunc("DELETE /rules", a.removeRules)
	mux.HandleFunc("POST /kill", a.kill)
	mux.HandleFunc("POST /revive", a.revive)
	mux.HandleFunc("POST /brownout", a.brownout)
	mux.HandleFunc("POST /refuse", a.refuse)
	mux.HandleFunc("POST /tls-failure", a.tlsFailure)
	mux.HandleFunc("POST /reset", a.reset)
	return mux
}

// maxAdminBody bounds what is read, bytes: a list of a million tokens fits.
const maxAdminBody = 256 << 20

func rulesOf(c *core) []Rule {
	if rules := c.scenario().Rules; rules != nil {
		return rules
	}
	return []Rule{}
}

// read decodes a body and answers 400 where it is wrong.
func (a *admin) read(w http.ResponseWriter, r *http.Request, into any) bool {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxAdminBody))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		a.refuseRequest(w, err)
		return false
	}
	return true
}

func (a *admin) refuseRequest(w http.ResponseWriter, err error) {
	http.Error(w, err.Error(), http.StatusBadRequest)
}

func (a *admin) write(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		a.s.options.Logger.Debug("admin answer was not read", "error", err)
	}
}

func (a *admin) export(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/csv; charset=utf-8")
	if err := a.s.ledger.Export(r.Context(), w); err != nil {
		a.s.options.Logger.Warn("ledger export broke off", "error", err)
		panic(http.ErrAbortHandler) // the client must not take half of it for the whole
	}
}

// tokenList names tokens of a provider.
type tokenList struct {
	Provider Provider `json:"provider"`
	Tokens   []string `json:"tokens"`
	SinceMS  int64    `json:"since_ms,omitempty"` // dead since, Unix milliseconds; 0: since each push
}

func (t *tokenList) validate() error {
	if t.Provider != APNS && t.Provider != FCM {
		return fmt.Errorf("%q is no provider: want apns or fcm", t.Provider)
	}
	return nil
}

func (a *admin) tokens(w http.ResponseWriter, r *http.Request) (t tokenList, ok bool) {
	if !a.read(w, r, &t) {
		return t, false
	}
	if err := t.validate(); err != nil {
		a.refuseRequest(w, err)
		return t, false
	}
	return t, true
}

func (a *admin) counts(w http.ResponseWriter, r *http.Request) {
	if t, ok := a.tokens(w, r); ok {
		a.write(w, a.s.ledger.Counts(t.Provider, t.Tokens...))
	}
}

func (a *admin) kill(w http.ResponseWriter, r *http.Request) {
	if t, ok := a.tokens(w, r); ok {
		a.s.core.markTokens(t.Provider, t.Tokens, mark{since: t.SinceMS})
		w.WriteHeader(http.StatusNoContent)
	}
}

func (a *admin) revive(w http.ResponseWriter, r *http.Request) {
	if t, ok := a.tokens(w, r); ok {
		a.s.core.markTokens(t.Provider, t.Tokens, mark{alive: true})
		w.WriteHeader(http.StatusNoContent)
	}
}

func (a *admin) pushes(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if a.s.options.Exact == 0 {
		a.refuseRequest(w, errors.New("pushes are not kept whole here: start the simulator with a number of them to keep"))
		return
	}
	limit := a.s.options.Exact
	if text := q.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			a.refuseRequest(w, fmt.Errorf("limit %q: want a number above 0", text))
			return
		}
		limit = n
	}
	found := a.s.Pushes(PushFilter{Provider: Provider(q.Get("provider")), App: q.Get("app"), Token: q.Get("token"), ID: q.Get("id")})
	a.write(w, found[max(0, len(found)-limit):])
}

func (a *admin) newKey(w http.ResponseWriter, r *http.Request) {
	var k APNSKey
	if !a.read(w, r, &k) {
		return
	}
	issued, err := a.s.NewAPNSKey(k)
	if err != nil {
		a.refuseRequest(w, err)
		return
	}
	a.write(w, issued)
}

func (a *admin) serviceAccount(w http.ResponseWriter, r *http.Request) {
	project := r.URL.Query().Get("project")
	if project == "" {
		project = a.s.options.Project
	}
	text, err := a.s.ServiceAccount(project)
	if err != nil {
		a.refuseRequest(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(text)
}

func (a *admin) setScenario(w http.ResponseWriter, r *http.Request) {
	var s Scenario
	if !a.read(w, r, &s) {
		return
	}
	if err := checkScenario(a.s.options.Server, &s); err != nil {
		a.refuseRequest(w, err)
		return
	}
	a.s.core.setScenario(s)
	w.WriteHeader(http.StatusNoContent)
}

func (a *admin) rules(set func([]Rule)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var rules []Rule
		if !a.read(w, r, &rules) {
			return
		}
		err := validateRules(rules)
		if err == nil && a.s.options.Server == ServerNetHTTP {
			err = rulesNeedFrames(rules)
		}
		if err != nil {
			a.refuseRequest(w, err)
			return
		}
		set(rules)
		w.WriteHeader(http.StatusNoContent)
	}
}

func (a *admin) removeRules(w http.ResponseWriter, r *http.Request) {
	name := r.URL.Query().Get("name")
	if name == "" {
		a.s.core.setRules(nil)
	} else if a.s.core.removeRules(name) == 0 {
		http.Error(w, fmt.Sprintf("there is no rule %q", name), http.StatusNotFound)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// trouble is a brown-out or a refusal of connections.
type trouble struct {
	Provider Provider `json:"provider,omitempty"` // "": both
	Reason   string   `json:"reason,omitempty"`   // brown-out; "": unavailable
	For      Duration `json:"for"`
}

func (t *trouble) validate() error {
	switch {
	case t.Provider != "" && t.Provider != APNS && t.Provider != FCM:
		return fmt.Errorf("%q is no provider: want apns or fcm, or nothing for both", t.Provider)
	case t.For <= 0:
		return errors.New(`for is missing: say how long, such as {"for":"5s"}`)
	}
	return nil
}

func (a *admin) trouble(w http.ResponseWriter, r *http.Request) (t trouble, ok bool) {
	if !a.read(w, r, &t) {
		return t, false
	}
	if err := t.validate(); err != nil {
		a.refuseRequest(w, err)
		return t, false
	}
	return t, true
}

func (a *admin) brownout(w http.ResponseWriter, r *http.Request) {
	t, ok := a.trouble(w, r)
	if !ok {
		return
	}
	if t.Reason == "" {
		t.Reason = "unavailable"
	}
	rules := []Rule{{Name: "brownout", Provider: t.Provider, Reason: t.Reason, For: t.For}}
	if err := validateRules(rules); err != nil {
		a.refuseRequest(w, err)
		return
	}
	a.s.core.addRules(rules)
	w.WriteHeader(http.StatusNoContent)
}

func (a *admin) refuse(w http.ResponseWriter, r *http.Request) {
	t, ok := a.trouble(w, r)
	if !ok {
		return
	}
	a.s.refuse(t.Provider, t.For.D())
	w.WriteHeader(http.StatusNoContent)
}

func (a *admin) tlsFailure(w http.ResponseWriter, r *http.Request) {
	t, ok := a.trouble(w, r)
	if !ok {
		return
	}
	for _, g := range a.s.gatesOf(t.Provider) {
		g.breakTLS(t.For.D())
	}
	w.WriteHeader(http.StatusNoContent)
}

func (a *admin) reset(w http.ResponseWriter, r *http.Request) {
	if err := a.s.reset(r.URL.Query().Get("what"), time.Now()); err != nil {
		a.refuseRequest(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
