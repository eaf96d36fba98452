package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
)

// phase is when a part of a process stops: a later one only after all of an earlier one have returned.
type phase int

// The phases. What takes work in stops first, so that what was taken can still be handed on.
const (
	intake    phase = iota // HTTP
	stages                 // what reads the log and writes it
	followers              // what keeps state for them
	engines                // what they all stand on
	phases
)

// supervisor runs the parts of a process and stops them in the order of their phases, when its context ends or the first of
// them fails.
type supervisor struct {
	logger *slog.Logger
	stops  [phases]context.CancelFunc
	ctxs   [phases]context.Context // one for each phase
	parts  [phases]sync.WaitGroup
	failed chan error
}

func newSupervisor(ctx context.Context, logger *slog.Logger) *supervisor {
	s := &supervisor{logger: logger, failed: make(chan error, 64)}
	base := context.WithoutCancel(ctx)
	for p := range phases {
		s.ctxs[p], s.stops[p] = context.WithCancel(base) //nolint:fatcontext // side by side, not one in another
	}
	return s
}

// start runs a part until its phase stops. A part that returns before is a failure of the process, with or without an error.
func (s *supervisor) start(p phase, name string, run func(ctx context.Context) error) {
	ctx := s.ctxs[p]
	s.parts[p].Go(func() {
		err := run(ctx)
		if ctx.Err() != nil {
			if err != nil && !errors.Is(err, context.Canceled) {
				s.logger.Error("a part did not stop cleanly", "part", name, "error", err)
			}
			return
		}
		if err == nil {
			err = errors.New("ended by itself")
		}
		select {
		case s.failed <- fmt.Errorf("%s: %w", name, err):
		default: // the first ones are told
		}
	})
}

// background runs something that may end at any time.
func (s *supervisor) background(p phase, run func(ctx context.Context)) {
	ctx := s.ctxs[p]
	s.parts[p].Go(func() { run(ctx) })
}

// wait returns when ctx has ended or a part has failed, and everything has stopped. Its error is the part's.
func (s *supervisor) wait(ctx context.Context) error {
	var err error
	select {
	case <-ctx.Done():
	case err = <-s.failed:
		s.logger.Error("stopping: a part failed", "error", err)
	}
	s.stopAll()
	return err
}

// stopAll stops phase after phase. It may be called again.
func (s *supervisor) stopAll() {
	for p := range phases {
		s.stops[p]()
		s.parts[p].Wait()
	}
}
