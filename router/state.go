package router

import (
	"fmt"
	"sync"
	"time"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// StateOptions of what is known of broadcasts. The zero value works.
type StateOptions struct {
	Now func() time.Time // nil: time.Now
	// LeadSeconds is how far an app's expansion may run ahead of its first attempts on a transport, in seconds of the rate at
	// which they come in; zero: 2.
	LeadSeconds float64
	// StartRate is that rate while nothing is measured, in pushes a second; zero: 10,000.
	StartRate float64
	// MinLead is the least lead in pushes, whatever the rate; zero: 1,000.
	MinLead int64
}

func (o StateOptions) withDefaults() StateOptions {
	if o.Now == nil {
		o.Now = time.Now
	}
	setDefault(&o.LeadSeconds, 2)
	setDefault(&o.StartRate, 10_000)
	setDefault(&o.MinLead, 1_000)
	return o
}

// State is what the log says of broadcasts: it folds broadcasts, expansions and progress. What it knows is a function of the
// last record of each key, so that compaction changes nothing. Its memory grows with broadcasts and cursors, never with an
// audience. All methods may be called from any goroutine.
type State struct {
	options StateOptions
	layout  schemas.Layout

	mu         sync.Mutex
	broadcasts map[schemas.ID]*broadcast
	open       map[schemas.ID]*broadcast // live, with a cursor that is not done
	stray      map[schemas.ID]*broadcast // cursors without a request: theirs is over
	lanes      map[laneKey]*lane
	last       map[int32]lastMove // by partition of expansions
	rewound    map[int32]bool
	measuring  bool // the followers have caught up: from now on outcomes come in as they happen
	watchers   map[*watcher]struct{}
	seen       map[int32]int64 // by partition of broadcasts: the number of records applied
}

// NewState returns an empty state. Hand Apply to followers of broadcasts, expansions and progress.
func NewState(options StateOptions, layout schemas.Layout) *State {
	return &State{
		options: options.withDefaults(), layout: layout,
		broadcasts: map[schemas.ID]*broadcast{},
		open:       map[schemas.ID]*broadcast{},
		stray:      map[schemas.ID]*broadcast{},
		lanes:      map[laneKey]*lane{},
		last:       map[int32]lastMove{},
		rewound:    map[int32]bool{},
		watchers:   map[*watcher]struct{}{},
		seen:       map[int32]int64{},
	}
}

// laneKey is an app's traffic on one transport, to which the lead belongs.
type laneKey struct {
	app  string
	slot int
}

type lane struct {
	outstanding int64 // emitted without a first outcome, over all live broadcasts
	express     int64 // of it, those of small audiences
	meter       meter
}

// lead is how many sends may be outstanding.
func (s *State) lead(l *lane) int64 {
	return max(s.options.MinLead, int64(s.options.LeadSeconds*l.meter.rate))
}

func (s *State) lane(k laneKey) *lane {
	l := s.lanes[k]
	if l == nil {
		l = &lane{meter: meter{rate: s.options.StartRate}}
		s.lanes[k] = l
	}
	return l
}

// lastMove is the newest record of a partition of expansions.
type lastMove struct {
	offset      int64
	key         cursorKey
	broadcast   schemas.ID
	from        schemas.Cursor
	pageEmitted int64
	tombstone   bool
}

// Apply folds one record of broadcasts, expansions or progress. It returns ErrUnknownType for an event of a newer version,
// and ErrMalformed for what no version wrote; the record is then as if it were not there.
func (s *State) Apply(r schemas.Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch r.Topic {
	case schemas.Broadcasts:
		return s.applyBroadcasts(&r)
	case schemas.Expansions:
		return s.applyExpansions(&r)
	case schemas.Progress:
		return s.applyProgress(&r)
	default:
	}
	return fmt.Errorf("%s is none of the topics that the router follows: %w", r.Topic, schemas.ErrMalformed)
}

// Gone reports whether a broadcast's request is in the log no longer, as far as broadcasts was followed. It proves nothing
// about a broadcast that was first seen elsewhere: catch up with broadcasts after that, and ask again.
func (s *State) Gone(id schemas.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.broadcasts[id]
	return b == nil || len(b.contents) == 0
}

func (s *State) get(id schemas.ID) *broadcast {
	b := s.broadcasts[id]
	if b == nil {
		b = &broadcast{id: id, partition: s.layout.OfID(id)}
		s.broadcasts[id] = b
	}
	return b
}

// settle brings what is derived from b up to date after a change, and tells the watchers.
func (s *State) settle(b *broadcast) {
	nowUS := s.options.Now().UnixMicro()
	live, express := b.live(), b.express()
	for i := range slots {
		outstanding, expressed := int64(0), int64(0)
		if live {
			outstanding = max(0, b.emitted[i]-b.sums[i].first)
		}
		if express {
			expressed = outstanding
		}
		if outstanding == b.outstanding[i] && expressed == b.expressed[i] {
			continue
		}
		l := s.lane(laneKey{b.app, i})
		l.outstanding += outstanding - b.outstanding[i]
		l.express += expressed - b.expressed[i]
		b.outstanding[i], b.expressed[i] = outstanding, expressed
		switch {
		case l.outstanding <= 0:
			l.meter.idle()
		case s.measuring:
			l.meter.busy(nowUS)
		}
	}
	mark(s.open, b, live && b.cursorsDone() < b.cursorCount())
	mark(s.stray, b, len(b.contents) == 0 && len(b.cursors) > 0)
	if b.empty() {
		delete(s.broadcasts, b.id)
	}
	s.tell(b)
}

func mark(set map[schemas.ID]*broadcast, b *broadcast, in bool) {
	if in {
		set[b.id] = b
		return
	}
	delete(set, b.id)
}

// measure starts the meters. Before, outcomes come in as fast as the log can be read.
func (s *State) measure() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.measuring {
		return
	}
	s.measuring = true
	nowUS := s.options.Now().UnixMicro()
	for _, l := range s.lanes {
		if l.outstanding > 0 {
			l.meter.busy(nowUS)
		}
	}
}

// request is a broadcast's first record without the content, which only senders need. It is never changed.
type request = pushv1.BroadcastRequested
