package broker

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Why the broker takes nothing, or does not start.
var (
	// ErrTooBig says that the log is larger than memory allows to load.
	ErrTooBig = errors.New("the log is larger than the memory to load it")
	// ErrOverBudget says that the log has reached Options.MaxBytes.
	ErrOverBudget = errors.New("the log has reached its budget")
	// ErrNoSpace says that the disk under the log is nearly full.
	ErrNoSpace = errors.New("the disk is nearly full")
)

// sizer knows how large the log is and how much room the disk has, at most sizerAge late.
type sizer struct {
	dir               string
	minFree, maxBytes int64

	bytes, free atomic.Int64
	at          atomic.Int64 // Unix nanoseconds of the last look
	looking     sync.Mutex
}

// sizerAge bounds how wrong Full can be: at 250 MB/s, the most that one core appends, it is a quarter of the default budget.
const sizerAge = time.Second

// look measures again when the last time is too long ago: who asks pays, so that an idle broker costs nothing.
func (s *sizer) look(now time.Time) {
	if now.UnixNano()-s.at.Load() > int64(sizerAge) && s.looking.TryLock() {
		s.refresh(now)
		s.looking.Unlock()
	}
}

// full says why nothing more should be accepted.
func (s *sizer) full(now time.Time) error {
	s.look(now)
	return verdict(s.bytes.Load(), s.maxBytes, s.free.Load(), s.minFree)
}

// verdict decides whether there is room.
func verdict(size, maxBytes, free, minFree int64) error {
	switch {
	case free < minFree:
		return fmt.Errorf("%w: %s free, and %s must stay free", ErrNoSpace, human(free), human(minFree))
	case size >= maxBytes:
		return fmt.Errorf("%w: %s of %s", ErrOverBudget, human(size), human(maxBytes))
	}
	return nil
}

func (s *sizer) refresh(now time.Time) {
	if size, err := dirBytes(storeDir(s.dir)); err == nil { // a file may vanish under the walk; the last size stands then
		s.bytes.Store(size)
	}
	if free, err := freeBytes(s.dir); err == nil {
		s.free.Store(free)
	}
	s.at.Store(now.UnixNano())
}

// dirBytes is the size of all files under dir.
func dirBytes(dir string) (size int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		if info, err := d.Info(); err == nil && info.Mode().IsRegular() {
			size += info.Size()
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("measure %s: %w", dir, err)
	}
	return size, nil
}

func freeBytes(dir string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("ask for the free space under %s: %w", dir, err)
	}
	return int64(st.Bavail) * int64(st.Bsize), nil //nolint:unconvert // the types differ by system
}

// checkMemory refuses a log that would not fit: after a crash all of it is decoded in memory at once
// (measured: peak RSS about the size of the log).
func (b *Broker) checkMemory() error {
	size, err := dirBytes(storeDir(b.opts.Dir))
	if err != nil {
		return err
	}
	limit := b.opts.MaxMemory
	if limit <= 0 {
		limit = memory() / 4 * 3
	}
	if limit > 0 && size > limit {
		return fmt.Errorf("%w: %s in %s, and %s may be used: give this process more memory, raise the limit if there is more, or start on a new directory and keep this one aside",
			ErrTooBig, human(size), b.opts.Dir, human(limit))
	}
	if free, err := freeBytes(b.opts.Dir); err == nil && free < b.opts.MinFree/4 {
		return fmt.Errorf("%w: %s free under %s: free some, since a log that cannot be written to cannot be served", ErrNoSpace, human(free), b.opts.Dir)
	}
	return nil
}

// memory is what this process may have, in bytes: the machine's, or its cgroup's if that is less; zero if neither can be read.
func memory() int64 {
	total := int64(0)
	if raw, err := os.ReadFile("/proc/meminfo"); err == nil {
		lines := bufio.NewScanner(bytes.NewReader(raw))
		for lines.Scan() {
			if f := strings.Fields(lines.Text()); len(f) >= 2 && f[0] == "MemTotal:" {
				kib, _ := strconv.ParseInt(f[1], 10, 64)
				total = kib << 10
			}
		}
	}
	if raw, err := os.ReadFile("/sys/fs/cgroup/memory.max"); err == nil {
		if limit, err := strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64); err == nil && (total == 0 || limit < total) {
			total = limit
		}
	}
	return total
}

// human writes a size as people do.
func human(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%d bytes", n)
}
