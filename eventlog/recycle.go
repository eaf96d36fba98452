package eventlog

import (
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// recycling lends franz-go the memory for what a client fetches: batches as they come out of compression, and the records in them. A
// batch's memory comes back when each of its records has been recycled; what never is, is the garbage collector's. The zero value is
// ready.
type recycling struct {
	bytes   sync.Pool // *[]byte
	records sync.Pool // *[]kgo.Record
}

// GetDecompressBytes implements kgo.PoolDecompressBytes.
func (p *recycling) GetDecompressBytes([]byte, kgo.CompressionCodecType) []byte {
	if b, ok := p.bytes.Get().(*[]byte); ok {
		return *b
	}
	return make([]byte, 0, batchMaxBytes) // a batch of ours; for another's the client makes its own, and leaves it here
}

// PutDecompressBytes implements kgo.PoolDecompressBytes.
func (p *recycling) PutDecompressBytes(b []byte) { p.bytes.Put(&b) }

// GetRecords implements kgo.PoolRecords.
func (p *recycling) GetRecords(n int) []kgo.Record {
	if r, ok := p.records.Get().(*[]kgo.Record); ok {
		return *r // the client makes it longer where that is needed
	}
	return make([]kgo.Record, 0, n)
}

// PutRecords implements kgo.PoolRecords.
func (p *recycling) PutRecords(r []kgo.Record) { p.records.Put(&r) }

// backlog are a window's records that have come and not been given to the handler, in order. Their memory is the client's: drop
// gives it back. The zero value is empty.
type backlog struct {
	records []*kgo.Record
	from    int // of those that are left
}

func (b *backlog) len() int { return len(b.records) - b.from }

func (b *backlog) at(i int) *kgo.Record { return b.records[b.from+i] }

func (b *backlog) add(records []*kgo.Record) {
	if b.from > 0 && len(b.records)+len(records) > cap(b.records) { // rather than grow
		n := copy(b.records, b.records[b.from:])
		clear(b.records[n:])
		b.records, b.from = b.records[:n], 0
	}
	b.records = append(b.records, records...)
}

// drop forgets the first n records. Nothing may refer to their bytes any more.
func (b *backlog) drop(n int) {
	for i := range n {
		b.at(i).Recycle()
		b.records[b.from+i] = nil
	}
	if b.from += n; b.from == len(b.records) {
		b.records, b.from = b.records[:0], 0
	}
}
