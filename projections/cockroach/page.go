package cockroach

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/campanile-push/campanile/projections"
	"github.com/campanile-push/campanile/schemas"
)

var errColumn = errors.New("a column of another width than asked for")

// Page reads the applied offsets and the rows in one snapshot.
func (s *Store) Page(ctx context.Context, q schemas.PageQuery, page *schemas.Page) error {
	page.Reset()
	if err := projections.CheckQuery(&q); err != nil {
		return err
	}
	memory, _ := s.runs.Get().(*runs)
	if memory == nil {
		memory = &runs{}
	}
	defer s.runs.Put(memory)
	err := s.read(ctx, func(tx pgx.Tx, t tables) error {
		page.Reset() // fn may run again
		page.Next = q.After
		if q.Watermark != nil {
			applied, err := s.applied(ctx, tx, t)
			if err != nil {
				return err
			}
			if !q.Watermark.Reached(applied) {
				return schemas.ErrBehind
			}
		}
		if s.db.Dialect == PostgreSQL {
			if _, err := tx.Exec(ctx, sqlInOrder); err != nil {
				return err
			}
		}
		return t.fill(ctx, tx, &q, page, memory.of(len(q.Channels)))
	})
	if errors.Is(err, schemas.ErrBehind) {
		return schemas.ErrBehind
	}
	if err != nil {
		return fmt.Errorf("page an audience of %q: %w", q.App, err)
	}
	return nil
}

// fill reads one row more than wanted of each channel: what is left after the merge says whether the page is the last.
func (t tables) fill(ctx context.Context, tx pgx.Tx, q *schemas.PageQuery, page *schemas.Page, runs []run) error {
	var words projections.Words
	if len(q.Channels) == 1 {
		more := false
		err := t.rows(ctx, tx, q, q.Channels[0], func(token []byte, env schemas.Environment, at int64, platform []byte) {
			if more = len(page.Devices) == q.Limit; !more {
				page.Add(token, env, at, words.Of(platform))
			}
		})
		if err != nil {
			return err
		}
		finish(page, !more)
		return nil
	}
	for i, channel := range q.Channels {
		err := t.rows(ctx, tx, q, channel, func(token []byte, env schemas.Environment, at int64, platform []byte) {
			runs[i].add(token, env, at, words.Of(platform))
		})
		if err != nil {
			return err
		}
	}
	finish(page, merge(runs, q.Limit, page))
	return nil
}

// run is what is left of a channel's rows. shards are those of the page's devices: a comparison needs them, and they are a hash.
type run struct {
	page   schemas.Page
	shards []uint32
	next   int
}

// runs are the memory of a page's runs, used again.
type runs struct{ list []run }

// of is n empty runs.
func (r *runs) of(n int) []run {
	for len(r.list) < n {
		r.list = append(r.list, run{})
	}
	for i := range r.list[:n] {
		at := &r.list[i]
		at.page.Reset()
		at.shards, at.next = at.shards[:0], 0
	}
	return r.list[:n]
}

func (r *run) add(token []byte, env schemas.Environment, at int64, platform string) {
	r.page.Add(token, env, at, platform)
	r.shards = append(r.shards, schemas.Shard(token))
}

func (r *run) left() bool { return r.next < len(r.shards) }

// compare orders the next devices of two runs, which have one.
func (r *run) compare(o *run) int {
	if a, b := r.shards[r.next], o.shards[o.next]; a != b {
		return cmp.Compare(a, b)
	}
	a, b := &r.page.Devices[r.next], &o.page.Devices[o.next]
	if order := bytes.Compare(a.Token, b.Token); order != 0 {
		return order
	}
	return cmp.Compare(a.Environment, b.Environment)
}

// rows reads a channel's audience after q.After, up to one row more than q.Limit.
func (t tables) rows(ctx context.Context, tx pgx.Tx, q *schemas.PageQuery, channel string, row func(token []byte, env schemas.Environment, at int64, platform []byte)) error {
	after := q.After
	if !after.Set || after.Shard < q.ShardFrom {
		after = schemas.Cursor{Shard: q.ShardFrom}
	}
	found, err := tx.Query(ctx, t.sql(sqlPage), pgx.QueryResultFormats{pgx.BinaryFormatCode},
		q.App, channel, int64(q.Transport), int64(after.Shard), []byte(after.Token), int64(after.Environment), int64(q.ShardTo), int64(q.Limit)+1)
	if err != nil {
		return err
	}
	defer found.Close()
	for found.Next() {
		v := found.RawValues() // valid until the next row; the page copies
		if len(v[1]) != 8 || len(v[2]) != 8 {
			return errColumn
		}
		env := schemas.Environment(binary.BigEndian.Uint64(v[1]))
		row(v[0], env, int64(binary.BigEndian.Uint64(v[2])), v[3])
	}
	return found.Err()
}

// merge moves up to limit devices from the runs into page, in key order, each once. It reports whether nothing is left.
func merge(runs []run, limit int, page *schemas.Page) (done bool) {
	for {
		var least *run
		for i := range runs {
			if r := &runs[i]; r.left() && (least == nil || r.compare(least) < 0) {
				least = r
			}
		}
		if least == nil || len(page.Devices) == limit {
			return least == nil
		}
		d := &least.page.Devices[least.next]
		page.Add(d.Token, d.Environment, d.RegisteredAtUS, d.Platform)
		for i := range runs {
			if r := &runs[i]; r != least && r.left() && r.compare(least) == 0 {
				r.next++
			}
		}
		least.next++
	}
}

func finish(page *schemas.Page, done bool) {
	page.Done = done
	if n := len(page.Devices); n > 0 {
		d := &page.Devices[n-1]
		page.Next = schemas.Cursor{Shard: schemas.Shard(d.Token), Token: string(d.Token), Environment: d.Environment, Set: true}
	}
}
