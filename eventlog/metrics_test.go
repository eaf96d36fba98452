package eventlog

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kfake"

	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"

	"github.com/campanile-push/campanile/schemas"
)

func TestLagCountsWhatAGroupHasNotCommitted(t *testing.T) {
	t.Parallel()
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	reg := prometheus.NewRegistry()
	l, err := Open(t.Context(), Config{Brokers: c.ListenAddrs()}, slog.New(slog.DiscardHandler), reg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := l.Close(ctx); err != nil {
			t.Error(err)
		}
	}()
	if _, err := l.CreateTopics(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(t.Context(), func(out *schemas.Out) {
		for range 7 {
			id := schemas.NewID()
			out.NotificationRequested(&pushv1.NotificationRequested{RequestId: id[:]})
		}
	}); err != nil {
		t.Fatal(err)
	}
	l.refreshLag(t.Context())
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, family := range families {
		if family.GetName() != "campanile_lag" {
			continue
		}
		for _, m := range family.GetMetric() {
			key := ""
			for _, label := range m.GetLabel() {
				key += label.GetValue() + " "
			}
			got[key] = m.GetGauge().GetValue()
		}
	}
	if want, got := 7.0, got[schemas.GroupDirectRouter+" notifications "]; want != got {
		t.Errorf("want a lag of %v, got %v", want, got)
	}
	if len(got) < len(Groups()) {
		t.Errorf("want the lag of every group, got %v", got)
	}
}
