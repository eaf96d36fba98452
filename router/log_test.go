package router_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/campanile-push/campanile/router"
	"github.com/campanile-push/campanile/schemas"
)

// memlog is a log in memory: partitions, offsets with gaps, atomic appends, compaction.
type memlog struct {
	layout schemas.Layout

	mu      sync.Mutex
	records map[schemas.Topic][][]schemas.Record
	next    map[schemas.Topic][]int64
	changed chan struct{}
}

func newMemlog(partitions int32) *memlog {
	return &memlog{
		layout:  schemas.Layout{Partitions: partitions},
		records: map[schemas.Topic][][]schemas.Record{},
		next:    map[schemas.Topic][]int64{},
		changed: make(chan struct{}),
	}
}

// append appends what say says as one.
func (l *memlog) append(say func(out *schemas.Out)) {
	out := schemas.NewOut(l.layout)
	say(out)
	l.appendOut(out, nil)
}

// appendOut appends a full Out, and runs with under the same lock.
func (l *memlog) appendOut(out *schemas.Out, with func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	out.Each(func(topic schemas.Topic, p int32, key, value []byte) {
		if l.records[topic] == nil {
			l.records[topic] = make([][]schemas.Record, l.layout.Partitions)
			l.next[topic] = make([]int64, l.layout.Partitions)
		}
		l.records[topic][p] = append(l.records[topic][p], schemas.Record{
			Topic: topic, Partition: p, Offset: l.next[topic][p], TimeUS: time.Now().UnixMicro(),
			Key: slices.Clone(key), Value: slices.Clone(value),
		})
		l.next[topic][p]++
	})
	if with != nil {
		with()
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

// read returns at most limit records from an offset on, and a channel that closes with the next append.
func (l *memlog) read(topic schemas.Topic, p int32, from int64, limit int) ([]schemas.Record, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.records[topic] == nil {
		return nil, l.changed
	}
	all := l.records[topic][p]
	i, _ := slices.BinarySearchFunc(all, from, func(r schemas.Record, offset int64) int { return int(r.Offset - offset) })
	all = all[i:]
	return slices.Clone(all[:min(limit, len(all))]), l.changed
}

func (l *memlog) all(topic schemas.Topic) (list []schemas.Record) {
	for p := range l.layout.Partitions {
		part, _ := l.read(topic, p, 0, 1<<30)
		list = append(list, part...)
	}
	return list
}

// compact keeps the last record of each key, and drops tombstones too if asked.
func (l *memlog) compact(topic schemas.Topic, dropTombstones bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p, part := range l.records[topic] {
		last := map[string]int64{}
		for _, r := range part {
			last[string(r.Key)] = r.Offset
		}
		l.records[topic][p] = slices.DeleteFunc(part, func(r schemas.Record) bool {
			return last[string(r.Key)] != r.Offset || dropTombstones && r.Tombstone()
		})
	}
}

// follower feeds one topic to apply, partition by partition at random, until ctx ends.
type follower struct {
	log   *memlog
	topic schemas.Topic
	apply func(schemas.Record) error
	lag   func() time.Duration // between two batches

	mu      sync.Mutex
	most    int // records of a batch
	applied []int64
	moved   chan struct{}
}

func newFollower(l *memlog, topic schemas.Topic, apply func(schemas.Record) error) *follower {
	return &follower{log: l, topic: topic, apply: apply, most: 200, applied: make([]int64, l.layout.Partitions), moved: make(chan struct{})}
}

// crawl lets every single record take d.
func (f *follower) crawl(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lag, f.most = func() time.Duration { return d }, 1
}

func (f *follower) pace() (lag func() time.Duration, most int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lag, f.most
}

func (f *follower) run(ctx context.Context) error {
	next := make([]int64, f.log.layout.Partitions)
	for {
		read := false
		_, changed := f.log.read(f.topic, 0, 0, 0)
		for _, p := range rand.Perm(len(next)) {
			lag, most := f.pace()
			records, _ := f.log.read(f.topic, int32(p), next[p], 1+rand.IntN(most))
			for _, r := range records {
				if err := f.apply(r); err != nil {
					return err
				}
				next[p], read = r.Offset+1, true
			}
			if lag != nil && len(records) > 0 {
				pass(lag())
			}
		}
		if read {
			f.mu.Lock()
			copy(f.applied, next)
			close(f.moved)
			f.moved = make(chan struct{})
			f.mu.Unlock()
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// catchUp waits until what is in the log now is applied.
func (f *follower) catchUp(ctx context.Context) error {
	f.log.mu.Lock()
	ends := make([]int64, f.log.layout.Partitions)
	for p, part := range f.log.records[f.topic] {
		if len(part) > 0 {
			ends[p] = part[len(part)-1].Offset + 1
		}
	}
	f.log.mu.Unlock()
	for {
		f.mu.Lock()
		done, moved := true, f.moved
		for p, end := range ends {
			done = done && f.applied[p] >= end
		}
		f.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-moved:
		}
	}
}

// followAll starts the three followers of a state, and returns a wait for all of them to catch up.
func followAll(ctx context.Context, wg *sync.WaitGroup, l *memlog, state *router.State, lag func() time.Duration) (all []*follower) {
	for _, topic := range []schemas.Topic{schemas.Broadcasts, schemas.Expansions, schemas.Progress} {
		f := newFollower(l, topic, state.Apply)
		f.lag = lag
		all = append(all, f)
		wg.Go(func() {
			if err := f.run(ctx); err != nil {
				panic(err) // the tests write what they follow
			}
		})
	}
	return all
}

// pass lets virtual time go by: every caller runs in a bubble of testing/synctest.
func pass(d time.Duration) { <-time.After(d) }

var errInjected = errors.New("injected: nobody knows whether it is there")

// commitTo returns a commit that fails at random: before anything is there, or after all of it is.
func commitTo(l *memlog, failures float64) schemas.Commit {
	return func(ctx context.Context, say func(out *schemas.Out)) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		out := schemas.NewOut(l.layout)
		say(out)
		if failures > 0 {
			pass(rand.N(50 * time.Millisecond)) // what is decided may be old when it is there
		}
		switch x := rand.Float64(); {
		case x < failures/2:
			return errInjected
		case x < failures:
			l.appendOut(out, nil)
			return errInjected
		}
		l.appendOut(out, nil)
		return nil
	}
}

type driver interface {
	Drive(ctx context.Context, partition int32, commit schemas.Commit) error
}

// runDrives drives every partition as the log's runner does: catch up, drive, and once more after an error.
func runDrives(ctx context.Context, wg *sync.WaitGroup, l *memlog, d driver, followers []*follower, commit schemas.Commit) {
	for p := range l.layout.Partitions {
		wg.Go(func() {
			for ctx.Err() == nil {
				for _, f := range followers {
					if f.catchUp(ctx) != nil {
						return
					}
				}
				if err := d.Drive(ctx, p, commit); err != nil && !errors.Is(err, errInjected) && ctx.Err() == nil {
					panic(fmt.Sprintf("drive of partition %d: %v", p, err))
				}
			}
		})
	}
}

// audience is a device store in memory.
type audience struct {
	mu      sync.Mutex
	members map[string][]schemas.Device // by app/channel/transport, in cursor order
	applied []int64                     // by partition of devices
	away    error
	reads   int
}

func newAudience() *audience { return &audience{members: map[string][]schemas.Device{}} }

func (a *audience) add(channel string, devices ...schemas.Device) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, d := range devices {
		k := d.App + "/" + channel + "/" + d.Transport.Word()
		a.members[k] = append(a.members[k], d)
	}
	for _, list := range a.members {
		slices.SortFunc(list, compareDevices)
	}
}

func compareDevices(a, b schemas.Device) int {
	return cursorOf(a).compare(cursorOf(b))
}

type place schemas.Cursor

func cursorOf(d schemas.Device) place {
	return place{Shard: schemas.ShardString(d.Token), Token: d.Token, Environment: d.Environment, Set: true}
}

func (c place) compare(o place) int {
	switch {
	case c.Shard != o.Shard:
		return int(c.Shard) - int(o.Shard)
	case c.Token != o.Token:
		return strings.Compare(c.Token, o.Token)
	}
	return int(c.Environment) - int(o.Environment)
}

// leave unsubscribes everybody.
func (a *audience) leave() {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.members)
}

// Page implements router.Audience.
func (a *audience) Page(_ context.Context, q schemas.PageQuery, page *schemas.Page) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.reads++
	if a.away != nil {
		return a.away
	}
	if !q.Watermark.Reached(a.applied) {
		return schemas.ErrBehind
	}
	var merged []schemas.Device
	for _, channel := range q.Channels {
		for _, d := range a.members[q.App+"/"+channel+"/"+q.Transport.Word()] {
			c := cursorOf(d)
			if c.Shard >= q.ShardFrom && c.Shard < q.ShardTo && (!q.After.Set || c.compare(place(q.After)) > 0) {
				merged = append(merged, d)
			}
		}
	}
	slices.SortFunc(merged, compareDevices)
	merged = slices.Compact(merged)
	page.Next, page.Done = q.After, len(merged) <= q.Limit
	for _, d := range merged[:min(q.Limit, len(merged))] {
		platform := "android-fcm"
		if d.Transport == schemas.APNS {
			platform = "ios"
		}
		page.Add([]byte(d.Token), d.Environment, 1, platform)
		page.Next = schemas.Cursor(cursorOf(d))
	}
	return nil
}
