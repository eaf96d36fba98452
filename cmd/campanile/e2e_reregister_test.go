package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/campanile-push/campanile/bench"
	"github.com/campanile-push/campanile/schemas"
)

// process runs every stage but analytics in the test's own process, so that a test can add to it.
func (w *world) process(t *testing.T) *process {
	t.Helper()
	flags := pflag.NewFlagSet("up", pflag.ContinueOnError)
	addConfigFlags(flags)
	cfg, err := loadConfig(flags, w.env())
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	p, err := newProcess(ctx, cfg, slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})))
	t.Cleanup(p.close)
	if err != nil {
		t.Fatal(err)
	}
	for _, start := range []func(context.Context) error{
		p.startProjector, p.startRouter,
		func(context.Context) error { return p.startSender(schemas.APNS) },
		func(context.Context) error { return p.startSender(schemas.FCM) },
		p.startIngest,
	} {
		if err := start(ctx); err != nil {
			t.Fatal(err)
		}
	}
	p.health.ready("start")
	return p
}

// secondDoor adds an ingest of its own, with its own memory, to a process; it returns where that one listens.
func (p *process) secondDoor(t *testing.T) string {
	t.Helper()
	p.registry = newRegistry() // its metrics have the names of the first one's
	server := p.newIngest("ingest.second")
	p.super.start(followers, "ingest.second.upkeep", server.Run)
	s := httptest.NewServer(server.Handler())
	t.Cleanup(s.Close)
	return s.URL
}

// TestReRegisteredTokenIsPushed: tokens that two ingests know as dead are registered at one of them and pushed to through the other at
// once. Moodle deletes a device on a 404, so that none may come, and every push must reach its provider.
func TestReRegisteredTokenIsPushed(t *testing.T) {
	t.Parallel()
	const n, width = 1000, 4
	w := newWorld(t)
	p := w.process(t)
	second := p.secondDoor(t)
	eventually(t, time.Minute, "both ingests have read the log", func() bool { return len(p.health.snapshot()) == 0 })
	w.app(t, app)
	key := w.key(t, app, "all")
	doors := make([]bench.Moodle, 0, 2)
	for _, url := range []string{"http://" + p.apiAddress, second} {
		doors = append(doors, bench.Moodle{BaseURL: url, App: app, Key: key, Client: bench.NewClient(64)})
	}
	all := phones("reborn", n)
	each := func(do func(ctx context.Context, i int) error) {
		t.Helper()
		if err := bench.Each(t.Context(), n, width, nil, do); err != nil {
			t.Fatal(err)
		}
	}
	each(func(ctx context.Context, i int) error {
		return doors[i%2].Register(ctx, all[i].Token, all[i].Platform, "room")
	})

	w.die(t, all)
	if _, err := doors[0].Broadcast(t.Context(), "room", "who is there?"); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "all are found dead", func() bool { return w.reconcile(t).Invalid >= n })
	for d, door := range doors {
		eventually(t, time.Minute, fmt.Sprintf("ingest %d answers 404 for every one", d), func() bool {
			refused := 0
			for i := range all {
				a, err := door.Push(t.Context(), all[i].Token, all[i].Platform, "gone?")
				if err != nil {
					t.Fatal(err)
				}
				if a.Status == http.StatusNotFound && a.Field("error") == "Unregistered token" {
					refused++
				}
			}
			return refused == n
		})
	}
	w.settled(t, time.Minute)
	if s := w.summary(t); s.Accepted != 0 {
		t.Fatalf("the providers took %d pushes to dead tokens", s.Accepted)
	}

	for _, phone := range all {
		if err := w.ledger().Revive(t.Context(), provider(phone), phone.Token); err != nil {
			t.Fatal(err)
		}
	}
	each(func(ctx context.Context, i int) error {
		phone, registrar, pusher := all[i], doors[i%2], doors[(i+1)%2]
		if err := registrar.Register(ctx, phone.Token, phone.Platform, "room"); err != nil {
			return err
		}
		a, err := pusher.Push(ctx, phone.Token, phone.Platform, "welcome back")
		if err == nil && a.Status != http.StatusAccepted {
			err = fmt.Errorf("push %d, right after its registration: %d %s", i, a.Status, a.Body)
		}
		return err
	})
	w.settled(t, time.Minute)
	for i, got := range w.pushes(t, all...) {
		if got != 1 {
			t.Errorf("phone %d got %d pushes, want 1", i, got)
		}
	}
}
