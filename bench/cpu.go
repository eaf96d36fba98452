package bench

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"
)

// clockTick is the unit of CPU times in /proc: USER_HZ, which is 100 a second on every architecture that Go runs on.
const clockTick = 10 * time.Millisecond

// processCPU is what another process has used, user and system, without its children; to 10 ms. Linux only.
func processCPU(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read the CPU time of a process: %w", err)
	}
	return parseStat(text, false)
}

// familyCPU is processCPU with what those of its children used that have ended. A process whose children go and come, as PostgreSQL's do, is
// measured with them and with those that run.
func familyCPU(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read the CPU time of a process: %w", err)
	}
	return parseStat(text, true)
}

// parseStat reads utime and stime, the 14th and 15th field; the second, the name, may hold anything but ends in the last parenthesis.
//
// reaped adds those of children that have ended and were waited for, the 16th and 17th.
func parseStat(text []byte, reaped bool) (time.Duration, error) {
	at := bytes.LastIndexByte(text, ')')
	fields := strings.Fields(string(text[at+1:]))
	if at < 0 || len(fields) < 15 {
		return 0, errors.New("read the CPU time of a process: not the form of /proc/<pid>/stat")
	}
	used := fields[11:13]
	if reaped {
		used = fields[11:15]
	}
	var ticks int64
	for _, field := range used {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read the CPU time of a process: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * clockTick, nil
}

// peakRSS is the most memory that a process had resident, in bytes.
func peakRSS(pid int) (int64, error) { return statusBytes(pid, "VmHWM") }

// fileRSS is how much of a process's resident memory are pages of files, in bytes: its own program's, of which the kernel can take back
// what it likes.
func fileRSS(pid int) (int64, error) { return statusBytes(pid, "RssFile") }

// statusBytes is a field of /proc/<pid>/status. os.ErrProcessDone: a process that has ended has none.
func statusBytes(pid int, field string) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if errors.Is(err, fs.ErrNotExist) {
		err = os.ErrProcessDone
	}
	if err != nil {
		return 0, fmt.Errorf("read the memory of a process: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			fields := strings.Fields(rest)
			if len(fields) == 2 && fields[1] == "kB" {
				kib, err := strconv.ParseInt(fields[0], 10, 64)
				return kib << 10, err
			}
		}
	}
	return 0, fmt.Errorf("read the memory of a process: no %s: %w", field, os.ErrProcessDone)
}

// forgetPeak lets the peak of a process's resident memory begin at what it has now.
func forgetPeak(pid int) error {
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5\n"), 0o200); err != nil {
		return fmt.Errorf("let a peak of memory begin anew: %w", err)
	}
	return nil
}

// childrenOf are the processes that a process has started.
func childrenOf(pid int) ([]int, error) {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return nil, fmt.Errorf("read the children of a process: %w", err)
	}
	var pids []int
	for _, task := range tasks {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, task.Name()))
		if err != nil {
			continue // a thread that has ended since
		}
		for field := range strings.FieldsSeq(string(text)) {
			if n, err := strconv.Atoi(field); err == nil {
				pids = append(pids, n)
			}
		}
	}
	return pids, nil
}

// loadAverage is the machine's, as the kernel writes it; empty where it cannot be read.
func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return ""
	}
	fields := strings.Fields(string(text))
	return strings.Join(fields[:min(3, len(fields))], " ")
}
