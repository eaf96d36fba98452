package audit

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// Rows are the ends of sends as ClickHouse has them. Times are Unix microseconds.
type Rows interface {
	// Positions are the offsets after the last record that the tables hold.
	Positions(ctx context.Context, topic schemas.Topic, partitions []int32) (map[int32]int64, error)
	// EachGap names the ranges of deliveries that the tables will never hold.
	EachGap(ctx context.Context, each func(topic string, partition int32, from, to int64)) error
	// EachDigest sums up the ends of a partition of deliveries: those with offsets in [from, to) that ended at sinceUS or later and were asked
	// for in [askedUS, beforeUS), by blocks of offsets and by what Group holds. The sum is of RowHash, modulo 2⁶⁴.
	EachDigest(ctx context.Context, partition int32, from, to, block, sinceUS, askedUS, beforeUS int64,
		each func(block int64, app, transport, outcome string, repeat bool, n int64, sum uint64)) error
	// EachEnd names the same ends.
	EachEnd(ctx context.Context, partition int32, from, to, sinceUS, askedUS, beforeUS int64,
		each func(offset int64, app, transport, outcome string, repeat bool, send schemas.ID)) error
	// Rollups are the ends in the rows and in the sums that statistics are made of, over the time that both hold.
	Rollups(ctx context.Context) (rows, sums int64, err error)
}

// rowsKept is how long ClickHouse surely holds rows: its tables forget after 30 days.
const rowsKept = 29 * 24 * time.Hour

type blockOf struct {
	partition int32
	block     int64
}

// end is one end of a send, in the log or in ClickHouse.
type end struct {
	app, transport, outcome string
	repeat                  bool
	send                    schemas.ID
}

// openRows asks how far ClickHouse is, before the log is read: what it counts meanwhile is not compared.
func (p *reading) openRows(ctx context.Context) error {
	if p.o.Rows == nil {
		return nil
	}
	partitions := make([]int32, len(p.r.expanded))
	for n := range partitions {
		partitions[n] = int32(n)
	}
	positions, err := p.o.Rows.Positions(ctx, schemas.Deliveries, partitions)
	if err != nil {
		return fmt.Errorf("ask ClickHouse for its positions: %w", err)
	}
	b := &bounds{sinceUS: p.now.Add(-rowsKept).UnixMicro(), to: make([]int64, len(partitions)), gaps: map[int32][][2]int64{}}
	for n := range partitions {
		b.to[n] = positions[int32(n)]
	}
	err = p.o.Rows.EachGap(ctx, func(topic string, partition int32, from, to int64) {
		if topic != string(schemas.Deliveries) {
			return
		}
		b.gaps[partition] = append(b.gaps[partition], [2]int64{from, to})
		p.note("ClickHouse never counted %d records: offsets %d to %d of %s[%d] were given up", to-from, from, to-1, topic, partition)
	})
	if err != nil {
		return fmt.Errorf("ask ClickHouse for its gaps: %w", err)
	}
	p.r.digests = digests{bounds: b, groups: map[Group]*Digest{}}
	return nil
}

// boundRows compares what both hold.
func (p *reading) boundRows(from, to []int64) {
	b := p.r.digests.bounds
	if b == nil {
		return
	}
	b.from = from
	var late int64
	for n := range b.to {
		late += max(0, to[n]-b.to[n])
		b.to[n] = min(b.to[n], to[n])
	}
	if late > 0 {
		p.note("ClickHouse has not counted the last %d records of %s yet: they are not compared", late, schemas.Deliveries)
	}
	if len(p.wanted) > 0 {
		p.rows = map[blockOf]map[int64]end{}
		p.r.digests.keep = func(g Group, offset int64, send schemas.ID) {
			at := blockOf{g.Partition, g.Block}
			if !p.wanted[at] {
				return
			}
			if p.rows[at] == nil {
				p.rows[at] = map[int64]end{}
			}
			p.rows[at][offset] = end{cloned(g.App), g.Transport, g.Outcome, g.Repeat, send}
		}
	}
}

// asked is the time range of requests, as ClickHouse can hold it.
func (p *reading) asked() (fromUS, toUS int64) {
	const latest = 4_102_444_800_000_001 // after 1 January 2100, the last time that the tables know
	return max(p.r.fromUS, 0), min(p.r.toUS, latest)
}

// total is what a difference of counts is told by.
type total struct {
	app, transport, outcome string
	repeat                  bool
}

