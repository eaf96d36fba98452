package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/campanile-push/campanile/bench"
)

// The end-to-end tests run the real binary, built with the race detector, as an operator would.

var binary string //nolint:gochecknoglobals // built once, by TestMain

func TestMain(m *testing.M) {
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "campanile-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binary = filepath.Join(dir, "campanile")
	if out, err := exec.Command("go", slices.Concat([]string{"build"}, raceFlags, []string{"-o", binary, "."})...).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// command runs the binary to its end and returns what it printed.
func command(t *testing.T, dir string, env []string, args ...string) (stdout string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Dir = dir
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("campanile %s: %w\n%s", strings.Join(args, " "), err, errs.String())
	}
	return out.String(), nil
}

func must(t *testing.T, out string, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// process under test.
type running struct {
	cmd    *exec.Cmd
	output *tail
	ended  chan struct{}
	err    error // of Wait, when ended is closed
}

func start(t *testing.T, env []string, args ...string) *running {
	t.Helper()
	r := &running{cmd: exec.Command(binary, args...), output: &tail{}, ended: make(chan struct{})}
	r.cmd.Env = append(os.Environ(), env...)
	r.cmd.Stdout, r.cmd.Stderr = r.output, r.output
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		r.err = r.cmd.Wait()
		close(r.ended)
	}()
	t.Cleanup(func() {
		r.kill()
		if t.Failed() {
			t.Logf("campanile %s printed:\n%s", strings.Join(args, " "), r.output.String())
		}
	})
	return r
}

// kill ends the process at once, and waits for it.
func (r *running) kill() {
	_ = r.cmd.Process.Kill()
	<-r.ended
}

// stop asks the process to end, and fails the test if it does not end well.
func (r *running) stop(t *testing.T) {
	t.Helper()
	_ = r.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-r.ended:
		if r.err != nil {
			t.Errorf("after SIGTERM: %v\n%s", r.err, r.output.String())
		}
	case <-time.After(time.Minute):
		t.Errorf("a minute after SIGTERM it still runs\n%s", r.output.String())
		r.kill()
	}
}

// tail keeps what a process printed.
type tail struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *tail) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.buf.Len() > 4<<20 {
		l.buf.Next(l.buf.Len() / 2)
	}
	return l.buf.Write(b)
}

func (l *tail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// eventually polls until ok, or fails after patience with what was wanted.
func eventually(t *testing.T, patience time.Duration, want string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("after %s still not: %s", patience, want)
		case <-tick.C:
		}
	}
}

// world is a simulator in a process of its own, and a data folder for campanile beside it. The simulator outlives every kill.
type world struct {
	dir  string
	sim  simulatorInfo
	real *real // nil: embedded engines

	settings []string // in place of all that env says otherwise
}

func newWorld(t *testing.T, simulatorArgs ...string) *world {
	t.Helper()
	w := &world{dir: t.TempDir()}
	simDir := filepath.Join(w.dir, "simulator")
	start(t, nil, append([]string{"simulator", "--dir", simDir}, simulatorArgs...)...)
	eventually(t, 30*time.Second, "the simulator runs", func() bool {
		text, err := os.ReadFile(filepath.Join(simDir, "simulator.json"))
		return err == nil && json.Unmarshal(text, &w.sim) == nil
	})
	return w
}

func (w *world) data() string { return filepath.Join(w.dir, "data") }

// env points a campanile at this world.
func (w *world) env(extra ...string) []string {
	if w.settings != nil {
		return append(slices.Clone(w.settings), extra...)
	}
	env := []string{
		"CAMPANILE_DATA=" + w.data(),
		"CAMPANILE_HTTP_LISTEN=127.0.0.1:0", "CAMPANILE_OPS_LISTEN=127.0.0.1:0",
		"CAMPANILE_APNS_HOST=" + w.sim.APNS, "CAMPANILE_APNS_SANDBOX_HOST=" + w.sim.Sandbox, "CAMPANILE_APNS_CA=" + w.sim.CA,
		"CAMPANILE_FCM_ENDPOINT=" + w.sim.FCM, "CAMPANILE_FCM_CA=" + w.sim.CA,
		"CAMPANILE_SENDERS_TIERS=1s,2s,3s,1s",
		"CAMPANILE_SENDERS_FCM_RAMP=0s", // a minute for each broadcast
	}
	if w.real != nil {
		env = append(env, w.real.environment...)
	}
	return append(env, extra...)
}

