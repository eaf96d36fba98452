package eventlog

import (
	"time"

	"github.com/campanile-push/campanile/schemas"
)

// full reports whether the window waits: until half of it is free, or for room among all.
func (w *window) full() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.waiting || !w.session.crowd.room(w.held)
}

// wantsRoom reports whether nothing keeps the window's backlog waiting but the room among all.
func (w *window) wantsRoom() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ready && !w.waiting
}

func (w *window) isReady() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ready
}

// deliver gives a window's backlog to the handler, as far as its room and the records' times allow.
func (d *delivery) deliver(w *window, now time.Time) {
	if w.wake > now.UnixMicro() || w.full() {
		return
	}
	w.wake = 0
	for w.backlog.len() > 0 {
		taken, room := d.take(w, now.UnixMicro())
		if len(w.batch) > 0 {
			n, err := d.begin(w)
			if err != nil {
				d.giveBack(w, taken, n, err, now)
				return
			}
		}
		w.drop(taken)
		w.failures = 0
		if !room || w.wake > 0 || taken == 0 {
			break
		}
	}
}

// take admits the records at the front of the backlog that may go now, and puts those that are to be pushed into w.batch.
// taken counts all of them. room: there is some left.
func (d *delivery) take(w *window, nowUS int64) (taken int, room bool) {
	w.batch = w.batch[:0]
	w.mu.Lock()
	defer w.mu.Unlock()
	skipped := 0
	crowded := false
	for i := range w.backlog.len() {
		r := w.backlog.at(i)
		if w.ring.n >= d.o.Window {
			w.waiting = true
			break
		}
		if crowded = !d.crowd.room(w.held); crowded {
			break
		}
		if r.Attrs.IsControl() {
			w.ring.push(inFlight{offset: r.Offset, proof: proof{topic: -1}, state: done})
		} else {
			record := recordFrom(w.at.topic, r)
			if w.send.Tier > 0 && w.passed(&record) {
				w.ring.push(inFlight{offset: r.Offset, proof: proof{topic: -1}, state: done})
				w.next = r.Offset + 1
				taken++
				skipped++
				continue
			}
			if d.o.NotBefore != nil && w.send.Tier > 0 {
				if at := d.o.NotBefore(record); at > nowUS {
					w.wake = at
					break
				}
			}
			if w.admit(r.Offset) {
				w.batch = append(w.batch, record)
			} else {
				skipped++
			}
		}
		w.next = r.Offset + 1
		taken++
	}
	w.ring.advance()
	if w.ring.n <= d.o.Window/2 {
		w.waiting = false
	}
	if skipped > 0 {
		d.meter.skipped.Add(float64(skipped))
	}
	return taken, !w.waiting && !crowded
}

// begin gives w.batch to the handler. n of its records are begun or dead letters; err says why the others are not.
func (d *delivery) begin(w *window) (n int, err error) {
	scratch := schemas.NewOut(d.layout) // the handler says nothing here; dead letters are said by completions
	batch := schemas.Batch{Topic: w.at.topic, Partition: w.at.partition}
	s := solver{
		stage: d.o.Stage, patient: w.failures < triesWhole-1, out: scratch, now: time.Now,
		handle: func(part []schemas.Record) error {
			batch.Records = part
			return d.handler.Deliver(w.ctx, batch, w)
		},
	}
	n, err = s.solve(w.batch)
	for _, done := range s.done {
		if done.reason == nil {
			continue
		}
		r := &done.part[0]
		d.log.Error("record put among the dead letters", "topic", r.Topic, "partition", r.Partition, "offset", r.Offset, "reason", done.reason)
		w.Complete(r.Offset, func(out *schemas.Out) {
			letter(out, d.o.Stage, r, done.reason, time.Now())
			if ender, ok := d.handler.(Ender); ok {
				ender.End(*r, w.generation, out)
			}
		})
	}
	if s.letters > 0 {
		d.meter.letters[w.at.topic].Add(float64(s.letters))
	}
	return n, err
}

// giveBack undoes the taking of what was not begun, to try it again later. Of the taken records of the backlog, begun of
// those in w.batch were begun.
func (d *delivery) giveBack(w *window, taken, begun int, err error, now time.Time) {
	keep := taken
	if begun < len(w.batch) {
		first := w.batch[begun].Offset
		for keep > 0 && w.backlog.at(keep-1).Offset >= first {
			keep--
		}
		w.mu.Lock()
		for w.ring.n > 0 && w.ring.at(w.ring.n-1).offset >= first {
			e := w.ring.at(w.ring.n - 1)
			if e.proof.topic >= 0 {
				w.skip[e.offset] = e.proof // it is found done once more
			} else if e.state == given {
				w.pushing--
				w.held--
				d.crowd.held.Add(-1)
			}
			w.ring.n--
		}
		w.next = first
		w.mu.Unlock()
	}
	d.meter.failures.Inc()
	if begun == 0 && !temporary(err) {
		w.failures++
	}
	delay := retryDelay(max(w.failures, 1))
	w.drop(keep)
	w.wake = now.Add(delay).UnixMicro()
	d.log.Warn("batch failed", "topic", w.at.topic, "partition", w.at.partition, "records", len(w.batch)-begun,
		"failures", w.failures, "again_in", delay, "error", err)
}

// drop forgets the first n records of the backlog.
func (w *window) drop(n int) {
	clear(w.batch)
	w.backlog.drop(n)
}
