package audit

import (
	"context"
	"fmt"
	"time"

	"github.com/campanile-push/campanile/schemas"
)

// Log is what Prove reads; eventlog.Log says what its methods do.
type Log interface {
	Starts(ctx context.Context, topic schemas.Topic) ([]int64, error)
	Ends(ctx context.Context, topic schemas.Topic) ([]int64, error)
	Scan(ctx context.Context, topic schemas.Topic, from, to []int64, f func(schemas.Record) error) error
}

// Options of Prove. The zero value is about all requests, and asks no ClickHouse.
type Options struct {
	// From (inclusive) and To (exclusive) bound when the requests were made; zero is no bound.
	From, To time.Time
	// Overdue is the age from which a push that has not ended is a difference; zero: none is.
	Overdue time.Duration
	// KeepEnded is how long the log surely knows a broadcast that has ended; zero: seven days.
	KeepEnded time.Duration
	// Limit is how many differences of each kind are named; zero: 20.
	Limit int
	// Again is the time between the two readings that a difference must show in; zero: two seconds.
	Again time.Duration
	// Routed says how far the direct router is in notifications, by partition. Nil: what is lost between the router and the senders is
	// only found when it is overdue.
	Routed func(ctx context.Context) ([]int64, error)
	// Rows are those of ClickHouse; nil: they are not compared.
	Rows Rows
	Now  func() time.Time // nil: time.Now
}

