package audit_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/campanile-push/campanile/audit"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// memoryLog is a log in memory, of two partitions.
type memoryLog struct {
	topics map[schemas.Topic][][]schemas.Record
	next   map[schemas.Topic][]int64
	starts map[schemas.Topic][]int64
	out    *schemas.Out
	nowUS  int64
	onEnds func(schemas.Topic) // nil: nothing happens meanwhile
}

const parts = 2

func newMemoryLog() *memoryLog {
	l := &memoryLog{
		topics: map[schemas.Topic][][]schemas.Record{}, next: map[schemas.Topic][]int64{}, starts: map[schemas.Topic][]int64{},
		out: schemas.NewOut(schemas.Layout{Partitions: parts}), nowUS: hour(0),
	}
	for _, spec := range schemas.Specs() {
		l.topics[spec.Topic], l.next[spec.Topic], l.starts[spec.Topic] = make([][]schemas.Record, parts), make([]int64, parts), make([]int64, parts)
	}
	return l
}

// hour is a time n hours after a fixed noon, in Unix microseconds.
func hour(n float64) int64 {
	return time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC).Add(time.Duration(n * float64(time.Hour))).UnixMicro()
}

func (l *memoryLog) say(say func(out *schemas.Out)) {
	l.out.Reset()
	say(l.out)
	l.out.Each(func(topic schemas.Topic, p int32, key, value []byte) {
		l.topics[topic][p] = append(l.topics[topic][p], schemas.Record{
			Topic: topic, Partition: p, Offset: l.next[topic][p], TimeUS: l.nowUS, Key: bytes.Clone(key), Value: bytes.Clone(value),
		})
		l.next[topic][p]++
	})
}

// forget deletes the first records of a partition.
func (l *memoryLog) forget(topic schemas.Topic, p int32, below int64) {
	l.topics[topic][p] = slices.DeleteFunc(l.topics[topic][p], func(r schemas.Record) bool { return r.Offset < below })
	l.starts[topic][p] = below
}

func (l *memoryLog) Starts(_ context.Context, topic schemas.Topic) ([]int64, error) {
	return slices.Clone(l.starts[topic]), nil
}

func (l *memoryLog) Ends(_ context.Context, topic schemas.Topic) ([]int64, error) {
	ends := slices.Clone(l.next[topic])
	if l.onEnds != nil {
		l.onEnds(topic)
	}
	return ends, nil
}

func (l *memoryLog) Scan(_ context.Context, topic schemas.Topic, from, to []int64, f func(schemas.Record) error) error {
	for p := range from {
		for _, r := range l.topics[topic][p] {
			if r.Offset < from[p] || r.Offset >= to[p] {
				continue
			}
			r.Value = bytes.Clone(r.Value)
			if err := f(r); err != nil {
				return err
			}
			clear(r.Value) // the log's own again
		}
	}
	return nil
}

// house is a small pipeline that did everything right: what a test breaks is its own.
type house struct {
	*memoryLog
	phone schemas.Device
}

var (
	ask       = schemas.ID{1, 15: 1}
	broadcast = schemas.ID{2, 15: 2}
)

func bulkID(n byte) schemas.ID {
	return schemas.BulkSendID(broadcast, bulkPhone(n))
}

func bulkPhone(n byte) schemas.Device {
	return schemas.Device{App: "moodle", Transport: schemas.FCM, Token: "phone-" + string('a'+n)}
}

// end is a DeliveryFinished of a bulk send, in the partition of its phone.
func (h *house) end(n byte, generation int64, o schemas.Outcome) {
	id := bulkID(n)
	e := finished(0, schemas.Bulk, generation, o)
	e.SendId, e.BroadcastId, e.App, e.RequestedAtUs, e.FinishedAtUs, e.First = id[:], broadcast[:], "moodle", hour(0), hour(0.1), true
	h.say(func(out *schemas.Out) { out.DeliveryFinished(out.Layout().Of(bulkPhone(n)), uint64(n), e) })
}

func (h *house) directEnd(request schemas.ID, lane schemas.Lane, generation int64, o schemas.Outcome) {
	id := schemas.DirectSendID(request)
	e := finished(0, lane, generation, o)
	e.SendId, e.RequestId, e.App, e.RequestedAtUs, e.FinishedAtUs = id[:], request[:], "moodle", hour(0), hour(0.1)
	h.say(func(out *schemas.Out) { out.DeliveryFinished(out.Layout().Of(h.phone), 1, e) })
}

