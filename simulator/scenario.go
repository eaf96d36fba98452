package simulator

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Scenario is how the providers behave. The zero value accepts every valid push at once. It can be changed while the
// simulator runs.
type Scenario struct {
	// Seed picks which tokens fail; the same seed picks the same.
	Seed uint64 `json:"seed" yaml:"seed"`
	// Latency of every answer to a push.
	Latency Latency `json:"latency" yaml:"latency"`
	// Mix is the share of tokens (0 to 1) by reason; see Reasons. Transient ones heal after one or two attempts of each
	// notification, the others never. A reason that only one provider has concerns that provider's tokens alone.
	Mix Mix `json:"mix,omitempty" yaml:"mix"`
	// RetryAfter is sent with what the mix and the markers answer with 429 and 503; zero sends no such header.
	RetryAfter Duration `json:"retry_after,omitempty" yaml:"retry_after"`
	// Rules come before Mix, in their order.
	Rules []Rule `json:"rules,omitempty" yaml:"rules"`
	// APNS and FCM are what only one of them has.
	APNS APNSScenario `json:"apns" yaml:"apns"`
	FCM  FCMScenario  `json:"fcm" yaml:"fcm"`
}

// APNSScenario holds APNs' own settings; zero values are Apple's.
type APNSScenario struct {
	Topics        []string `json:"topics,omitempty" yaml:"topics"`                 // bundle ids that exist; empty: every one
	TokenLifetime Duration `json:"token_lifetime,omitempty" yaml:"token_lifetime"` // of a provider token: 1h
	TokenUpdate   Duration `json:"token_update,omitempty" yaml:"token_update"`     // at least between two of a connection: 20m; less than 0: no limit
	PerDevice     int      `json:"per_device,omitempty" yaml:"per_device"`         // pushes a minute to one token; 0: no limit
	// Connections is how APNs treats its clients' connections.
	Connections ConnScenario `json:"connections,omitzero" yaml:"connections"`
}

// FCMScenario holds FCM's own settings.
type FCMScenario struct {
	TokenLifetime  Duration `json:"token_lifetime,omitempty" yaml:"token_lifetime"`     // of an access token: 1h
	QuotaPerMinute int      `json:"quota_per_minute,omitempty" yaml:"quota_per_minute"` // requests of a project; 0: no quota (Google's default is 600,000)
	PerDevice      int      `json:"per_device,omitempty" yaml:"per_device"`             // pushes a minute to one token; 0: no limit (Google's is 240)
	// Connections is how FCM's front end treats its clients' connections.
	Connections ConnScenario `json:"connections,omitzero" yaml:"connections"`
}

// Mix is a share of tokens for each reason. Its text form, in flags, is "dead=0.02,throttled=0.01".
type Mix map[string]float64

// ParseMix reads the text form.
func ParseMix(s string) (Mix, error) {
	m := Mix{}
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		reason, share, ok := strings.Cut(part, "=")
		v, err := strconv.ParseFloat(strings.TrimSpace(share), 64)
		if !ok || err != nil {
			return nil, fmt.Errorf("mix %q: want <reason>=<share>, such as dead=0.02", part)
		}
		m[strings.TrimSpace(reason)] = v
	}
	return m, m.validate()
}

// String is the text form.
func (m Mix) String() string {
	parts := make([]string, 0, len(m))
	for _, reason := range sortedKeys(m) {
		parts = append(parts, reason+"="+strconv.FormatFloat(m[reason], 'g', -1, 64))
	}
	return strings.Join(parts, ",")
}

func (m Mix) validate() error {
	total := 0.0
	for _, reason := range sortedKeys(m) {
		if err := checkReason(reason); err != nil {
			return fmt.Errorf("mix: %w", err)
		}
		if share := m[reason]; !(share >= 0 && share <= 1) {
			return fmt.Errorf("mix: the share of %s is %v: want 0 to 1", reason, share)
		}
		total += m[reason]
	}
	if total > 1+1e-9 {
		return fmt.Errorf("mix: the shares add up to %v: want at most 1, since a token has one fate", total)
	}
	return nil
}

func checkReason(reason string) error {
	if knownReason(reason) {
		return nil
	}
	return fmt.Errorf("%q is no reason: want one of %s", reason, strings.Join(Reasons(), ", "))
}

