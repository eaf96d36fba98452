package eventlog

import (
	"context"
	"fmt"

	"github.com/campanile-push/campanile/schemas"
)

// Scan hands every committed record of a topic to f, from the offsets from (inclusive) to the offsets to (exclusive), both by partition: in
// order within a partition, tombstones included. A record is f's until f returns. What was deleted is passed over: the first record that is
// left comes first. Transactions that are open below an end are waited for. It returns the error of f as it is.
func (l *Log) Scan(ctx context.Context, topic schemas.Topic, from, to []int64, f func(schemas.Record) error) error {
	if len(from) != len(to) {
		return fmt.Errorf("scan %s: from %d partitions to %d", topic, len(from), len(to))
	}
	spans := make([]span, len(from))
	for p := range from {
		spans[p] = span{place{topic, int32(p)}, from[p], to[p]}
	}
	return l.readSpans(ctx, "scan", spans, f)
}
