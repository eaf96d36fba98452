package apns_test

import (
	"context"
	"io"
	"net/http"
	"testing"

	"go.uber.org/goleak"

	"github.com/campanile-push/campanile/schemas"
	"github.com/campanile-push/campanile/senders"
	"github.com/campanile-push/campanile/senders/apns"
	"github.com/campanile-push/campanile/senders/providertest"
)

func TestMain(m *testing.M) {
	if providertest.ServeAsChild(http.HandlerFunc(yes)) {
		return
	}
	goleak.VerifyTestMain(m)
}

func yes(w http.ResponseWriter, req *http.Request) {
	_, _ = io.Copy(io.Discard, req.Body)
	w.Header().Set("apns-id", req.Header.Get("apns-id"))
}

// BenchmarkSenderAPNS is the whole sender on each transport; the server is another process.
func BenchmarkSenderAPNS(b *testing.B) {
	for _, transport := range transports {
		b.Run(transport, func(b *testing.B) {
			url, roots := providertest.StartChild(b)
			plain, err := credentials(b).MarshalVT()
			if err != nil {
				b.Fatal(err)
			}
			providertest.BenchSender(b, schemas.APNS, plain, func(ctx context.Context, a senders.Account) (senders.Provider, error) {
				return apns.Open(ctx, a, apns.Options{Production: url, RootCAs: roots, MaxConns: 8, Transport: transport})
			})
		})
	}
}
