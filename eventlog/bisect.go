package eventlog

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"time"

	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"

	"github.com/campanile-push/campanile/schemas"
)

// errStands says that a record must not be passed over.
var errStands = errors.New("an event of a newer version in a topic of truth")

// errTooLarge is an event that no broker takes.
var errTooLarge = errors.New("an event larger than a batch")

const (
	maxRecordBytes = batchMaxBytes - 1<<10 // a batch's head, and the record's own
	maxLetterBytes = 128 << 10             // of the source's value in its dead letter
)

// panicked is a handler's panic, as an error.
type panicked struct {
	value any
	stack []byte
}

// Error implements error. A panic's value may hold what must not be logged, so only its type is told if it is no error.
func (p *panicked) Error() string {
	if err, ok := p.value.(error); ok {
		return "panic: " + err.Error()
	}
	return fmt.Sprintf("panic: %T", p.value)
}

// temporary reports whether an error says nothing about the records: the batch is tried again for ever. One of the network never
// does, whatever its own Temporary says, which is false for a connection that was reset.
func temporary(err error) bool {
	if errors.Is(err, schemas.ErrBehind) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	if network := net.Error(nil); errors.As(err, &network) {
		return true
	}
	var t interface{ Temporary() bool }
	return errors.As(err, &t) && t.Temporary()
}

// solver works through a batch and leaves out what cannot be handled.
type solver struct {
	stage   string
	truth   bool // an unknown type stands
	patient bool // whole batches may still be tried again later: do not bisect for an error that could pass
	out     *schemas.Out
	// handle handles a part of the batch; it says in out what follows.
	handle func(part []schemas.Record) error
	// rebuild throws the handler's state away and restores it from the log; nil: there is no state.
	rebuild func() error
	now     func() time.Time

	done    []solved // in order
	letters int
}

type solved struct {
	part   []schemas.Record
	reason error // not nil: one record, a dead letter
}

// solve handles in from its first record on. n is how many records are done; err says why it stopped there.
func (s *solver) solve(in []schemas.Record) (n int, err error) {
	err = s.try(in)
	switch {
	case err == nil:
		s.done = append(s.done, solved{part: in})
		return len(in), nil
	case temporary(err):
		return 0, err
	}
	unreadable := errors.Is(err, schemas.ErrMalformed) || errors.Is(err, schemas.ErrUnknownType) || errors.Is(err, errTooLarge)
	if s.patient && !unreadable {
		return 0, err
	}
	if len(in) == 1 {
		return s.one(in, err, unreadable)
	}
	half := len(in) / 2
	n, err = s.solve(in[:half])
	if err != nil {
		return n, err
	}
	rest, err := s.solve(in[half:])
	return n + rest, err
}

// one decides over a single record that failed once.
func (s *solver) one(in []schemas.Record, err error, unreadable bool) (int, error) {
	if s.truth && errors.Is(err, schemas.ErrUnknownType) {
		return 0, fmt.Errorf("%w: %w", errStands, err)
	}
	for try := 1; !unreadable && try < triesWhole; try++ {
		err = s.try(in)
		if err == nil {
			s.done = append(s.done, solved{part: in})
			return 1, nil
		}
		if temporary(err) {
			return 0, err
		}
	}
	s.letters++
	s.done = append(s.done, solved{part: in, reason: err})
	s.letter(&in[0], err)
	return 1, nil
}

// try handles a part, and undoes what it said if it fails.
func (s *solver) try(in []schemas.Record) error {
	mark := s.out.Len()
	err := s.guarded(in)
	if err == nil {
		err = sized(s.out)
	}
	if err == nil {
		return nil
	}
	s.out.Truncate(mark)
	if s.rebuild == nil {
		return err
	}
	var p *panicked
	if errors.As(err, &p) || errors.Is(err, errTooLarge) { // the state is not what it was before
		if again := s.redo(); again != nil {
			return again
		}
	}
	return err
}

func (s *solver) guarded(in []schemas.Record) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &panicked{v, debug.Stack()}
		}
	}()
	return s.handle(in)
}

// redo restores the state and handles again what was done before.
func (s *solver) redo() error {
	if err := s.rebuild(); err != nil {
		return err
	}
	s.out.Reset()
	for _, d := range s.done {
		if d.reason != nil {
			s.letter(&d.part[0], d.reason)
			continue
		}
		if err := s.guarded(d.part); err != nil {
			return notNowError{fmt.Errorf("handle again after a restore: %w", err)}
		}
	}
	return nil
}

// notNowError makes an error temporary.
type notNowError struct{ error }

// Temporary makes it one that is waited out.
func (notNowError) Temporary() bool { return true }

// Unwrap is for errors.Is.
func (e notNowError) Unwrap() error { return e.error }

func (s *solver) letter(r *schemas.Record, reason error) { letter(s.out, s.stage, r, reason, s.now()) }

// letter says a dead letter.
func letter(out *schemas.Out, stage string, r *schemas.Record, reason error, now time.Time) {
	out.DeadLettered(&pushv1.DeadLettered{
		Topic: string(r.Topic), Partition: r.Partition, Offset: r.Offset, Stage: stage, Reason: reason.Error(),
		Key: r.Key, Value: r.Value[:min(len(r.Value), maxLetterBytes)],
		RecordedAtUs: r.TimeUS, LetteredAtUs: now.UnixMicro(),
	})
}

// sized refuses what a broker would.
func sized(out *schemas.Out) error {
	if out.Size() <= maxRecordBytes {
		return nil
	}
	var err error
	out.Each(func(topic schemas.Topic, _ int32, key, value []byte) {
		if len(key)+len(value) > maxRecordBytes {
			err = fmt.Errorf("%w: %d bytes for %s", errTooLarge, len(key)+len(value), topic)
		}
	})
	return err
}