// compareRows compares counts, and finds the blocks whose rows differ.
func (p *reading) compareRows(ctx context.Context) error {
	d := &p.r.digests
	if d.bounds == nil {
		return nil
	}
	if d.older > 0 {
		p.note("ClickHouse keeps rows for 30 days: %d ends before %s are not compared", d.older, moment(d.bounds.sinceUS))
	}
	theirs := map[Group]Digest{}
	asked, before := p.asked()
	for n := range d.bounds.to {
		partition := int32(n)
		err := p.o.Rows.EachDigest(ctx, partition, d.bounds.from[n], d.bounds.to[n], BlockSize, d.bounds.sinceUS, asked, before,
			func(block int64, app, transport, outcome string, repeat bool, count int64, sum uint64) {
				g := Group{partition, block, app, transport, outcome, repeat && !d.blind(partition)}
				was := theirs[g]
				theirs[g] = Digest{was.N + count, was.Sum + sum}
			})
		if err != nil {
			return fmt.Errorf("count in ClickHouse: %w", err)
		}
	}
	p.suspects = map[blockOf]bool{}
	counts := map[total][2]int64{}
	suspect := func(g Group) {
		if len(p.suspects) < p.o.Limit || p.wanted[blockOf{g.Partition, g.Block}] {
			p.suspects[blockOf{g.Partition, g.Block}] = true
		}
	}
	for g, ours := range d.groups {
		p.compared += ours.N
		k := total{g.App, g.Transport, g.Outcome, g.Repeat}
		counts[k] = [2]int64{counts[k][0] + ours.N, counts[k][1]}
		if theirs[g] != *ours {
			suspect(g)
		}
	}
	for g, t := range theirs {
		k := total{g.App, g.Transport, g.Outcome, g.Repeat}
		counts[k] = [2]int64{counts[k][0], counts[k][1] + t.N}
		if d.groups[g] == nil {
			suspect(g)
		}
	}
	for k, n := range counts {
		if n[0] != n[1] {
			p.r.found.add(Difference{Kind: ClickHouse, App: k.app, Transport: k.transport, Outcome: k.word(), Detail: fmt.Sprintf("the log has %d, ClickHouse %d", n[0], n[1])})
		}
	}
	if len(p.suspects) > 0 && p.r.found.n[ClickHouse] == 0 { // the counts agree, and the rows do not
		p.r.found.add(Difference{Kind: ClickHouse, Detail: "the counts are the same, and the sends are not"})
	}
	return p.compareSums(ctx)
}

func (k total) word() string {
	if k.repeat {
		return k.outcome + " (repeat)"
	}
	return k.outcome
}

func (p *reading) compareSums(ctx context.Context) error {
	rows, sums, err := p.o.Rows.Rollups(ctx)
	if err != nil {
		return fmt.Errorf("compare ClickHouse's sums with its rows: %w", err)
	}
	if rows != sums {
		p.r.found.add(Difference{Kind: ClickHouseRollup, Detail: fmt.Sprintf("its rows have %d ends, its sums by the hour %d", rows, sums)})
	}
	return nil
}

// nameRows names the rows of the blocks that differed in the first reading, as the second one found them.
func (p *reading) nameRows(ctx context.Context, all *found) error {
	if all.n[ClickHouse] == 0 || p.r.digests.bounds == nil {
		return nil
	}
	b := p.r.digests.bounds
	asked, before := p.asked()
	for at := range p.wanted {
		if !p.suspects[at] {
			continue // it was on its way
		}
		ours := p.rows[at]
		theirs := map[int64]end{}
		from, to := max(at.block*BlockSize, b.from[at.partition]), min((at.block+1)*BlockSize, b.to[at.partition])
		err := p.o.Rows.EachEnd(ctx, at.partition, from, to, b.sinceUS, asked, before,
			func(offset int64, app, transport, outcome string, repeat bool, send schemas.ID) {
				theirs[offset] = end{app, transport, outcome, repeat && !p.r.digests.blind(at.partition), send}
			})
		if err != nil {
			return fmt.Errorf("read the rows of ClickHouse: %w", err)
		}
		nameBlock(all, at, ours, theirs)
	}
	slices.SortFunc(all.list[ClickHouseRow], func(a, b Difference) int { return cmp.Or(strings.Compare(a.Place, b.Place)) })
	return nil
}

func nameBlock(all *found, at blockOf, ours, theirs map[int64]end) {
	add := func(offset int64, e end, detail string) {
		all.add(Difference{
			Kind: ClickHouseRow, Send: text(e.send), App: e.app, Transport: e.transport, Outcome: total{"", "", e.outcome, e.repeat}.word(),
			Place: place(schemas.Deliveries, at.partition, offset), Detail: detail,
		})
	}
	for offset, e := range ours {
		switch other, there := theirs[offset]; {
		case !there:
			add(offset, e, "ClickHouse has no row of it")
		case other != e:
			add(offset, e, "ClickHouse has it as "+other.app+" "+other.transport+" "+total{"", "", other.outcome, other.repeat}.word()+", send "+text(other.send))
		}
	}
	for offset, e := range theirs {
		if _, there := ours[offset]; !there {
			add(offset, e, "the log has no end there")
		}
	}
}

// keep is told of each end that is compared.
type keep func(g Group, offset int64, send schemas.ID)

func groupOf(rec *schemas.Record, e *pushv1.DeliveryFinished, repeat bool) Group {
	return Group{rec.Partition, rec.Offset / BlockSize, e.App, e.Transport.Word(), e.Outcome.Word(), repeat}
}
