package chdb

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/ClickHouse/ch-go/compress"
)

// helloQuery is the first thing clickhouse-go asks of a connection.
const helloQuery = "SELECT displayName(), version(), revision(), timezone()"

// hello answers helloQuery. The driver reads this one answer at the newest revision of the protocol that it knows: block info
// first, and a byte of custom serialization for each column. The revision that stands in it is 0, so that it reads everything
// after it as plain Native blocks, which is what libchdb writes.
func hello(version string) []byte {
	b := []byte{1, 0, 2, 0xff, 0xff, 0xff, 0xff, 0} // is_overflows = 0, bucket_num = -1, end
	b = append(b, 4, 1)                             // columns, rows
	str := func(s string) {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	column := func(name, kind string) {
		str(name)
		str(kind)
		b = append(b, 0)
	}
	column("displayName()", "String")
	str("chdb")
	column("version()", "String")
	str(version)
	column("revision()", "UInt32")
	b = binary.LittleEndian.AppendUint32(b, 0)
	column("timezone()", "String")
	str("UTC")
	return b
}

// errEncoding is a compression that nobody here speaks.
var errEncoding = errors.New("the embedded engine speaks gzip, LZ4 and ZSTD")

// requestBody undoes the compression of a request's body: gzip by header, ClickHouse's own blocks by parameter.
func requestBody(r *http.Request, params url.Values) (io.Reader, error) {
	var body io.Reader = r.Body
	switch encoding := r.Header.Get("Content-Encoding"); encoding {
	case "", "identity":
	case "gzip":
		unzipped, err := gzip.NewReader(body)
		if err != nil {
			return nil, fmt.Errorf("body is not gzip: %w", err)
		}
		body = unzipped
	default:
		return nil, fmt.Errorf("content encoding %q: %w", encoding, errEncoding)
	}
	if params.Get("decompress") == "1" {
		body = &blockReader{src: body}
	}
	return body, nil
}

// Sizes in a block of ClickHouse's compression: a checksum of 16 bytes, then the method, the compressed size with these 9
// bytes, and the size of the data.
const (
	checksumSize   = 16
	blockHeader    = 9
	maxBlock       = 128 << 20 // bytes; ch-go's own bound
	blockSizeStart = checksumSize + 1
)

// blockReader undoes ClickHouse's compression block by block. ch-go's reader takes a body that ends within a block's header for
// a normal end, and so a torn insert for a whole one: this one sees where a block begins.
type blockReader struct {
	src   io.Reader
	block []byte
	data  *compress.Reader
}

func (b *blockReader) Read(p []byte) (int, error) {
	for {
		if b.data != nil {
			n, err := b.data.Read(p)
			if n > 0 {
				return n, nil
			}
			if err != nil && !errors.Is(err, io.EOF) {
				return 0, err
			}
		}
		if err := b.next(); err != nil {
			return 0, err
		}
	}
}

// next reads one whole block from the body. io.EOF is the body's end between two blocks and nothing else.
func (b *blockReader) next() error {
	const head = checksumSize + blockHeader
	if cap(b.block) < head {
		b.block = make([]byte, head)
	}
	b.block = b.block[:head]
	if _, err := io.ReadFull(b.src, b.block); err != nil {
		return err // io.EOF: not one byte of a block
	}
	size := binary.LittleEndian.Uint32(b.block[blockSizeStart:])
	if size < blockHeader || size > maxBlock {
		return fmt.Errorf("a compressed block of %d bytes", size)
	}
	whole := checksumSize + int(size)
	if cap(b.block) < whole {
		grown := make([]byte, head, whole)
		copy(grown, b.block)
		b.block = grown
	}
	b.block = b.block[:whole]
	if _, err := io.ReadFull(b.src, b.block[head:]); err != nil {
		if errors.Is(err, io.EOF) {
			return io.ErrUnexpectedEOF
		}
		return err
	}
	// A reader for each block: after an end of input, ch-go's gives the last block once more.
	b.data = compress.NewReader(bytes.NewReader(b.block))
	return nil
}

// answer writes a response's body under the compression that the client asked for.
type answer struct {
	w     io.Writer
	block *compress.Writer
	zip   *gzip.Writer
	wrote bool
}

// newAnswer sets the headers of the response's encoding; nothing is written before the first Write.
func newAnswer(w http.ResponseWriter, r *http.Request, params url.Values) *answer {
	a := &answer{w: w}
	switch {
	case params.Get("compress") == "1":
		method := compress.LZ4
		if params.Get("network_compression_method") == "ZSTD" {
			method = compress.ZSTD
		}
		a.block = compress.NewWriter(compress.LevelZero, method)
	case strings.Contains(r.Header.Get("Accept-Encoding"), "gzip"):
		w.Header().Set("Content-Encoding", "gzip")
		a.zip = gzip.NewWriter(w)
	}
	return a
}

// compressedPiece is the size of one compressed block of an answer, in bytes; ClickHouse's max_compress_block_size.
const compressedPiece = 1 << 20

func (a *answer) Write(p []byte) (int, error) {
	a.wrote = true
	switch {
	case a.zip != nil:
		return a.zip.Write(p)
	case a.block == nil:
		return a.w.Write(p)
	}
	n := len(p)
	for len(p) > 0 {
		k := min(len(p), compressedPiece)
		if err := a.block.Compress(p[:k]); err != nil {
			return 0, err
		}
		if _, err := a.w.Write(a.block.Data); err != nil {
			return 0, err
		}
		p = p[k:]
	}
	return n, nil
}

// plain makes the blocks that follow uncompressed ones. clickhouse-go looks for an exception among the bytes as they came.
func (a *answer) plain() {
	if a.block != nil {
		a.block = compress.NewWriter(compress.LevelZero, compress.None)
	}
}

// finish writes what is still held back.
func (a *answer) finish() error {
	if a.zip != nil && a.wrote {
		return a.zip.Close()
	}
	return nil
}
