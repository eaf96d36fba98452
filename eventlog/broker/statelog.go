package broker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// kfake's own logs, of committed offsets and of producer ids: entries of length, checksum, version and JSON. kfake reads one up
// to the first torn entry and goes on appending after it, so that the next unclean start would forget all that came since.
const (
	groupsLog = "groups.log"
	pidsLog   = "pids.log"
)

const (
	entryPrefix = 8 // bytes of length and checksum, little-endian
	entryLeast  = 2 // bytes of an entry's version, which its length counts
)

// repairStateLogs cuts torn ends off, and returns in how many files.
func repairStateLogs(store string) (cut int, err error) {
	for _, name := range []string{groupsLog, pidsLog} {
		path := filepath.Join(store, name)
		raw, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return cut, fmt.Errorf("read %s: %w", path, err)
		}
		whole := wholeEntries(raw)
		if whole == len(raw) {
			continue
		}
		if err := os.Truncate(path, int64(whole)); err != nil {
			return cut, fmt.Errorf("cut the torn end off %s: %w", path, err)
		}
		cut++
	}
	return cut, nil
}

// wholeEntries is the number of bytes before the first entry that is not whole.
func wholeEntries(raw []byte) int {
	pos := 0
	for len(raw)-pos >= entryPrefix {
		n := int64(binary.LittleEndian.Uint32(raw[pos:]))
		if n < entryLeast || n > int64(len(raw)-pos-entryPrefix) {
			break
		}
		entry := raw[pos+entryPrefix : pos+entryPrefix+int(n)]
		// The length counts version and data, not the checksum.
		if checksum(entry) != binary.LittleEndian.Uint32(raw[pos+4:]) {
			break
		}
		pos += entryPrefix + int(n)
	}
	return pos
}
