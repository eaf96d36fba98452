package eventlog_test

import (
	"os"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/goleak"

	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/eventlog/logtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestSuite runs on the cluster of KAFKA_BROKERS, or on kfake.
func TestSuite(t *testing.T) {
	t.Parallel()
	logtest.RunSuite(t, cluster(t))
}

func cluster(tb testing.TB) eventlog.Config {
	tb.Helper()
	if brokers := os.Getenv("KAFKA_BROKERS"); brokers != "" {
		return eventlog.Config{Brokers: strings.Split(brokers, ",")}
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
