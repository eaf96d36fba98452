package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/projections/chdb"
	"github.com/campanile-push/campanile/projections/cockroach"
	"github.com/campanile-push/campanile/schemas"
)

func clusterName(devices int) string { return "pipeline/kafka/" + sizeName(devices) }

// clusterPipeline is the pipeline as one process for each stage, on Kafka, PostgreSQL and the ClickHouse engine. All of them are in its
// figure; the simulator and the load, which is this process, are not.
func (h *harness) clusterPipeline(ctx context.Context) (rows []Row, err error) {
	c, end, err := h.startCluster(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, end()) }()
	return c.rounds(ctx, clusterName(h.Devices))
}

// startCluster starts a simulator and the stages on it. fill, unless nil, is given the device store before a stage has it. end ends all.
func (h *harness) startCluster(ctx context.Context, fill func(ctx context.Context, store *cockroach.Store) error) (c *stageProcesses, end func() error, err error) {
	library, err := chdb.FindLibrary(h.Library)
	if err != nil {
		return nil, nil, fmt.Errorf("%w can be fed: %w", errNoKafka, err)
	}
	p, err := h.newProvider(ctx)
	if err != nil {
		return nil, nil, err
	}
	c = &stageProcesses{
		running: running{h: h, p: p, masterKey: filepath.Join(h.dir, "master.key"), analytics: true}, fill: fill, started: map[string]*stageProcess{},
	}
	end = func() error { return errors.Join(c.stop(), p.child.end()) }
	if err := c.start(ctx, library); err != nil {
		return nil, nil, errors.Join(err, end())
	}
	return c, end, nil
}

// stageProcesses are a pipeline of one process for each stage, and its engines.
type stageProcesses struct {
	running

	kafka   *cluster
	store   store
	fill    func(ctx context.Context, store *cockroach.Store) error // nil: nothing is filled
	env     []string
	started map[string]*stageProcess
	order   []string // in which they were started
}

// store is a database for one benchmark, in the PostgreSQL that deployments/local/postgres.sh starts.
type store struct {
	name, url string
	begun     bool // the server was started for it
	pid       int
}

// start starts the engines, then the stages, and returns when all are ready.
func (c *stageProcesses) start(ctx context.Context, library string) (err error) {
	if c.kafka, err = c.h.newKafka(ctx); err != nil {
		return err
	}
	if err = c.store.open(ctx, c.h); err != nil {
		return err
	}
	ca := filepath.Join(c.h.dir, "ca.pem")
	if err = os.WriteFile(ca, []byte(c.p.at.CAPEM), 0o600); err != nil {
		return fmt.Errorf("start the stages: %w", err)
	}
	hash := filepath.Join(c.h.dir, "hash.key")
	for file, flags := range map[string][]string{c.masterKey: nil, hash: {"--hash"}} {
		key, err := c.h.Command(ctx, append([]string{"key-file"}, flags...)...).Output()
		if err == nil {
			err = os.WriteFile(file, key, 0o600)
		}
		if err != nil {
			return fmt.Errorf("make a key: %w", err)
		}
	}
	engine, err := c.launch(ctx, "clickhouse", `^CLICKHOUSE_URL=(\S+)`, "analytics-engine", "--dir", filepath.Join(c.h.dir, "clickhouse"),
		"--key-file", filepath.Join(c.h.dir, "clickhouse.key"), "--listen", "127.0.0.1:0", "--clickhouse-library", library)
	if err != nil {
		return err
	}
	c.env = []string{
		"CAMPANILE_DATA=" + filepath.Join(c.h.dir, "data"), "CAMPANILE_HTTP_LISTEN=127.0.0.1:0", "CAMPANILE_OPS_LISTEN=127.0.0.1:0",
		"CAMPANILE_KAFKA_BROKERS=" + strings.Join(c.kafka.brokers, ","), "CAMPANILE_KAFKA_REPLICATION=1", fmt.Sprintf("CAMPANILE_KAFKA_PARTITIONS=%d", partitions),
		"CAMPANILE_COCKROACH_URL=" + c.store.url, "CAMPANILE_CLICKHOUSE_URL=" + engine[1],
		"CAMPANILE_VAULT_MASTER_KEY_FILE=" + c.masterKey, "CAMPANILE_VAULT_HASH_KEY_FILE=" + hash,
		"CAMPANILE_APNS_HOST=" + c.p.at.APNSURL, "CAMPANILE_APNS_SANDBOX_HOST=" + c.p.at.SandboxURL, "CAMPANILE_APNS_CA=" + ca,
		"CAMPANILE_FCM_ENDPOINT=" + c.p.at.FCMURL + "/v1", "CAMPANILE_FCM_CA=" + ca,
		"CAMPANILE_SENDERS_FCM_QUOTA=0", // or Google's default quota would be what is measured
	}
	apply := c.h.Command(ctx, "topics", "apply")
	apply.Env = append(os.Environ(), c.env...)
	if text, err := apply.CombinedOutput(); err != nil {
		return fmt.Errorf("create the topics: %w: %s", err, text)
	}
	if err := c.fillStore(ctx); err != nil {
		return err
	}
	for _, s := range []struct {
		name string
		args []string
	}{
		{"projector", []string{"projector"}},
		{"analytics", []string{"analytics"}},
		{"router", []string{"router"}},
		{"sender.apns", []string{"sender", "--platform", "apns"}},
		{"sender.fcm", []string{"sender", "--platform", "fcm"}},
		{"ingest", []string{"ingest"}},
	} {
		ready, err := c.launch(ctx, s.name, `msg=ready api=(http://\S*) ops=(http://\S+)`, s.args...)
		if err != nil {
			return err
		}
		if err := poll(ctx, 50*time.Millisecond, func() (bool, error) { return get(ctx, ready[2]+"/readyz") == nil, nil }); err != nil {
			return err
		}
		c.api = ready[1] // at last that of ingest, the only one that has an API
		if s.name == "router" {
			c.ops = ready[2]
		}
	}
	c.parts = c.processes
	c.log, err = eventlog.Open(ctx, eventlog.Config{Brokers: c.kafka.brokers, Replication: 1}, c.h.Logger, nil)
	return err
}

