package eventlog_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// TestCloudEventsAttributesOnlyWhereTheSpecSaysSo looks at records as another system would.
func TestCloudEventsAttributesOnlyWhereTheSpecSaysSo(t *testing.T) {
	t.Parallel()
	cfg := fake(t)
	reg := prometheus.NewRegistry()
	l, err := eventlog.Open(t.Context(), cfg, slog.New(slog.DiscardHandler), reg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := l.Close(ctx); err != nil {
			t.Error(err)
		}
		if left, err := reg.Gather(); err != nil || len(left) != 0 {
			t.Errorf("want no metrics after Close, got %d, %v", len(left), err)
		}
	}()
	if err := l.Append(t.Context(), func(out *schemas.Out) { out.AppConfigured(&pushv1.AppConfigured{App: "a"}) }); err == nil {
		t.Error("want an error without topics")
	}
	if _, err := l.CreateTopics(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(t.Context(), func(out *schemas.Out) {
		out.AppConfigured(&pushv1.AppConfigured{App: "a"})
		out.TokenRegistered(&pushv1.TokenRegistered{App: "a", Transport: schemas.FCM, Token: "t"})
	}); err != nil {
		t.Fatal(err)
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(cfg.Brokers...), kgo.ConsumeTopics("apps", "devices"), kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	seen := 0
	for seen < 2 {
		for _, r := range client.PollFetches(t.Context()).Records() {
			seen++
			headers := map[string]string{}
			for _, h := range r.Headers {
				headers[h.Key] = string(h.Value)
			}
			switch r.Topic {
			case "apps":
				if headers["ce_specversion"] != "1.0" || headers["ce_type"] != "push.v1.EVENT_TYPE_APP_CONFIGURED" || headers["ce_id"] == "" ||
					headers["ce_source"] != "/campanile" || headers["content-type"] != "application/protobuf" {
					t.Errorf("apps: want CloudEvents attributes, got %v", headers)
				}
			case "devices":
				if len(headers) != 0 {
					t.Errorf("devices: want no headers, got %v", headers)
				}
			}
		}
	}
}

func TestConfigurationIsRefusedWithWhatToDo(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]eventlog.Config{
		"no brokers":  {},
		"compression": {Brokers: []string{"127.0.0.1:1"}, Compression: "gzipp"},
		"sasl":        {Brokers: []string{"127.0.0.1:1"}, SASL: eventlog.SASL{Mechanism: "magic"}},
	} {
		if _, err := eventlog.Open(t.Context(), cfg, slog.New(slog.DiscardHandler), nil); err == nil {
			t.Errorf("%s: want an error", name)
		}
	}
}
