package simulator

import (
	"sort"
	"sync"
	"sync/atomic"
	"time"
)

// stats counts answers and connections. Safe for concurrent use.
type stats struct {
	since     atomic.Int64 // Unix nanoseconds
	cpuAt     atomic.Int64 // CPU time at since, microseconds
	requests  atomic.Int64
	inFlight  atomic.Int64
	maxFlight atomic.Int64
	opened    atomic.Int64
	open      atomic.Int64
	refused   atomic.Int64
	tokens    atomic.Int64 // access tokens issued

	mu      sync.RWMutex
	answers map[answerKey]*atomic.Int64
}

type answerKey struct {
	service service
	status  int // 0: no answer
	reason  string
}

// AnswerCount is how often one answer was given.
type AnswerCount struct {
	Provider    Provider `json:"provider"`
	Environment string   `json:"environment,omitempty"`
	Status      int      `json:"status"` // 0: the connection's fault, no answer
	Reason      string   `json:"reason,omitempty"`
	Count       int64    `json:"count"`
}

// Stats is what the simulator did since its start or the last reset of stats.
type Stats struct {
	SinceUS       int64         `json:"since_us"`
	Requests      int64         `json:"requests"` // pushes, valid or not
	InFlight      int64         `json:"in_flight"`
	MaxInFlight   int64         `json:"max_in_flight"`
	Opened        int64         `json:"connections_opened"`
	Open          int64         `json:"connections_open"`
	Refused       int64         `json:"connections_refused"`
	AccessTokens  int64         `json:"access_tokens_issued"`
	CPUPerRequest float64       `json:"process_cpu_us_per_request"` // of the whole process: the simulator's own only where it runs alone
	Answers       []AnswerCount `json:"answers"`
	Ledger        Summary       `json:"ledger"`
}

func newStats(now time.Time) *stats {
	s := &stats{}
	s.reset(now)
	return s
}

// reset begins anew. Gauges stay.
func (s *stats) reset(now time.Time) {
	s.since.Store(now.UnixNano())
	s.cpuAt.Store(processCPU().Microseconds())
	for _, n := range []*atomic.Int64{&s.requests, &s.opened, &s.refused, &s.tokens} {
		n.Store(0)
	}
	s.maxFlight.Store(s.inFlight.Load())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers = map[answerKey]*atomic.Int64{}
}

func (s *stats) begin() {
	s.requests.Add(1)
	n := s.inFlight.Add(1)
	for {
		most := s.maxFlight.Load()
		if n <= most || s.maxFlight.CompareAndSwap(most, n) {
			return
		}
	}
}

func (s *stats) end() { s.inFlight.Add(-1) }

func (s *stats) answered(at service, status int, reason string) {
	key := answerKey{at, status, reason}
	s.mu.RLock()
	n := s.answers[key]
	s.mu.RUnlock()
	if n == nil {
		s.mu.Lock()
		if n = s.answers[key]; n == nil {
			n = new(atomic.Int64)
			s.answers[key] = n
		}
		s.mu.Unlock()
	}
	n.Add(1)
}

func (s *stats) read(ledger Summary) Stats {
	out := Stats{
		SinceUS: s.since.Load() / 1000, Requests: s.requests.Load(), InFlight: s.inFlight.Load(), MaxInFlight: s.maxFlight.Load(),
		Opened: s.opened.Load(), Open: s.open.Load(), Refused: s.refused.Load(), AccessTokens: s.tokens.Load(), Ledger: ledger,
		Answers: []AnswerCount{},
	}
	if out.Requests > 0 {
		out.CPUPerRequest = float64(processCPU().Microseconds()-s.cpuAt.Load()) / float64(out.Requests)
	}
	s.mu.RLock()
	for key, n := range s.answers {
		out.Answers = append(out.Answers, AnswerCount{key.service.provider(), key.service.environment(), key.status, key.reason, n.Load()})
	}
	s.mu.RUnlock()
	sort.Slice(out.Answers, func(i, j int) bool {
		a, b := out.Answers[i], out.Answers[j]
		if a.Provider != b.Provider {
			return a.Provider < b.Provider
		}
		if a.Environment != b.Environment {
			return a.Environment < b.Environment
		}
		if a.Status != b.Status {
			return a.Status < b.Status
		}
		return a.Reason < b.Reason
	})
	return out
}
