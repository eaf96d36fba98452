package chaos

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// kind is what a step does.
type kind int

// The kinds. The brokers' names are those of their steps; a step of an outage that lasts kills meanwhile what does without.
const (
	kill   kind = iota // kill -9 of one process or of several at once, which are started again
	stop               // SIGSTOP for longer than a session and a transaction, then SIGCONT
	scale              // one process more, and then gracefully one less
	broker             // kill -9 of a Kafka broker, which is started again when the others have taken over
	store              // PostgreSQL crashes, and is away
	engine             // the ClickHouse engine is killed, and is away
	cut                // a process is cut off from Kafka, PostgreSQL or ClickHouse
)

func (k kind) String() string {
	return [...]string{"kill", "stop", "scale", "broker", "store", "engine", "cut"}[k]
}

// step is one disturbance. The next begins when all has settled.
type step struct {
	kind    kind
	roles   []string // whom: of a kill, stop, scale (one role's kind) or cut
	broker  int      // of a broker's step, 1 to 3
	link    link     // of a cut
	during  []string // of an outage: who is killed meanwhile, one after the other
	seconds int      // how long a stop, cut or outage lasts at least
	// sick is the provider that answers "unavailable" for a moment when the step begins, so that there are retries; empty: none.
	sick string
}

func (s step) String() string {
	var b strings.Builder
	b.WriteString(s.kind.String())
	if s.kind == broker {
		fmt.Fprintf(&b, " %d", s.broker)
	}
	if len(s.roles) > 0 {
		b.WriteString(" " + strings.Join(s.roles, "+"))
	}
	if s.kind == cut {
		b.WriteString(" from " + s.link.String())
	}
	if s.seconds > 0 {
		fmt.Fprintf(&b, " for %ds", s.seconds)
	}
	if len(s.during) > 0 {
		b.WriteString(", meanwhile kill " + strings.Join(s.during, ", "))
	}
	if s.sick != "" {
		b.WriteString(", with " + s.sick + " unavailable for a moment")
	}
	return b.String()
}

// kills is how many processes the step kills with -9, engines apart.
func (s step) kills() int {
	if s.kind == kill {
		return len(s.roles) + len(s.during)
	}
	return len(s.during)
}

// roleKinds are the kinds of processes, and roleNames those that run all the time.
var (
	roleKinds = []string{"ingest", "router", "apns", "fcm", "projector", "analytics"}
	roleNames = []string{"ingest-1", "ingest-2", "router-1", "router-2", "apns-1", "apns-2", "fcm-1", "fcm-2", "projector", "analytics"}
)

// kindOf is the kind of a role's name.
func kindOf(role string) string {
	name, _, _ := strings.Cut(role, "-")
	return name
}

// amounts say how many steps of each kind a plan has; kills are processes, not steps. Outages last seconds at least.
type amounts struct {
	kills, stops, scales, brokers, stores, engines, cuts int
	stopFor, outageFor, cutFor                           int // seconds
}

// most processes are killed at once.
const most = 4

// newPlan is the steps in a random order. Every role is killed as often as any other, but for one time.
func newPlan(r *rand.Rand, a amounts) []step {
	victims := newDeck(r, roleNames)
	kinds := newDeck(r, roleNames)
	var steps []step
	left := a.kills
	away := func(k kind, without ...string) {
		s := step{kind: k, seconds: a.outageFor}
		for range min(left, 4) {
			s.during = append(s.during, victims.draw(without...))
			left--
		}
		steps = append(steps, s)
	}
	for range a.stores {
		away(store, "ingest", "router", "projector") // they need it to start
	}
	for range a.engines {
		away(engine, "analytics")
	}
	for left > 0 {
		s := step{kind: kill}
		for range min(left, 1+r.IntN(most)) {
			s.roles = append(s.roles, victims.draw(s.roles...))
			left--
		}
		steps = append(steps, s)
	}
	for range a.stops {
		steps = append(steps, step{kind: stop, roles: []string{kinds.draw()}, seconds: a.stopFor})
	}
	scales := newDeck(r, roleKinds)
	for range a.scales {
		steps = append(steps, step{kind: scale, roles: []string{scales.draw()}})
	}
	for i := range a.brokers {
		steps = append(steps, step{kind: broker, broker: i%3 + 1})
	}
	cuts := newDeck(r, cables)
	for range a.cuts {
		c := cuts.draw()
		steps = append(steps, step{kind: cut, roles: []string{c.role}, link: c.link, seconds: a.cutFor})
	}
	r.Shuffle(len(steps), func(i, j int) { steps[i], steps[j] = steps[j], steps[i] })
	for i := range steps {
		steps[i].sick = []string{"", "", "", "apns", "fcm"}[r.IntN(5)]
	}
	return steps
}

// cable is a link that a role needs.
type cable struct {
	role string
	link link
}

var cables = []cable{
	{"apns-1", toKafka},
	{"router-1", toKafka},
	{"fcm-2", toKafka},
	{"ingest-1", toKafka},
	{"analytics", toClickHouse},
	{"projector", toStore},
	{"router-2", toStore},
	{"analytics", toKafka},
	{"projector", toKafka},
	{"ingest-2", toStore},
}

// deck gives its cards in a random order, all of them before any comes again.
type deck[T any] struct {
	r     *rand.Rand
	cards []T
	left  []T
}

func newDeck[T any](r *rand.Rand, cards []T) *deck[T] { return &deck[T]{r: r, cards: cards} }

// draw takes the next card whose text is none of without, nor of the kinds named there.
func (d *deck[T]) draw(without ...string) T {
	for {
		for i, c := range d.left {
			name := fmt.Sprint(c)
			if !slices.Contains(without, name) && !slices.Contains(without, kindOf(name)) {
				d.left = slices.Delete(d.left, i, i+1)
				return c
			}
		}
		more := slices.Clone(d.cards)
		d.r.Shuffle(len(more), func(i, j int) { more[i], more[j] = more[j], more[i] })
		d.left = append(d.left, more...)
	}
}
