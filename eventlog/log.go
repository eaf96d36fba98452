package eventlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/plugin/kprom"
	"golang.org/x/sync/semaphore"

	"github.com/campanile-push/campanile/schemas"
)

// Log is one cluster as everybody sees it. Its methods may be called from any goroutine.
type Log struct {
	cfg     Config
	log     *slog.Logger
	reg     prometheus.Registerer
	metrics *metrics

	client *kgo.Client // appends, and asks for offsets
	admin  *kadm.Client
	room   *semaphore.Weighted // bytes that Append may have buffered
	topics map[schemas.Topic]topicInfo
	calls  sync.Pool // *appendCall

	mu      sync.Mutex
	layout  schemas.Layout
	clients map[string]int // open clients by name, for the metrics' label
	watch   *lagWatch
}

// ErrNoTopics says that the cluster has none of our topics yet.
var ErrNoTopics = errors.New("the cluster has no topics of Campanile: run `campanile topics apply`")

// Open connects to the cluster and reads the layout of the topics that are there; there may be none yet. It fails if no
// broker answers before ctx ends. Close must be called. A nil registerer keeps the metrics to itself.
func Open(ctx context.Context, cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Log, error) {
	if reg == nil {
		reg = prometheus.NewRegistry()
	}
	cfg = cfg.withDefaults()
	l := &Log{
		cfg: cfg, log: log, reg: reg,
		clients: map[string]int{},
		room:    semaphore.NewWeighted(int64(cfg.BufferedBytes)),
		topics:  topicTable(cfg.Prefix),
	}
	var err error
	if l.metrics, err = newMetrics(reg); err != nil {
		return nil, err
	}
	if l.client, err = l.newClient("append"); err != nil {
		l.metrics.unregister()
		return nil, err
	}
	l.admin = kadm.NewClient(l.client)
	if err := l.readLayout(ctx); err != nil && !errors.Is(err, ErrNoTopics) {
		l.client.Close()
		l.metrics.unregister()
		return nil, err
	}
	l.watch = l.watchLag() //nolint:contextcheck // it lives until Close
	return l, nil
}

// Close waits until everything appended is acknowledged or ctx ends, and closes the log. Stages must have ended before.
func (l *Log) Close(ctx context.Context) error {
	l.watch.stop()
	err := l.client.Flush(ctx)
	l.client.Close()
	l.metrics.unregister()
	if err != nil {
		return fmt.Errorf("flush the log: %w", err)
	}
	return nil
}

// Layout is what the topics were created with; the zero Layout if there are none yet.
func (l *Log) Layout() schemas.Layout {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.layout
}

func (l *Log) setLayout(layout schemas.Layout) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.layout = layout
}

// readyLayout is the layout, or ErrNoTopics.
func (l *Log) readyLayout() (schemas.Layout, error) {
	layout := l.Layout()
	if layout.Partitions == 0 {
		return layout, ErrNoTopics
	}
	return layout, nil
}

// newClient opens a client of its own; name is its label in the metrics. The caller closes it.
func (l *Log) newClient(name string, opts ...kgo.Opt) (*kgo.Client, error) {
	return l.newClientHooked(name, nil, opts...)
}

func (l *Log) newClientHooked(name string, hooks []kgo.Hook, opts ...kgo.Opt) (*kgo.Client, error) {
	common, err := l.clientOptions(name, hooks...)
	if err != nil {
		return nil, err
	}
	client, err := kgo.NewClient(append(common, opts...)...)
	if err != nil {
		return nil, fmt.Errorf("open the client %s: %w", name, err)
	}
	return client, nil
}

func (l *Log) clientOptions(name string, hooks ...kgo.Hook) ([]kgo.Opt, error) {
	common, err := l.cfg.options()
	if err != nil {
		return nil, err
	}
	return append(common,
		kgo.WithLogger(clientLogger{l.log.With("client", name)}),
		kgo.WithHooks(append(l.clientHooks(name), hooks...)...),
	), nil
}

