package chdb

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ChildOptions say how to run the engine beside this process.
type ChildOptions struct {
	// Executable and Args are the command that ends in ServeChild. Empty Executable: this program's own.
	Executable string
	Args       []string
	Env        []string // added to this process's environment
	// Database is the one that URL names; empty: campanile. It need not be there yet.
	Database string
	// StartTimeout is how long a start may take until the engine answers. 0: one minute. A start takes half a second; the
	// first from a cold disk, or after a kill in the middle of a merge, some seconds.
	StartTimeout time.Duration
	// MaxBackoff bounds the wait before the engine is started again. 0: ten seconds.
	MaxBackoff time.Duration
	Logger     *slog.Logger
}

// Child is the engine in a process of its own. It is started again when it dies, at the same address and under the same
// key; while it is away connections to URL are refused. Its methods may be called from any goroutine.
type Child struct {
	// URL is where the engine answers, in the form that clickhouse-go reads, with the key as the password.
	URL string

	o      ChildOptions
	order  order
	cancel context.CancelFunc
	done   chan struct{}

	mu      sync.Mutex
	pid     int
	running chan struct{} // closed while the engine answers; replaced when it dies
}

// backoff is the wait before the next start after so many deaths in a row: 0.1, 0.2, 0.4, … seconds, at most longest.
func backoff(failures int, longest time.Duration) time.Duration {
	return min(100*time.Millisecond<<min(failures, 10), longest)
}

// healthy is how long an engine must have answered for its death to count as the first in a row.
const healthy = 30 * time.Second

// stopWait is how long a child may take to end by itself when it is closed, before it is killed. It lets statements drain.
const stopWait = 10 * time.Second

// Start runs the engine and returns when it answers. An error is of the first start: it holds what the child said last, and
// is ErrNoLibrary or ErrInUse only in its words. Close the Child; ctx bounds the start alone.
func Start(ctx context.Context, o ChildOptions) (*Child, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Executable == "" {
		exe, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("start the embedded engine: %w", err)
		}
		o.Executable = exe
	}
	if o.Database == "" {
		o.Database = "campanile"
	}
	if o.StartTimeout == 0 {
		o.StartTimeout = time.Minute
	}
	if o.MaxBackoff == 0 {
		o.MaxBackoff = 10 * time.Second
	}
	c := &Child{o: o, order: order{Listen: "127.0.0.1:0", Key: newKey()}, done: make(chan struct{}), running: make(chan struct{})}
	p, err := c.start(ctx)
	if err != nil {
		return nil, fmt.Errorf("start the embedded engine: %w", err)
	}
	at, err := url.Parse(p.ready.URL)
	if err != nil {
		p.kill()
		return nil, fmt.Errorf("start the embedded engine: %w", err)
	}
	c.order.Listen = at.Host
	at.User = url.UserPassword("campanile", c.order.Key)
	at.Path = "/" + o.Database
	c.URL = at.String()
	c.up(p)
	watch, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c.cancel = cancel
	go func() {
		defer close(c.done)
		c.watch(watch, p)
	}()
	return c, nil
}

// Pid is the process id of the engine that answers, or zero while there is none.
func (c *Child) Pid() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pid
}

// Ready returns nil when the engine answers, or ctx's error.
func (c *Child) Ready(ctx context.Context) error {
	c.mu.Lock()
	running := c.running
	c.mu.Unlock()
	select {
	case <-running:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the embedded engine: %w", ctx.Err())
	}
}

// Close ends the engine: statements may finish, then the process ends, and is killed if it does not.
func (c *Child) Close() error {
	c.cancel()
	<-c.done
	return nil
}

func (c *Child) up(p *process) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pid = p.cmd.Process.Pid
	close(c.running)
}

func (c *Child) down() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pid = 0
	c.running = make(chan struct{})
}

// watch restarts the engine until ctx ends, and then stops it.
func (c *Child) watch(ctx context.Context, p *process) {
	failures := 0
	for {
		since := time.Now()
		select {
		case <-ctx.Done():
			p.stop()
			return
		case <-p.exited:
		}
		c.down()
		if time.Since(since) > healthy {
			failures = 0
		}
		c.o.Logger.Warn("embedded ClickHouse engine died", "error", p.why(), "after_ms", time.Since(since).Milliseconds())
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(backoff(failures, c.o.MaxBackoff)):
			}
			failures++
			next, err := c.start(ctx)
			if err == nil {
				p = next
				break
			}
			if ctx.Err() == nil {
				c.o.Logger.Error("embedded ClickHouse engine does not start again", "error", err, "failures", failures)
			}
		}
		c.up(p)
		c.o.Logger.Info("embedded ClickHouse engine is back", "pid", p.cmd.Process.Pid)
	}
}

// process is one run of the child.
type process struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	ready  ready
	last   *tail
	exited chan struct{} // closed when the process is gone
	err    error         // of its end; read after exited
}

// start runs the command and waits until the engine answers.
func (c *Child) start(ctx context.Context) (*process, error) {
	ctx, cancel := context.WithTimeout(ctx, c.o.StartTimeout)
	defer cancel()
	cmd := exec.Command(c.o.Executable, c.o.Args...) //nolint:gosec,noctx // the operator's own program; stop ends it, gently first
	cmd.Env = append(os.Environ(), c.o.Env...)
	// A group of its own: what a terminal sends on Ctrl-C is for the parent, which still has rows to insert.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p := &process{cmd: cmd, last: &tail{log: c.o.Logger}, exited: make(chan struct{})}
	cmd.Stderr = p.last
	var err error
	if p.stdin, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	answered := make(chan ready, 1)
	go func() {
		defer close(p.exited)
		lines := bufio.NewReader(stdout)
		for {
			line, err := lines.ReadBytes('\n')
			if r, ok := parseReady(line); ok {
				select {
				case answered <- r:
				default:
				}
			}
			if err != nil {
				break
			}
		}
		p.err = cmd.Wait() // after the pipe was read to its end, as Wait asks
	}()
	if err := json.NewEncoder(p.stdin).Encode(c.order); err != nil {
		p.kill()
		return nil, fmt.Errorf("%w: %w", err, p.why())
	}
	select {
	case p.ready = <-answered:
		return p, nil
	case <-p.exited:
		return nil, p.why()
	case <-ctx.Done():
		p.kill()
		return nil, fmt.Errorf("%w: %w", ctx.Err(), p.why())
	}
}

// stop closes the child's standard input, which asks it to end, and kills it when it does not.
func (p *process) stop() {
	_ = p.stdin.Close()
	select {
	case <-p.exited:
	case <-time.After(stopWait):
		p.kill()
	}
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.exited
}

// why says how a process ended, with its last words.
func (p *process) why() error {
	words := p.last.String()
	if words == "" {
		words = "it said nothing"
	}
	if p.err == nil {
		return errors.New(words)
	}
	return fmt.Errorf("%w: %s", p.err, words)
}

// tail keeps the last lines that a child wrote to its standard error, and passes them on at debug level.
type tail struct {
	log *slog.Logger
	mu  sync.Mutex
	b   []byte
}

const tailSize = 2 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if over := len(t.b) - tailSize; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
	t.log.Debug("embedded engine says", "line", strings.TrimSpace(string(p)))
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.b))
}
