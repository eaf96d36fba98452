package eventlog_test

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kfake"
	"log/slog"

	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

func TestCoreSmoke(t *testing.T) {
	t.Parallel()
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	l, err := eventlog.Open(ctx, eventlog.Config{Brokers: c.ListenAddrs(), Prefix: "x."}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(ctx)
	layout, err := l.CreateTopics(ctx, 4)
	if err != nil || layout.Partitions != 4 {
		t.Fatal(layout, err)
	}
	plans, err := l.PlanTopics(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range plans {
		if p.Action != eventlog.KeepTopic {
			t.Errorf("%+v", p)
		}
	}
	start := time.Now()
	if err := l.Append(ctx, func(out *schemas.Out) {
		out.AppConfigured(&pushv1.AppConfigured{App: "a"})
	}); err != nil {
		t.Fatal(err)
	}
	t.Log(time.Since(start))
	ends, err := l.Ends(ctx, schemas.Apps)
	t.Log(ends, err)
	off, err := l.GroupOffsets(ctx, schemas.GroupProjector)
	t.Log(off, err)
}
