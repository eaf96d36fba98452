package apns_test

import (
	"context"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/campanile-push/campanile/schemas"
	"github.com/campanile-push/campanile/senders"
	"github.com/campanile-push/campanile/senders/apns"
	"github.com/campanile-push/campanile/senders/providertest"
)

func TestMain(m *testing.M) {
	if providertest.ServeAsChild("") {
		return
	}
	goleak.VerifyTestMain(m)
}

// BenchmarkSenderAPNS is the whole sender on each transport; the server is another process.
func BenchmarkSenderAPNS(b *testing.B) {
	providertest.EachBench(b, transports, func(b *testing.B, transport string, latency time.Duration, text int) {
		b.Helper()
		url, roots := providertest.StartChild(b, latency)
		plain, err := credentials(b).MarshalVT()
		if err != nil {
			b.Fatal(err)
		}
		providertest.BenchSender(b, schemas.APNS, text, plain, func(ctx context.Context, a senders.Account) (senders.Provider, error) {
			return apns.Open(ctx, a, apns.Options{Production: url, RootCAs: roots, MaxConns: 8, Transport: transport})
		})
	})
}