// open makes a database, and starts the server where it does not run. close must be called, after an error too.
func (s *store) open(ctx context.Context, h *harness) error {
	if _, err := h.script(ctx, nil, "postgres.sh", "status"); err != nil {
		s.begun = true
	}
	name := "bench_" + strings.ReplaceAll(schemas.NewID().String(), "-", "")
	out, err := h.script(ctx, nil, "postgres.sh", "database", name)
	if err != nil {
		return fmt.Errorf("%w has a device store: %w", errNoKafka, err)
	}
	s.name, s.url = name, said(out, "POSTGRES_URL=")
	dir := os.Getenv("POSTGRES_DIR")
	if dir == "" {
		dir = filepath.Join(h.Scripts, "..", "..", "build", "postgres")
	}
	server, err := readPID(filepath.Join(dir, "data", "postmaster.pid"))
	if err != nil {
		return err
	}
	s.pid = server.pid()
	return nil
}

// processes are the server and its backends.
func (s *store) processes() ([]int, error) {
	backends, err := childrenOf(s.pid)
	return append(backends, s.pid), err
}

// close drops the database, and stops the server that open started.
func (s *store) close(ctx context.Context, h *harness) (err error) {
	if s.name != "" {
		_, err = h.script(ctx, nil, "postgres.sh", "drop", s.name)
	}
	if s.begun {
		_, stopping := h.script(ctx, nil, "postgres.sh", "stop")
		err = errors.Join(err, stopping)
	}
	return err
}

// fillStore fills the device store, whose only user it is.
func (c *stageProcesses) fillStore(ctx context.Context) error {
	if c.fill == nil {
		return nil
	}
	s, err := cockroach.Open(ctx, cockroach.Options{URL: c.store.url, Layout: schemas.Layout{Partitions: partitions}, Logger: c.h.Logger})
	if err != nil {
		return err
	}
	return errors.Join(c.fill(ctx, s), s.Close())
}

// processes are those in the figure, by name.
func (c *stageProcesses) processes() (map[string][]int, error) {
	parts := map[string][]int{"kafka": {c.kafka.child.pid()}}
	var err error
	if parts["postgres"], err = c.store.processes(); err != nil {
		return nil, err
	}
	for name, s := range c.started {
		parts[name] = []int{s.cmd.Process.Pid}
	}
	return parts, nil
}

// stop ends everything, what was started last first.
func (c *stageProcesses) stop() error {
	var all error
	if c.log != nil {
		closing, cancel := context.WithTimeout(context.Background(), childPatience)
		defer cancel()
		_ = c.log.Close(closing)
	}
	for _, name := range slices.Backward(c.order) {
		all = errors.Join(all, c.started[name].stop())
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*childPatience)
	defer cancel()
	all = errors.Join(all, c.store.close(ctx, c.h))
	if c.kafka != nil {
		all = errors.Join(all, c.kafka.close())
	}
	return all
}

// stageProcess is one process of the pipeline.
type stageProcess struct {
	name string
	cmd  *exec.Cmd
	read chan struct{} // closed when it has ended and all that it said is read
	last []string      // of what it said: valid when read is closed
}

// keptLines of what a process said are told when it ends badly.
const keptLines = 20

// launch starts a process, and returns what the first line that matches says of it.
func (c *stageProcesses) launch(ctx context.Context, name, pattern string, args ...string) ([]string, error) {
	cmd := c.h.Command(ctx, args...)
	cmd.Env = append(os.Environ(), c.env...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = childPatience
	out, in := io.Pipe()
	cmd.Stdout, cmd.Stderr = in, in
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	s := &stageProcess{name: name, cmd: cmd, read: make(chan struct{})}
	c.started[name], c.order = s, append(c.order, name)
	found := make(chan []string, 1)
	go func() {
		defer close(s.read)
		line := regexp.MustCompile(pattern)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if match := line.FindStringSubmatch(lines.Text()); match != nil {
				select {
				case found <- match:
				default:
				}
			}
			s.last = append(s.last, lines.Text())
			s.last = s.last[max(0, len(s.last)-keptLines):]
		}
		_, _ = io.Copy(io.Discard, out) // a line that is too long
	}()
	go func() { // the pipe ends with the process
		_ = cmd.Wait()
		_ = in.Close()
	}()
	waiting, cancel := context.WithTimeout(ctx, pipelinePatience)
	defer cancel()
	select {
	case match := <-found:
		return match, nil
	case <-s.read:
		return nil, fmt.Errorf("%s ended: %s", name, strings.Join(s.last, "\n"))
	case <-waiting.Done():
		return nil, fmt.Errorf("wait for %s: %w", name, waiting.Err())
	}
}

// stop ends the process as an operator does.
func (s *stageProcess) stop() error {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	<-s.read
	if state := s.cmd.ProcessState; state == nil || !state.Success() {
		return fmt.Errorf("%s ended badly: %s", s.name, strings.Join(s.last, "\n"))
	}
	return nil
}
