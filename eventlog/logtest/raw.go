package logtest

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/schemas"
)

// Raw appends records as they are, whatever their bytes mean: what a newer version would write, or what none would. Of each, topic,
// partition, key and value count; a nil value is a tombstone. Every record is a batch of its own.
func Raw(ctx context.Context, cfg eventlog.Config, records ...schemas.Record) error {
	opts := []kgo.Opt{kgo.SeedBrokers(cfg.Brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0)}
	if cfg.Dial != nil {
		opts = append(opts, kgo.Dialer(cfg.Dial))
	}
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return fmt.Errorf("open a client: %w", err)
	}
	defer client.Close()
	for _, r := range records {
		err := client.ProduceSync(ctx, &kgo.Record{Topic: cfg.Prefix + string(r.Topic), Partition: r.Partition, Key: r.Key, Value: r.Value}).FirstErr()
		if err != nil {
			return fmt.Errorf("append to %s[%d]: %w", r.Topic, r.Partition, err)
		}
	}
	return nil
}