func (h *house) request(id schemas.ID) {
	h.say(func(out *schemas.Out) {
		out.NotificationRequested(&pushv1.NotificationRequested{RequestId: id[:], App: "moodle", Transport: schemas.FCM, Token: h.phone.Token, RequestedAtUs: hour(0)})
	})
}

func (h *house) sends(n byte) {
	h.say(func(out *schemas.Out) {
		out.SendRequested(schemas.Bulk, bulkPhone(n), &pushv1.SendRequested{BroadcastId: broadcast[:], Token: bulkPhone(n).Token})
	})
}

func (h *house) moved(emitted int64) {
	h.say(func(out *schemas.Out) {
		out.CursorMoved(&pushv1.CursorMoved{BroadcastId: broadcast[:], App: "moodle", Transport: schemas.FCM, Emitted: emitted, Done: true, MovedAtUs: hour(0)})
	})
}

// tally says progress as the tally does: of each partition's own deliveries.
func (h *house) tally(wrong int64) {
	for p := range int32(parts) {
		var c pushv1.TransportCounts
		through := int64(0)
		for _, r := range h.topics[schemas.Deliveries][p] {
			var e pushv1.DeliveryFinished
			if r.Into(&e) == nil && schemas.IDFrom(e.BroadcastId) == broadcast {
				c.FirstOutcomes++
				c.Accepted++
			}
			through = r.Offset + 1
		}
		c.Transport = schemas.FCM
		if p == 0 {
			c.Accepted += wrong
		}
		h.say(func(out *schemas.Out) {
			out.ProgressCounted(&pushv1.ProgressCounted{BroadcastId: broadcast[:], App: "moodle", Partition: p, Counts: []*pushv1.TransportCounts{&c}, Through: through})
		})
	}
}

const audience = 5

// newHouse has one notification and one broadcast to five phones, all delivered but phone e, which waits.
func newHouse() *house {
	h := &house{newMemoryLog(), schemas.Device{App: "moodle", Transport: schemas.FCM, Token: "mine"}}
	h.say(func(out *schemas.Out) {
		out.BroadcastRequested(&pushv1.BroadcastRequested{BroadcastId: broadcast[:], RecordId: broadcast[:], App: "moodle", RequestedAtUs: hour(0), Ranges: 1})
	})
	h.request(ask)
	h.directEnd(ask, schemas.Direct, 1, accepted)
	for n := range byte(audience) {
		h.sends(n)
	}
	h.moved(audience)
	for n := range byte(audience - 1) {
		h.end(n, 1, accepted)
	}
	return h
}

