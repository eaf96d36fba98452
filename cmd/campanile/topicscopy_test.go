package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/eventlog/broker"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

func TestCopiedTopicsHoldTheSameInMorePartitions(t *testing.T) {
	t.Parallel()
	b, err := broker.Open(broker.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeWithin(slog.Default(), "broker", b.Close) })
	open := func(prefix string, partitions int32) *eventlog.Log {
		cfg := eventlog.Config{Brokers: broker.Brokers(), Dial: b.Dial, Prefix: prefix, Replication: 1}
		l, err := eventlog.Open(t.Context(), cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { closeWithin(slog.Default(), "log", l.Close) })
		if partitions > 0 {
			if _, err := l.CreateTopics(t.Context(), partitions); err != nil {
				t.Fatal(err)
			}
		}
		return l
	}
	from := open("", 4)
	const devices = 6000 // more than one batch
	err = from.Append(t.Context(), func(out *schemas.Out) {
		out.AppConfigured(&pushv1.AppConfigured{App: "app"})
		for i := range devices {
			token := fmt.Sprint("token-", i)
			out.TokenRegistered(&pushv1.TokenRegistered{App: "app", Transport: schemas.FCM, Token: token})
			out.ChannelSubscribed(&pushv1.ChannelSubscribed{App: "app", Transport: schemas.FCM, Token: token, Channel: "room"})
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	if err := copyTopics(t.Context(), from, open("none.", 0), "none.", &said); err == nil || !strings.Contains(err.Error(), "topics apply") {
		t.Errorf("without topics: want what creates them, got %v", err)
	}
	to := open("v2.", 16)
	if err := copyTopics(t.Context(), from, to, "v2.", &said); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("copied %d records from 4 partitions to 16; both sides are the same\n", 1+2*devices); said.String() != want {
		t.Errorf("want %q, got %q", want, said.String())
	}
	if err := copyTopics(t.Context(), from, to, "v2.", &said); err == nil || !strings.Contains(err.Error(), "is not empty") {
		t.Errorf("a second time: want a refusal, got %v", err)
	}
}