// clientHooks are the metrics of a client. Where a client of that name is open already, as while a partition's producer
// is replaced, the second one goes uncounted: two collectors of one name cannot be registered.
func (l *Log) clientHooks(name string) []kgo.Hook {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.clients[name] > 0 {
		return nil
	}
	l.clients[name]++
	reg := prometheus.WrapRegistererWith(prometheus.Labels{"client": name}, l.reg)
	return []kgo.Hook{
		kprom.NewMetrics("campanile_kafka", kprom.Registerer(reg), kprom.Gatherer(prometheus.NewRegistry())),
		closedHook{func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			delete(l.clients, name)
		}},
	}
}

// closedHook calls its function when the client is closed; after kprom's own hook, which unregisters.
type closedHook struct{ closed func() }

// OnClientClosed implements kgo.HookClientClosed.
func (h closedHook) OnClientClosed(*kgo.Client) { h.closed() }

// topicInfo is what the hot paths need of a topic's spec.
type topicInfo struct {
	name string // in the cluster
	spec schemas.Spec
	send schemas.SendTopic // zero but for sends and retries
}

func topicTable(prefix string) map[schemas.Topic]topicInfo {
	table := map[schemas.Topic]topicInfo{}
	for _, spec := range schemas.Specs() {
		send, _ := schemas.ParseSendTopic(spec.Topic)
		table[spec.Topic] = topicInfo{name: prefix + string(spec.Topic), spec: spec, send: send}
	}
	return table
}

// name is a topic's name in the cluster.
func (l *Log) name(t schemas.Topic) string {
	if info, ok := l.topics[t]; ok {
		return info.name
	}
	return l.cfg.Prefix + string(t)
}

func (l *Log) names(topics []schemas.Topic) []string {
	names := make([]string, len(topics))
	for i, t := range topics {
		names[i] = l.name(t)
	}
	return names
}

// topic is the inverse of name.
func (l *Log) topic(name string) schemas.Topic { return schemas.Topic(name[len(l.cfg.Prefix):]) }

// Ends are the high watermarks of a topic by partition, read now from the brokers.
func (l *Log) Ends(ctx context.Context, topic schemas.Topic) ([]int64, error) {
	listed, err := l.admin.ListEndOffsets(ctx, l.name(topic))
	return l.offsets(topic, listed, err, "ends")
}

// Starts are the offsets of the first records that are still there, by partition, read now from the brokers.
func (l *Log) Starts(ctx context.Context, topic schemas.Topic) ([]int64, error) {
	listed, err := l.admin.ListStartOffsets(ctx, l.name(topic))
	return l.offsets(topic, listed, err, "starts")
}

func (l *Log) offsets(topic schemas.Topic, listed kadm.ListedOffsets, err error, what string) ([]int64, error) {
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("read the %s of %s: %w", what, topic, err)
	}
	partitions := listed[l.name(topic)]
	offsets := make([]int64, len(partitions))
	for p, o := range partitions {
		if int(p) >= len(offsets) {
			return nil, fmt.Errorf("read the %s of %s: partition %d of %d", what, topic, p, len(offsets))
		}
		offsets[p] = o.Offset
	}
	return offsets, nil
}

// Ping reports whether a broker answers.
func (l *Log) Ping(ctx context.Context) error {
	if err := l.client.Ping(ctx); err != nil {
		return fmt.Errorf("ping the brokers: %w", err)
	}
	return nil
}

// clientLogger passes what the client says on. Its info is about connections and batches, and ours is about the stage.
type clientLogger struct{ log *slog.Logger }

// Level implements kgo.Logger.
func (c clientLogger) Level() kgo.LogLevel {
	if c.log.Enabled(context.Background(), slog.LevelDebug) {
		return kgo.LogLevelInfo
	}
	return kgo.LogLevelWarn
}

// Log implements kgo.Logger.
func (c clientLogger) Log(level kgo.LogLevel, msg string, keyvals ...any) {
	to := slog.LevelDebug
	switch level {
	case kgo.LogLevelError, kgo.LogLevelWarn:
		to = slog.LevelWarn // the client goes on by itself; who waits for it reports an error
	case kgo.LogLevelNone, kgo.LogLevelInfo, kgo.LogLevelDebug:
	}
	c.log.Log(context.Background(), to, "kafka client", append([]any{"says", msg}, slices.Clone(keyvals)...)...)
}
