package bench

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/projections"
	"github.com/campanile-push/campanile/projections/pebble"
	"github.com/campanile-push/campanile/router"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// transactionRecords is how many records one transaction holds, ours at most and the baseline's: DESIGN's measure.
const transactionRecords = 10_000

// soundBaseline is the most client CPU that a bare transactional record may take, in microseconds. Above it the machine, or the
// baseline, is not what the target was set for.
const soundBaseline = 0.7

// siteChannel is the channel of every device.
const siteChannel = "5f4dcc3b5aa765d61d8327deb882cf99"

func (h *harness) expandPebble(ctx context.Context) ([]Row, error) {
	return h.expandStored(ctx, "router/kfake")
}

func (h *harness) expandKafka(ctx context.Context) ([]Row, error) {
	return h.expandStored(ctx, "router/kafka")
}

func (h *harness) expandStored(ctx context.Context, name string) ([]Row, error) {
	return h.expand(ctx, name, func(ctx context.Context, t *topics, n int) (router.Audience, func() error, error) {
		store, err := pebble.Open(filepath.Join(h.dir, "devices"), pebble.Options{Layout: t.Layout()})
		if err != nil {
			return nil, nil, err
		}
		began := time.Now()
		if err = t.register(ctx, n); err == nil {
			err = t.project(ctx, store)
		}
		if err != nil {
			return nil, nil, errors.Join(err, store.Close())
		}
		h.say("%d devices registered and projected in %s", n, time.Since(began).Round(time.Second/10))
		return store, store.Close, nil
	})
}

func (h *harness) expandMemory(ctx context.Context) ([]Row, error) {
	return h.expand(ctx, "router/memory/kfake", func(_ context.Context, _ *topics, n int) (router.Audience, func() error, error) {
		return newMemoryAudience(n), func() error { return nil }, nil
	})
}

// register says in the log that n phones are there, each in the one channel.
func (t *topics) register(ctx context.Context, n int) error {
	return t.fill(ctx, n, func(out *schemas.Out, i int) { registerPhone(out, MakePhone("bench", i)) })
}

// Of every phone's registration.
const (
	registeredBy = "0123456789abcdef0123456789abcdef"
	registeredUS = 1_780_000_000_000_000
)

func registerPhone(out *schemas.Out, p Phone) {
	d := p.device()
	out.TokenRegistered(&pushv1.TokenRegistered{
		App: app, Transport: d.Transport, Token: p.Token, Platform: p.Platform, KeyId: registeredBy, RegisteredAtUs: registeredUS,
	})
	out.ChannelSubscribed(&pushv1.ChannelSubscribed{App: app, Transport: d.Transport, Token: p.Token, Channel: siteChannel, SubscribedAtUs: registeredUS})
}

// project brings the store to the end of devices.
func (t *topics) project(ctx context.Context, store *pebble.Store) error {
	ends, err := t.Ends(ctx, schemas.Devices)
	if err != nil {
		return err
	}
	projector := projections.NewProjector(store)
	done := make(chan struct{})
	watching, stop := context.WithCancel(ctx)
	defer stop()
	var watched sync.WaitGroup
	defer watched.Wait()
	failed := newFirstError()
	watched.Go(func() {
		defer close(done)
		failed.set(poll(watching, 20*time.Millisecond, func() (bool, error) {
			applied, err := store.Applied(watching)
			return err == nil && schemas.Watermark(ends).Reached(applied), err
		}))
	})
	err = untilDone(ctx, done, func(ctx context.Context) error {
		return t.RunTransform(ctx, eventlog.TransformOptions{
			Stage: "projector", Group: schemas.GroupProjector, Topics: []schemas.Topic{schemas.Devices}, Positions: projector.Positions,
		}, projector)
	})
	stop()
	return errors.Join(err, failed.get())
}

