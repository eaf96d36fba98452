package eventlog

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/campanile-push/campanile/schemas"
)

func TestSolverLeavesOutOnlyWhatCannotBeHandled(t *testing.T) {
	t.Parallel()
	bad := errors.New("bad")
	malformed := fmt.Errorf("x: %w", schemas.ErrMalformed)
	unknown := fmt.Errorf("x: %w", schemas.ErrUnknownType)
	for name, c := range map[string]struct {
		errs    map[int64]error // by offset
		truth   bool
		patient bool
		handled []int64
		letters int
		done    int
		err     error
	}{
		"all good":             {nil, false, true, []int64{0, 1, 2, 3, 4}, 0, 5, nil},
		"bad, to be tried":     {map[int64]error{3: bad}, false, true, nil, 0, 0, bad},
		"bad, tried enough":    {map[int64]error{3: bad}, false, false, []int64{0, 1, 2, 4}, 1, 5, nil},
		"all bad":              {map[int64]error{0: bad, 1: bad, 2: bad, 3: bad, 4: bad}, false, false, nil, 5, 5, nil},
		"malformed, at once":   {map[int64]error{0: malformed, 4: malformed}, true, true, []int64{1, 2, 3}, 2, 5, nil},
		"unknown, in truth":    {map[int64]error{3: unknown}, true, true, []int64{0, 1, 2}, 0, 3, errStands},
		"unknown, elsewhere":   {map[int64]error{3: unknown}, false, true, []int64{0, 1, 2, 4}, 1, 5, nil},
		"behind":               {map[int64]error{3: schemas.ErrBehind}, false, false, nil, 0, 0, schemas.ErrBehind},
		"cut off":              {map[int64]error{3: fmt.Errorf("x: %w", &net.OpError{Op: "read", Err: syscall.ECONNRESET})}, false, false, nil, 0, 0, syscall.ECONNRESET},
		"behind, then unknown": {map[int64]error{1: notNowError{bad}, 3: unknown}, true, false, nil, 0, 0, bad},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := make([]schemas.Record, 5)
			for i := range in {
				in[i] = schemas.Record{Topic: schemas.Devices, Offset: int64(i), Value: []byte{1}}
			}
			var handled []int64
			s := solver{
				stage: "test", truth: c.truth, patient: c.patient, out: schemas.NewOut(schemas.Layout{Partitions: 1}), now: time.Now,
				handle: func(part []schemas.Record) error {
					for i := range part {
						if err := c.errs[part[i].Offset]; err != nil {
							return err
						}
					}
					for i := range part {
						handled = append(handled, part[i].Offset)
					}
					return nil
				},
			}
			n, err := s.solve(in)
			if n != c.done || !errors.Is(err, c.err) || s.letters != c.letters || s.out.Len() != c.letters {
				t.Errorf("want %d done, %d letters, %v; got %d, %d (%d said), %v", c.done, c.letters, c.err, n, s.letters, s.out.Len(), err)
			}
			if !slices.Equal(handled, c.handled) {
				t.Errorf("want handled %v, got %v", c.handled, handled)
			}
		})
	}
}

func TestSilenceIsCountedFromTheHeartbeatThatWasAnswered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHeard(3 * time.Second)
		if !h.lately() {
			t.Error("want the benefit of the doubt at first")
		}
		time.Sleep(2 * time.Second)                                                                      //nolint:forbidigo // of a bubble
		h.OnBrokerE2E(kgo.BrokerMetadata{}, int16(kmsg.Heartbeat), kgo.BrokerE2E{ReadWait: time.Second}) // sent a second ago
		time.Sleep(1900 * time.Millisecond)                                                              //nolint:forbidigo // of a bubble
		if !h.lately() {
			t.Error("want pushes 2.9 s after a heartbeat was sent")
		}
		h.OnBrokerE2E(kgo.BrokerMetadata{}, int16(kmsg.Heartbeat), kgo.BrokerE2E{ReadErr: errors.New("cut")})
		h.OnBrokerE2E(kgo.BrokerMetadata{}, int16(kmsg.Fetch), kgo.BrokerE2E{})
		time.Sleep(200 * time.Millisecond) //nolint:forbidigo // of a bubble
		if h.lately() {
			t.Error("want silence 3.1 s after the last answered heartbeat was sent")
		}
	})
}

