package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/campanile-push/campanile/eventlog"
)

// world is a campanile of many processes with its engines. close must be called, also after an error of open.
type world struct {
	Options

	net      *network
	here     *host // of the engines
	log      *eventlog.Log
	kafka    eventlog.Config
	client   *kgo.Client
	admin    *kadm.Client
	storeURL string

	simulator, clickhouse *process
	roles                 map[string]*role
	counts                map[string]int // running roles by kind
	sim                   struct {
		APNS           string `json:"apns"`
		Sandbox        string `json:"apns_sandbox"`
		FCM            string `json:"fcm"`
		Admin          string `json:"admin"`
		CA             string `json:"ca"`
		P8             string `json:"p8"`
		ServiceAccount string `json:"service_account"`
		TeamID         string `json:"team_id"`
		KeyID          string `json:"key_id"`
		Topic          string `json:"topic"`
	}
	key   string
	paces map[string]pace // by group
}

// role is a stage's process.
type role struct {
	*process

	api, ops string // addresses
}

const app = "chaos"

// Ports of hosts of their own.
const (
	apiPort        = 8801
	opsPort        = 8802
	simulatorPort  = 2197 // and the two after it
	clickhousePort = 18123
	kafkaPort      = 19092
	postgresPort   = 15432
	brokers        = 3
)

// own reports whether this run started the log and the store, and may take them away.
func (w *world) own() bool { return len(w.Kafka.Brokers) == 0 }

// script runs one of deployments/local, whose engines keep their data in this run's folder, and returns what it prints.
func (w *world) script(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(w.Scripts, name), args...) //nolint:gosec // our own scripts
	cmd.Env = append(os.Environ(), "KAFKA_DIR="+filepath.Join(w.Dir, "kafka"), "POSTGRES_DIR="+filepath.Join(w.Dir, "postgres"),
		// What is committed survives a crash of the server: no more is promised by any database.
		"POSTGRES_OPTIONS=-c synchronous_commit=on")
	if w.net != nil { // else the ports are those of the scripts' variables
		cmd.Env = append(cmd.Env, "KAFKA_HOST="+toKafka.engine(), fmt.Sprint("KAFKA_PORT=", kafkaPort),
			"POSTGRES_HOST="+toStore.engine(), fmt.Sprint("POSTGRES_PORT=", postgresPort))
	}
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(said.Bytes()))
	}
	return strings.TrimSpace(string(out)), nil
}

