package pebble

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/campanile-push/campanile/projections"
	"github.com/campanile-push/campanile/schemas"
)

// Page merges the channels' rows from one snapshot.
func (s *Store) Page(ctx context.Context, q schemas.PageQuery, page *schemas.Page) (err error) {
	page.Reset()
	page.Next = q.After
	if err := projections.CheckQuery(&q); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	e, done := s.use()
	defer done()
	snapshot := e.db.NewSnapshot()
	defer func() { err = cmp.Or(err, snapshot.Close()) }()
	if q.Watermark != nil {
		applied, err := s.applied(snapshot)
		if err != nil {
			return err
		}
		if !q.Watermark.Reached(applied) {
			return schemas.ErrBehind
		}
	}
	m, err := openMerge(snapshot, &q)
	if err != nil {
		return fmt.Errorf("page an audience of %q: %w", q.App, err)
	}
	defer func() { err = errors.Join(err, m.close()) }()
	return m.fill(ctx, q.Limit, page)
}

// merge walks the audiences of some channels together, in the order of shard, token and environment.
type merge struct {
	runs  []run
	words projections.Words
}

// run is one channel's place: suffix is the part of its key after the channel and transport, nil at the end.
type run struct {
	iter   *pebble.Iterator
	prefix int
	suffix []byte
}

func openMerge(r pebble.Reader, q *schemas.PageQuery) (*merge, error) {
	m := &merge{runs: make([]run, 0, len(q.Channels))}
	for _, channel := range q.Channels {
		prefix := appendAudiencePrefix(nil, q.App, channel, q.Transport)
		lower := shardBound(prefix, q.ShardFrom)
		if q.After.Set && q.After.Shard >= schemas.Shards {
			lower = shardBound(prefix, schemas.Shards)
		} else if q.After.Set {
			// The next possible key: the cursor's own with a byte more.
			after := append(appendAudienceSuffix(bytes.Clone(prefix), q.After.Shard, q.After.Token, q.After.Environment), 0)
			if bytes.Compare(after, lower) > 0 {
				lower = after
			}
		}
		upper := shardBound(prefix, q.ShardTo)
		if bytes.Compare(lower, upper) >= 0 {
			continue
		}
		iter, err := r.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
		if err != nil {
			return nil, errors.Join(err, m.close())
		}
		next := run{iter: iter, prefix: len(prefix)}
		next.take(iter.First())
		m.runs = append(m.runs, next)
	}
	return m, nil
}

// shardBound is the first key of a shard, or after the last one.
func shardBound(prefix []byte, shard uint32) []byte {
	bound := bytes.Clone(prefix)
	if shard < schemas.Shards {
		return append(bound, byte(shard))
	}
	bound[len(bound)-1]++ // the transport's byte, which is small
	return bound
}

func (r *run) take(ok bool) {
	r.suffix = nil
	if ok {
		r.suffix = r.iter.Key()[r.prefix:]
	}
}

// least is the run with the smallest place, or nil at the end of all. Channels are few, so a heap would not pay.
func (m *merge) least() *run {
	var least *run
	for i := range m.runs {
		if r := &m.runs[i]; r.suffix != nil && (least == nil || bytes.Compare(r.suffix, least.suffix) < 0) {
			least = r
		}
	}
	return least
}

func (m *merge) fill(ctx context.Context, limit int, page *schemas.Page) error {
	var last []byte
	for n := range limit {
		if n%cancelEvery == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		r := m.least()
		if r == nil {
			break
		}
		_, token, env, ok := parseAudienceSuffix(r.suffix)
		at, platform, fine := parseAudienceRow(r.iter.Value())
		if !ok || !fine {
			return errRow
		}
		page.Add(token, env, at, m.words.Of(platform))
		if len(m.runs) == 1 {
			r.take(r.iter.Next())
			continue
		}
		last = append(last[:0], r.suffix...)
		m.pass(last)
	}
	if n := len(page.Devices); n > 0 {
		d := &page.Devices[n-1]
		page.Next = schemas.Cursor{Shard: schemas.Shard(d.Token), Token: string(d.Token), Environment: d.Environment, Set: true}
	}
	page.Done = m.least() == nil
	return nil
}

// pass moves every run that stands at this place: the device is in several of the channels.
func (m *merge) pass(place []byte) {
	for i := range m.runs {
		if r := &m.runs[i]; bytes.Equal(r.suffix, place) {
			r.take(r.iter.Next())
		}
	}
}

// close returns what the iterators met.
func (m *merge) close() error {
	var err error
	for i := range m.runs {
		err = errors.Join(err, m.runs[i].iter.Close())
	}
	return err
}
