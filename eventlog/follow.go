package eventlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/campanile-push/campanile/schemas"
)

// Following reads topics into somebody's memory, from their start and for as long as Run runs.
type Following struct {
	log    *Log
	slog   *slog.Logger
	name   string
	topics []schemas.Topic
	apply  func(schemas.Record) error
	caught chan struct{}
	wanted chan struct{} // one value: a flight waits to be taken

	mu        sync.Mutex
	next      *flight // callers gather here until its ends are read
	flights   []*flight
	positions map[place]int64
	probed    map[place]int64 // where probe found a partition the last time
	stopped   map[place]bool  // an event of a newer version stands there
}

// flight is one reading of the ends, shared by the callers that came before it was taken.
type flight struct {
	ends map[place]int64
	done chan struct{}
	err  error // valid when done is closed
}

// Follow returns a follower of whole topics. Run must be called for anything to happen. apply is called by one goroutine, in
// log order within a partition, with every committed record, tombstones included; the record is the follower's only until
// apply returns. An error of apply ends Run, but for two: ErrMalformed is logged and passed over, and so is ErrUnknownType
// outside the topics of truth, where it stops that partition with an alarm instead.
func (l *Log) Follow(name string, apply func(schemas.Record) error, topics ...schemas.Topic) *Following {
	return &Following{
		log: l, slog: l.log.With("follower", name), name: name, topics: topics, apply: apply,
		caught: make(chan struct{}), wanted: make(chan struct{}, 1),
		positions: map[place]int64{}, probed: map[place]int64{}, stopped: map[place]bool{},
	}
}

// CaughtUp is closed when every partition has been read to its end as it stood at the start of Run.
func (f *Following) CaughtUp() <-chan struct{} { return f.caught }

// CatchUp waits until everything is applied that was in the log when it was called: it reads the ends now, in one request
// for all who call at the same time. It returns when ctx ends, and not before if Run does not run.
func (f *Following) CatchUp(ctx context.Context) error {
	f.mu.Lock()
	if f.next == nil {
		f.next = &flight{done: make(chan struct{})}
	}
	mine := f.next
	f.mu.Unlock()
	select {
	case f.wanted <- struct{}{}:
	default:
	}
	select {
	case <-mine.done:
		if mine.err != nil {
			return fmt.Errorf("catch up with %s: %w", f.name, mine.err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("catch up with %s: %w", f.name, ctx.Err())
	}
}

// Run reads until ctx ends, whose error it then returns, or until apply fails. It is called once.
func (f *Following) Run(ctx context.Context) error {
	if _, err := f.log.readyLayout(); err != nil {
		return err
	}
	from := map[string]map[int32]kgo.Offset{}
	for _, topic := range f.topics {
		starts, err := f.log.Starts(ctx, topic)
		if err != nil {
			return err
		}
		from[f.log.name(topic)] = map[int32]kgo.Offset{}
		f.mu.Lock()
		for i, start := range starts {
			p := int32(i)
			f.positions[place{topic, p}] = start
			from[f.log.name(topic)][p] = kgo.NewOffset().At(start)
		}
		f.mu.Unlock()
	}
	ends, err := f.ends(ctx)
	if err != nil {
		return err
	}
	client, err := f.log.newClient("follow-"+f.name,
		kgo.ConsumePartitions(from),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), // what was deleted under a follower, it cannot learn; folds bear a repeat
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), // a transactional topic ends in one
		kgo.FetchMaxWait(fetchWait),
	)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	var helpers sync.WaitGroup
	defer helpers.Wait()
	defer cancel(nil)
	first := &flight{ends: ends, done: make(chan struct{})}
	f.mu.Lock()
	f.flights = append(f.flights, first)
	f.mu.Unlock()
	f.land()
	helpers.Go(func() {
		select {
		case <-first.done:
			close(f.caught)
		case <-ctx.Done():
		}
	})
	helpers.Go(func() { f.fly(ctx) })
	return f.read(ctx, client)
}

