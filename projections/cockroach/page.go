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
		return t.fill(ctx, tx, &q, page)
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
func (t tables) fill(ctx context.Context, tx pgx.Tx, q *schemas.PageQuery, page *schemas.Page) error {
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
	runs := make([]schemas.Page, len(q.Channels))
	for i, channel := range q.Channels {
		err := t.rows(ctx, tx, q, channel, func(token []byte, env schemas.Environment, at int64, platform []byte) {
			runs[i].Add(token, env, at, words.Of(platform))
		})
		if err != nil {
			return err
		}
	}
	finish(page, merge(runs, q.Limit, page))
	return nil
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
func merge(runs []schemas.Page, limit int, page *schemas.Page) (done bool) {
	for {
		var least *schemas.AudienceDevice
		for i := range runs {
			if rest := runs[i].Devices; len(rest) > 0 && (least == nil || compare(&rest[0], least) < 0) {
				least = &rest[0]
			}
		}
		if least == nil || len(page.Devices) == limit {
			return least == nil
		}
		page.Add(least.Token, least.Environment, least.RegisteredAtUS, least.Platform)
		for i := range runs {
			if rest := runs[i].Devices; len(rest) > 0 && compare(&rest[0], least) == 0 {
				runs[i].Devices = rest[1:]
			}
		}
	}
}

func compare(a, b *schemas.AudienceDevice) int {
	return cmp.Or(cmp.Compare(schemas.Shard(a.Token), schemas.Shard(b.Token)), bytes.Compare(a.Token, b.Token), cmp.Compare(a.Environment, b.Environment))
}

func finish(page *schemas.Page, done bool) {
	page.Done = done
	if n := len(page.Devices); n > 0 {
		d := &page.Devices[n-1]
		page.Next = schemas.Cursor{Shard: schemas.Shard(d.Token), Token: string(d.Token), Environment: d.Environment, Set: true}
	}
}
