// Package logtest is what every broker must pass under eventlog: append, follow, transform, deliver, groups. It runs on the
// embedded broker and on Apache Kafka alike.
package logtest

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// Partitions of the topics of each test.
const Partitions = 4

// patience is how long anything may take; the longest is a session that has to run out.
const patience = 60 * time.Second

// RunSuite runs every test on a cluster: the one that place says, under a prefix of the test's own.
func RunSuite(t *testing.T, place func(tb testing.TB) eventlog.Config) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, *bench){
		"AppendIsThereWhenItReturns":            testAppend,
		"ManyAppendAtOnce":                      testManyAppends,
		"CatchUpSeesWhatWasAppendedBefore":      testCatchUp,
		"AnotherPartitionCountIsRefused":        testRefusal,
		"PoisonIsBisectedToOneDeadLetter":       testBisection,
		"PanicIsAFailureOfItsRecord":            testPanic,
		"TemporaryErrorsNeverMakeDeadLetters":   testTemporary,
		"UnknownTypeStopsItsPartitionOnly":      testUnknownType,
		"TwoMembersShareAndHandOver":            testTwoMembers,
		"IdlePartitionsAreVisited":              testIdle,
		"StateIsRestoredFromItsOutput":          testRestore,
		"PositionsOfTheStageWin":                testPositions,
		"PositionsAheadAreCommitted":            testPositionsAhead,
		"LostPlaceStopsUntilReset":              testLostPlace,
		"ExpendableStagesAreToldOfGaps":         testGap,
		"LostRangeStopsTheStage":                testLostRange,
		"FollowersReachEndsWithNothingLeft":     testEmptyEnds,
		"CommitIsContiguous":                    testContiguous,
		"FullWindowWaits":                       testWindow,
		"FullMemoryLeavesEachPartitionItsPart":  testTotal,
		"NotBeforeHoldsOnePartition":            testNotBefore,
		"StopLosesAndRepeatsNothing":            testStop,
		"StopWaitsForAnswersToWhatWasPushed":    testStopWaits,
		"TransactionMarksAreNoSends":            testTransactions,
		"UndecodableSendsAreDeadLetters":        testUndecodable,
		"SendersHandOverWithoutARepeat":         testSendersShare,
		"TakeoverAfterAKillKnowsWhatIsDone":     testTakeover,
		"MovedSendsAreDoneWhenTheirTierHasThem": testMoved,
		"WhatAnEarlierOwnerWritesLateIsVoid":    testLateOwner,
		"ResetSendersComeAfterAllBefore":        testResetSender,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, newBench(t, place(t)))
		})
	}
}

// bench is one test's topics.
type bench struct {
	cfg eventlog.Config
	log *eventlog.Log
}

func newBench(t *testing.T, cfg eventlog.Config) *bench {
	t.Helper()
	b := &bench{cfg: cfg}
	b.log = b.open(t, cfg)
	if _, err := b.log.CreateTopics(t.Context(), Partitions); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) open(t *testing.T, cfg eventlog.Config) *eventlog.Log {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	log, err := eventlog.Open(ctx, cfg, slog.New(slog.NewTextHandler(t.Output(), nil)), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := log.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return log
}

// killable is a log whose connections can be cut, as if its process had died.
func (b *bench) killable(t *testing.T) (log *eventlog.Log, kill func()) {
	t.Helper()
	var mu sync.Mutex
	var conns []net.Conn
	var dead atomic.Bool
	cfg := b.cfg
	dial := cfg.Dial
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	cfg.Dial = func(ctx context.Context, network, host string) (net.Conn, error) {
		if dead.Load() {
			return nil, errors.New("dead")
		}
		conn, err := dial(ctx, network, host)
		if err == nil {
			mu.Lock()
			conns = append(conns, conn)
			mu.Unlock()
		}
		return conn, err
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	log, err := eventlog.Open(ctx, cfg, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = log.Close(ctx) // a dead log cannot flush
	})
	return log, func() {
		dead.Store(true)
		mu.Lock()
		defer mu.Unlock()
		for _, conn := range conns {
			_ = conn.Close()
		}
	}
}

// run starts something that ends with its context, and returns how to end it and wait. The test fails if it ends by itself.
func run(t *testing.T, f func(ctx context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("ended with %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

// eventually waits until holds holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for !holds() {
		select {
		case <-ticker.C:
		case <-deadline.C:
			t.Fatalf("never: %s", what)
		case <-t.Context().Done():
			t.Fatalf("ended before: %s", what)
		}
	}
}

// lag is what a group has not committed.
func (b *bench) lag(t *testing.T, group string, topics ...schemas.Topic) (lag int64) {
	t.Helper()
	offsets, err := b.log.GroupOffsets(t.Context(), group)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range offsets {
		for _, topic := range topics {
			if o.Topic == topic {
				lag += o.Lag()
			}
		}
	}
	return lag
}

// read is everything committed in topics now, by topic.
func (b *bench) read(t *testing.T, topics ...schemas.Topic) map[schemas.Topic][]pushv1.Event {
	t.Helper()
	all := map[schemas.Topic][]pushv1.Event{}
	f := b.log.Follow("read-"+schemas.NewID().String(), func(r schemas.Record) error {
		e, err := r.Event()
		if err != nil {
			return err
		}
		all[r.Topic] = append(all[r.Topic], e)
		return nil
	}, topics...)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	select {
	case <-f.CaughtUp():
	case err := <-done:
		t.Fatal(err)
	case <-time.After(patience):
		t.Error("never caught up")
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	return all
}

func (b *bench) append(t *testing.T, say func(*schemas.Out)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := b.log.Append(ctx, say); err != nil {
		t.Fatal(err)
	}
}
