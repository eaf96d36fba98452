package bench

import (
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/eventlog/broker"
	"github.com/campanile-push/campanile/schemas"
)

// partitions of every topic: what `campanile up` creates.
const partitions = 4

// cluster is a log in a process of its own: the embedded broker, or one of Apache Kafka.
type cluster struct {
	h       *harness
	child   *child
	end     func() error
	brokers []string
	dial    broker.Dial // nil: TCP
	made    int         // logs
}

// newClusterOf is the log that a benchmark's name ends with.
func (h *harness) newClusterOf(ctx context.Context, name string) (*cluster, error) {
	if path.Base(name) == "kafka" {
		return h.newKafka(ctx)
	}
	return h.newCluster(ctx)
}

func (h *harness) newCluster(ctx context.Context) (*cluster, error) {
	dir := filepath.Join(h.dir, "log")
	var ready struct{}
	c, err := h.startChild(ctx, roleBroker, order{Dir: dir}, &ready)
	if err != nil {
		return nil, err
	}
	dial, ok := broker.Running(dir)
	if !ok {
		return nil, errors.Join(errors.New("the broker is not where it said"), c.end())
	}
	return &cluster{h: h, child: c, end: c.end, brokers: broker.Brokers(), dial: dial}, nil
}

func (c *cluster) close() error { return c.end() }

// watch starts to measure this process, and the broker apart.
func (c *cluster) watch() (*stopwatch, error) {
	return c.h.watch(map[string]*child{"broker": c.child})
}

// topics are a log with topics of its own, which nothing has been written to.
type topics struct {
	*eventlog.Log
	cluster *cluster
	prefix  string
}

func (c *cluster) newTopics(ctx context.Context) (*topics, error) {
	c.made++
	t := &topics{cluster: c, prefix: fmt.Sprintf("bench%d.", c.made)}
	var err error
	t.Log, err = eventlog.Open(ctx, eventlog.Config{
		Brokers: c.brokers, Dial: c.dial, Prefix: t.prefix, Replication: 1,
	}, c.h.Logger, nil)
	if err != nil {
		return nil, err
	}
	if _, err := t.CreateTopics(ctx, partitions); err != nil {
		return nil, errors.Join(err, t.Close(ctx))
	}
	return t, nil
}

func (t *topics) name(topic schemas.Topic) string { return t.prefix + string(topic) }

// drop closes the log and deletes its topics, so that the disk holds no more than one round.
func (t *topics) drop(ctx context.Context) error {
	client, err := t.bare()
	if err != nil {
		return errors.Join(err, t.Close(ctx))
	}
	defer client.Close()
	var names []string
	for _, spec := range schemas.Specs() {
		names = append(names, t.name(spec.Topic))
	}
	err = t.Close(ctx)
	if _, deleting := kadm.NewClient(client).DeleteTopics(ctx, names...); deleting != nil {
		err = errors.Join(err, fmt.Errorf("delete the topics of a round: %w", deleting))
	}
	return err
}

// bare is a tuned client of franz-go: the batches, the codec, the partitions and the idempotence of the log's own, and no linger, which
// is best where many records wait (facts of the log's benchmarks: docs/benchmarks.md).
func (t *topics) bare(opts ...kgo.Opt) (*kgo.Client, error) {
	common := []kgo.Opt{
		kgo.SeedBrokers(t.cluster.brokers...), kgo.DisableClientMetrics(),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchMaxBytes(256 << 10), kgo.ProducerBatchCompression(kgo.SnappyCompression()),
		kgo.MaxBufferedRecords(400_000), kgo.ProducerLinger(0), kgo.MetadataMinAge(100 * time.Millisecond),
	}
	if t.cluster.dial != nil {
		common = append(common, kgo.Dialer(t.cluster.dial))
	}
	client, err := kgo.NewClient(append(common, opts...)...)
	if err != nil {
		return nil, fmt.Errorf("open a bare client: %w", err)
	}
	return client, nil
}

// bareGroup is bare, as a member of a group at the start of a topic.
func (t *topics) bareGroup(topic schemas.Topic) (*kgo.Client, error) {
	return t.bare(kgo.ConsumerGroup(t.prefix+"bare"), kgo.ConsumeTopics(t.name(topic)), kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(250*time.Millisecond))
}

// fill appends n events in large pieces.
func (t *topics) fill(ctx context.Context, n int, say func(out *schemas.Out, i int)) error {
	const piece = 10_000
	for from := 0; from < n; from += piece {
		err := t.Append(ctx, func(out *schemas.Out) {
			for i := from; i < min(from+piece, n); i++ {
				say(out, i)
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// firstError keeps the first error of many goroutines.
type firstError struct{ failed chan error }

func newFirstError() firstError { return firstError{make(chan error, 1)} }

func (f firstError) set(err error) {
	if err == nil {
		return
	}
	select {
	case f.failed <- err:
	default:
	}
}

func (f firstError) get() error {
	select {
	case err := <-f.failed:
		return err
	default:
		return nil
	}
}

// promise is what a bare client calls for each record.
func (f firstError) promise(_ *kgo.Record, err error) { f.set(err) }

// untilDone runs a stage until done is closed, then ends it and returns when it has ended, so that its last commit counts.
func untilDone(ctx context.Context, done <-chan struct{}, run func(context.Context) error) error {
	running, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- run(running) }()
	select {
	case <-done:
		stop()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
		return ctx.Err()
	case err := <-ended:
		if err == nil {
			err = errors.New("the stage ended before its work")
		}
		return err
	}
}
