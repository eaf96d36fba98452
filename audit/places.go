package audit

import (
	"strconv"

	"github.com/cespare/xxhash/v2"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// BlockSize is how many offsets of a partition are summed up together, to find what differs without keeping what does not.
const BlockSize = 16384

// Group is what is counted together, in the log and in ClickHouse: ends of one app, transport and outcome in one block of a partition.
type Group struct {
	Partition int32
	Block     int64 // offset / BlockSize
	App       string
	Transport string
	Outcome   string
	Repeat    bool // by the owners alone: an end by an older owner
}

// Digest is how many they are, and the sum of RowHash over them.
type Digest struct {
	N   int64
	Sum uint64
}

// RowHash is of one end: its place in its partition, and its send.
func RowHash(offset int64, send schemas.ID) uint64 {
	var buf [64]byte
	b := strconv.AppendInt(buf[:0], offset, 10)
	b = append(b, '/')
	return xxhash.Sum64(send.Append(b))
}

// bounds say which ends are compared.
type bounds struct {
	sinceUS int64   // ends of this time and later; ClickHouse forgets rows
	from    []int64 // by partition of deliveries
	to      []int64
	gaps    map[int32][][2]int64 // offsets that ClickHouse will never hold
}

func (b *bounds) holds(partition int32, offset int64) bool {
	p := int(partition)
	if p >= len(b.to) || offset < b.from[p] || offset >= b.to[p] {
		return false
	}
	for _, gap := range b.gaps[partition] {
		if offset >= gap[0] && offset < gap[1] {
			return false
		}
	}
	return true
}

// digests sum up the ends that are compared; without bounds, none.
type digests struct {
	bounds *bounds
	groups map[Group]*Digest
	keep   keep  // nil: nobody
	older  int64 // ends that ClickHouse may have forgotten
}

func (d *digests) add(rec *schemas.Record, e *pushv1.DeliveryFinished, late bool) {
	if d.bounds == nil || !d.bounds.holds(rec.Partition, rec.Offset) {
		return
	}
	if e.FinishedAtUs < d.bounds.sinceUS {
		d.older++
		return
	}
	g := groupOf(rec, e, late && !d.blind(rec.Partition))
	if d.keep != nil {
		d.keep(g, rec.Offset, schemas.IDFrom(e.SendId))
	}
	sum := d.groups[g]
	if sum == nil {
		g.App = cloned(g.App) // it aliases the record
		sum = &Digest{}
		d.groups[g] = sum
	}
	sum.N++
	sum.Sum += RowHash(rec.Offset, schemas.IDFrom(e.SendId))
}

// blind reports whether repeats of a partition cannot be compared. Owners that changed in a gap are unknown to ClickHouse until they change
// again, and those that changed before the log's first record to the log's reader.
func (d *digests) blind(partition int32) bool {
	return len(d.bounds.gaps[partition]) > 0 || d.bounds.from[partition] > 0
}
