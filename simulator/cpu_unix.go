//go:build unix

package simulator

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// processCPU is the CPU time of this process, user and system.
func processCPU() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// processPeak is the most memory that the process has had, bytes. The kernel of Linux counts in KiB, that of macOS in bytes.
func processPeak() int64 {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	if runtime.GOOS == "darwin" {
		return int64(u.Maxrss) //nolint:unconvert // 32 bits wide on some systems
	}
	return int64(u.Maxrss) << 10 //nolint:unconvert // as above
}
