package chaos

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// newProcess starts a shell whose command line names dir.
func newProcess(t *testing.T, script string) *process {
	t.Helper()
	dir := t.TempDir()
	p := &process{name: "role", dir: dir, host: &host{}, command: func() *exec.Cmd { return exec.Command("sh", "-c", script, dir+"/role") }}
	p.run()
	t.Cleanup(func() {
		if err := p.end(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// eventually polls until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatal("still not: ", what)
		case <-tick.C:
		}
	}
}

func (p *process) is(lives, falls int) bool {
	l, f := p.state()
	return l == lives && f == falls && p.signal(syscall.Signal(0)) == (l > 0)
}

func TestAKilledProcessLivesAgain(t *testing.T) {
	t.Parallel()
	p := newProcess(t, "echo I live; exec sleep 1000")
	for life := 1; life <= 3; life++ {
		eventually(t, fmt.Sprintf("life %d, and the log of all", life), func() bool {
			text, err := os.ReadFile(p.file("log"))
			return p.is(life, 0) && err == nil && strings.Count(string(text), "I live") == life && strings.Count(string(text), "chaos: killed") == life-1
		})
		if life < 3 && !p.kill() {
			t.Fatal("there was nothing to kill")
		}
	}
}

func TestAProcessThatEndsByItselfIsCounted(t *testing.T) {
	t.Parallel()
	p := newProcess(t, "[ -e $0 ] && exec sleep 1000; touch $0; exit 3")
	eventually(t, "a second life", func() bool { return p.is(2, 1) })
}

func TestAHeldProcessWaits(t *testing.T) {
	t.Parallel()
	p := newProcess(t, "exec sleep 1000")
	eventually(t, "a life", func() bool { return p.is(1, 0) })
	p.hold()
	eventually(t, "its end", func() bool { return !p.signal(syscall.Signal(0)) })
	p.release()
	eventually(t, "another life", func() bool { return p.is(2, 0) })
}

func TestAStoppedProcessCanBeEnded(t *testing.T) {
	t.Parallel()
	p := newProcess(t, "exec sleep 1000")
	eventually(t, "a life", func() bool { return p.is(1, 0) })
	if !p.signal(syscall.SIGSTOP) {
		t.Fatal("it was not running")
	}
	// end of the cleanup wakes it
}

func TestWhatARunLeftIsEnded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	start := func(name, argument string) *exec.Cmd {
		cmd := exec.Command("sh", "-c", "sleep 1000 & wait", argument)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name+".pid"), []byte(strconv.Itoa(cmd.Process.Pid)+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	ours, other := start("ours", dir+"/config"), start("other", "/somewhere/else")
	t.Cleanup(func() {
		_ = other.Process.Kill()
		_ = other.Wait()
	})
	if err := endLeftovers(dir); err != nil {
		t.Fatal(err)
	}
	if err := ours.Wait(); err == nil {
		t.Error("what was ours ended well: it was to be killed")
	}
	if err := other.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("another's process with a pid that was ours once: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*.pid")); len(left) > 0 {
		t.Errorf("pid files are left: %v", left)
	}
}
