package h2

import "iter"

// streams are the open requests of one connection by stream id. Ids of a connection rise by two, and most requests end soon: a ring of
// places, by the id's low bits, holds nearly all of them, and costs a quarter of a map. An old stream whose place is taken by a newer
// one stands in a map. The zero value is empty.
type streams struct {
	ring  []*Request // a power of two
	aside map[uint32]*Request
	n     int
}

const leastRing = 64

func (s *streams) len() int { return s.n }

func (s *streams) place(id uint32) int { return int(id>>1) & (len(s.ring) - 1) }

// get returns the request of a stream; nil: it is not open.
func (s *streams) get(id uint32) *Request {
	if s.n == 0 {
		return nil
	}
	if r := s.ring[s.place(id)]; r != nil && r.id == id {
		return r
	}
	return s.aside[id]
}

// add opens r's stream, whose id is new and odd.
func (s *streams) add(r *Request) {
	if 2*s.n >= len(s.ring) {
		s.grow()
	}
	s.n++
	at := s.place(r.id)
	if old := s.ring[at]; old != nil {
		if s.aside == nil {
			s.aside = map[uint32]*Request{}
		}
		s.aside[old.id] = old
	}
	s.ring[at] = r
}

func (s *streams) grow() {
	old := s.ring
	s.ring = make([]*Request, max(leastRing, 2*len(old)))
	for _, r := range old {
		if r != nil {
			s.ring[s.place(r.id)] = r // two of them never meet: they did not in the smaller ring
		}
	}
}

// remove ends a stream that is open.
func (s *streams) remove(r *Request) {
	s.n--
	if at := s.place(r.id); s.ring[at] == r {
		s.ring[at] = nil
		return
	}
	delete(s.aside, r.id)
}

// all yields the open requests, in no order. The one that is yielded may be removed, and others too; none may be added.
func (s *streams) all() iter.Seq[*Request] {
	return func(yield func(*Request) bool) {
		for _, r := range s.ring {
			if r != nil && !yield(r) {
				return
			}
		}
		for _, r := range s.aside {
			if !yield(r) {
				return
			}
		}
	}
}
