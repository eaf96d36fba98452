package simulator

import (
	"slices"
	"sync"
)

// samples keeps the last accepted pushes whole, for tests of content and isolation. Safe for concurrent use.
type samples struct {
	mu    sync.Mutex
	limit int
	ring  []Push
	next  int
}

func newSamples(limit int) *samples { return &samples{limit: limit} }

func (s *samples) keep(p *Push) {
	if s.limit == 0 {
		return
	}
	kept := *p
	kept.Body = slices.Clone(p.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ring) < s.limit {
		s.ring = append(s.ring, kept)
		return
	}
	s.ring[s.next] = kept
	s.next = (s.next + 1) % s.limit
}

// list returns what matches, in the order of acceptance; empty conditions match everything.
func (s *samples) list(match func(p *Push) bool) []Push {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := []Push{}
	for i := range s.ring {
		if p := &s.ring[(s.next+i)%len(s.ring)]; match(p) {
			found = append(found, *p)
		}
	}
	return found
}

func (s *samples) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ring, s.next = nil, 0
}
