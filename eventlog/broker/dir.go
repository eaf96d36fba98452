package broker

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// ErrLocked says that another process has the data directory.
var ErrLocked = errors.New("the data directory is in use")

// Files of the data directory, beside kfake's own in store.
const (
	lockFile   = "lock"
	dirtyFile  = "dirty"
	stateFile  = "broker.json"
	socketDir  = "run" // nobody else may enter it
	socketFile = "broker.sock"
	socketPath = "broker.sock.path" // where the socket is, if its path would have been too long
)

// A lock is asked for again for half a second: whoever held it may be ending, and a child of its making holds it too between fork
// and exec.
const (
	lockTries = 25
	lockPause = 20 * time.Millisecond
)

// lockDir takes the directory for this process until the file is closed or the process ends.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the data directory: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	for try := 0; errors.Is(err, syscall.EWOULDBLOCK) && try < lockTries; try++ {
		<-time.After(lockPause)
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}
	if err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: another campanile runs on %s: stop it, or choose another directory", ErrLocked, dir)
		}
		return nil, fmt.Errorf("lock the data directory %s: %w", dir, err)
	}
	return f, nil
}

// state outlives the process.
type state struct {
	// Boots counts the starts.
	Boots int64 `json:"boots"`
	// Compacted is the size in bytes of the compacted topics after the last compaction.
	Compacted int64 `json:"compacted_bytes"`
}

func readState(dir string) (state, error) {
	raw, err := os.ReadFile(filepath.Join(dir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return state{}, nil
	}
	if err != nil {
		return state{}, fmt.Errorf("read the broker's state: %w", err)
	}
	var s state
	if err := json.Unmarshal(raw, &s); err != nil {
		return state{}, fmt.Errorf("read the broker's state in %s: %w", filepath.Join(dir, stateFile), err)
	}
	return s, nil
}

func writeState(dir string, s state) error {
	raw, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("write the broker's state: %w", err)
	}
	return replaceFile(filepath.Join(dir, stateFile), raw)
}

// replaceFile puts a file in place whole: a reader, or a start after a crash, finds the old one or the new one.
func replaceFile(path string, content []byte) error {
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.Write(content)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes names that were created or removed in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}

// isDirty reports whether the last process did not come to the end of Close, and whether the machine may have been
// restarted since it began.
func isDirty(dir string) (dirty, rebooted bool, err error) {
	boot, err := os.ReadFile(filepath.Join(dir, dirtyFile))
	if errors.Is(err, fs.ErrNotExist) {
		return false, false, nil
	}
	if err != nil {
		return false, false, fmt.Errorf("look for an unclean stop: %w", err)
	}
	return true, len(boot) == 0 || string(boot) != bootID(), nil
}

// markDirty notes that a process has the directory, and in which life of the machine.
func markDirty(dir string) error { return replaceFile(filepath.Join(dir, dirtyFile), []byte(bootID())) }

// bootID names this life of the machine; empty where it has no name.
func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "" // not Linux: every unclean stop counts as one of the machine
	}
	return string(id)
}

func clearDirty(dir string) error {
	if err := os.Remove(filepath.Join(dir, dirtyFile)); err != nil {
		return fmt.Errorf("mark the log as closed cleanly: %w", err)
	}
	return syncDir(dir)
}