// up is a running `campanile up`.
type up struct {
	*running
	w    *world
	info runInfo
}

func (w *world) up(t *testing.T, extra ...string) *up {
	t.Helper()
	_ = os.Remove(filepath.Join(w.data(), "up.json")) // a killed one leaves it
	u := &up{running: start(t, w.env(extra...), "up"), w: w}
	u.waitReady(t)
	return u
}

func (u *up) waitReady(t *testing.T) {
	t.Helper()
	eventually(t, time.Minute, "campanile is ready", func() bool {
		select {
		case <-u.ended:
			t.Fatalf("campanile ended: %v\n%s", u.err, u.output.String())
		default:
		}
		text, err := os.ReadFile(filepath.Join(u.w.data(), "up.json"))
		if err != nil || json.Unmarshal(text, &u.info) != nil {
			return false
		}
		response, err := http.Get(u.info.Ops + "/readyz")
		if err != nil {
			return false
		}
		defer func() { _ = response.Body.Close() }()
		_, _ = io.Copy(io.Discard, response.Body)
		return response.StatusCode == http.StatusOK
	})
}

// run runs a command on this world.
func (w *world) run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := command(t, w.dir, w.env(), args...)
	return must(t, out, err)
}

// app creates an app with both credentials.
func (w *world) app(t *testing.T, name string, flags ...string) {
	t.Helper()
	w.run(t, append([]string{"app", "create", name}, flags...)...)
	w.run(t, "app", "credentials", "apns", name, "--p8", w.sim.P8, "--team-id", w.sim.TeamID, "--key-id", w.sim.KeyID, "--topic", w.sim.Topic)
	w.run(t, "app", "credentials", "fcm", name, "--service-account", w.sim.ServiceAccount)
}

// key makes a key and returns its value.
func (w *world) key(t *testing.T, app, permissions string) string {
	t.Helper()
	return w.run(t, "key", "create", app, "--permissions", permissions)
}

func (u *up) moodle(app, key string) bench.Moodle {
	return bench.Moodle{BaseURL: u.info.API, App: app, Key: key, Client: bench.NewClient(64)}
}

// reconciled are the figures of `campanile reconcile`.
type reconciled struct {
	Accepted, Delivered, Rejected, Invalid, Expired, Cancelled, Pending, Repeats int64
}

func (w *world) reconcile(t *testing.T) reconciled {
	t.Helper()
	var r reconciled
	if err := json.Unmarshal([]byte(w.run(t, "reconcile", "--json", "--log-only")), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// settled waits until nothing is pending.
func (w *world) settled(t *testing.T, patience time.Duration) reconciled {
	t.Helper()
	var r reconciled
	defer func() {
		if r.Pending != 0 {
			t.Logf("the last reconciliation: %+v", r)
		}
	}()
	eventually(t, patience, "nothing is pending", func() bool {
		r = w.reconcile(t)
		return r.Pending == 0
	})
	return r
}

// accounts waits until at least so many pushes were accepted and nothing is pending. What a broadcast is not expanded to yet is in
// neither.
func (w *world) accounts(t *testing.T, patience time.Duration, accepted int64) reconciled {
	t.Helper()
	var r reconciled
	eventually(t, patience, fmt.Sprintf("%d are accepted and nothing is pending", accepted), func() bool {
		r = w.reconcile(t)
		return r.Accepted >= accepted && r.Pending == 0
	})
	return r
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