func (o Options) withDefaults() Options {
	if o.KeepEnded == 0 {
		o.KeepEnded = 7 * 24 * time.Hour
	}
	if o.Limit <= 0 {
		o.Limit = 20
	}
	if o.Again == 0 {
		o.Again = 2 * time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// Report is what a proof came to. It is proven where Differences is empty, but for what Notes name.
type Report struct {
	Totals
	// Differences are at most Options.Limit of each kind, and Counts how many there are.
	Differences []Difference   `json:"differences"`
	Counts      map[Kind]int64 `json:"difference_counts,omitempty"`
	// DeadLetters are notifications that became dead letters and nothing else, with the letters' places: at most Options.Limit of Dead.
	DeadLetters []Letter `json:"dead_letters,omitempty"`
	// Compared is how many ends ClickHouse was asked for.
	Compared int64 `json:"clickhouse_compared"`
	// Notes say what was not proven, and why.
	Notes []string `json:"notes,omitempty"`
}

// Prove shows that every push which was accepted in a range of time ended in exactly one way or still waits somewhere, and that the counts of
// broadcasts and of ClickHouse say the same. The pipeline may run meanwhile: what is read first is read to an end that what is read later is
// past, and a difference counts only if a second reading shows it too.
func Prove(ctx context.Context, log Log, o Options) (*Report, error) {
	o = o.withDefaults()
	first := &reading{log: log, o: o, now: o.Now()}
	if err := first.read(ctx); err != nil {
		return nil, err
	}
	if len(first.r.found.n) == 0 {
		return first.report(first.r.found), nil
	}
	if err := wait(ctx, o.Again); err != nil {
		return nil, err
	}
	second := &reading{log: log, o: o, now: o.Now(), wanted: first.suspects}
	if err := second.read(ctx); err != nil {
		return nil, err
	}
	all := both(first.r.found, second.r.found)
	if err := second.unlessRows(ctx, second.nameRows(ctx, all)); err != nil {
		return nil, err
	}
	return second.report(all), nil
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return fmt.Errorf("wait for the second reading: %w", ctx.Err())
	case <-timer.C:
		return nil
	}
}

// reading is one reading of the log.
type reading struct {
	log      Log
	o        Options
	now      time.Time
	r        *Reconciler
	suspects map[blockOf]bool // blocks of deliveries that differ in ClickHouse
	wanted   map[blockOf]bool // of the reading before: those whose ends are kept in rows
	rows     map[blockOf]map[int64]end
	compared int64
	letters  []Letter
	notes    []string
}

func (p *reading) note(format string, args ...any) {
	p.notes = append(p.notes, fmt.Sprintf(format, args...))
}

func (p *reading) report(f *found) *Report {
	r := &Report{Totals: p.r.Totals(), Differences: f.sorted(), DeadLetters: p.letters, Compared: p.compared, Notes: p.notes}
	if len(f.n) > 0 {
		r.Counts = f.n
	}
	if r.Differences == nil {
		r.Differences = []Difference{} // an empty list in JSON
	}
	return r
}

// unlessRows goes on without ClickHouse where it fails: it is one part of the proof, and the log is the other. ctx's own end passes.
func (p *reading) unlessRows(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil {
		return err
	}
	p.note("not proven for ClickHouse: %v", err)
	p.r.digests = digests{}
	return nil
}

// read reads in an order in which nothing that is on its way looks lost: where the router is, and how far broadcasts are expanded; then what
// waits; then what has ended; then what was asked for.
func (p *reading) read(ctx context.Context) (err error) {
	r := NewReconciler()
	p.r = r
	r.fromUS, r.toUS = sinceUS(p.o.From, r.fromUS), sinceUS(p.o.To, r.toUS)
	r.found = newFound(p.o.Limit)
	if p.o.Overdue > 0 {
		r.overdueUS = p.now.Add(-p.o.Overdue).UnixMicro()
	}
	if p.o.Routed != nil {
		if r.routed, err = p.o.Routed(ctx); err != nil {
			return fmt.Errorf("ask how far the direct router is: %w", err)
		}
	}
	if r.expanded, err = p.log.Ends(ctx, schemas.Expansions); err != nil {
		return err
	}
	if err := p.unlessRows(ctx, p.openRows(ctx)); err != nil {
		return err
	}
	for _, topic := range append([]schemas.Topic{schemas.Broadcasts, schemas.Progress}, sendTopics()...) {
		if err := p.scan(ctx, topic, r.Apply); err != nil {
			return err
		}
	}
	if err := p.readDeliveries(ctx); err != nil {
		return err
	}
	for _, topic := range []schemas.Topic{schemas.DeadLetters, schemas.Notifications, schemas.Expansions} {
		if err := p.scan(ctx, topic, r.Apply); err != nil {
			return err
		}
	}
	return p.check(ctx)
}

// sendTopics are all that hold sends, tiers in the order in which a send climbs.
func sendTopics() (topics []schemas.Topic) {
	for tier := range uint32(schemas.Tiers + 1) {
		for _, t := range schemas.Transports {
			for _, lane := range schemas.Lanes {
				topics = append(topics, schemas.SendTopic{Transport: t, Lane: lane, Tier: tier}.Topic())
			}
		}
	}
	return topics
}

// scan reads a topic as it stands now. What cannot be decoded is a dead letter of who reads the topic.
func (p *reading) scan(ctx context.Context, topic schemas.Topic, f func(schemas.Record) error) error {
	from, err := p.log.Starts(ctx, topic)
	if err != nil {
		return err
	}
	to, err := p.log.Ends(ctx, topic)
	if err != nil {
		return err
	}
	p.r.starts[topic] = from
	return p.scanFrom(ctx, topic, from, to, f)
}

func (p *reading) scanFrom(ctx context.Context, topic schemas.Topic, from, to []int64, f func(schemas.Record) error) error {
	bad := 0
	err := p.log.Scan(ctx, topic, from, to, func(rec schemas.Record) error {
		err := f(rec)
		if unreadable(err) {
			bad++
			return nil
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("read %s: %w", topic, err)
	}
	if bad > 0 {
		p.note("%d records of %s cannot be read; they are in the dead letters", bad, topic)
	}
	return nil
}

// readDeliveries also sums up the ends that ClickHouse must have.
func (p *reading) readDeliveries(ctx context.Context) error {
	from, err := p.log.Starts(ctx, schemas.Deliveries)
	if err != nil {
		return err
	}
	to, err := p.log.Ends(ctx, schemas.Deliveries)
	if err != nil {
		return err
	}
	p.r.starts[schemas.Deliveries] = from
	p.boundRows(from, to)
	return p.scanFrom(ctx, schemas.Deliveries, from, to, p.r.Apply)
}
