package broker_test

import (
	"context"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/campanile-push/campanile/eventlog/broker"
)

// at is one record that was read.
type at struct {
	offset    int64
	value     string
	tombstone bool
}

// readAll reads what is committed in every partition of a topic, from its start to its end, control records left out: by
// partition and key, in log order.
func readAll(t *testing.T, b *broker.Broker, topic string) map[int32]map[string][]at {
	t.Helper()
	cl := client(t, b, kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(100*time.Millisecond))
	defer cl.Close()
	adm := kadm.NewClient(cl)
	ends, err := adm.ListEndOffsets(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	left := make(map[int32]int64)
	starts, err := adm.ListStartOffsets(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[int32]map[string][]at)
	ends.Each(func(o kadm.ListedOffset) {
		got[o.Partition] = make(map[string][]at)
		if s, _ := starts.Lookup(topic, o.Partition); s.Offset < o.Offset {
			left[o.Partition] = o.Offset
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for len(left) > 0 {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("read %s: %v; partitions not read to the end: %v", topic, err, left)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if !r.Attrs.IsControl() {
				got[r.Partition][string(r.Key)] = append(got[r.Partition][string(r.Key)], at{r.Offset, string(r.Value), r.Value == nil})
			}
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
		})
	}
	return got
}

// values are all committed values of a topic, sorted, by partition.
func values(t *testing.T, b *broker.Broker, topic string) map[int32][]string {
	t.Helper()
	all := make(map[int32][]string)
	for p, keys := range readAll(t, b, topic) {
		for _, records := range keys {
			for _, r := range records {
				all[p] = append(all[p], r.value)
			}
		}
		slices.Sort(all[p])
	}
	return all
}

// transactor is a client with a transactional id.
func transactor(t *testing.T, b *broker.Broker, id string) *kgo.Client {
	t.Helper()
	return client(t, b, kgo.TransactionalID(id), kgo.TransactionTimeout(10*time.Second))
}

// write produces one value to the first n partitions of a topic, in the open transaction.
func write(t *testing.T, cl *kgo.Client, topic string, n int32, value string) {
	t.Helper()
	var records []*kgo.Record
	for p := range n {
		records = append(records, &kgo.Record{Topic: topic, Partition: p, Key: []byte("k" + strconv.Itoa(int(p))), Value: []byte(value)})
	}
	if err := cl.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

func begin(t *testing.T, cl *kgo.Client) {
	t.Helper()
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
}

func end(t *testing.T, cl *kgo.Client, commit kgo.TransactionEndTry) {
	t.Helper()
	if err := cl.EndTransaction(t.Context(), commit); err != nil {
		t.Fatal(err)
	}
}
