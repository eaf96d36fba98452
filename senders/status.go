package senders

import (
	"cmp"
	"slices"
)

// AccountStatus is what an operator may want to know of an app's sends in this process, on one transport and lane.
type AccountStatus struct {
	App         string `json:"app"`
	Environment string `json:"environment"`
	Transport   string `json:"transport"`
	Lane        string `json:"lane"`
	// LimitedBy is what its sends wait for, as a word of pushv1.Limit; "": they do not wait.
	LimitedBy string `json:"limited_by,omitempty"`
	// Parked is why nothing is pushed until the credentials change; "": it is not parked.
	Parked string `json:"parked,omitempty"`
	// Rate is how many pushes a second may begin now, and RateLimit the most that this process ever lets begin; 0: no limit.
	Rate      float64 `json:"rate"`
	RateLimit float64 `json:"rate_limit"`
	// InFlightLimit is how many pushes may be in flight, as the provider's latency allows.
	InFlight      int `json:"in_flight"`
	InFlightLimit int `json:"in_flight_limit"`
	Queued        int `json:"queued"`
	// PausedSeconds is how long a pause still lasts.
	PausedSeconds float64 `json:"paused_seconds,omitempty"`
}

// Accounts says what each account that has sent anything is held to, sorted by app.
func (s *Sender) Accounts() []AccountStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.nowUS()
	list := make([]AccountStatus, 0, len(s.accounts))
	for _, a := range s.accounts {
		status := AccountStatus{
			App: a.app, Environment: "production", Transport: s.options.Transport.Word(), Lane: s.options.Lane.Word(),
			LimitedBy: a.limitNow().Word(), Parked: a.reason, InFlight: a.inFlight, Queued: a.waiting(),
			InFlightLimit: a.gradient.now(), PausedSeconds: float64(a.paused(now)) / 1e6,
		}
		if a.env != 0 {
			status.Environment = "sandbox"
		}
		if a.limit > 0 {
			status.InFlightLimit = min(a.limit, a.gradient.now(), s.options.Window)
		}
		status.Rate, status.RateLimit = a.rates()
		list = append(list, status)
	}
	slices.SortFunc(list, func(x, y AccountStatus) int {
		return cmp.Or(cmp.Compare(x.App, y.App), cmp.Compare(x.Environment, y.Environment))
	})
	return list
}

// rates are the lowest rate in force, and the lowest limit; zero: none.
func (a *account) rates() (rate, limit float64) {
	rate, limit = a.pace.now(), a.pace.limit
	least := func(x, y float64) float64 {
		if x == 0 || y > 0 && y < x {
			return y
		}
		return x
	}
	for _, q := range a.quotas {
		r, l := q.now(a.lane)
		rate, limit = least(rate, r), least(limit, l)
	}
	return rate, limit
}