func TestMarkIsReadAsItWasWritten(t *testing.T) {
	t.Parallel()
	want := mark{generation: 7<<32 + 3, base: 1_795_000_000, from: ends{1, 2, 3, 4, 5}, owners: generations{6, 7, 8, 9, 10}, moving: generations{11, 12, 13, 14, 15}}
	got, err := parseMark(want.String())
	if err != nil || got != want {
		t.Errorf("want %v, got %v, %v", want, got, err)
	}
	if got, err := parseMark("1 7 1 2 3 4 5"); err != nil || got != (mark{generation: 7, from: ends{1, 2, 3, 4, 5}}) {
		t.Errorf("want the mark of an older version without owners, got %v, %v", got, err)
	}
	if got, err := parseMark(""); err != nil || got != (mark{}) {
		t.Errorf("want the zero mark, got %v, %v", got, err)
	}
	for _, bad := range []string{"1", "2 1 2 3 4 5 6", "1 1 2 3 4 5", "1 1 2 3 4 5 6 7", "1 -1 2 3 4 5 6", "1 a 2 3 4 5 6", " ", "3 1 2 3 4 5 6", "2 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16"} {
		if _, err := parseMark(bad); err == nil {
			t.Errorf("%q: want an error", bad)
		}
	}
}

func FuzzMark(f *testing.F) {
	f.Add("1 1 2 3 4 5 6")
	f.Add("2 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17")
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		m, err := parseMark(s)
		if err != nil || s == "" {
			return
		}
		again, err := parseMark(m.String())
		if err != nil || again != m {
			t.Errorf("%q: want %v again, got %v, %v", s, m, again, err)
		}
	})
}

func FuzzEmptyBatches(f *testing.F) {
	f.Add(make([]byte, 61))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = emptyBatches(b) })
}

func TestRingFindsOffsetsAcrossGaps(t *testing.T) {
	t.Parallel()
	var r ring
	offsets := []int64{3, 4, 5, 9, 10, 5000, 5001, 90000}
	for round := range 200 { // the ring turns and grows
		for _, o := range offsets {
			r.push(inFlight{offset: o + int64(round)*100_000})
		}
		for _, o := range offsets {
			e := r.find(o + int64(round)*100_000)
			if e == nil || e.offset != o+int64(round)*100_000 {
				t.Fatalf("round %d: offset %d not found", round, o)
			}
		}
		for _, o := range []int64{-1, 6, 8, 11, 4999, 89999, 90001} {
			if e := r.find(o + int64(round)*100_000); e != nil && e.offset != o+int64(round)*100_000 {
				t.Fatalf("round %d: offset %d found at %d", round, o, e.offset)
			}
		}
		if round%3 != 0 {
			for i := range offsets {
				r.at(i).state = done
			}
			r.advance()
		}
	}
}

// TestAnIdleWindowsMarkFollowsTheOthers: it would hold a takeover to all that was written since its own last send.
func TestAnIdleWindowsMarkFollowsTheOthers(t *testing.T) {
	t.Parallel()
	reached := ends{1_000_000, 20, 0, 0, 30}
	for _, c := range []struct {
		name string
		w    *window
		want ends
	}{
		{"idle", &window{acked: ends{10, 10, 10, 10, 40}}, ends{1_000_000, 20, 10, 10, 40}},
		{"idle and hardly behind", &window{acked: ends{999_999, 10, 10, 10, 10}}, ends{999_999, 10, 10, 10, 10}},
		{"outcomes wait", &window{acked: ends{10}, filling: &outcomes{}}, ends{10}},
		{"outcomes are on their way", &window{acked: ends{10}, flying: []*outcomes{{floor: ends{5}}}}, ends{5}},
		{"a send found done has not come", &window{acked: ends{10}, skip: map[int64]proof{3: {0, 7}}}, ends{7}},
	} {
		if _, m := c.w.position(reached); m.from != c.want {
			t.Errorf("%s: want %v, got %v", c.name, c.want, m.from)
		}
	}
	busy := &window{acked: ends{10}}
	busy.ring.push(inFlight{offset: 1, proof: proof{topic: -1}})
	if _, m := busy.position(reached); m.from != (ends{10}) {
		t.Errorf("a record in flight: want its own mark, got %v", m.from)
	}
}
