package eventlog_test

import (
	"os"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/goleak"

	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/eventlog/logtest"
	"github.com/campanile-push/campanile/schemas"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSuite(t *testing.T) {
	t.Parallel()
	t.Run("kfake", func(t *testing.T) {
		t.Parallel()
		cfg := fake(t)
		logtest.RunSuite(t, func(testing.TB) eventlog.Config {
			mine := cfg
			mine.Prefix = prefix()
			return mine
		})
	})
	t.Run("kafka", func(t *testing.T) {
		t.Parallel()
		logtest.RunSuite(t, logtest.Kafka)
	})
}

// prefix is one that no other test has.
func prefix() string { return "t" + strings.ReplaceAll(schemas.NewID().String(), "-", "") + "." }

// cluster is the Kafka of KAFKA_BROKERS for benchmarks, or kfake.
func cluster(tb testing.TB) eventlog.Config {
	tb.Helper()
	if os.Getenv("KAFKA_BROKERS") != "" {
		return logtest.Kafka(tb)
	}
	return fake(tb)
}

func fake(tb testing.TB, opts ...kfake.Opt) eventlog.Config {
	tb.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, opts...)...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(c.Close)
	return eventlog.Config{Brokers: c.ListenAddrs()}
}
