package simulator

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
)

// core decides over valid pushes and records them. It knows no protocol; every server speaks for the same one. Safe for
// concurrent use.
type core struct {
	now     func() time.Time
	ledger  *Ledger
	samples *samples
	stats   *stats

	state  atomic.Pointer[state]
	marked atomic.Int64 // number of marks: without any, no push takes the lock for them

	mu       sync.Mutex // guards changes of state, and what follows
	salt     uint64
	marks    map[uint64]mark
	attempts [2]map[uint64]int // two generations: the older is dropped when the younger is full
	quotas   map[string]*quota

	devices deviceLimit
}

// state is what pushes read without a lock. It is replaced whole.
type state struct {
	scenario Scenario // its Rules are in rules
	mix      []mixShare
	rules    []*rule
	faulty   bool // a rule has a fault
}

func hasFault(rules []*rule) bool {
	return slices.ContainsFunc(rules, func(r *rule) bool { return r.Fault != "" })
}

// mark is what was said of one token.
type mark struct {
	alive bool
	since int64 // dead since, Unix milliseconds; 0: since each push
}

// maxAttempts bounds a generation of notifications that wait to be sent again, entries.
const maxAttempts = 1 << 20

func newCore(s Scenario, ledger *Ledger, exact int, now func() time.Time) *core {
	c := &core{
		now: now, ledger: ledger, samples: newSamples(exact), stats: newStats(now()),
		marks: map[uint64]mark{}, quotas: map[string]*quota{},
	}
	c.attempts[0] = map[uint64]int{}
	c.setScenario(s)
	return c
}

// setScenario replaces everything but what was said of single tokens. The scenario is valid.
func (c *core) setScenario(s Scenario) {
	c.mu.Lock()
	defer c.mu.Unlock()
	rules := c.liveRules(s.Rules)
	s.Rules = nil
	clear(c.quotas)
	c.state.Store(&state{scenario: s, mix: sharesOf(s.Mix), rules: rules, faulty: hasFault(rules)})
}

// scenario is the one in force, rules included.
func (c *core) scenario() Scenario {
	st := c.state.Load()
	s := st.scenario
	for _, r := range st.rules {
		s.Rules = append(s.Rules, r.Rule)
	}
	return s
}

// setRules replaces the rules; addRules puts more in front of them, so that the youngest word counts.
func (c *core) setRules(rules []Rule) { c.changeRules(rules, false) }
func (c *core) addRules(rules []Rule) { c.changeRules(rules, true) }

func (c *core) changeRules(rules []Rule, keep bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := *c.state.Load()
	live := c.liveRules(rules)
	if keep {
		now := c.now()
		old := slices.DeleteFunc(slices.Clone(next.rules), func(r *rule) bool { return !r.until.IsZero() && !now.Before(r.until) })
		live = append(live, old...)
	}
	next.rules, next.faulty = live, hasFault(live)
	c.state.Store(&next)
}

// removeRules drops the rules of that name and returns how many there were.
func (c *core) removeRules(name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := *c.state.Load()
	rules := slices.DeleteFunc(slices.Clone(next.rules), func(r *rule) bool { return r.Name == name })
	removed := len(next.rules) - len(rules)
	next.rules, next.faulty = rules, hasFault(rules)
	c.state.Store(&next)
	return removed
}

func (c *core) liveRules(rules []Rule) []*rule {
	now := c.now()
	live := make([]*rule, 0, len(rules))
	for _, r := range rules {
		c.salt++
		live = append(live, newRule(r, now, mix(c.salt)))
	}
	return live
}

// markTokens says that tokens of a provider are dead or alive, whatever the mix and the markers say.
func (c *core) markTokens(p Provider, tokens []string, m mark) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, token := range tokens {
		if p == APNS {
			token = strings.ToLower(token)
		}
		c.marks[tokenKey(p, TokenHash(token))] = m
	}
	c.marked.Store(int64(len(c.marks)))
}

// forgetTokens drops every mark and every count of attempts.
func (c *core) forgetTokens() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.marks)
	c.marked.Store(0)
	c.attempts = [2]map[uint64]int{{}, nil}
}

// take decides over a push, and records it where it is accepted: on file when take returns. An error means that it could not
// be recorded, and must not be answered with success.
func (c *core) take(p *Push) (answer, error) {
	a := c.rehearse(p)
	if !a.accepted() {
		return a, nil
	}
	if err := c.ledger.Append(p.entry(&a)); err != nil {
		return answer{}, fmt.Errorf("accept a push: %w", err)
	}
	c.samples.keep(p)
	return a, nil
}

