// Package cpu reads how much CPU time was used where this process runs: in the control group that bounds it, or on the machine.
package cpu

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/procfs"
)

// Reader reads from the file systems of the Linux kernel. The zero value does not work; New returns one that does.
type Reader struct {
	proc, cgroup string // where they are mounted
	began        time.Time
	now          func() time.Time
}

// New returns a Reader.
func New() *Reader {
	return &Reader{proc: procfs.DefaultMountPoint, cgroup: "/sys/fs/cgroup", began: time.Now(), now: time.Now}
}

// Read returns the CPU time that was used and how much there was, since some moment in the past that does not change. Where a control
// group (version 2) bounds the CPU time of this process, both are the group's; else they are the machine's, and processes that stand
// back for others (nice) do not count, nor does anything count as free that the machine's host took away (steal). Where there is no
// procfs, it returns an error.
func (r *Reader) Read() (used, all time.Duration, err error) {
	fs, err := procfs.NewFS(r.proc)
	if err != nil {
		return 0, 0, fmt.Errorf("read the CPU time: %w", err)
	}
	if used, all, ok := r.ofGroup(fs); ok {
		return used, all, nil
	}
	stat, err := fs.Stat()
	if err != nil {
		return 0, 0, fmt.Errorf("read the CPU time: %w", err)
	}
	c := stat.CPUTotal
	busy := c.User + c.System + c.IRQ + c.SoftIRQ + c.Steal
	return seconds(busy), seconds(busy + c.Nice + c.Idle + c.Iowait), nil
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// ofGroup reads the nearest control group around this process that has a limit; ok is false where none has.
func (r *Reader) ofGroup(fs procfs.FS) (used, all time.Duration, ok bool) {
	self, err := fs.Self()
	if err != nil {
		return 0, 0, false
	}
	groups, err := self.Cgroups()
	if err != nil {
		return 0, 0, false
	}
	for _, g := range groups {
		if g.HierarchyID != 0 { // of version 1
			continue
		}
		for path := filepath.Clean("/" + g.Path); ; path = filepath.Dir(path) {
			folder := filepath.Join(r.cgroup, path)
			if cores, err := limit(filepath.Join(folder, "cpu.max")); err == nil {
				used, err := usage(filepath.Join(folder, "cpu.stat"))
				return used, time.Duration(cores * float64(r.now().Sub(r.began))), err == nil
			}
			if path == "/" {
				break
			}
		}
	}
	return 0, 0, false
}

var errNoLimit = errors.New("no limit")

// limit reads a cpu.max: how much a group may use in which time, both in microseconds, or "max". It returns cores.
func limit(path string) (cores float64, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	most, period, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
	if most == "max" {
		return 0, errNoLimit
	}
	m, err := strconv.ParseFloat(most, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	p, err := strconv.ParseFloat(period, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	if m <= 0 || p <= 0 {
		return 0, fmt.Errorf("%s: %q: %w", path, text, errNoLimit)
	}
	return m / p, nil
}

// usage reads the line usage_usec of a cpu.stat.
func usage(path string) (time.Duration, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if us, ok := strings.CutPrefix(line, "usage_usec "); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(us), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("%s: %w", path, err)
			}
			return time.Duration(n) * time.Microsecond, nil
		}
	}
	return 0, fmt.Errorf("%s has no usage_usec", path)
}