func (h *house) prove(t *testing.T, change ...func(*audit.Options)) *audit.Report {
	t.Helper()
	o := audit.Options{
		Overdue: time.Hour, Again: time.Nanosecond, Now: func() time.Time { return time.UnixMicro(hour(0.5)) },
		Routed: func(context.Context) ([]int64, error) { return slices.Clone(h.next[schemas.Notifications]), nil },
	}
	for _, c := range change {
		c(&o)
	}
	r, err := audit.Prove(t.Context(), h.memoryLog, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestACleanLogShowsNoDifference(t *testing.T) {
	t.Parallel()
	h := newHouse()
	h.tally(0)
	r := h.prove(t)
	if diff := cmp.Diff(&audit.Report{
		Totals: audit.Totals{Accepted: audience + 1, Delivered: audience, Pending: 1}, Differences: []audit.Difference{},
	}, r); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestPlantedDifferencesAreFound breaks the house in every way that the log can show.
func TestPlantedDifferencesAreFound(t *testing.T) {
	t.Parallel()
	lost := schemas.ID{3, 15: 3}
	sendOf := func(id schemas.ID) string { return schemas.DirectSendID(id).String() }
	later := func(o *audit.Options) { o.Now = func() time.Time { return time.UnixMicro(hour(3)) } }
	for name, c := range map[string]struct {
		breaks func(h *house)
		change func(*audit.Options)
		want   []audit.Difference
	}{
		"a notification that nobody holds": {
			breaks: func(h *house) { h.request(lost) },
			want:   []audit.Difference{{Kind: audit.Lost, Request: lost.String(), Send: sendOf(lost), App: "moodle", Transport: "fcm", Place: "notifications"}},
		},
		"a notification that the router has not reached": {
			breaks: func(h *house) { h.request(lost) },
			change: func(o *audit.Options) {
				o.Routed = func(context.Context) ([]int64, error) { return []int64{0, 0}, nil }
			},
		},
		"a notification that waits for too long": {
			breaks: func(h *house) {
				h.request(lost)
				h.end(4, 1, accepted)
				h.say(func(out *schemas.Out) {
					id := schemas.DirectSendID(lost)
					out.SendRequested(schemas.Direct, h.phone, &pushv1.SendRequested{RequestId: lost[:], SendId: id[:], App: "moodle", Token: h.phone.Token, RequestedAtUs: hour(0)})
				})
			},
			change: later,
			want:   []audit.Difference{{Kind: audit.Overdue, Request: lost.String(), Send: sendOf(lost), App: "moodle", Transport: "fcm", Place: "notifications"}},
		},
		"a send of a broadcast that waits for too long": {
			change: later,
			want: []audit.Difference{{
				Kind: audit.Overdue, Broadcast: broadcast.String(), Send: bulkID(4).String(), App: "moodle", Transport: "fcm", Place: "sends.fcm.bulk",
			}},
		},
		"a send that its owner finished twice": {
			breaks: func(h *house) { h.end(0, 1, invalid) },
			want: []audit.Difference{{
				Kind: audit.FinishedTwice, Broadcast: broadcast.String(), Send: bulkID(0).String(), App: "moodle", Transport: "fcm", Outcome: "token_invalid", Place: "deliveries",
			}},
		},
		"a send that a later owner finished again": {
			breaks: func(h *house) { h.end(0, 2, accepted) },
			want: []audit.Difference{{
				Kind: audit.FinishedTwice, Broadcast: broadcast.String(), Send: bulkID(0).String(), App: "moodle", Transport: "fcm", Outcome: "accepted", Place: "deliveries",
			}},
		},
		"a send that an earlier owner finished again is a repeat": {
			breaks: func(h *house) {
				h.say(func(out *schemas.Out) {
					for p := range int32(parts) {
						out.OwnerChanged(&pushv1.OwnerChanged{Transport: schemas.FCM, Lane: schemas.Bulk, Partition: p, Generation: 2})
					}
				})
				h.end(0, 1, accepted)
			},
		},
		"a notification refused by the router and delivered by a sender": {
			breaks: func(h *house) { h.directEnd(ask, schemas.ByRouter, 0, invalid) },
			want: []audit.Difference{{
				Kind: audit.FinishedTwice, Request: ask.String(), Send: sendOf(ask), App: "moodle", Transport: "fcm", Outcome: "token_invalid", Place: "deliveries",
			}},
		},
		"a notification refused twice by the router": {
			breaks: func(h *house) {
				h.request(lost)
				h.directEnd(lost, schemas.ByRouter, 0, invalid)
				h.directEnd(lost, schemas.ByRouter, 0, invalid)
			},
		},
		"an end without a notification": {
			breaks: func(h *house) { h.directEnd(lost, schemas.Direct, 1, accepted) },
			want: []audit.Difference{{
				Kind: audit.FinishedWithoutSend, Request: lost.String(), Send: sendOf(lost), App: "moodle", Transport: "fcm", Outcome: "accepted", Place: "deliveries",
			}},
		},
		"an end whose notification is older than the log": {
			breaks: func(h *house) {
				for p := range int32(parts) { // whose first record left is of a later time
					h.nowUS = hour(1)
					other := schemas.ID{9, 15: byte(p)}
					for h.out.Layout().OfID(other) != p {
						other[14]++
					}
					h.request(other)
					h.directEnd(other, schemas.Direct, 1, accepted)
					h.forget(schemas.Notifications, p, h.next[schemas.Notifications][p]-1)
				}
			},
		},
		"more ends than the cursors count": {
			breaks: func(h *house) {
				h.end(4, 1, accepted)
				h.end(5, 1, accepted)
			},
			want: []audit.Difference{{Kind: audit.FinishedWithoutSend, Broadcast: broadcast.String(), App: "moodle", Transport: "fcm"}},
		},
		"fewer sends than the cursors count": {
			breaks: func(h *house) { h.moved(audience + 2) },
			want:   []audit.Difference{{Kind: audit.Expansion, Broadcast: broadcast.String(), App: "moodle", Transport: "fcm"}},
		},
		"more sends than the cursors count": {
			breaks: func(h *house) { h.sends(5) },
			want:   []audit.Difference{{Kind: audit.Expansion, Broadcast: broadcast.String(), App: "moodle", Transport: "fcm"}},
		},
		"progress that counts other than the deliveries": {
			breaks: func(h *house) { h.tally(1) },
			want:   []audit.Difference{{Kind: audit.Progress, Broadcast: broadcast.String(), App: "moodle", Transport: "fcm", Place: "progress"}},
		},
		"an end of the broadcast that counts otherwise": {
			breaks: func(h *house) {
				h.say(func(out *schemas.Out) {
					out.BroadcastEnded(&pushv1.BroadcastEnded{
						BroadcastId: broadcast[:], App: "moodle", Counts: []*pushv1.TransportCounts{{Transport: schemas.FCM, Emitted: audience, Accepted: audience - 1}},
					})
				})
			},
			want: []audit.Difference{{Kind: audit.Progress, Broadcast: broadcast.String(), App: "moodle", Transport: "fcm"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse()
			if c.breaks != nil {
				c.breaks(h)
			}
			var changes []func(*audit.Options)
			if c.change != nil {
				changes = append(changes, c.change)
			}
			r := h.prove(t, changes...)
			got := []audit.Difference{}
			for _, d := range r.Differences {
				if d.Detail == "" || strings.Contains(d.String(), h.phone.Token) || strings.Contains(d.String(), "phone-") {
					t.Errorf("without a word, or with a token: %s", d)
				}
				d.Detail = ""
				d.Place, _, _ = strings.Cut(d.Place, "[")
				got = append(got, d)
			}
			if diff := cmp.Diff(append([]audit.Difference{}, c.want...), got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if int64(len(got)) != sum(r.Counts) {
				t.Errorf("%d differences are counted as %v", len(got), r.Counts)
			}
		})
	}
}

func sum(counts map[audit.Kind]int64) (n int64) {
	for _, c := range counts {
		n += c
	}
	return n
}

// TestWhatIsOnItsWayIsNoDifference lets the pipeline go on between any two looks at the log.
func TestWhatIsOnItsWayIsNoDifference(t *testing.T) {
	t.Parallel()
	h := newHouse()
	n := byte(audience)
	h.onEnds = func(schemas.Topic) {
		if n >= 100 {
			return
		}
		h.onEnds, n = nil, n+1 // a whole life between two looks: a push is asked for, and a page of a broadcast expanded and delivered
		id := schemas.ID{7, 15: n}
		h.request(id)
		h.directEnd(id, schemas.Direct, 1, accepted)
		h.sends(n)
		h.moved(int64(n))
		h.end(n, 1, accepted)
		step := n
		h.onEnds = func(schemas.Topic) {
			if step < 60 {
				step++
				h.sends(step)
				h.moved(int64(step))
				h.end(step, 1, accepted)
			}
		}
	}
	if r := h.prove(t); len(r.Differences) > 0 {
		t.Errorf("differences: %v", r.Differences)
	}
}

func TestOnlyTheRangeCounts(t *testing.T) {
	t.Parallel()
	h := newHouse()
	early := schemas.ID{4, 15: 4}
	h.say(func(out *schemas.Out) { // lost, and hours before
		out.NotificationRequested(&pushv1.NotificationRequested{RequestId: early[:], App: "moodle", Transport: schemas.FCM, RequestedAtUs: hour(-5)})
	})
	from := func(n float64) func(*audit.Options) {
		return func(o *audit.Options) { o.From = time.UnixMicro(hour(n)) }
	}
	if r := h.prove(t, from(-1)); len(r.Differences) > 0 || r.Accepted != audience+1 {
		t.Errorf("the last hour: %+v", r)
	}
	if r := h.prove(t, from(-6)); len(r.Differences) != 1 || r.Accepted != audience+2 {
		t.Errorf("six hours: %+v", r)
	}
	if r := h.prove(t, func(o *audit.Options) { o.To = time.UnixMicro(hour(-1)) }); len(r.Differences) != 1 || r.Accepted != 1 {
		t.Errorf("until an hour before: %+v", r)
	}
}

func TestDifferencesAreNamedUpToTheLimit(t *testing.T) {
	t.Parallel()
	h := newHouse()
	for n := range byte(30) {
		h.request(schemas.ID{5, 15: n})
	}
	r := h.prove(t, func(o *audit.Options) { o.Limit = 7 })
	if len(r.Differences) != 7 || r.Counts[audit.Lost] != 30 {
		t.Errorf("want 7 of 30, got %d of %v", len(r.Differences), r.Counts)
	}
}

// rows are ClickHouse's, made of the log and then broken.
type rows struct {
	ends      map[int32]map[int64]row
	positions map[int32]int64
	gaps      [][3]int64
	sums      int64
	err       error
}

type row struct {
	app, transport, outcome string
	repeat                  bool
	send                    schemas.ID
}

func rowsOf(h *house) *rows {
	r := &rows{ends: map[int32]map[int64]row{}, positions: map[int32]int64{}}
	for p, records := range h.topics[schemas.Deliveries] {
		r.ends[int32(p)] = map[int64]row{}
		for _, rec := range records {
			var e pushv1.DeliveryFinished
			if rec.Into(&e) == nil {
				r.ends[int32(p)][rec.Offset] = row{"moodle", e.Transport.Word(), e.Outcome.Word(), false, schemas.IDFrom(e.SendId)}
			}
			r.positions[int32(p)] = rec.Offset + 1
		}
	}
	return r
}

func (r *rows) Positions(context.Context, schemas.Topic, []int32) (map[int32]int64, error) {
	return r.positions, r.err
}

func (r *rows) EachGap(_ context.Context, each func(string, int32, int64, int64)) error {
	for _, g := range r.gaps {
		each("deliveries", int32(g[0]), g[1], g[2])
	}
	return nil
}

func (r *rows) EachDigest(_ context.Context, p int32, from, to, block, _, _, _ int64, each func(int64, string, string, string, bool, int64, uint64)) error {
	for off, e := range r.ends[p] {
		if off >= from && off < to {
			each(off/block, e.app, e.transport, e.outcome, e.repeat, 1, audit.RowHash(off, e.send))
		}
	}
	return nil
}

func (r *rows) EachEnd(_ context.Context, p int32, from, to, _, _, _ int64, each func(int64, string, string, string, bool, schemas.ID)) error {
	for off, e := range r.ends[p] {
		if off >= from && off < to {
			each(off, e.app, e.transport, e.outcome, e.repeat, e.send)
		}
	}
	return nil
}

func (r *rows) Rollups(context.Context) (int64, int64, error) { return 7, 7 + r.sums, nil }

func TestClickHouseIsComparedRowByRow(t *testing.T) {
	t.Parallel()
	h := newHouse()
	p := h.out.Layout().Of(bulkPhone(2))
	var at int64
	for _, rec := range h.topics[schemas.Deliveries][p] {
		var e pushv1.DeliveryFinished
		if rec.Into(&e) == nil && schemas.IDFrom(e.SendId) == bulkID(2) {
			at = rec.Offset
		}
	}
	where := map[int32]string{0: "deliveries[0]@", 1: "deliveries[1]@"}[p] + string('0'+byte(at))
	for name, c := range map[string]struct {
		breaks func(r *rows)
		want   []string // kind and place
		notes  int
	}{
		"the same":         {},
		"a row is missing": {breaks: func(r *rows) { delete(r.ends[p], at) }, want: []string{"clickhouse ", "clickhouse_row " + where}},
		"a row has another outcome": {breaks: func(r *rows) {
			e := r.ends[p][at]
			e.outcome = "expired"
			r.ends[p][at] = e
		}, want: []string{"clickhouse ", "clickhouse ", "clickhouse_row " + where}},
		"a row is of another send": {breaks: func(r *rows) {
			e := r.ends[p][at]
			e.send = bulkID(9)
			r.ends[p][at] = e
		}, want: []string{"clickhouse ", "clickhouse_row " + where}},
		"a row is counted as a repeat": {breaks: func(r *rows) {
			e := r.ends[p][at]
			e.repeat = true
			r.ends[p][at] = e
		}, want: []string{"clickhouse ", "clickhouse ", "clickhouse_row " + where}},
		"it is behind":        {breaks: func(r *rows) { r.positions[p] = at; delete(r.ends[p], at) }, notes: 1},
		"it gave a range up":  {breaks: func(r *rows) { r.gaps = [][3]int64{{int64(p), at, at + 1}}; delete(r.ends[p], at) }, notes: 1},
		"its sums are others": {breaks: func(r *rows) { r.sums = 1 }, want: []string{"clickhouse_rollup "}},
		"it is away":          {breaks: func(r *rows) { r.err = errors.New("connection refused") }, notes: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := rowsOf(h)
			if c.breaks != nil {
				c.breaks(r)
			}
			own := &house{&memoryLog{topics: h.topics, next: h.next, starts: h.starts, out: h.out, nowUS: h.nowUS}, h.phone}
			report := own.prove(t, func(o *audit.Options) { o.Rows = r })
			var got []string
			for _, d := range report.Differences {
				got = append(got, string(d.Kind)+" "+d.Place)
			}
			if diff := cmp.Diff(c.want, got); diff != "" || len(report.Notes) != c.notes {
				t.Errorf("(-want +got):\n%s\nnotes %q, differences %v", diff, report.Notes, report.Differences)
			}
		})
	}
}
