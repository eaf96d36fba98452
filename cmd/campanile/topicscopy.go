package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"github.com/campanile-push/campanile/audit"
	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/schemas"
)

func topicsCopyCommand(t *terminal) *cobra.Command {
	var prefix string
	cmd := &cobra.Command{
		Use:   "copy --to-prefix PREFIX",
		Short: "Copy apps, keys and devices into topics of another prefix, which may have more partitions",
		Long: `The number of partitions of a topic is fixed. To have more, create topics under another prefix:

  campanile topics apply --kafka-prefix v2. --kafka-partitions 96

stop ingest, let what is on its way arrive (campanile topics groups), and copy. Both sides are compared at the end. docs/operations.md has every step.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, logger, err := t.setup(cmd)
			if err != nil {
				return err
			}
			if c.embedded() {
				return errors.New("the embedded log has as many partitions as one process can use: `topics copy` is for Kafka")
			}
			if prefix == c.Kafka.Prefix {
				return fmt.Errorf("--to-prefix %q is where the topics are now: want another one", prefix)
			}
			return t.withLog(cmd, func(ctx context.Context, from *eventlog.Log, _ *secrets) error {
				target := *c
				target.Kafka.Prefix = prefix
				to, closeTo, err := openLog(ctx, &target, logger, prometheus.NewRegistry())
				if err != nil {
					return err
				}
				defer closeTo()
				return copyTopics(ctx, from, to, prefix, t.out)
			})
		},
	}
	cmd.Flags().StringVar(&prefix, "to-prefix", "", "prefix of the topics to copy into")
	_ = cmd.MarkFlagRequired("to-prefix") // it is declared above
	return cmd
}

// copyBatch is how many records are appended at once: each append waits for the brokers.
const copyBatch = 5000

// copyTopics copies what a log of another layout needs, and compares.
func copyTopics(ctx context.Context, from, to *eventlog.Log, prefix string, out io.Writer) error {
	if to.Layout().Partitions == 0 {
		return fmt.Errorf("there are no topics of prefix %q: `campanile topics apply --kafka-prefix %s --kafka-partitions N` creates them", prefix, prefix)
	}
	for _, topic := range audit.CopiedTopics() {
		ends, err := to.Ends(ctx, topic)
		if err != nil {
			return err
		}
		for _, end := range ends {
			if end > 0 {
				return fmt.Errorf("%s%s is not empty: copying into it would mix two histories; delete the topics of that prefix, or choose another", prefix, topic)
			}
		}
	}
	var read, written audit.Sum
	var batch []schemas.Record
	flush := func() error {
		var failed error
		err := to.Append(ctx, func(out *schemas.Out) {
			for _, r := range batch {
				if failed = audit.Copy(out, r); failed != nil {
					out.Reset()
					return
				}
			}
		})
		batch = batch[:0]
		return errors.Join(failed, err)
	}
	err := replay(ctx, from, "copy", func(r schemas.Record) error {
		read.Add(r.Topic, r.Key, r.Value)
		r.Key, r.Value = nil, append([]byte(nil), r.Value...)
		if batch = append(batch, r); len(batch) < copyBatch {
			return nil
		}
		return flush()
	}, audit.CopiedTopics()...)
	if err == nil {
		err = flush()
	}
	if err != nil {
		return fmt.Errorf("copy: %w; delete the topics of prefix %q before you try again", err, prefix)
	}
	err = replay(ctx, to, "copied", func(r schemas.Record) error {
		written.Add(r.Topic, r.Key, r.Value)
		return nil
	}, audit.CopiedTopics()...)
	if err != nil {
		return fmt.Errorf("read what was copied: %w", err)
	}
	if read != written {
		return fmt.Errorf("read %d records and find %d, or others, under %q: did something write there? Delete those topics and try again", read.Records, written.Records, prefix)
	}
	fmt.Fprintf(out, "copied %d records from %d partitions to %d; both sides are the same\n", read.Records, from.Layout().Partitions, to.Layout().Partitions)
	return nil
}
