package broker

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What a killed kfake leaves, and its own start makes of it:
//
//   - A commit writes one marker into each partition of the transaction, in any order. Where the marker is missing, kfake takes
//     the transaction for aborted: half of a commit is seen. It writes that down nowhere, so that the next commit of the same
//     producer there, found after a second crash, commits what had been aborted.
//   - A batch is written before its entry of the index, and only the entry says that it belongs to a transaction: without one,
//     kfake takes what was never committed for committed.
//
// So before kfake reads the directory, repair ends what was open. If any partition has the commit marker of a transaction, it
// was decided: the others get theirs. If none has, nobody was told that it was committed: it is aborted, with markers. The
// epoch in a batch tells a producer's transactions apart, since each commit raises it (KIP-890, EndTxn 5, which franz-go speaks).

// repaired counts what repair did.
type repaired struct {
	committed, aborted int // markers written
	indexEntries       int
	partitions         int // touched in any way
	stateLogs          int // cut
}

// scanned is what repair knows of one partition.
type scanned struct {
	dir         string
	lastSegment int64
	end         int64 // offset after the last batch
	leaderEpoch int32
	open        map[int64]int16 // producer to epoch
	entries     int             // of the index, that were written anew
	cut         bool            // a torn tail was cut off
}

// repair ends every transaction that the store holds open. The store must belong to nobody.
func repair(store string) (repaired, error) {
	var done repaired
	var err error
	if done.stateLogs, err = repairStateLogs(store); err != nil {
		return done, err
	}
	dirs, err := os.ReadDir(filepath.Join(store, "partitions"))
	if errors.Is(err, fs.ErrNotExist) {
		return done, nil
	}
	if err != nil {
		return done, fmt.Errorf("list partitions: %w", err)
	}
	decided := make(map[int64]int16) // producer to the epoch of its last commit
	var parts []scanned
	for _, d := range dirs {
		p, err := scan(filepath.Join(store, "partitions", d.Name()), decided)
		if err != nil {
			return done, fmt.Errorf("read partition %s: %w", d.Name(), err)
		}
		parts = append(parts, p)
	}
	for _, p := range parts {
		if err := p.finish(decided, &done); err != nil {
			return done, err
		}
	}
	return done, nil
}

// finish writes the missing markers of one partition.
func (p *scanned) finish(decided map[int64]int16, done *repaired) error {
	if len(p.open) > 0 || p.entries > 0 || p.cut {
		done.partitions++
	}
	done.indexEntries += p.entries
	for producer, epoch := range p.open {
		last, any := decided[producer]
		commit := any && last == epoch
		if commit {
			done.committed++
		} else {
			done.aborted++
		}
		raw := marker(p.end, p.leaderEpoch, producer, epoch, commit, time.Now())
		b, err := readBatch(raw)
		if err != nil {
			return fmt.Errorf("write a marker: %w", err)
		}
		if err := appendTo(segmentPath(p.dir, p.lastSegment), raw); err != nil {
			return err
		}
		if err := appendTo(indexPath(p.dir, p.lastSegment), indexOf(b, false)); err != nil {
			return err
		}
		p.end++
	}
	return nil
}

func segmentPath(dir string, base int64) string {
	return filepath.Join(dir, strconv.FormatInt(base, 10)+".dat")
}

func indexPath(dir string, base int64) string {
	return filepath.Join(dir, strconv.FormatInt(base, 10)+".idx")
}

func appendTo(path string, raw []byte) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("repair %s: %w", path, err)
	}
	_, err = f.Write(raw)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("repair %s: %w", path, err)
	}
	return nil
}

// segments lists the first offsets of a partition's files, in order.
func segments(dir string) ([]int64, error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list segments: %w", err)
	}
	var bases []int64
	for _, f := range files {
		name, ok := strings.CutSuffix(f.Name(), ".dat")
		if base, err := strconv.ParseInt(name, 10, 64); ok && err == nil {
			bases = append(bases, base)
		}
	}
	slices.Sort(bases)
	return bases, nil
}

// scan reads a partition, cuts off what is torn, completes its index, and adds the commits that it finds to decided.
func scan(dir string, decided map[int64]int16) (scanned, error) {
	p := scanned{dir: dir, open: make(map[int64]int16)}
	bases, err := segments(dir)
	if err != nil {
		return scanned{}, err
	}
	var buf []byte
	for _, base := range bases {
		p.lastSegment = base
		if buf, err = p.scanSegment(base, decided, buf); err != nil {
			return scanned{}, err
		}
	}
	return p, nil
}

