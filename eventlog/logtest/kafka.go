package logtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/schemas"
)

//nolint:gochecknoglobals // the script is asked once for all tests of a binary
var kafka = sync.OnceValues(startKafka)

// Kafka is how to reach a real Kafka under a prefix of the test's own, whose topics and groups go when the test ends: the cluster of
// KAFKA_BROKERS, or one that deployments/local/kafka.sh starts and leaves running. The test is skipped with CAMPANILE_SKIP_REAL=1, and,
// outside CI, where Kafka cannot be had; in CI it fails.
func Kafka(tb testing.TB) eventlog.Config {
	tb.Helper()
	if os.Getenv("CAMPANILE_SKIP_REAL") == "1" {
		tb.Skip("CAMPANILE_SKIP_REAL=1: nothing is tested on Apache Kafka")
	}
	brokers, err := kafka()
	if err != nil && os.Getenv("CI") == "" {
		tb.Skipf("NOT TESTED on Apache Kafka, which cannot be had: %v", err)
	}
	if err != nil {
		tb.Fatal(err)
	}
	cfg := eventlog.Config{Brokers: brokers, Replication: 1, Prefix: "t" + strings.ReplaceAll(schemas.NewID().String(), "-", "") + "."}
	if len(brokers) >= 3 {
		cfg.Replication = 3
	}
	tb.Cleanup(func() {
		if err := drop(cfg); err != nil {
			tb.Errorf("clean up: %v", err)
		}
	})
	return cfg
}

func startKafka() ([]string, error) {
	if list := os.Getenv("KAFKA_BROKERS"); list != "" {
		return strings.Split(list, ","), nil
	}
	root, err := moduleRoot()
	if err != nil {
		return nil, err
	}
	var said bytes.Buffer
	cmd := exec.CommandContext(context.Background(), filepath.Join(root, "deployments", "local", "kafka.sh"), "start") //nolint:gosec // our own script
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, bytes.TrimSpace(said.Bytes()))
	}
	for line := range strings.Lines(string(out)) {
		if list, found := strings.CutPrefix(strings.TrimSpace(line), "KAFKA_BROKERS="); found {
			return strings.Split(list, ","), nil
		}
	}
	return nil, errors.New("kafka.sh start says no KAFKA_BROKERS")
}

// moduleRoot is the folder of go.mod above the test's own.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no go.mod above the test's folder")
		}
		dir = parent
	}
}

// drop deletes every topic and every group under a prefix. A partition takes two of the broker's memory maps, of which a process
// may have 65,530: a cluster that keeps the topics of all tests ends after some hundred of them.
func drop(cfg eventlog.Config) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(cfg.Brokers...))
	if err != nil {
		return err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	ctx, cancel := context.WithTimeout(context.Background(), patience) // after the test's own has ended
	defer cancel()
	topics, err := admin.ListTopics(ctx)
	if err != nil {
		return fmt.Errorf("list the topics: %w", err)
	}
	var names []string
	for name := range topics {
		if strings.HasPrefix(name, cfg.Prefix) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	// One by one would take the controller half a second; all at once is one record of its log.
	if _, err := admin.DeleteTopics(ctx, names...); err != nil {
		return fmt.Errorf("delete the topics: %w", err)
	}
	groups, err := admin.ListGroups(ctx)
	if err != nil {
		return fmt.Errorf("list the groups: %w", err)
	}
	var left []string
	for name := range groups {
		if strings.HasPrefix(name, cfg.Prefix) {
			left = append(left, name)
		}
	}
	if len(left) == 0 {
		return nil
	}
	// A group whose members were killed still has them until their sessions end: it is left to expire, with nothing to read.
	if _, err := admin.DeleteGroups(ctx, left...); err != nil {
		return fmt.Errorf("delete the groups: %w", err)
	}
	return nil
}