// campanile runs a command to its end and returns what it prints, also where it fails.
func (w *world) campanile(ctx context.Context, args ...string) (string, error) {
	cmd := w.Command(append([]string{"--config", w.config()}, args...)...)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Start(); err != nil {
		return "", fmt.Errorf("campanile %s: %w", args[0], err)
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	err := cmd.Wait()
	if err != nil {
		err = fmt.Errorf("campanile %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(said.Bytes()))
	}
	return strings.TrimSpace(out.String()), err
}

func (w *world) config() string { return filepath.Join(w.Dir, "campanile.yaml") }

// open starts everything and waits until it is ready.
func (w *world) open(ctx context.Context) error {
	w.roles, w.counts, w.paces = map[string]*role{}, map[string]int{}, map[string]pace{}
	if err := w.empty(ctx); err != nil {
		return err
	}
	if w.Network {
		var err error
		if w.net, err = newNetwork(ctx); err != nil {
			return err
		}
	}
	w.here = &host{}
	for _, open := range []func(context.Context) error{w.openLog, w.openStore, w.openSimulator, w.openClickHouse, w.configure, w.openApp} {
		if err := open(ctx); err != nil {
			return err
		}
	}
	for _, name := range roleNames {
		if err := w.add(ctx, name); err != nil {
			return err
		}
	}
	return w.settle(ctx, expectation{})
}

// empty removes what an earlier run left.
func (w *world) empty(ctx context.Context) error {
	if err := os.MkdirAll(w.Dir, 0o755); err != nil { //nolint:gosec // PostgreSQL's user must be able to enter
		return fmt.Errorf("make the folder of the run: %w", err)
	}
	if err := endLeftovers(w.Dir); err != nil {
		return err
	}
	for _, name := range []string{"kafka.sh", "postgres.sh"} {
		if _, err := w.script(ctx, name, "clean"); err != nil {
			return err
		}
	}
	old, err := filepath.Glob(filepath.Join(w.Dir, "*"))
	if err != nil {
		return err
	}
	for _, name := range old {
		if err := os.RemoveAll(name); err != nil {
			return fmt.Errorf("clean up after an earlier run: %w", err)
		}
	}
	return nil
}

func (w *world) openLog(ctx context.Context) error {
	w.kafka = w.Kafka
	if w.own() {
		dir := filepath.Join(w.Dir, "kafka")
		if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // nothing secret
			return fmt.Errorf("start Kafka: %w", err)
		}
		fetched := os.Getenv("KAFKA_DIR") // where `kafka.sh fetch` has put the jars
		if fetched == "" {
			fetched = filepath.Join(w.Scripts, "..", "..", "build", "kafka")
		}
		fetched, err := filepath.Abs(fetched)
		if err != nil {
			return err
		}
		if err := os.Symlink(filepath.Join(fetched, "libs"), filepath.Join(dir, "libs")); err != nil {
			return fmt.Errorf("start Kafka: %w", err)
		}
		out, err := w.script(ctx, "kafka.sh", "start", fmt.Sprint(brokers))
		if err != nil {
			return err
		}
		w.kafka = eventlog.Config{Brokers: strings.Split(strings.TrimPrefix(out, "KAFKA_BROKERS="), ","), Replication: brokers}
	}
	var err error
	if w.client, err = kgo.NewClient(kgo.SeedBrokers(w.kafka.Brokers...)); err != nil {
		return fmt.Errorf("open a client of Kafka: %w", err)
	}
	w.admin = kadm.NewClient(w.client)
	return nil
}

func (w *world) openStore(ctx context.Context) error {
	if w.storeURL = w.StoreURL; w.storeURL != "" {
		return nil
	}
	out, err := w.script(ctx, "postgres.sh", "database", app)
	w.storeURL = strings.TrimPrefix(out, "POSTGRES_URL=")
	return err
}

func (w *world) openSimulator(ctx context.Context) error {
	dir := filepath.Join(w.Dir, "simulator")
	args := []string{"simulator", "--dir", dir, "--latency", "lognormal:15ms,60ms", "--seed", fmt.Sprint(w.Seed)}
	if w.net != nil {
		for i, flag := range []string{"--apns", "--apns-sandbox", "--fcm"} {
			args = append(args, flag, fmt.Sprintf("%s:%d", toOutside.engine(), simulatorPort+i))
		}
	}
	w.simulator = &process{name: "simulator", dir: w.Dir, host: w.here, command: func() *exec.Cmd { return w.Command(args...) }}
	w.simulator.run()
	return w.await(ctx, time.Minute, func(context.Context) string {
		text, err := os.ReadFile(filepath.Join(dir, "simulator.json"))
		if err != nil || json.Unmarshal(text, &w.sim) != nil {
			return "the simulator is not ready"
		}
		return ""
	})
}

func (w *world) openClickHouse(ctx context.Context) error {
	address := fmt.Sprintf("%s:%d", toClickHouse.engine(), clickhousePort)
	if w.net == nil {
		var err error
		if address, err = w.here.listen(0); err != nil {
			return err
		}
	}
	args := []string{"analytics-engine", "--dir", filepath.Join(w.Dir, "clickhouse"), "--key-file", filepath.Join(w.Dir, "clickhouse.key"), "--listen", address}
	if w.Library != "" {
		args = append(args, "--clickhouse-library", w.Library)
	}
	w.clickhouse = &process{name: "engine", dir: w.Dir, host: w.here, command: func() *exec.Cmd { return w.Command(args...) }}
	w.clickhouse.run()
	return w.await(ctx, time.Minute, func(context.Context) string {
		if w.clickhouseURL() == "" {
			return "the ClickHouse engine is not ready"
		}
		return ""
	})
}

// clickhouseURL is what the engine has printed.
func (w *world) clickhouseURL() string {
	text, err := os.ReadFile(w.clickhouse.file("log"))
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if url, ok := strings.CutPrefix(strings.TrimSpace(line), "CLICKHOUSE_URL="); ok {
			return url
		}
	}
	return ""
}

