package eventlog

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"

	"github.com/campanile-push/campanile/schemas"
)

const (
	flushBytes = 128 << 10             // of a window's outcomes: half a batch; more are not waited for
	flushAfter = 10 * time.Millisecond // of the first outcome: nobody waits for it, and batches are cheaper than records
	// flushLinger lets the outcomes of all windows, which are flushed one after the other, go to the broker in one request.
	flushLinger = time.Millisecond
	spares      = 16 // outcomes that wait to be used again, at half a megabyte
)

// outcomes are what completions of one window said, appended together. Used again.
type outcomes struct {
	window *window
	out    *schemas.Out
	items  []item
	recs   []kgo.Record
	proof  []int8 // by record: the proof's topic, or -1
	floor  ends
	full   bool
	left   atomic.Int64
	failed atomic.Pointer[error]
	// promise is keep, bound once.
	promise func(*kgo.Record, error)
}

// item is one completion: records first to last of the outcomes, last excluded.
type item struct {
	offset      int64
	first, last int
}

func (d *delivery) newOutcomes(w *window) *outcomes {
	var o *outcomes
	select {
	case o = <-d.spare:
	default:
		o = &outcomes{out: schemas.NewOut(d.layout)}
		o.promise = o.keep
	}
	o.window, o.full = w, false
	return o
}

// seal makes o's records, and finds those that prove a send's end.
func (o *outcomes) seal(l *Log) {
	o.recs = l.records(o.out, o.recs)
	o.proof = o.proof[:0]
	o.out.Each(func(topic schemas.Topic, _ int32, _, value []byte) {
		p := int8(-1)
		switch {
		case topic == schemas.Deliveries:
			if len(value) > 0 && value[0] == byte(pushv1.EventType_EVENT_TYPE_DELIVERY_FINISHED) {
				p = 0
			}
		case topic != schemas.Devices: // the other topic that senders write in numbers
			if tier := l.topics[topic].send.Tier; tier > 0 {
				p = int8(tier)
			}
		}
		o.proof = append(o.proof, p)
	})
}

// keep is the promise of every record.
func (o *outcomes) keep(_ *kgo.Record, err error) {
	if err != nil {
		first := err // a copy, so that the parameter does not go to the heap for every record
		o.failed.CompareAndSwap(nil, &first)
	}
	if o.left.Add(-1) == 0 {
		o.window.session.landed(o)
	}
}

// landed is called when every promise of o is kept.
func (d *delivery) landed(o *outcomes) {
	if err := o.failed.Load(); err != nil {
		// The outcome of a push is not in the log, and nobody will say it again. Who takes over pushes once more.
		d.fail(fmt.Errorf("record outcomes of %s[%d]: %w", o.window.at.topic, o.window.at.partition, *err))
		return
	}
	d.meter.in[o.window.at.topic].Add(float64(len(o.items)))
	d.meter.out.Add(float64(len(o.recs)))
	d.meter.batches.Inc()
	if o.window.acknowledged(o) {
		d.wakeLoop()
	}
	d.signalSettled()
	o.window = nil
	o.out.Reset()
	o.items = o.items[:0]
	select {
	case d.spare <- o:
	default:
	}
}

func (d *delivery) wakeFlusher(full bool) {
	select {
	case d.dirty <- struct{}{}:
	default:
	}
	if full {
		select {
		case d.urgent <- struct{}{}:
		default:
		}
	}
}

// flush appends what completions say until ctx ends.
func (d *delivery) flush(ctx context.Context) {
	timer := time.NewTimer(flushAfter)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.dirty:
		}
		timer.Reset(flushAfter)
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-d.urgent:
		}
		for _, w := range d.owned() {
			d.flushWindow(w) //nolint:contextcheck // outcomes are appended whoever waits
		}
	}
}

func (d *delivery) flushWindow(w *window) {
	w.mu.Lock()
	o := w.filling
	w.filling = nil
	if o == nil || w.lost {
		w.mu.Unlock()
		return
	}
	o.floor = w.acked
	w.flying = append(w.flying, o)
	w.mu.Unlock()
	o.seal(d.l)
	o.left.Store(int64(len(o.recs)) + 1)
	for i := range o.recs {
		d.client.Produce(context.Background(), &o.recs[i], o.promise)
	}
	o.keep(nil, nil) // the one more: completions that said nothing
}
