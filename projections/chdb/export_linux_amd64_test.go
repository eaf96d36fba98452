//go:build !static

package chdb

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// ProvokeSignals has four sessions query under a CPU profile (SIGPROF) while this process dereferences nil and recovers
// (SIGSEGV), and is sent SIGTERM. It returns an error, or hangs, where a signal does not reach Go.
func ProvokeSignals(dir string) error {
	path, err := FindLibrary()
	if err != nil {
		return err
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	e, err := openEngine(path, dir, 0)
	if err != nil {
		return err
	}
	if err := pprof.StartCPUProfile(io.Discard); err != nil {
		return err
	}
	defer pprof.StopCPUProfile()
	var stop atomic.Bool
	var wg sync.WaitGroup
	failed := make(chan error, 4)
	for range 4 {
		s, err := e.connect()
		if err != nil {
			return err
		}
		wg.Go(func() {
			defer s.close()
			for !stop.Load() {
				if err := s.exec("SELECT sum(number) FROM numbers(100000)"); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	recovered := 0
	for range 50 {
		if dereferenceNil() {
			recovered++
		}
	}
	stop.Store(true)
	wg.Wait()
	select {
	case err := <-failed:
		return err
	default:
	}
	if recovered != 50 {
		return fmt.Errorf("recovered from %d of 50 nil dereferences", recovered)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-term:
		return nil
	case <-time.After(10 * time.Second):
		return errors.New("SIGTERM did not reach Go")
	}
}

func dereferenceNil() (recovered bool) {
	defer func() { recovered = recover() != nil }()
	var p *struct{ n int }
	p.n++
	return false
}
