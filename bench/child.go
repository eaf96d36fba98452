package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/campanile-push/campanile/eventlog/broker"
	"github.com/campanile-push/campanile/simulator"
)

// Roles of a child: what has a process of its own, so that its CPU time is not that of what is measured.
const (
	roleBroker    = "broker"
	roleSimulator = "simulator"
	roleLoad      = "load"
	roleSender    = "sender"
	roleFresh     = "fresh"
	roleBurner    = "burner"
)

// order is what a child reads from its standard input: one line of JSON.
type order struct {
	Dir    string       `json:"dir,omitempty"`
	Load   *loadPlan    `json:"load,omitempty"`
	Fresh  *freshPlan   `json:"fresh,omitempty"`
	Sender *senderOrder `json:"sender,omitempty"`
	Burn   float64      `json:"burn,omitempty"` // cores
	// Threads are how many goroutines of the child may run at once for each core; zero: one.
	Threads int `json:"threads,omitempty"`
	// Nice is how far the child's threads stand back for those of the pipeline (nice(7)).
	Nice int `json:"nice,omitempty"`
}

// brokerBytes is the budget of a benchmark's log: never met.
const brokerBytes = 64 << 30

// Child is the other end of a benchmark, in a process of its own. It reads its order from stdin, says on stdout when it is ready, and
// ends when stdin does, so that none outlives its parent.
func Child(ctx context.Context, role string, stdin io.Reader, stdout io.Writer) error {
	in := bufio.NewReaderSize(stdin, 1<<20)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("read the order: %w", err)
	}
	var o order
	if err := json.Unmarshal(line, &o); err != nil {
		return fmt.Errorf("read the order: %w", err)
	}
	if o.Threads > 0 {
		runtime.GOMAXPROCS(o.Threads * runtime.GOMAXPROCS(0))
	}
	if err := standBack(o.Nice); err != nil {
		return err
	}
	quiet := slog.New(slog.DiscardHandler)
	switch role {
	case roleBroker:
		b, err := broker.Open(broker.Options{Dir: o.Dir, MaxBytes: brokerBytes, Logger: quiet})
		if err != nil {
			return err
		}
		err = serveUntilEnd(ctx, in, stdout, struct{}{})
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), childPatience)
		defer cancel()
		return errors.Join(err, b.Close(closing))
	case roleSimulator:
		s, err := simulator.Start(ctx, simulator.Options{Dir: o.Dir, Scenario: simulator.Scenario{Seed: 1}, Logger: quiet})
		if err != nil {
			return err
		}
		return errors.Join(serveUntilEnd(ctx, in, stdout, s.Identity()), s.Close())
	case roleLoad:
		if o.Load == nil {
			return errors.New("an order for load without a plan")
		}
		return o.Load.serve(ctx, in, stdout)
	case roleSender:
		if o.Sender == nil {
			return errors.New("an order for a sender without what it pushes")
		}
		return o.Sender.serve(ctx, in, stdout)
	case roleFresh:
		if o.Fresh == nil {
			return errors.New("an order for fresh connections without a plan")
		}
		return o.Fresh.serve(ctx, in, stdout)
	case roleBurner:
		stop := burn(ctx, o.Burn)
		defer stop()
		return serveUntilEnd(ctx, in, stdout, struct{}{})
	}
	return fmt.Errorf("%q is no role of a child", role)
}

// standBack gives all threads of this process a lower priority, and those that they will start.
func standBack(nice int) error {
	if nice == 0 {
		return nil
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return fmt.Errorf("stand back: %w", err)
	}
	for _, t := range threads {
		id, err := strconv.Atoi(t.Name())
		if err == nil {
			err = syscall.Setpriority(syscall.PRIO_PROCESS, id, nice)
		}
		if err != nil && !errors.Is(err, syscall.ESRCH) { // it has ended
			return fmt.Errorf("stand back: %w", err)
		}
	}
	return nil
}

// serveUntilEnd says that the child is ready, and waits for the end of its input.
func serveUntilEnd(ctx context.Context, in io.Reader, stdout io.Writer, ready any) error {
	if err := json.NewEncoder(stdout).Encode(ready); err != nil {
		return fmt.Errorf("say that all is ready: %w", err)
	}
	ended := make(chan struct{})
	go func() { // ends with the process at the latest
		defer close(ended)
		_, _ = io.Copy(io.Discard, in)
	}()
	select {
	case <-ended:
	case <-ctx.Done():
	}
	return nil
}

// childPatience is how long a child may take to close.
const childPatience = 30 * time.Second

// child is a running process of ours. end must be called.
type child struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// startChild starts a child and reads into ready what it says first.
func (h *harness) startChild(ctx context.Context, role string, o order, ready any) (*child, error) {
	cmd := h.Command(ctx, "bench", "child", role)
	cmd.WaitDelay = childPatience
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start a %s: %w", role, err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start a %s: %w", role, err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a %s: %w", role, err)
	}
	c := &child{cmd: cmd, in: in, out: bufio.NewReader(out)}
	text, err := json.Marshal(o)
	if err == nil {
		_, err = in.Write(append(text, '\n'))
	}
	if err == nil {
		err = c.read(ready)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start a %s: %w", role, err), c.end())
	}
	return c, nil
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// read reads the next line that the child says.
func (c *child) read(into any) error {
	line, err := c.out.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("the child said nothing: %w", err)
	}
	return json.Unmarshal(line, into)
}

// write sends the child one more line.
func (c *child) write(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = c.in.Write(append(text, '\n'))
	return err
}

// end closes the child's input and waits for it.
func (c *child) end() error {
	_ = c.in.Close()
	_, _ = io.Copy(io.Discard, c.out)
	if err := c.cmd.Wait(); err != nil {
		return fmt.Errorf("a child of the benchmark ended badly: %w", err)
	}
	return nil
}
