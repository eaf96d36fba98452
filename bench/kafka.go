package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// errNoKafka says that Apache Kafka cannot be had here: its rows are void.
var errNoKafka = errors.New("no Apache Kafka")

// kafkaHeap is Kafka's own default.
const kafkaHeap = "1g"

// onKafka are the benchmarks on a real Kafka. Where it cannot be had, their rows say so.
func onKafka(devices int) []benchmark {
	pipeline := clusterName(devices)
	all := []benchmark{
		{
			duelRows("append/kafka"),
			"eventlog.Append on Apache Kafka, 512 callers with one notification each, against the same records of 512 callers of bare franz-go",
			(*harness).appendKafka,
		},
		{
			duelRows("transform/kafka"),
			"eventlog.RunTransform on Apache Kafka, one send for each notification, against bare poll, the same handler, produce, commit",
			(*harness).transformKafka,
		},
		{
			duelRows("router/kafka"),
			"the broadcast router on Apache Kafka and Pebble, against bare transactions of the same sends",
			(*harness).expandKafka,
		},
		{
			[]string{pipeline + "/cpu_us", pipeline + "/rate", pipeline + "/rss_mb"},
			fmt.Sprintf("every stage in a process of its own, on Apache Kafka, PostgreSQL and the ClickHouse engine: %s devices, one broadcast to all of them a round", sizeName(devices)),
			(*harness).clusterPipeline,
		},
		{
			under(smallKafka, smallRatio, smallP99, smallP50),
			fmt.Sprintf("the same processes: 1,000 broadcasts to 10 devices each, during broadcasts to %s devices, against the same beside a process that burns as much CPU", sizeName(devices)),
			waiting((*running).small).inMany(smallKafka),
		},
		{
			under(fairKafka, fairRatio, fairReach, fairP99, fairP50),
			fmt.Sprintf("the same processes: 100 direct pushes a second during a broadcast to %s devices, against the same beside a process that burns as much CPU", sizeName(devices)),
			waiting((*running).fair).inMany(fairKafka),
		},
	}
	all = append(all, scaleBenchmarks(onReal, 100_000, 1_000_000, 10_000_000)...)
	for i := range all {
		all[i] = all[i].without(errNoKafka)
	}
	return all
}

// newKafka starts one broker for one benchmark: its data goes with the benchmark's folder.
func (h *harness) newKafka(ctx context.Context) (*cluster, error) {
	k := kafka{h: h, dir: filepath.Join(h.dir, "kafka")}
	if err := k.prepare(ctx); err != nil {
		return nil, err
	}
	out, err := k.script(ctx, "start", "1")
	if err != nil {
		return nil, errors.Join(err, k.stop())
	}
	pid, err := readPID(filepath.Join(k.dir, "1.pid"))
	if err != nil {
		return nil, errors.Join(err, k.stop())
	}
	return &cluster{h: h, child: pid, end: k.stop, brokers: strings.Split(said(out, "KAFKA_BROKERS="), ",")}, nil
}

// kafka is a broker of deployments/local/kafka.sh in a folder of its own, with the jars of the checkout's.
type kafka struct {
	h    *harness
	dir  string
	port int
}

func (k *kafka) prepare(ctx context.Context) error {
	if _, err := k.h.script(ctx, nil, "kafka.sh", "fetch"); err != nil {
		return fmt.Errorf("%w: %w", errNoKafka, err)
	}
	libs, err := filepath.Abs(filepath.Join(k.h.Scripts, "..", "..", "build", "kafka", "libs"))
	if err == nil {
		err = os.MkdirAll(k.dir, 0o750)
	}
	if err == nil {
		err = os.Symlink(libs, filepath.Join(k.dir, "libs"))
	}
	if err == nil {
		k.port, err = freePort(ctx)
	}
	if err != nil {
		return fmt.Errorf("start Kafka: %w", err)
	}
	return nil
}

func (k *kafka) script(ctx context.Context, args ...string) (string, error) {
	return k.h.script(ctx, []string{"KAFKA_DIR=" + k.dir, "KAFKA_PORT=" + strconv.Itoa(k.port), "KAFKA_HEAP=" + kafkaHeap, "KAFKA_HOST=127.0.0.1"}, "kafka.sh", args...)
}

func (k *kafka) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*childPatience)
	defer cancel()
	_, err := k.script(ctx, "stop")
	return err
}

// freePort is a port of which the next one is free too, for the controller.
func freePort(ctx context.Context) (int, error) {
	var config net.ListenConfig
	for range 100 {
		first, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return 0, err
		}
		address, ok := first.Addr().(*net.TCPAddr)
		if !ok {
			return 0, errors.Join(errors.New("no TCP address"), first.Close())
		}
		second, err := config.Listen(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", address.Port+1))
		if err == nil {
			err = second.Close()
		}
		if closing := first.Close(); err == nil && closing == nil {
			return address.Port, nil
		}
	}
	return 0, errors.New("no two free ports")
}

// script runs one of deployments/local and returns what it prints.
func (h *harness) script(ctx context.Context, env []string, name string, args ...string) (string, error) {
	var told bytes.Buffer
	cmd := exec.CommandContext(ctx, filepath.Join(h.Scripts, name), args...) //nolint:gosec // our own scripts
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = &told
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(told.Bytes()))
	}
	return string(out), nil
}

// said is what follows prefix in a line of text; empty: no line has it.
func said(text, prefix string) string {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), prefix); ok {
			return rest
		}
	}
	return ""
}

// readPID is a process that a script started: its CPU time is measured, and the script ends it.
func readPID(file string) (*child, error) {
	text, err := os.ReadFile(file) //nolint:gosec // of our own scripts
	if err != nil {
		return nil, fmt.Errorf("find a process: %w", err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil {
		return nil, fmt.Errorf("find a process: %s: %w", file, err)
	}
	p, err := os.FindProcess(pid)
	if err != nil {
		return nil, fmt.Errorf("find a process: %w", err)
	}
	return &child{cmd: &exec.Cmd{Process: p}}, nil
}
