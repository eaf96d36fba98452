package projections

import (
	"cmp"
	"fmt"

	"github.com/campanile-push/campanile/schemas"
)

// CheckQuery returns ErrQuery, wrapped, for a query that no store answers.
func CheckQuery(q *schemas.PageQuery) error {
	switch {
	case q.Limit < 1:
		return fmt.Errorf("page of %d devices: %w", q.Limit, ErrQuery)
	case len(q.Channels) == 0:
		return fmt.Errorf("page of no channel: %w", ErrQuery)
	case q.ShardFrom > q.ShardTo || q.ShardTo > schemas.Shards:
		return fmt.Errorf("shards %d to %d of %d: %w", q.ShardFrom, q.ShardTo, schemas.Shards, ErrQuery)
	case q.Transport < 1 || q.Transport > maxTransport:
		return fmt.Errorf("transport %d: %w", q.Transport, ErrQuery)
	}
	return CheckAudience(q.App, q.Channels)
}

// CheckAudience returns ErrQuery, wrapped, for an app or a channel that cannot be: they stand in keys.
func CheckAudience(app string, channels []string) error {
	err := schemas.CheckApp(app)
	for _, c := range channels {
		err = cmp.Or(err, schemas.CheckChannel(c))
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrQuery, err)
	}
	return nil
}

// SampleRows is how many rows of a channel and transport an estimate reads at most: about two shards of a million devices,
// and two milliseconds of an embedded store.
const SampleRows = 8192

// Extrapolate is the size of a channel's audience on one transport, after a sample in shard order. rows is the sample's size and shard the
// shard that its last row is of; whole, how many rows are of the shards before it. ended: there were no more rows.
func Extrapolate(rows, whole int64, shard uint32, ended bool) int64 {
	if ended {
		return rows
	}
	if shard == 0 || whole == 0 {
		return rows * schemas.Shards // a single shard did not fit: at least this
	}
	return whole * schemas.Shards / int64(shard)
}

// Behind reports whether the partitions of these devices are applied less far than need.
func Behind(l schemas.Layout, devices []schemas.Device, need schemas.Watermark, applied []int64) bool {
	for _, d := range devices {
		p := l.Of(d)
		if int(p) < len(need) && need[p] > 0 && (int(p) >= len(applied) || applied[p] < need[p]) {
			return true
		}
	}
	return false
}

// Words hands out one string for equal bytes, so that a page of many rows and few platforms allocates few strings. The zero
// value is ready; one goroutine uses it. It keeps a few words: clients choose what they call their platform.
type Words struct {
	words []string
}

const maxWords = 8 // there are two or three platforms

// Of is string(b).
func (w *Words) Of(b []byte) string {
	for _, s := range w.words {
		if s == string(b) {
			return s
		}
	}
	s := string(b)
	if len(w.words) < maxWords {
		w.words = append(w.words, s)
	}
	return s
}
