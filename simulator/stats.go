package simulator

import (
	"maps"
	"sort"
	"strconv"
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
	cut       atomic.Int64 // accepted pushes whose answer could not be given, for whatever reason
	doubt     atomic.Int64 // accepted pushes whose answer was given and perhaps never read
	delays    [len(delayBounds) + 1]atomic.Int64

	mu         sync.RWMutex
	answers    map[answerKey]*atomic.Int64
	violations map[string]int64
}

// delayBounds are the upper bounds of the histogram of delays.
var delayBounds = [...]time.Duration{ //nolint:gochecknoglobals // a table
	0, time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, time.Minute,
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
	Server        string        `json:"server"`   // ServerFrames or ServerNetHTTP
	Requests      int64         `json:"requests"` // pushes, valid or not
	InFlight      int64         `json:"in_flight"`
	MaxInFlight   int64         `json:"max_in_flight"`
	Opened        int64         `json:"connections_opened"`
	Open          int64         `json:"connections_open"`
	Refused       int64         `json:"connections_refused"`
	AccessTokens  int64         `json:"access_tokens_issued"`
	CPUPerRequest float64       `json:"process_cpu_us_per_request"` // of the whole process: the simulator's own only where it runs alone
	Peak          int64         `json:"process_peak_bytes"`         // the most memory that the process ever had; 0 where the system does not say
	Answers       []AnswerCount `json:"answers"`
	// Cut is how many accepted pushes got no answer: by a fault of their own, because their connection broke or because the
	// client gave up on them. A sender that tries again makes a repeat of each.
	Cut int64 `json:"answers_cut"`
	// Doubt is how many answers more may have been lost, at most: they were written, and the connection ended before the client was
	// seen to have read them, or it had given up on them. Cut and Doubt bound a correct sender's repeats. Counted where a rule has a
	// fault, by the server "frames" alone.
	Doubt int64 `json:"answers_in_doubt"`
	// Violations is how often clients broke a rule of HTTP/2, by rule.
	Violations map[string]int64 `json:"protocol_violations"`
	// Delays is how long answers were held back, by upper bound in seconds: not cumulative; "+Inf" is the rest.
	Delays []DelayCount `json:"delays"`
	Ledger Summary      `json:"ledger"`
}

// DelayCount is a bucket of the delays.
type DelayCount struct {
	Upper string `json:"le"` // seconds
	Count int64  `json:"count"`
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
	for _, n := range []*atomic.Int64{&s.requests, &s.opened, &s.refused, &s.tokens, &s.cut, &s.doubt} {
		n.Store(0)
	}
	for i := range s.delays {
		s.delays[i].Store(0)
	}
	s.maxFlight.Store(s.inFlight.Load())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers = map[answerKey]*atomic.Int64{}
	s.violations = map[string]int64{}
}

func (s *stats) begin() { s.arrived(1) }

// arrived counts pushes that are read.
func (s *stats) arrived(pushes int64) {
	s.requests.Add(pushes)
	n := s.inFlight.Add(pushes)
	for {
		most := s.maxFlight.Load()
		if n <= most || s.maxFlight.CompareAndSwap(most, n) {
			return
		}
	}
}

func (s *stats) end() { s.left(1) }

// left counts pushes that are through, with an answer or without.
func (s *stats) left(pushes int64) { s.inFlight.Add(-pushes) }

// delayed counts answers that are held back for d.
func (s *stats) delayed(d time.Duration, n int64) {
	i := 0
	for i < len(delayBounds) && d > delayBounds[i] {
		i++
	}
	s.delays[i].Add(n)
}

// violated counts a breach of a rule.
func (s *stats) violated(rule string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.violations[rule]++
}

func (s *stats) answered(at service, status int, reason string) {
	s.answeredTimes(at, status, reason, 1)
}

func (s *stats) answeredTimes(at service, status int, reason string, times int64) {
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
	n.Add(times)
}

func (s *stats) read(ledger Summary) Stats {
	out := Stats{
		SinceUS: s.since.Load() / 1000, Requests: s.requests.Load(), InFlight: s.inFlight.Load(), MaxInFlight: s.maxFlight.Load(),
		Opened: s.opened.Load(), Open: s.open.Load(), Refused: s.refused.Load(), AccessTokens: s.tokens.Load(), Ledger: ledger,
		Peak: processPeak(), Answers: []AnswerCount{}, Cut: s.cut.Load(), Doubt: s.doubt.Load(), Violations: map[string]int64{},
	}
	for i := range s.delays {
		upper := "+Inf"
		if i < len(delayBounds) {
			upper = strconv.FormatFloat(delayBounds[i].Seconds(), 'g', -1, 64)
		}
		out.Delays = append(out.Delays, DelayCount{upper, s.delays[i].Load()})
	}
	if out.Requests > 0 {
		out.CPUPerRequest = float64(processCPU().Microseconds()-s.cpuAt.Load()) / float64(out.Requests)
	}
	s.mu.RLock()
	maps.Copy(out.Violations, s.violations)
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