// configure writes the settings that every process shares.
func (w *world) configure(ctx context.Context) error {
	for name, flags := range map[string][]string{"master.key": nil, "hash.key": {"--hash"}} {
		cmd := w.Command(append([]string{"key-file"}, flags...)...)
		out, err := cmd.Output()
		if err != nil {
			return fmt.Errorf("make a key: %w", err)
		}
		if err := os.WriteFile(filepath.Join(w.Dir, name), out, 0o600); err != nil {
			return fmt.Errorf("make a key: %w", err)
		}
	}
	text := fmt.Sprintf(`data: %[1]s/data
kafka:
  brokers: [%[2]s]
  prefix: %[3]q
  partitions: %[4]d
  replication: %[5]d
cockroach: {url: %[6]q}
clickhouse: {url: %[7]q}
vault: {master_key_file: %[1]s/master.key, hash_key_file: %[1]s/hash.key}
apns: {host: %[8]q, sandbox_host: %[9]q, ca: %[10]q}
fcm: {endpoint: %[11]q, ca: %[10]q}
senders: {window: %[12]d, tiers: [1s, 2s, 5s, 1s]}
router: {start_rate: %[13]d, max_page: 200}
`, w.Dir, strings.Join(w.kafka.Brokers, ", "), w.kafka.Prefix, w.Partitions, w.kafka.Replication, w.storeURL, w.clickhouseURL(),
		w.sim.APNS, w.sim.Sandbox, w.sim.CA, w.sim.FCM, w.Window, w.BroadcastRate)
	if err := os.WriteFile(w.config(), []byte(text), 0o600); err != nil {
		return fmt.Errorf("write the settings: %w", err)
	}
	if _, err := w.campanile(ctx, "topics", "apply"); err != nil {
		return err
	}
	var err error
	w.log, err = eventlog.Open(ctx, w.kafka, w.Logger, nil)
	return err
}

// openApp makes the app with its credentials and a key that may do everything.
func (w *world) openApp(ctx context.Context) error {
	for _, args := range [][]string{
		{"app", "create", app},
		{"app", "credentials", "apns", app, "--p8", w.sim.P8, "--team-id", w.sim.TeamID, "--key-id", w.sim.KeyID, "--topic", w.sim.Topic},
		{"app", "credentials", "fcm", app, "--service-account", w.sim.ServiceAccount},
	} {
		if _, err := w.campanile(ctx, args...); err != nil {
			return err
		}
	}
	var err error
	w.key, err = w.campanile(ctx, "key", "create", app, "--permissions", "all")
	return err
}

// stageArgs are the arguments of a role's kind.
func stageArgs(kind string) []string {
	if kind == "apns" || kind == "fcm" {
		return []string{"sender", "--platform", kind}
	}
	return []string{kind}
}

// add starts a role on a host of its own, for the first time.
func (w *world) add(ctx context.Context, name string) error {
	h, err := w.net.newHost(ctx)
	if err != nil {
		return err
	}
	r := &role{}
	if r.api, err = h.listen(apiPort); err != nil {
		return err
	}
	if r.ops, err = h.listen(opsPort); err != nil {
		return err
	}
	args := append(stageArgs(kindOf(name)), "--config", w.config(), "--http-listen", r.api, "--ops-listen", r.ops)
	r.process = &process{name: name, dir: w.Dir, host: h, command: func() *exec.Cmd { return w.Command(args...) }}
	w.roles[name] = r
	w.counts[kindOf(name)]++
	r.run()
	return nil
}

// remove ends a role gracefully.
func (w *world) remove(name string) error {
	err := w.roles[name].end()
	delete(w.roles, name)
	w.counts[kindOf(name)]--
	return err
}

// close ends everything, and keeps the data.
func (w *world) close() error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(w.roles)) {
		errs = append(errs, w.remove(name))
	}
	for _, p := range []*process{w.simulator, w.clickhouse} {
		if p != nil {
			errs = append(errs, p.end())
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if w.log != nil {
		errs = append(errs, w.log.Close(ctx))
	}
	if w.client != nil {
		w.client.Close()
	}
	for _, name := range []string{"kafka.sh", "postgres.sh"} {
		_, err := w.script(ctx, name, "stop")
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
