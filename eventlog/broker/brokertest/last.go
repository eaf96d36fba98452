package brokertest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// transaction names one transaction: each commit raises its producer's epoch.
type transaction struct {
	producer int64
	epoch    int16
}

// tail is how a partition ends.
type tail struct {
	dir       string
	topic     string
	partition int32
	marker    bool // in the commit of transaction
	transaction
}

// TearLast takes the last transaction of each producer back out of the partitions that choose names, as if the process had died in
// the middle of its commit. What a kill cannot leave it does not make: a transaction that its producer has outlived stays whole, and
// at least one partition keeps the commit, since one without any was never answered. dir is left unclean. It returns the
// number of commits taken back.
func TearLast(dir string, choose func(topic string, partition int32) bool) (int, error) {
	tails, left, last, err := scanCommits(dir)
	if err != nil {
		return 0, fmt.Errorf("tear %s: %w", dir, err)
	}
	torn := 0
	for _, t := range tails {
		if !t.marker || last[t.producer] != t.epoch || left[t.transaction] < 2 || !choose(t.topic, t.partition) {
			continue
		}
		dropped, err := dropMarker(t.dir)
		if err != nil {
			return torn, fmt.Errorf("tear %s[%d]: %w", t.topic, t.partition, err)
		}
		if dropped {
			left[t.transaction]--
			torn++
		}
	}
	return torn, Soil(dir)
}

// HalfWrite leaves half a batch at the end of the partitions that choose names, and half an entry at the end of the log of
// the groups' offsets: the process died while it wrote them. dir is left unclean. It returns the number of files.
func HalfWrite(dir string, choose func(topic string, partition int32) bool) (int, error) {
	tails, _, _, err := scanCommits(dir)
	if err != nil {
		return 0, fmt.Errorf("write by halves in %s: %w", dir, err)
	}
	halves := 0
	for _, t := range tails {
		if !choose(t.topic, t.partition) {
			continue
		}
		path, err := lastSegment(t.dir)
		if err != nil {
			return halves, err
		}
		var last []byte
		err = eachBatch(path, func(raw []byte) { last = raw })
		if err != nil {
			return halves, fmt.Errorf("read %s: %w", path, err)
		}
		if last == nil {
			continue
		}
		if err := appendFile(path, last[:len(last)/2]); err != nil {
			return halves, err
		}
		halves++
	}
	groups := filepath.Join(dir, "store", "groups.log")
	raw, err := os.ReadFile(groups)
	if err != nil {
		return halves, fmt.Errorf("read the groups' offsets: %w", err)
	}
	const prefix = 8 // bytes of length and checksum before an entry
	if len(raw) > prefix {
		if err := appendFile(groups, raw[:prefix+int(binary.LittleEndian.Uint32(raw))/2]); err != nil {
			return halves, err
		}
		halves++
	}
	return halves, Soil(dir)
}

// scanCommits reads how each partition ends, in how many partitions each commit stands, and each producer's last one.
func scanCommits(dir string) (tails []tail, partitions map[transaction]int, last map[int64]int16, err error) {
	folders, err := os.ReadDir(filepath.Join(dir, "store", "partitions"))
	if err != nil {
		return nil, nil, nil, fmt.Errorf("list partitions: %w", err)
	}
	partitions, last = map[transaction]int{}, map[int64]int16{}
	for _, f := range folders {
		cut := strings.LastIndexByte(f.Name(), '-')
		p, err := strconv.ParseInt(f.Name()[cut+1:], 10, 32)
		if cut < 0 || err != nil {
			return nil, nil, nil, fmt.Errorf("%q is no partition", f.Name())
		}
		t := tail{dir: filepath.Join(dir, "store", "partitions", f.Name()), topic: f.Name()[:cut], partition: int32(p)}
		segments, err := filepath.Glob(filepath.Join(t.dir, "*.dat"))
		if err != nil {
			return nil, nil, nil, fmt.Errorf("list segments: %w", err)
		}
		end, err := lastSegment(t.dir)
		if err != nil {
			return nil, nil, nil, err
		}
		for _, s := range segments {
			err := eachBatch(s, func(raw []byte) {
				id, commits := commitOf(raw)
				if commits {
					partitions[id]++
					last[id.producer] = max(last[id.producer], id.epoch)
				}
				if s == end {
					t.marker, t.transaction = commits, id
				}
			})
			if err != nil {
				return nil, nil, nil, fmt.Errorf("read %s: %w", s, err)
			}
		}
		tails = append(tails, t)
	}
	return tails, partitions, last, nil
}

// commitOf reads a batch as the marker that commits a transaction.
func commitOf(raw []byte) (id transaction, commits bool) {
	id = transaction{int64(binary.BigEndian.Uint64(raw[43:])), int16(binary.BigEndian.Uint16(raw[51:]))}
	if binary.BigEndian.Uint16(raw[21:])&control == 0 {
		return id, false
	}
	var r kmsg.Record
	var key kmsg.ControlRecordKey
	if r.ReadFrom(raw[61:]) != nil || key.ReadFrom(r.Key) != nil {
		return id, false
	}
	return id, key.Type == kmsg.ControlRecordKeyTypeCommit
}

// eachBatch calls f with each whole batch of a segment.
func eachBatch(path string, f func(raw []byte)) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err //nolint:wrapcheck // the caller names the file
	}
	for len(raw) >= 61 {
		n := 12 + int(binary.BigEndian.Uint32(raw[8:]))
		if n < 61 || n > len(raw) {
			break // what a kill tore
		}
		f(raw[:n])
		raw = raw[n:]
	}
	return nil
}

func appendFile(path string, raw []byte) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("append to %s: %w", path, err)
	}
	_, err = f.Write(raw)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("append to %s: %w", path, err)
	}
	return nil
}
