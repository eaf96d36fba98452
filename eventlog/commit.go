package eventlog

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/campanile-push/campanile/schemas"
)

// driveOnce fences, catches up and drives, in this order: what the old owner committed before the fence is in the state then,
// and nothing comes after it. It returns ErrFenced if somebody fenced us.
func (l *Log) driveOnce(ctx context.Context, o DriveOptions, d Driver, p int32) error {
	layout, err := l.readyLayout()
	if err != nil {
		return err
	}
	commit := l.plainCommit(o)
	if o.Transactional {
		tx, err := l.newTransactor(ctx, o, p, layout)
		if err != nil {
			return err
		}
		defer tx.close()
		commit = tx.commit
	}
	for _, f := range o.Followed {
		if err := f.CatchUp(ctx); err != nil {
			return fmt.Errorf("catch up before driving: %w", err)
		}
	}
	return d.Drive(ctx, p, commit)
}

// plainCommit is a Commit that appends.
func (l *Log) plainCommit(o DriveOptions) schemas.Commit {
	out := l.metrics.recordsOut.WithLabelValues(o.Stage)
	batches := l.metrics.batches.WithLabelValues(o.Stage)
	return func(ctx context.Context, say func(*schemas.Out)) error {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("commit: %w", err)
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.cfg.DeliveryTimeout)
		defer cancel()
		n := 0
		err := l.Append(ctx, func(o *schemas.Out) {
			say(o)
			n = o.Len()
		})
		if err != nil {
			return fmt.Errorf("commit: %w", err)
		}
		if n > 0 {
			out.Add(float64(n))
			batches.Inc()
		}
		return nil
	}
}

// transactor commits one partition's transactions. After its first error it only repeats it.
type transactor struct {
	l       *Log
	client  *kgo.Client
	out     *schemas.Out
	recs    []kgo.Record // a slab, used again when every promise has been kept
	failed  atomic.Pointer[error]
	promise func(*kgo.Record, error)
	broken  error

	records, batches interface{ Add(float64) }
}

// newTransactor makes the producer whose transactional id belongs to the partition. When it returns, the producer before it is
// fenced, and its open transaction aborted.
func (l *Log) newTransactor(ctx context.Context, o DriveOptions, p int32, layout schemas.Layout) (*transactor, error) {
	number := strconv.Itoa(int(p))
	client, err := l.newClient(o.Stage+"-"+number,
		kgo.TransactionalID(l.cfg.Prefix+o.TransactionalPrefix+"-"+string(o.StateTopic)+"-"+number),
		kgo.TransactionTimeout(l.cfg.TransactionTimeout),
	)
	if err != nil {
		return nil, err
	}
	if _, _, err := client.ProducerID(ctx); err != nil {
		client.Close()
		return nil, fmt.Errorf("fence the owner before: %w", err)
	}
	t := &transactor{
		l: l, client: client, out: schemas.NewOut(layout),
		records: l.metrics.recordsOut.WithLabelValues(o.Stage), batches: l.metrics.batches.WithLabelValues(o.Stage),
	}
	t.promise = func(_ *kgo.Record, err error) {
		if err != nil {
			first := err // a copy, so that the parameter does not go to the heap for every record
			t.failed.CompareAndSwap(nil, &first)
		}
	}
	return t, nil
}

func (t *transactor) close() { t.client.Close() }

// commit is a schemas.Commit. The end of ctx does not cut it short, since a transaction is soon over and half of one must wait
// for its timeout; it only keeps one from beginning.
func (t *transactor) commit(ctx context.Context, say func(*schemas.Out)) error {
	if t.broken != nil {
		return t.broken
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	t.out.Reset()
	say(t.out)
	n := t.out.Len()
	if n == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), t.l.cfg.TransactionTimeout)
	defer cancel()
	if err := t.transact(ctx); err != nil {
		t.broken = fmt.Errorf("commit: %w", err)
		return t.broken
	}
	t.records.Add(float64(n))
	t.batches.Add(1)
	return nil
}

func (t *transactor) transact(ctx context.Context) error {
	t.recs = t.l.records(t.out, t.recs)
	if err := t.client.BeginTransaction(); err != nil {
		return fmt.Errorf("begin a transaction: %w", asFenced(err))
	}
	for i := range t.recs {
		t.client.Produce(ctx, &t.recs[i], t.promise)
	}
	if err := t.client.Flush(ctx); err != nil {
		t.recs, t.out = nil, schemas.NewOut(t.out.Layout()) // the client may still hold them
		return fmt.Errorf("flush: %w", err)
	}
	if failed := t.failed.Load(); failed != nil {
		err := asFenced(*failed)
		if abort := t.client.EndTransaction(ctx, kgo.TryAbort); abort != nil {
			err = errors.Join(err, fmt.Errorf("abort: %w", asFenced(abort)))
		}
		return fmt.Errorf("produce: %w", err)
	}
	if err := t.client.EndTransaction(ctx, kgo.TryCommit); err != nil {
		return fmt.Errorf("commit the transaction: %w", asFenced(err)) // it may be there: who reads the log knows
	}
	return nil
}

// asFenced adds schemas.ErrFenced to what a broker says to a producer that a later one with its transactional id has fenced.
func asFenced(err error) error {
	for _, fence := range []error{kerr.ProducerFenced, kerr.InvalidProducerEpoch} {
		if errors.Is(err, fence) {
			return fmt.Errorf("%w: %w", schemas.ErrFenced, err)
		}
	}
	return err
}
