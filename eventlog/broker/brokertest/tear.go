// Package brokertest puts a stopped data directory of the embedded broker into states that a killed process leaves.
package brokertest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// control is the attribute of a batch that ends a transaction.
const control = 0x20

// indexEntry is the size of an entry of kfake's index: one for each batch.
const indexEntry = 15

// Tear makes the last transaction of each partition that choose names torn, as if the process had died in the middle of its
// commit: where a partition ends in a marker, the marker is gone. topic is the topic's name in the cluster. dir is left
// unclean. It returns the number of markers dropped.
func Tear(dir string, choose func(topic string, partition int32) bool) (int, error) {
	torn := 0
	folders, err := os.ReadDir(filepath.Join(dir, "store", "partitions"))
	if err != nil {
		return 0, fmt.Errorf("tear %s: %w", dir, err)
	}
	for _, f := range folders {
		cut := strings.LastIndexByte(f.Name(), '-')
		p, err := strconv.ParseInt(f.Name()[cut+1:], 10, 32)
		if cut < 0 || err != nil {
			return torn, fmt.Errorf("tear %s: %q is no partition", dir, f.Name())
		}
		if !choose(f.Name()[:cut], int32(p)) {
			continue
		}
		dropped, err := dropMarker(filepath.Join(dir, "store", "partitions", f.Name()))
		if err != nil {
			return torn, fmt.Errorf("tear %s: %w", f.Name(), err)
		}
		if dropped {
			torn++
		}
	}
	return torn, Soil(dir)
}

// Soil marks dir as one that was not closed, and of which nobody knows whether the machine went down with it. What a killed process
// left is marked already, and stays as it is.
func Soil(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, "dirty")); err == nil {
		return nil
	}
	if err := os.WriteFile(filepath.Join(dir, "dirty"), nil, 0o600); err != nil {
		return fmt.Errorf("soil %s: %w", dir, err)
	}
	return nil
}

// Copy copies a data directory, also one in use: what the copy holds is what a process killed at this moment would leave, if
// nobody writes meanwhile.
func Copy(from, to string) error {
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err //nolint:wrapcheck // wrapped below
		}
		target := filepath.Join(to, rel)
		switch {
		case d.IsDir():
			return os.MkdirAll(target, 0o700) //nolint:wrapcheck // wrapped below
		case !d.Type().IsRegular():
			return nil // the socket
		}
		raw, err := os.ReadFile(path) //nolint:gosec // the test's own directory
		if err != nil {
			return err //nolint:wrapcheck // wrapped below
		}
		return os.WriteFile(target, raw, 0o600) //nolint:wrapcheck,gosec // wrapped below; the test's own directory
	})
	if err != nil {
		return fmt.Errorf("copy %s: %w", from, err)
	}
	return nil
}

// dropMarker cuts the last batch off a partition if it is a marker.
func dropMarker(dir string) (bool, error) {
	path, err := lastSegment(dir)
	if err != nil || path == "" {
		return false, err
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return false, fmt.Errorf("read a segment: %w", err)
	}
	last, batches := -1, 0
	for pos := 0; pos+61 <= len(raw); batches++ {
		last = pos
		pos += 12 + int(binary.BigEndian.Uint32(raw[pos+8:]))
	}
	if last < 0 || binary.BigEndian.Uint16(raw[last+21:])&control == 0 {
		return false, nil
	}
	index := strings.TrimSuffix(path, ".dat") + ".idx"
	if err := errors.Join(os.Truncate(path, int64(last)), os.Truncate(index, int64(batches-1)*indexEntry)); err != nil {
		return false, fmt.Errorf("cut a marker off: %w", err)
	}
	return true, nil
}

// lastSegment is the newest segment of a partition; empty if there is none.
func lastSegment(dir string) (string, error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return "", fmt.Errorf("list segments: %w", err)
	}
	var bases []int64
	for _, f := range files {
		name, ok := strings.CutSuffix(f.Name(), ".dat")
		if base, err := strconv.ParseInt(name, 10, 64); ok && err == nil {
			bases = append(bases, base)
		}
	}
	if len(bases) == 0 {
		return "", nil
	}
	return filepath.Join(dir, strconv.FormatInt(slices.Max(bases), 10)+".dat"), nil
}
