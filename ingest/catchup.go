package ingest

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// catchUpEvery is the least time between two reads of the end of apps: random keys cause four a second, however many there are.
	catchUpEvery = 250 * time.Millisecond
	// catchUpPatience bounds one catch-up, and so how long a request with an unknown key waits.
	catchUpPatience = time.Second
	// refusedFor is how long a refused key is refused from memory. One that is issued meanwhile is found before this is asked.
	refusedFor = time.Second
	maxRefused = 8192 // keys, a generation
	maxWaiting = 4096 // requests
)

// errCrowded says that too many requests wait for a catch-up.
var errCrowded = errors.New("too many requests with unknown keys")

// catchUp lets many requests share few reads of the end of apps. Each request waits for a read that begins after it came: a
// key issued before the request was sent, by whatever process, is in memory when the wait ends.
type catchUp struct {
	do   func(ctx context.Context) error // nil: nothing to catch up with
	wake chan struct{}                   // 1

	mu      sync.Mutex
	next    *catchUpRound // not begun
	waiting int
	refused recentSet
}

type catchUpRound struct {
	done chan struct{}
	err  error // valid once done is closed
}

func newCatchUp(do func(ctx context.Context) error) *catchUp {
	return &catchUp{do: do, wake: make(chan struct{}, 1), refused: recentSet{limit: maxRefused}}
}

// wait returns nil once everything in apps that was there at the call is applied.
func (c *catchUp) wait(ctx context.Context) error {
	if c.do == nil {
		return nil
	}
	c.mu.Lock()
	if c.waiting >= maxWaiting {
		c.mu.Unlock()
		return errCrowded
	}
	c.waiting++
	if c.next == nil {
		c.next = &catchUpRound{done: make(chan struct{})}
	}
	round := c.next
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.waiting--
		c.mu.Unlock()
	}()
	select {
	case c.wake <- struct{}{}:
	default:
	}
	// Twice: the read before ours may just have begun, and ends first.
	timer := time.NewTimer(2*catchUpPatience + catchUpEvery)
	defer timer.Stop()
	select {
	case <-round.done:
		return round.err
	case <-timer.C:
		return context.DeadlineExceeded
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run reads when somebody waits, until ctx ends.
func (c *catchUp) run(ctx context.Context) {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		}
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
		c.mu.Lock()
		round := c.next
		c.next = nil
		c.mu.Unlock()
		pause.Reset(catchUpEvery)
		if round == nil {
			continue
		}
		one, cancel := context.WithTimeout(ctx, catchUpPatience)
		round.err = c.do(one)
		cancel()
		close(round.done)
	}
}

// recentSet remembers hashes for a while: at most twice its limit, the older half forgotten at once. Not for use by
// several goroutines without a lock.
type recentSet struct {
	limit    int
	now, old map[uint64]struct{}
}

func (s *recentSet) add(h uint64) {
	if s.now == nil {
		s.now = make(map[uint64]struct{})
	}
	if len(s.now) >= s.limit {
		s.turn()
	}
	s.now[h] = struct{}{}
}

func (s *recentSet) has(h uint64) bool {
	if _, ok := s.now[h]; ok {
		return true
	}
	_, ok := s.old[h]
	return ok
}

func (s *recentSet) remove(h uint64) {
	delete(s.now, h)
	delete(s.old, h)
}

// turn forgets the older generation.
func (s *recentSet) turn() { s.old, s.now = s.now, make(map[uint64]struct{}) }

// wasRefused reports whether this key was refused a moment ago, after a catch-up.
func (c *catchUp) wasRefused(h uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refused.has(h)
}

func (c *catchUp) refuse(h uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refused.add(h)
}

// upkeep lets refused keys be looked up again. It runs each refusedFor.
func (c *catchUp) upkeep() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refused.turn()
}
