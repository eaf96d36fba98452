package eventlog

import (
	"encoding/binary"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

func TestMemoryComesBackAndFits(t *testing.T) {
	t.Parallel()
	snappy := func(n int) []byte { return binary.AppendUvarint(nil, uint64(n)) }
	for name, c := range map[string]struct {
		compressed []byte
		codec      kgo.CompressionCodecType
		least      int
		most       int
	}{
		"its size is known":         {snappy(100_000), kgo.CodecSnappy, 100_000, 112_500},
		"a small batch":             {snappy(300), kgo.CodecSnappy, 0, 0},
		"framed snappy":             {append([]byte("\x82SNAPPY\x00"), make([]byte, 10_000)...), kgo.CodecSnappy, 40_000, 45_036},
		"a size beyond all batches": {snappy(1 << 40), kgo.CodecSnappy, 0, 0},
		"a guess":                   {make([]byte, 30_000), kgo.CodecZstd, 120_000, 135_000},
		"a guess is bounded":        {make([]byte, 1<<20), kgo.CodecLz4, batchMaxBytes, batchMaxBytes + batchMaxBytes/8},
		"nothing":                   {nil, kgo.CodecSnappy, 0, 0},
	} {
		p := &recycling{} // with nothing on its shelf
		b := p.GetDecompressBytes(c.compressed, c.codec)
		if cap(b) < c.least || cap(b) > c.most {
			t.Errorf("%s: want room for %d to %d, got %d", name, c.least, c.most, cap(b))
		}
		p.PutDecompressBytes(b)
		if again := p.GetDecompressBytes(c.compressed, c.codec); cap(again) != cap(b) {
			t.Errorf("%s: want what was put, of %d, got %d", name, cap(b), cap(again))
		}
	}
	p := &recycling{}
	p.PutDecompressBytes(make([]byte, 0, 70_000)) // not a power of two: it fits what asks for 64 KiB
	for range 100 {
		if b := p.GetDecompressBytes(snappy(1<<17), kgo.CodecSnappy); cap(b) < 1<<17 {
			t.Fatalf("want room for what was asked for, got %d", cap(b))
		}
	}
	for _, n := range []int{0, 1, 15, 16, 17, 2500} {
		r := p.GetRecords(n)
		if cap(r) < n {
			t.Errorf("want room for %d records, got %d", n, cap(r))
		}
		p.PutRecords(r)
	}
}

func TestAShelfFillsWithWhatIsAskedFor(t *testing.T) {
	t.Parallel()
	var s shelf[byte]
	const most = 1000
	s.put(make([]byte, 7, 900), most)
	if p := s.get(400); cap(p) >= 900 {
		t.Fatalf("want nothing larger than twice what is asked for, got %d", cap(p))
	}
	first := s.get(800)
	if len(first) != 0 || cap(first) != 900 || s.held != 0 {
		t.Fatalf("want the piece that was put, empty, and none left, got %d of %d, and %d left", len(first), cap(first), s.held)
	}
	s.put(first, most)
	for range 3 { // what is put now is what is asked for now
		s.put(make([]byte, 0, 300), most)
	}
	if s.held != 900 || len(s.pieces) != 3 {
		t.Fatalf("want the oldest forgotten, got %d pieces of %d", len(s.pieces), s.held)
	}
	s.put(make([]byte, 0, 310), most)
	if p := s.get(290); cap(p) != 300 {
		t.Fatalf("want the smallest that is large enough, got %d", cap(p))
	}
	s.put(make([]byte, 0, 5000), most)
	if s.held != 0 || len(s.pieces) != 0 {
		t.Fatalf("want nothing kept beyond the bound, got %d pieces of %d", len(s.pieces), s.held)
	}
	for range 2 * idlePieces {
		s.put(make([]byte, 0, 5), most)
	}
	if len(s.pieces) != idlePieces || s.held != 5*idlePieces {
		t.Fatalf("want few pieces to look through, got %d pieces of %d", len(s.pieces), s.held)
	}
}

func TestABacklogKeepsItsOrder(t *testing.T) {
	t.Parallel()
	var b backlog
	next, first := int64(0), int64(0)
	for round := range 200 {
		var records []*kgo.Record
		for range round % 7 {
			records = append(records, &kgo.Record{Offset: next})
			next++
		}
		b.add(records)
		n := min(b.len(), round%5)
		b.drop(n)
		first += int64(n)
		if b.len() != int(next-first) {
			t.Fatalf("round %d: want %d left, got %d", round, next-first, b.len())
		}
		for i := range b.len() {
			if got := b.at(i).Offset; got != first+int64(i) {
				t.Fatalf("round %d: want offset %d, got %d", round, first+int64(i), got)
			}
		}
	}
}