// Rule says what happens to some pushes. A push meets the first rule that matches it; empty conditions match everything. A rule
// that only delays lets the push go on to the rules behind it.
type Rule struct {
	Name string `json:"name,omitempty" yaml:"name"` // of your choice, for listing and removing

	Provider    Provider `json:"provider,omitempty" yaml:"provider"`
	Environment string   `json:"environment,omitempty" yaml:"environment"` // APNs: production or sandbox
	App         string   `json:"app,omitempty" yaml:"app"`                 // APNs topic or FCM project
	TokenPrefix string   `json:"token_prefix,omitempty" yaml:"token_prefix"`
	Share       float64  `json:"share,omitempty" yaml:"share"` // of the tokens, by hash; 0: all
	Every       int64    `json:"every,omitempty" yaml:"every"` // only each n-th push that the above match; 0: each
	Times       int      `json:"times,omitempty" yaml:"times"` // attempts of one notification; 0: without end
	Limit       int64    `json:"limit,omitempty" yaml:"limit"` // pushes in all; 0: without end
	After       Duration `json:"after,omitempty" yaml:"after"` // begins so long after it was given
	For         Duration `json:"for,omitempty" yaml:"for"`     // ends so long after it began; 0: never

	Reason         string   `json:"reason,omitempty" yaml:"reason"`                     // see Reasons
	DeadAgo        Duration `json:"dead_ago,omitempty" yaml:"dead_ago"`                 // 410: how long before the push the device died
	RetryAfter     Duration `json:"retry_after,omitempty" yaml:"retry_after"`           // header, rounded up to seconds
	RetryAfterDate bool     `json:"retry_after_date,omitempty" yaml:"retry_after_date"` // as an HTTP date
	Delay          Duration `json:"delay,omitempty" yaml:"delay"`                       // on top of the latency
	Latency        Latency  `json:"latency,omitzero" yaml:"latency"`                    // as Delay, from a model: for one app, say
	Fault          Fault    `json:"fault,omitempty" yaml:"fault"`                       // of the connection
	Pause          Duration `json:"pause,omitempty" yaml:"pause"`                       // of the fault, where it has one
}

func (r *Rule) validate() error {
	switch {
	case r.Reason == "" && r.Fault == "" && r.Delay == 0 && r.Latency == (Latency{}):
		return errors.New("does nothing: give it a reason, a fault or a delay")
	case r.Reason != "" && !knownReason(r.Reason):
		return checkReason(r.Reason)
	case r.Reason != "" && r.Provider != "" && !reasonKnownAt(r.Provider, r.Reason):
		return fmt.Errorf("%q is no reason of %s", r.Reason, r.Provider)
	case r.Fault != "" && !slices.Contains(faults, r.Fault):
		return fmt.Errorf("%q is no fault: want one of %v", r.Fault, faults)
	case r.Provider != "" && r.Provider != APNS && r.Provider != FCM:
		return fmt.Errorf("%q is no provider: want apns or fcm, or nothing for both", r.Provider)
	case r.Environment != "" && r.Environment != Production && r.Environment != Sandbox:
		return fmt.Errorf("%q is no environment: want production or sandbox, or nothing for both", r.Environment)
	case !(r.Share >= 0 && r.Share <= 1):
		return fmt.Errorf("the share is %v: want 0 to 1", r.Share)
	case r.Every < 0 || r.Times < 0 || r.Limit < 0 || r.After < 0 || r.For < 0 || r.Delay < 0 || r.RetryAfter < 0 || r.Pause < 0:
		return errors.New("every, times, limit, after, for, delay, retry_after and pause are 0 or more")
	case r.Fault.cuts() && r.Reason != "":
		return fmt.Errorf("the fault %s is of pushes that are accepted: leave the reason out", r.Fault)
	}
	return nil
}

func reasonKnownAt(p Provider, reason string) bool {
	_, ok := reasonAt(p, reason)
	return ok
}

// Validate says what is wrong and what to write instead.
func (s *Scenario) Validate() error {
	if err := s.Mix.validate(); err != nil {
		return err
	}
	if s.RetryAfter < 0 || s.FCM.QuotaPerMinute < 0 || s.FCM.TokenLifetime < 0 || s.APNS.TokenLifetime < 0 || s.APNS.PerDevice < 0 || s.FCM.PerDevice < 0 {
		return errors.New("retry_after, quota_per_minute, per_device and token_lifetime are 0 or more")
	}
	for p, c := range map[Provider]*ConnScenario{APNS: &s.APNS.Connections, FCM: &s.FCM.Connections} {
		if err := c.validate(); err != nil {
			return fmt.Errorf("%s: connections: %w", p, err)
		}
	}
	return validateRules(s.Rules)
}

func validateRules(rules []Rule) error {
	for i := range rules {
		if err := rules[i].validate(); err != nil {
			return fmt.Errorf("rule %d (%q): %w", i+1, rules[i].Name, err)
		}
	}
	return nil
}

// LoadScenario reads a YAML file. Unknown fields are errors.
func LoadScenario(file string) (Scenario, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return Scenario{}, fmt.Errorf("read the scenario: %w", err)
	}
	s, err := ParseScenario(text)
	if err != nil {
		return Scenario{}, fmt.Errorf("scenario %s: %w", file, err)
	}
	return s, nil
}

// ParseScenario reads YAML text. Empty text is the zero scenario.
func ParseScenario(text []byte) (Scenario, error) {
	var s Scenario
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&s); err != nil && !errors.Is(err, io.EOF) {
		return Scenario{}, err
	}
	return s, s.Validate()
}