func (p *scanned) scanSegment(base int64, decided map[int64]int16, buf []byte) ([]byte, error) {
	f, err := os.OpenFile(segmentPath(p.dir, base), os.O_RDWR, 0o600)
	if err != nil {
		return buf, fmt.Errorf("read a segment: %w", err)
	}
	defer func() { _ = f.Close() }() // what was cut has been synced
	idx, err := os.ReadFile(indexPath(p.dir, base))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return buf, fmt.Errorf("read an index: %w", err)
	}
	r := &segmentReader{f: f, buf: buf}
	var entries []byte
	for {
		b, err := r.next()
		if errors.Is(err, errTorn) {
			break
		}
		if err != nil {
			return r.buf, err
		}
		p.see(b, decided)
		entry := idx[min(len(entries), len(idx)):min(len(entries)+indexEntry, len(idx))]
		if !indexOK(entry) {
			entry = indexOf(b, b.attributes&transactional != 0 && b.attributes&control == 0)
			p.entries++
		}
		entries = append(entries, entry...)
	}
	if r.torn {
		p.cut = true
		if err := errors.Join(f.Truncate(r.pos), f.Sync()); err != nil {
			return r.buf, fmt.Errorf("cut a torn segment: %w", err)
		}
	}
	if string(entries) != string(idx) {
		if err := replaceFile(indexPath(p.dir, base), entries); err != nil {
			return r.buf, err
		}
	}
	return r.buf, nil
}

// see takes one batch into account.
func (p *scanned) see(b batch, decided map[int64]int16) {
	p.end, p.leaderEpoch = b.last+1, b.leaderEpoch
	switch {
	case b.attributes&transactional == 0:
	case b.attributes&control == 0:
		p.open[b.producer] = b.epoch
	default:
		delete(p.open, b.producer)
		if b.commit {
			if last, ok := decided[b.producer]; !ok || b.epoch > last {
				decided[b.producer] = b.epoch
			}
		}
	}
}

// segmentReader reads the batches of a segment one by one.
type segmentReader struct {
	f    *os.File
	buf  []byte // window of the file
	at   int64  // offset in the file of buf[0]
	n    int    // bytes of buf that are read
	pos  int64  // of the next batch
	torn bool   // the file goes on after pos, but not with a batch
}

const segmentWindow = 1 << 20 // bytes read at once; a larger batch makes it grow

// next returns errTorn at the end of what can be read, and any other error when the file cannot be read.
func (r *segmentReader) next() (batch, error) {
	head, err := r.bytes(lengthEnd)
	if err != nil {
		return batch{}, err
	}
	if len(head) == 0 {
		return batch{}, errTorn // the end: torn stays false
	}
	size, err := batchSize(head)
	if err == nil {
		var raw []byte
		if raw, err = r.bytes(size); err == nil && len(raw) < size {
			err = errTorn
		} else if err == nil {
			var b batch
			if b, err = readBatch(raw); err == nil {
				r.pos += int64(size)
				return b, nil
			}
		}
	}
	if errors.Is(err, errTorn) {
		r.torn = true
	}
	return batch{}, err
}

// bytes returns up to n bytes at pos, fewer at the end of the file.
func (r *segmentReader) bytes(n int) ([]byte, error) {
	from := int(r.pos - r.at)
	if from+n <= r.n {
		return r.buf[from : from+n], nil
	}
	if info, err := r.f.Stat(); err != nil {
		return nil, fmt.Errorf("read a segment: %w", err)
	} else if left := info.Size() - r.pos; int64(n) > left {
		n = int(max(left, 0)) // a torn length must not make us reserve a gigabyte
	}
	if want := max(n, segmentWindow); cap(r.buf) < want {
		r.buf = make([]byte, want)
	}
	r.buf = r.buf[:cap(r.buf)]
	r.at = r.pos
	read := 0
	for read < n {
		m, err := r.f.ReadAt(r.buf[read:], r.at+int64(read))
		read += m
		if err != nil && read < n {
			return nil, fmt.Errorf("read a segment: %w", err)
		}
	}
	r.n = read
	return r.buf[:min(n, read)], nil
}