// entry is what the ledger keeps of an accepted push.
func (p *Push) entry(a *answer) Entry {
	return Entry{
		TimeUS: p.TimeUS, Service: p.Provider, Sandbox: p.Environment == Sandbox, App: p.App,
		Token: p.tokenHash, ID: p.id, Body: xxhash.Sum64(p.Body), Unanswered: a.fault.cuts(),
	}
}

// rehearse decides and records nothing.
func (c *core) rehearse(p *Push) answer { return c.rehearseAt(p, c.now()) }

// rehearseAt is rehearse of a caller who has looked at the clock.
func (c *core) rehearseAt(p *Push, now time.Time) answer {
	p.TimeUS = now.UnixMicro()
	p.tokenHash = TokenHash(p.Token)
	return c.decide(p)
}

func (c *core) decide(p *Push) answer {
	st := c.state.Load()
	s := &st.scenario
	now := time.UnixMicro(p.TimeUS)
	a := answer{delay: s.latencyOf(p)}
	own := s.connections(p.Provider)
	if own.Latency != (Latency{}) {
		a.delay += own.Latency.Of(mix(s.Seed ^ mix(p.conn)))
	}
	if limit := s.perDevice(p.Provider); limit > 0 && !c.devices.within(tokenKey(p.Provider, p.tokenHash), limit, now) {
		a.reason, _ = reasonAt(p.Provider, "throttled")
		a.retryAfter = s.RetryAfter.D()
		return a
	}
	for _, r := range st.rules {
		if !r.matches(p, s.Seed, now) || !r.turn() || !c.attempt(p, r.salt, r.Times) || !r.within() {
			continue
		}
		a.delay += r.Delay.D()
		if r.Latency != (Latency{}) {
			a.delay += r.Latency.Of(pushSeed(s.Seed^r.salt, p))
		}
		if r.Reason == "" && r.Fault == "" {
			continue
		}
		reason, _ := reasonAt(p.Provider, r.Reason)
		if r.Reason == "" || r.Reason == Accept {
			reason = ""
		}
		a.reason, a.fault, a.pause, a.retryAfter, a.asDate = reason, r.Fault, r.Pause.D(), r.RetryAfter.D(), r.RetryAfterDate
		a.deadMS = now.Add(-r.DeadAgo.D()).UnixMilli()
		return a
	}
	if m, ok := c.mark(p); ok {
		if !m.alive {
			a.reason, _ = reasonAt(p.Provider, "dead")
			a.deadMS = m.since
			if m.since == 0 {
				a.deadMS = now.UnixMilli()
			}
		}
		return a
	}
	v, ok := marked(p)
	if !ok {
		v = mixed(st.mix, s.Seed, p)
	}
	if v.reason == "" || v.reason == Accept || !c.attempt(p, 0, v.times) {
		return a
	}
	a.reason, a.deadMS = v.reason, now.UnixMilli()
	if transient(v.reason) {
		a.retryAfter = s.RetryAfter.D()
	}
	return a
}

func (c *core) mark(p *Push) (mark, bool) {
	if c.marked.Load() == 0 {
		return mark{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	m, ok := c.marks[tokenKey(p.Provider, p.tokenHash)]
	return m, ok
}

// attempt counts an attempt of a notification and reports whether it is among the first times; 0: it always is. Once they are
// used up the count is dropped: a notification that comes again begins anew.
func (c *core) attempt(p *Push, salt uint64, times int) bool {
	if times == 0 {
		return true
	}
	key := attemptKey(p, salt)
	c.mu.Lock()
	defer c.mu.Unlock()
	n, young := c.attempts[0][key]
	if !young {
		n = c.attempts[1][key]
		delete(c.attempts[1], key)
	}
	if n >= times {
		delete(c.attempts[0], key)
		return false
	}
	if !young && len(c.attempts[0]) >= maxAttempts {
		c.attempts = [2]map[uint64]int{{}, c.attempts[0]}
	}
	c.attempts[0][key] = n + 1
	return true
}

// quota is a token bucket of one project, a minute deep.
type quota struct {
	left float64
	at   time.Time
}

// withinQuota takes one request of a project's quota; where it is used up it says how long until the next.
func (c *core) withinQuota(project string) (ok bool, wait time.Duration) {
	perMinute := float64(c.state.Load().scenario.FCM.QuotaPerMinute)
	if perMinute == 0 {
		return true, 0
	}
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	q := c.quotas[project]
	if q == nil {
		q = &quota{left: perMinute, at: now}
		c.quotas[project] = q
	}
	q.left = min(perMinute, q.left+perMinute*now.Sub(q.at).Minutes())
	q.at = now
	if q.left < 1 {
		return false, time.Duration((1 - q.left) / perMinute * float64(time.Minute))
	}
	q.left--
	return true, 0
}