// poll asks until it is told yes.
func poll(ctx context.Context, every time.Duration, ask func() (bool, error)) error {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		if yes, err := ask(); yes || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// expand runs the broadcast router as `campanile up` does, without senders and tally: nothing lets the lead grow, so it is set beyond
// what a round needs.
func (h *harness) expand(ctx context.Context, name string, open func(ctx context.Context, t *topics, n int) (router.Audience, func() error, error)) ([]Row, error) {
	c, err := h.newClusterOf(ctx, name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.close() }()
	t, err := c.newTopics(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = t.Close(context.WithoutCancel(ctx)) }()
	n := h.scaled(1_000_000)
	audience, closeAudience, err := open(ctx, t, n)
	if err != nil {
		return nil, err
	}
	defer func() { _ = closeAudience() }()

	r := t.startRouter(ctx, audience, h)
	defer r.stop()
	bare, err := newBareTransactions(ctx, t, n)
	if err != nil {
		return nil, err
	}
	defer bare.close()
	h.say("%d sends a round in %d ranges for each transport, at most %d in a transaction; baseline: %d producers, transactions of %d records",
		n, rangesFor(n), transactionRecords, partitions, transactionRecords)
	d, err := h.duel(ctx, name, func(ctx context.Context) (sample, error) { return r.round(ctx, c, n) }, func(ctx context.Context) (sample, error) { return bare.round(ctx, c) })
	if err != nil {
		return nil, err
	}
	rows := d.rows(name, "record")
	if used := median(each(d.bare, sample.cpuUS)); used > soundBaseline {
		for i := range rows {
			rows[i].Void = fmt.Sprintf("the baseline takes %.2f µs of client CPU a record; a sound one takes %.1f at most", used, soundBaseline)
		}
	}
	return rows, nil
}

// rangesFor is what ingest chooses for an audience.
func rangesFor(n int) uint32 {
	switch {
	case n < 50_000:
		return 1
	case n < 1_000_000:
		return 16
	}
	return 64
}

// runningRouter is a broadcast router at work.
type runningRouter struct {
	t      *topics
	state  *router.State
	end    context.CancelFunc
	parts  sync.WaitGroup
	failed firstError
}

func (t *topics) startRouter(ctx context.Context, audience router.Audience, h *harness) *runningRouter {
	ctx, cancel := context.WithCancel(ctx)
	r := &runningRouter{t: t, state: router.NewState(router.StateOptions{StartRate: 1e12}, t.Layout()), end: cancel, failed: newFirstError()}
	following := t.Follow("router", r.state.Apply, schemas.Broadcasts, schemas.Expansions, schemas.Progress)
	broadcasts := router.NewBroadcasts(router.BroadcastsOptions{MaxPage: transactionRecords}, r.state, audience, h.Logger)
	r.parts.Go(func() { r.ended(ctx, following.Run(ctx)) })
	r.parts.Go(func() {
		r.ended(ctx, t.RunDrive(ctx, eventlog.DriveOptions{
			Stage: "router.broadcast", Group: schemas.GroupBroadcastRouter, StateTopic: schemas.Expansions,
			Followed: []*eventlog.Following{following}, Transactional: true, TransactionalPrefix: "campanile.router",
		}, broadcasts))
	})
	return r
}

func (r *runningRouter) ended(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	if err == nil {
		err = errors.New("a part of the router ended by itself")
	}
	r.failed.set(err)
}

func (r *runningRouter) stop() {
	r.end()
	r.parts.Wait()
}

// round broadcasts to all devices, and waits until the last of them has its send in the log.
func (r *runningRouter) round(ctx context.Context, c *cluster, n int) (sample, error) {
	ends, err := r.t.Ends(ctx, schemas.Devices)
	if err != nil {
		return sample{}, err
	}
	id, record := schemas.NewID(), schemas.NewID()
	watch, err := c.watch()
	if err != nil {
		return sample{}, err
	}
	err = r.t.Append(ctx, func(out *schemas.Out) {
		out.BroadcastRequested(&pushv1.BroadcastRequested{
			BroadcastId: id[:], RecordId: record[:], App: app, Channels: []string{siteChannel}, Content: payload(),
			RequestedAtUs: time.Now().UnixMicro(), Watermark: &pushv1.Watermark{Ends: ends}, Ranges: rangesFor(n), AudienceEstimate: int64(n),
		})
	})
	if err != nil {
		return sample{}, err
	}
	var status router.Status
	err = poll(ctx, time.Millisecond, func() (bool, error) {
		var ok bool
		status, ok = r.state.Broadcast(id)
		return ok && status.Phase == router.Draining, r.failed.get()
	})
	if err != nil {
		return sample{}, err
	}
	var emitted int64
	for _, counts := range status.Counts {
		emitted += counts.Emitted
	}
	if emitted != int64(n) {
		return sample{}, fmt.Errorf("want %d sends, got %d", n, emitted)
	}
	return watch.stop(n)
}

// memoryAudience is an audience in cursor order, of one app and one channel.
type memoryAudience struct {
	rows map[schemas.Transport][]memoryDevice
}

type memoryDevice struct {
	shard    uint32
	token    string
	platform string
}

func newMemoryAudience(n int) *memoryAudience {
	a := &memoryAudience{rows: map[schemas.Transport][]memoryDevice{}}
	for i := range n {
		p := MakePhone("bench", i)
		a.rows[p.transport()] = append(a.rows[p.transport()], memoryDevice{schemas.ShardString(p.Token), p.Token, p.Platform})
	}
	for _, rows := range a.rows {
		slices.SortFunc(rows, func(x, y memoryDevice) int { return x.compare(y.shard, y.token) })
	}
	return a
}

func (d memoryDevice) compare(shard uint32, token string) int {
	if d.shard != shard {
		return int(d.shard) - int(shard)
	}
	switch {
	case d.token < token:
		return -1
	case d.token > token:
		return 1
	}
	return 0
}

// Page implements router.Audience.
func (a *memoryAudience) Page(_ context.Context, q schemas.PageQuery, page *schemas.Page) error {
	rows := a.rows[q.Transport]
	at, _ := slices.BinarySearchFunc(rows, q.ShardFrom, func(d memoryDevice, shard uint32) int { return d.compare(shard, "") })
	if q.After.Set {
		var found bool
		if at, found = slices.BinarySearchFunc(rows, q.After, func(d memoryDevice, c schemas.Cursor) int { return d.compare(c.Shard, c.Token) }); found {
			at++
		}
	}
	page.Next = q.After
	for ; at < len(rows) && rows[at].shard < q.ShardTo && len(page.Devices) < q.Limit; at++ {
		d := &rows[at]
		page.Add([]byte(d.token), schemas.Production, 1_780_000_000_000_000, d.platform)
		page.Next = schemas.Cursor{Shard: d.shard, Token: d.token, Set: true}
	}
	page.Done = at >= len(rows) || rows[at].shard >= q.ShardTo
	return nil
}

// bareTransactions are as many bare transactional producers as the router has partitions, each with a transaction's records ready.
type bareTransactions struct {
	clients []*kgo.Client
	ready   [][]kgo.Record
	each    int // transactions of each producer
}

func newBareTransactions(ctx context.Context, t *topics, n int) (*bareTransactions, error) {
	b := &bareTransactions{}
	records := min(transactionRecords, max(n/partitions, 1))
	b.each = max(n/records/partitions, 1)
	broadcast := schemas.NewID()
	for p := range partitions {
		client, err := t.bare(kgo.TransactionalID(fmt.Sprintf("%sbare-%d", t.prefix, p)))
		if err != nil {
			b.close()
			return nil, err
		}
		b.clients = append(b.clients, client)
		if _, _, err := client.ProducerID(ctx); err != nil {
			b.close()
			return nil, err
		}
		var ready []kgo.Record
		for _, e := range encode(t.Layout(), func(out *schemas.Out) {
			for i := range records {
				bulkSend(out, broadcast, MakePhone("bench", p*records+i))
			}
			out.CursorMoved(&pushv1.CursorMoved{BroadcastId: broadcast[:], App: app, Transport: schemas.FCM, Range: uint32(p), Ranges: 64})
		}) {
			ready = append(ready, kgo.Record{Topic: t.name(e.topic), Partition: e.partition, Key: e.key, Value: e.value})
		}
		b.ready = append(b.ready, ready)
	}
	return b, nil
}

func (b *bareTransactions) close() {
	for _, client := range b.clients {
		client.Close()
	}
}

func (b *bareTransactions) round(ctx context.Context, c *cluster) (sample, error) {
	n := 0
	for _, ready := range b.ready {
		n += b.each * (len(ready) - 1) // sends; the cursors come on top, as they do with the router
	}
	watch, err := c.watch()
	if err != nil {
		return sample{}, err
	}
	failed := newFirstError()
	var producers sync.WaitGroup
	for i, client := range b.clients {
		producers.Go(func() {
			records := make([]kgo.Record, len(b.ready[i]))
			for range b.each {
				copy(records, b.ready[i]) // the client writes offsets into them
				if err := transact(ctx, client, records, failed.promise); err != nil {
					failed.set(err)
					return
				}
			}
		})
	}
	producers.Wait()
	if err := failed.get(); err != nil {
		return sample{}, err
	}
	return watch.stop(n)
}

func transact(ctx context.Context, client *kgo.Client, records []kgo.Record, promise func(*kgo.Record, error)) error {
	if err := client.BeginTransaction(); err != nil {
		return err
	}
	for i := range records {
		client.Produce(ctx, &records[i], promise)
	}
	if err := client.Flush(ctx); err != nil {
		return err
	}
	return client.EndTransaction(ctx, kgo.TryCommit)
}