func (f *Following) read(ctx context.Context, client *kgo.Client) error {
	for {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx) //nolint:wrapcheck // the caller's own
		}
		if err := fetchError(fetches); err != nil {
			f.slog.Warn("follower cannot read", "error", err) // the client goes on trying
		}
		for it := fetches.RecordIter(); !it.Done(); {
			if err := f.one(it.Next()); err != nil {
				return err
			}
		}
		f.land()
	}
}

func (f *Following) one(r *kgo.Record) error {
	at := place{f.log.topic(r.Topic), r.Partition}
	f.mu.Lock()
	stopped := f.stopped[at]
	f.mu.Unlock()
	if stopped {
		return nil
	}
	if !r.Attrs.IsControl() {
		err := f.apply(recordFrom(at.topic, r))
		switch {
		case err == nil:
		case errors.Is(err, schemas.ErrUnknownType) && f.log.topics[at.topic].spec.Truth:
			f.slog.Error("partition stopped: an event of a newer version; upgrade this process",
				"topic", at.topic, "partition", at.partition, "offset", r.Offset, "error", err)
			f.log.metrics.stalled.WithLabelValues("follow."+f.name, string(at.topic), strconv.Itoa(int(at.partition))).Set(1)
			f.mu.Lock()
			f.stopped[at] = true
			f.mu.Unlock()
			return nil
		case errors.Is(err, schemas.ErrUnknownType), errors.Is(err, schemas.ErrMalformed):
			f.slog.Error("event passed over", "topic", at.topic, "partition", at.partition, "offset", r.Offset, "error", err)
		default:
			return fmt.Errorf("apply %s[%d]@%d: %w", at.topic, at.partition, r.Offset, err)
		}
	}
	f.mu.Lock()
	f.positions[at] = r.Offset + 1
	f.mu.Unlock()
	return nil
}

// fly takes flights: reads their ends, and looks at what keeps them waiting.
func (f *Following) fly(ctx context.Context) {
	ticker := time.NewTicker(idleBeforeProbe)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			f.probe(ctx)
		case <-f.wanted:
			f.mu.Lock()
			taken := f.next
			f.next = nil
			f.mu.Unlock()
			if taken == nil {
				continue
			}
			taken.ends, taken.err = f.ends(ctx)
			if taken.err != nil {
				close(taken.done)
				continue
			}
			f.mu.Lock()
			f.flights = append(f.flights, taken)
			f.mu.Unlock()
			f.land()
		}
	}
}

// land closes the flights whose ends are applied.
func (f *Following) land() {
	f.mu.Lock()
	defer f.mu.Unlock()
	waiting := f.flights[:0]
	for _, fl := range f.flights {
		if f.reached(fl) {
			close(fl.done)
			continue
		}
		waiting = append(waiting, fl)
	}
	clear(f.flights[len(waiting):])
	f.flights = waiting
}

func (f *Following) reached(fl *flight) bool {
	for at, end := range fl.ends {
		if f.positions[at] < end {
			return false
		}
	}
	return true
}

// probe looks for ends with nothing in front of them, which no record will ever reach.
func (f *Following) probe(ctx context.Context) {
	f.mu.Lock()
	var short []span
	if len(f.flights) > 0 {
		for at, end := range f.flights[len(f.flights)-1].ends {
			from := f.positions[at]
			if seen, ok := f.probed[at]; from < end && !f.stopped[at] && ok && seen == from { // else it moves by itself
				short = append(short, span{at, from, end})
			}
			f.probed[at] = from
		}
	}
	f.mu.Unlock()
	for _, s := range short {
		empty, err := f.log.nothingBetween(ctx, s.topic, s.partition, s.from, s.to)
		if err != nil || !empty {
			continue // the reader is on its way, or meets the error itself
		}
		f.mu.Lock()
		f.positions[s.place] = max(f.positions[s.place], s.to)
		f.mu.Unlock()
	}
	if len(short) > 0 {
		f.land()
	}
}

func (f *Following) ends(ctx context.Context) (map[place]int64, error) {
	all := map[place]int64{}
	for _, topic := range f.topics {
		ends, err := f.log.Ends(ctx, topic)
		if err != nil {
			return nil, err
		}
		for p, end := range ends {
			all[place{topic, int32(p)}] = end
		}
	}
	return all, nil
}
