package bench

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"
)

func TestCPUTimesOfAProcessAreRead(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text string
		want time.Duration
		bad  bool
	}{
		{"1 (a) S 0 1 1 0 -1 4194304 1 2 3 4 150 25 7 8 20 0 1 0 5 6 7", 1750 * time.Millisecond, false},
		{"1 (evil ) (name) R 0 1 1 0 -1 4194304 1 2 3 4 1 2 7 8", 30 * time.Millisecond, false},
		{"1 (a) S 0 1 1", 0, true},
		{"1 (a) S 0 1 1 0 -1 4194304 1 2 3 4 x 25", 0, true},
		{"", 0, true},
	} {
		got, err := parseStat([]byte(c.text), false)
		if (err != nil) != c.bad || !c.bad && got != c.want {
			t.Errorf("%q: want %v, bad=%v, got %v, %v", c.text, c.want, c.bad, got, err)
		}
	}
	const family = "1 (a) S 0 1 1 0 -1 4194304 1 2 3 4 150 25 7 8 20 0 1 0 5 6 7"
	if got, err := parseStat([]byte(family), true); err != nil || got != 1900*time.Millisecond {
		t.Errorf("with children that have ended: want 1.9s, got %v, %v", got, err)
	}
}

func TestThisProcessCanBeMeasuredFromOutside(t *testing.T) {
	t.Parallel()
	if _, err := processCPU(os.Getpid()); err != nil {
		t.Error(err)
	}
	if n, err := peakRSS(os.Getpid()); err != nil || n < 1<<20 {
		t.Errorf("want more than a megabyte, got %d, %v", n, err)
	}
	if _, err := childrenOf(os.Getpid()); err != nil {
		t.Error(err)
	}
}

func TestAProcessThatHasEndedHasNoMemory(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), "true")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, out); err != nil { // until it is about to end
		t.Fatal(err)
	}
	ended := func() bool {
		_, err := peakRSS(cmd.Process.Pid)
		return errors.Is(err, os.ErrProcessDone)
	}
	for !ended() { // nobody has waited for it: it is a zombie
		runtime.Gosched()
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if !ended() {
		t.Error("want a process that is gone to have ended")
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("1 (a) S 0 1 1 0 -1 4194304 1 2 3 4 150 25 7 8 20"))
	f.Add([]byte(")"))
	f.Fuzz(func(_ *testing.T, text []byte) {
		_, _ = parseStat(text, len(text)%2 == 0) // no input panics
	})
}
