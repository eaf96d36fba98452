package simulator

import (
	"fmt"
	"strings"
	"time"
)

// Identity is what a sender needs to be told of a simulator.
type Identity struct {
	APNSURL    string  `json:"apns_url"`
	SandboxURL string  `json:"apns_sandbox_url"`
	FCMURL     string  `json:"fcm_url"`
	AdminURL   string  `json:"admin_url"`
	CAPEM      string  `json:"ca_pem"`
	APNSKey    APNSKey `json:"apns_key"`
	Project    string  `json:"fcm_project"`
}

// Identity says where the simulator is and what it trusts.
func (s *Simulator) Identity() Identity {
	return Identity{
		APNSURL: s.APNSURL(), SandboxURL: s.SandboxURL(), FCMURL: s.FCMURL(), AdminURL: s.AdminURL(),
		CAPEM: string(s.CAPEM()), APNSKey: s.APNSKey(), Project: s.options.Project,
	}
}

// PushFilter picks pushes; empty fields pick every one.
type PushFilter struct {
	Provider Provider
	App      string
	Token    string
	ID       string
}

// Pushes are the last accepted pushes that match, in the order of acceptance, as far as Options.Exact keeps them.
func (s *Simulator) Pushes(f PushFilter) []Push {
	if f.Provider == APNS {
		f.Token = strings.ToLower(f.Token)
	}
	return s.core.samples.list(func(p *Push) bool {
		return (f.Provider == "" || f.Provider == p.Provider) && (f.App == "" || f.App == p.App) &&
			(f.Token == "" || f.Token == p.Token) && (f.ID == "" || f.ID == p.ID)
	})
}

// Rules are those in force, in their order.
func (s *Simulator) Rules() []Rule { return rulesOf(s.core) }

// refuse resets new connections for a while; "" is both providers.
func (s *Simulator) refuse(p Provider, d time.Duration) {
	for _, g := range s.gatesOf(p) {
		g.refuse(d)
	}
}

// gatesOf are the listeners of a provider; "" is both.
func (s *Simulator) gatesOf(p Provider) (gates []*gate) {
	if p != FCM {
		gates = append(gates, s.gates[listenAPNS], s.gates[listenSandbox])
	}
	if p != APNS {
		gates = append(gates, s.gates[listenFCM])
	}
	return gates
}

// reset forgets what is named, separated by commas; "" is everything.
func (s *Simulator) reset(what string, now time.Time) error {
	if what == "" {
		what = "ledger,pushes,stats,rules,tokens"
	}
	for part := range strings.SplitSeq(what, ",") {
		switch strings.TrimSpace(part) {
		case "ledger":
			if err := s.ledger.Reset(); err != nil {
				return err
			}
		case "pushes":
			s.core.samples.reset()
		case "stats":
			s.core.stats.reset(now)
		case "rules":
			s.core.setRules(nil)
		case "tokens":
			s.core.forgetTokens()
			s.topics.reset()
		default:
			return fmt.Errorf("%q cannot be reset: want some of ledger, pushes, stats, rules, tokens", part)
		}
	}
	return nil
}
