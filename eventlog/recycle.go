package eventlog

import (
	"bytes"
	"encoding/binary"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// recycling lends franz-go the memory for what a client fetches: batches as they come out of compression, and the records in them. A
// batch's memory comes back when each of its records has been recycled; what never is, is the garbage collector's. The zero value is
// ready.
type recycling struct {
	bytes   shelf[byte]
	records shelf[kgo.Record]
}

const (
	fewBytes  = 4 << 10 // and
	fewRecord = 16      // records are not worth the trouble; the direct lane's batches are small

	idleBytes   = 4 << 20 // wait on the shelf at most, and
	idleRecords = 16 << 10
	idlePieces  = 64
)

// shelf keeps pieces of memory for who asks next. Other than a sync.Pool it is not emptied by each collection of garbage, whose work is
// the more often to be done the more is thrown away. The zero value is empty.
type shelf[T any] struct {
	mu     sync.Mutex
	pieces [][]T // the oldest first
	held   int   // elements
}

// get returns an empty piece for n.
func (s *shelf[T]) get(n int) []T {
	s.mu.Lock()
	defer s.mu.Unlock()
	best := -1
	for i, p := range s.pieces {
		if cap(p) >= n && cap(p) <= 2*n && (best < 0 || cap(p) < cap(s.pieces[best])) {
			best = i
		}
	}
	if best < 0 {
		return make([]T, 0, n+n/8) // the next batch will be about as large
	}
	p := s.pieces[best]
	s.pieces = slices.Delete(s.pieces, best, best+1)
	s.held -= cap(p)
	return p
}

// put keeps p, and forgets the oldest pieces if there are more than most elements then, or too many pieces to look through.
func (s *shelf[T]) put(p []T, most int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pieces = append(s.pieces, p[:0])
	s.held += cap(p)
	old := 0
	for ; s.held > most || len(s.pieces)-old > idlePieces; old++ {
		s.held -= cap(s.pieces[old])
	}
	s.pieces = slices.Delete(s.pieces, 0, old)
}

// GetDecompressBytes implements kgo.PoolDecompressBytes. What is too short for a batch the client replaces.
func (p *recycling) GetDecompressBytes(compressed []byte, codec kgo.CompressionCodecType) []byte {
	n := unpacked(compressed, codec)
	if n < fewBytes {
		return nil
	}
	return p.bytes.get(n)
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
	if cap(b) >= fewBytes {
		p.bytes.put(b, idleBytes)
	}
}

// GetRecords implements kgo.PoolRecords.
func (p *recycling) GetRecords(n int) []kgo.Record {
	if n < fewRecord {
		return make([]kgo.Record, 0, n)
	}
	return p.records.get(n)
}

// PutRecords implements kgo.PoolRecords.
func (p *recycling) PutRecords(r []kgo.Record) {
	if cap(r) >= fewRecord {
		p.records.put(r, idleRecords)
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
