package chaos

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is a command that is started again whenever it ends, as an init system does, until it is ended. <dir>/<name>.pid and
// <dir>/<name>.log are its own, so that a run that was broken off can be cleaned up and read.
type process struct {
	name    string
	dir     string
	host    *host
	command func() *exec.Cmd

	mu      sync.Mutex
	running *exec.Cmd // nil: between two lives
	lives   int
	wanted  bool
	expect  bool // of this life: its end is our doing
	falls   int  // lives that ended by themselves
	held    bool // not started again until release
	changed chan struct{}
	ended   chan struct{}
}

// afterFall is how long a process that ended by itself waits for its next life.
const afterFall = time.Second

// run starts the process and keeps it running. end must be called.
func (p *process) run() {
	p.wanted, p.changed, p.ended = true, make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(p.ended)
		for p.live() {
		}
	}()
}

// live is one life; false when there shall be no other.
func (p *process) live() bool {
	p.mu.Lock()
	for p.wanted && p.held {
		p.mu.Unlock()
		<-p.changed
		p.mu.Lock()
	}
	if !p.wanted {
		p.mu.Unlock()
		return false
	}
	cmd, err := p.launch()
	if err == nil {
		p.running, p.expect = cmd, false
		p.lives++
	}
	p.mu.Unlock()
	if err == nil {
		err = cmd.Wait()
	}
	p.mu.Lock()
	p.running = nil
	fell := !p.expect
	wanted := p.wanted
	if fell {
		p.falls++
	}
	p.mu.Unlock()
	if fell && wanted {
		p.note(fmt.Sprintf("chaos: ended by itself: %v", err))
		timer := time.NewTimer(afterFall)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-p.changed:
		}
	}
	return wanted
}

// launch starts the command with its output at the end of the log.
func (p *process) launch() (*exec.Cmd, error) {
	out, err := os.OpenFile(p.file("log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	defer func() { _ = out.Close() }()
	cmd := p.command()
	cmd.Stdout, cmd.Stderr = out, out
	if err := p.host.start(cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	return cmd, os.WriteFile(p.file("pid"), []byte(strconv.Itoa(cmd.Process.Pid)+"\n"), 0o600)
}

func (p *process) file(kind string) string { return filepath.Join(p.dir, p.name+"."+kind) }

// note adds a line to the process's log.
func (p *process) note(line string) {
	f, err := os.OpenFile(p.file("log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return
	}
	_, _ = f.WriteString(time.Now().Format(time.RFC3339Nano) + " " + line + "\n")
	_ = f.Close()
}

// signal sends the running life a signal; false: there is none.
func (p *process) signal(s syscall.Signal) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running == nil {
		return false
	}
	if s == syscall.SIGKILL || s == syscall.SIGTERM {
		p.expect = true
	}
	return p.running.Process.Signal(s) == nil
}

// kill ends this life at once; the next begins.
func (p *process) kill() bool {
	p.note("chaos: killed")
	return p.signal(syscall.SIGKILL)
}

// hold kills the process and keeps it down until release.
func (p *process) hold() {
	p.mu.Lock()
	p.held = true
	p.mu.Unlock()
	p.kill()
}

func (p *process) release() {
	p.mu.Lock()
	p.held = false
	p.mu.Unlock()
	p.wake()
}

func (p *process) wake() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// goodbye is how long a process may take to end when asked.
const goodbye = 45 * time.Second

// end asks the process to end for good, waits, and kills what does not end. Its error says that it had to.
func (p *process) end() error {
	p.mu.Lock()
	p.wanted = false
	p.mu.Unlock()
	p.wake()
	p.signal(syscall.SIGCONT)
	p.signal(syscall.SIGTERM)
	timer := time.NewTimer(goodbye)
	defer timer.Stop()
	defer func() { _ = os.Remove(p.file("pid")) }()
	select {
	case <-p.ended:
		return nil
	case <-timer.C:
	}
	p.kill()
	<-p.ended
	return fmt.Errorf("%s did not end within %s of being asked", p.name, goodbye)
}

// state is how many lives there were, and how many ended by themselves.
func (p *process) state() (lives, falls int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lives, p.falls
}

// answers reports whether a URL answers 200.
func answers(ctx context.Context, url string) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return false
	}
	_ = response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// endLeftovers kills what an earlier run in dir left running: the processes of its pid files, if their command lines name dir.
func endLeftovers(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.pid"))
	if err != nil {
		return err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("clean up after an earlier run: %w", err)
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err == nil {
			line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			if strings.Contains(string(line), dir+"/") {
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
					return fmt.Errorf("clean up after an earlier run: %w", err)
				}
			}
		}
		if err := os.Remove(file); err != nil {
			return fmt.Errorf("clean up after an earlier run: %w", err)
		}
	}
	return nil
}
