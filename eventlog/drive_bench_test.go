package eventlog_test

import (
	"context"
	"os"
	"slices"
	"strconv"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/eventlog/logtest"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

const benchPage = 10_000 // records of a transaction

// benchSay says a page as the broadcast router does: benchPage sends of a bulk broadcast, and the cursor.
func benchSay(id schemas.ID) func(*schemas.Out) {
	tokens := make([]string, benchPage)
	for i := range tokens {
		tokens[i] = "f3a9c0de5b1e7d2480c6b9a1d4e8f70213579bdf02468ace" + strconv.Itoa(1_000_000_000+i)
	}
	var e pushv1.SendRequested
	return func(out *schemas.Out) {
		for i, token := range tokens {
			e.BroadcastId, e.Token, e.RegisteredAtUs = id[:], token, 1_790_000_000_000_000+int64(i)
			out.SendRequested(schemas.Bulk, schemas.Device{App: "com.moodle.moodlemobile", Transport: schemas.APNS, Token: token}, &e)
		}
		out.CursorMoved(&pushv1.CursorMoved{BroadcastId: id[:], App: "com.moodle.moodlemobile", Transport: schemas.APNS, Emitted: 1})
	}
}

// BenchmarkDriveCommit compares a Drive's commits, encoding and all, with bare transactions of the same records, encoded
// beforehand, by a tuned franz-go client with the same codec, keys and partitions. One op is one record.
func BenchmarkDriveCommit(b *testing.B) {
	cfg := embedded(b)
	if os.Getenv("KAFKA_BROKERS") != "" {
		cfg = logtest.Kafka(b)
	}
	l := driveLog(b, cfg)
	id := schemas.NewID()
	b.Run("drive", func(b *testing.B) {
		ctx, cancel := context.WithCancel(b.Context())
		defer cancel()
		done := make(chan error, 1)
		owner := l.Layout().OfCursor(id, schemas.APNS, 0)
		say := benchSay(id)
		d := driveFunc(func(ctx context.Context, p int32, commit schemas.Commit) error {
			if p == owner {
				done <- commit(ctx, say) // memory is there from here on
				b.ResetTimer()
				var err error
				for n := 0; n < b.N && err == nil; n += benchPage {
					err = commit(ctx, say)
				}
				b.StopTimer()
				done <- err
			}
			<-ctx.Done()
			return ctx.Err()
		})
		ended := make(chan error, 1)
		go func() {
			ended <- l.RunDrive(ctx, eventlog.DriveOptions{
				Stage: "bench", Group: "bench", StateTopic: schemas.Expansions, Transactional: true, TransactionalPrefix: "bench",
			}, d)
		}()
		for range 2 {
			if err := <-done; err != nil {
				b.Fatal(err)
			}
		}
		cancel()
		if err := <-ended; err != nil {
			b.Fatal(err)
		}
	})
	b.Run("bare", func(b *testing.B) {
		opts := []kgo.Opt{
			kgo.SeedBrokers(cfg.Brokers...), kgo.TransactionalID(cfg.Prefix + "bare"), kgo.RecordPartitioner(kgo.ManualPartitioner()),
			kgo.ProducerBatchMaxBytes(256 << 10), kgo.MaxBufferedRecords(100_000), kgo.ProducerBatchCompression(kgo.SnappyCompression()),
		}
		if cfg.Dial != nil {
			opts = append(opts, kgo.Dialer(cfg.Dial))
		}
		client, err := kgo.NewClient(opts...)
		if err != nil {
			b.Fatal(err)
		}
		defer client.Close()
		out := schemas.NewOut(l.Layout())
		benchSay(id)(out)
		var ready []kgo.Record
		out.Each(func(topic schemas.Topic, p int32, key, value []byte) {
			ready = append(ready, kgo.Record{Topic: cfg.Prefix + string(topic), Partition: p, Key: slices.Clone(key), Value: slices.Clone(value)})
		})
		records := make([]kgo.Record, len(ready))
		promise := func(_ *kgo.Record, err error) {
			if err != nil {
				b.Error(err)
			}
		}
		transact := func() {
			copy(records, ready) // the client wrote offsets into them
			if err := client.BeginTransaction(); err != nil {
				b.Fatal(err)
			}
			for i := range records {
				client.Produce(b.Context(), &records[i], promise)
			}
			if err := client.Flush(b.Context()); err != nil {
				b.Fatal(err)
			}
			if err := client.EndTransaction(b.Context(), kgo.TryCommit); err != nil {
				b.Fatal(err)
			}
		}
		transact()
		b.ResetTimer()
		for n := 0; n < b.N; n += benchPage {
			transact()
		}
	})
}
