package bench

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"time"

	"github.com/campanile-push/campanile/projections"
	"github.com/campanile-push/campanile/projections/cockroach"
	"github.com/campanile-push/campanile/projections/pebble"
	"github.com/campanile-push/campanile/schemas"
)

const (
	pageDevices = 1_000_000
	pageRows    = 10_000 // of a page: router.max_page
	// halfChannel is that of every second device.
	halfChannel = "0c4a8d09ca3762af61e59520943dc264"
)

// audiences are what pages are read of: one channel, and two that share devices, which are merged.
func audiences() map[string][]string {
	return map[string][]string{"": {siteChannel}, "two/": {siteChannel, halfChannel}}
}

func pageRowNames(engine string) (rows []string) {
	for _, of := range []string{"", "two/"} {
		rows = append(rows, "page/"+engine+"/"+of+"rate", "page/"+engine+"/"+of+"cpu_us")
	}
	return rows
}

// pages are the benchmarks of the device stores' pages.
func pages() []benchmark {
	what := fmt.Sprintf("all pages of an audience of %s devices out of %%s, and of two channels, of which the second has every second device", sizeName(pageDevices))
	return []benchmark{
		{pageRowNames("pebble"), fmt.Sprintf(what, "Pebble"), (*harness).pagePebble},
		benchmark{pageRowNames("postgres"), fmt.Sprintf(what, "PostgreSQL, its processes counted"), (*harness).pagePostgres}.without(errNoKafka),
	}
}

func (h *harness) pagePebble(ctx context.Context) (rows []Row, err error) {
	store, err := pebble.Open(filepath.Join(h.dir, "devices"), pebble.Options{Layout: schemas.Layout{Partitions: partitions}})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if err := h.fill(ctx, store, h.scaled(pageDevices), pagedPhones); err != nil {
		return nil, err
	}
	return h.pageRounds(ctx, "page/pebble/", store, func() (time.Duration, error) { return 0, nil })
}

func (h *harness) pagePostgres(ctx context.Context) (rows []Row, err error) {
	var db store
	defer func() { err = errors.Join(err, db.close(context.WithoutCancel(ctx), h)) }()
	if err := db.open(ctx, h); err != nil {
		return nil, err
	}
	store, err := cockroach.Open(ctx, cockroach.Options{URL: db.url, Layout: schemas.Layout{Partitions: partitions}, Logger: h.Logger})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if err := h.fill(ctx, store, h.scaled(pageDevices), pagedPhones); err != nil {
		return nil, err
	}
	return h.pageRounds(ctx, "page/postgres/", store, func() (used time.Duration, err error) {
		pids, err := db.processes()
		for _, pid := range pids {
			n, failed := familyCPU(pid)
			used, err = used+n, errors.Join(err, failed)
		}
		return used, err
	})
}

// pagedPhones are n phones in the site's channel, and every second in another one too.
func pagedPhones(n int) iter.Seq[projections.Filled] {
	return func(yield func(projections.Filled) bool) {
		both, i := []string{halfChannel, siteChannel}, 0 // sorted
		for f := range filledPhones(n) {
			if i++; i%2 == 0 {
				f.State.Channels = both
			}
			if !yield(f) {
				return
			}
		}
	}
}

// pageRounds reads every audience in each round. server is the CPU time of a server until now.
func (h *harness) pageRounds(ctx context.Context, name string, store projections.DeviceStore, server func() (time.Duration, error)) ([]Row, error) {
	n := h.scaled(pageDevices)
	samples := map[string][]sample{}
	for round := range h.Rounds + 1 {
		for of, channels := range audiences() {
			s, err := h.pageAll(ctx, store, channels, server)
			if err != nil {
				return nil, err
			}
			if s.n != n {
				return nil, fmt.Errorf("want %d rows, got %d", n, s.n)
			}
			h.say("%s  %d channels: %s", roundName(round), len(channels), s)
			if round > 0 {
				samples[of] = append(samples[of], s)
			}
		}
	}
	var rows []Row
	for _, of := range []string{"", "two/"} {
		rows = append(rows, row(name+of+"rate", "rows/s", each(samples[of], sample.rate), nil), row(name+of+"cpu_us", "µs/row", each(samples[of], sample.cpuUS), nil))
	}
	return rows, nil
}

// pageAll reads an audience on both transports, page by page as a router does.
func (h *harness) pageAll(ctx context.Context, store projections.DeviceStore, channels []string, server func() (time.Duration, error)) (sample, error) {
	before, err := server()
	if err != nil {
		return sample{}, err
	}
	watch, err := h.watch(nil)
	if err != nil {
		return sample{}, err
	}
	n := 0
	var page schemas.Page
	for _, t := range schemas.Transports {
		q := schemas.PageQuery{App: app, Channels: channels, Transport: t, ShardTo: schemas.Shards, Limit: pageRows, Watermark: make(schemas.Watermark, partitions)}
		for done := false; !done; done, q.After = page.Done, page.Next {
			if err := store.Page(ctx, q, &page); err != nil {
				return sample{}, err
			}
			n += len(page.Devices)
		}
	}
	s, err := watch.stop(n)
	if err != nil {
		return s, err
	}
	after, err := server()
	if used := after - before; used > 0 {
		s.cpu += used
		s.others["of it the server"] = used
	}
	return s, err
}
