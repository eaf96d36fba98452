package eventlog_test

import (
	"context"
	"crypto/tls"
	"log/slog"
	"testing"
	"time"

	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/eventlog/logtest"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// counting hands on how many records a stage has handled.
type counting chan int

func (c counting) Handle(_ context.Context, in schemas.Batch, _ *schemas.Out) error {
	c <- len(in.Records)
	return nil
}

// TestALogBehindTLSAndSASL appends and runs a stage through each mechanism, against a broker that asks for it. Who has another password,
// or does not know the broker's certificate, gets no log.
func TestALogBehindTLSAndSASL(t *testing.T) {
	t.Parallel()
	cfg := logtest.Secure(t)
	for _, mechanism := range []string{"plain", "scram-sha-256", "scram-sha-512"} {
		t.Run(mechanism, func(t *testing.T) {
			t.Parallel()
			cfg := cfg
			cfg.SASL.Mechanism, cfg.Prefix = mechanism, mechanism+"."
			l := driveLog(t, cfg)
			id := schemas.NewID()
			err := l.Append(t.Context(), func(out *schemas.Out) {
				out.NotificationRequested(&pushv1.NotificationRequested{RequestId: id[:], App: "app", Transport: schemas.FCM, Token: "token"})
			})
			if err != nil {
				t.Fatal(err)
			}
			handled := make(counting, 1)
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() {
				ended <- l.RunTransform(ctx, eventlog.TransformOptions{
					Stage: "secure", Group: schemas.GroupDirectRouter, Topics: []schemas.Topic{schemas.Notifications},
				}, handled)
			}()
			if got := wait(t, handled, "the notification"); got != 1 {
				t.Errorf("want one record, got %d", got)
			}
			stop()
			<-ended

			refused := func(what string, cfg eventlog.Config) {
				t.Helper()
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				l, err := eventlog.Open(ctx, cfg, slog.New(slog.DiscardHandler), nil)
				if err == nil {
					_ = l.Close(ctx)
					t.Errorf("%s: want an error, got a log", what)
				}
			}
			other := cfg
			other.SASL.Password = "sesame"
			refused("another password", other)
			other = cfg
			other.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
			refused("a certificate that nobody knows", other)
		})
	}
}
