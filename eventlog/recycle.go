package eventlog

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// recycling lends franz-go the memory for what a client fetches: batches as they come out of compression, and the records in them. A
// batch's memory comes back when each of its records has been recycled; what never is, is the garbage collector's. The zero value is
// ready.
type recycling struct {
	bytes   [classes]sync.Pool // *[]byte, of at least 2^i bytes
	records [classes]sync.Pool // *[]kgo.Record, of at least 2^i
}

const (
	classes   = 22
	fewBytes  = 4 << 10 // and
	fewRecord = 16      // records are not worth the trouble; the direct lane's batches are small
)

// class is that of the pool whose pieces hold n.
func class(n int) int { return bits.Len(uint(n - 1)) }

// GetDecompressBytes implements kgo.PoolDecompressBytes. What is too short for a batch the client replaces.
func (p *recycling) GetDecompressBytes(compressed []byte, codec kgo.CompressionCodecType) []byte {
	n := unpacked(compressed, codec)
	if n < fewBytes || class(n) >= classes {
		return nil
	}
	if b, ok := p.bytes[class(n)].Get().(*[]byte); ok {
		return *b
	}
	return make([]byte, 0, 1<<class(n))
}

// javaSnappy is the head of Java's framing of snappy.
var javaSnappy = []byte("\x82SNAPPY\x00")

// unpacked is the size of a batch out of compression, or a guess at it.
func unpacked(compressed []byte, codec kgo.CompressionCodecType) int {
	if codec == kgo.CodecSnappy && !bytes.HasPrefix(compressed, javaSnappy) { // it begins with its size
		if n, size := binary.Uvarint(compressed); size > 0 && n <= batchMaxBytes {
			return int(n)
		}
	}
	return min(4*len(compressed), batchMaxBytes)
}

// PutDecompressBytes implements kgo.PoolDecompressBytes.
func (p *recycling) PutDecompressBytes(b []byte) {
	if i := bits.Len(uint(cap(b))) - 1; cap(b) >= fewBytes && i < classes {
		p.bytes[i].Put(&b)
	}
}

// GetRecords implements kgo.PoolRecords.
func (p *recycling) GetRecords(n int) []kgo.Record {
	if n < fewRecord || class(n) >= classes {
		return make([]kgo.Record, 0, n)
	}
	if r, ok := p.records[class(n)].Get().(*[]kgo.Record); ok {
		return *r
	}
	return make([]kgo.Record, 0, 1<<class(n))
}

// PutRecords implements kgo.PoolRecords.
func (p *recycling) PutRecords(r []kgo.Record) {
	if i := bits.Len(uint(cap(r))) - 1; cap(r) >= fewRecord && i < classes {
		p.records[i].Put(&r)
	}
}

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
