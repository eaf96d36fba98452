//go:build !static

package chdb

import (
	"fmt"
	"unsafe"

	"github.com/ebitengine/purego"
)

// signals saves and restores what the process does on each signal. libchdb installs handlers of its own, and resets the
// deadly signals to the system's defaults at every connect. Go needs its own: with chDB's, a nil dereference that Go code
// recovers from hangs the process for minutes instead.
type signals struct {
	sigaction func(sig int32, act, old unsafe.Pointer) int32
}

// disposition is a struct sigaction of glibc (152 bytes on x86-64) with room to spare.
type disposition [256]byte

// lastSignal is SIGRTMAX.
const lastSignal = 64

func loadSignals() (signals, error) {
	libc, err := purego.Dlopen("libc.so.6", purego.RTLD_NOW|purego.RTLD_GLOBAL)
	if err != nil {
		return signals{}, fmt.Errorf("load libc: %w", err)
	}
	symbol, err := purego.Dlsym(libc, "sigaction")
	if err != nil {
		return signals{}, fmt.Errorf("load libc: %w", err)
	}
	var s signals
	purego.RegisterFunc(&s.sigaction, symbol)
	return s, nil
}

func (s signals) save() *[lastSignal + 1]disposition {
	var all [lastSignal + 1]disposition
	for n := range all {
		if fixed(n) {
			continue
		}
		s.sigaction(int32(n), nil, unsafe.Pointer(&all[n])) //nolint:gosec // n is at most 64, and C fills the struct.
	}
	return &all
}

// restore sets back what has changed since save.
func (s signals) restore(before *[lastSignal + 1]disposition) {
	now := s.save()
	for n := range before {
		if fixed(n) || before[n] == now[n] {
			continue
		}
		s.sigaction(int32(n), unsafe.Pointer(&before[n]), nil) //nolint:gosec // as above
	}
}

// fixed are the numbers that nobody may change: none, SIGKILL, SIGSTOP, and the two that glibc's threads use.
func fixed(n int) bool { return n == 0 || n == 9 || n == 19 || n == 32 || n == 33 }
