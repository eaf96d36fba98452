package fcm_test

import (
	"context"
	"io"
	"net/http"
	"testing"

	"go.uber.org/goleak"

	"github.com/campanile-push/campanile/schemas"
	"github.com/campanile-push/campanile/senders"
	"github.com/campanile-push/campanile/senders/fcm"
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
	w.Header().Set("content-type", "application/json")
	if req.URL.Path == "/token" {
		_, _ = io.WriteString(w, `{"access_token":"a","token_type":"Bearer","expires_in":3600}`)
		return
	}
	_, _ = io.WriteString(w, `{"name":"projects/campus/messages/1"}`)
}

// BenchmarkSenderFCM is the whole sender on each transport; the server is another process.
func BenchmarkSenderFCM(b *testing.B) {
	for _, transport := range transports {
		b.Run(transport, func(b *testing.B) {
			url, roots := providertest.StartChild(b)
			plain, err := credentials(b, url+"/token").MarshalVT()
			if err != nil {
				b.Fatal(err)
			}
			providertest.BenchSender(b, schemas.FCM, plain, func(ctx context.Context, a senders.Account) (senders.Provider, error) {
				return fcm.Open(ctx, a, fcm.Options{Endpoint: url, RootCAs: roots, Transport: transport})
			})
		})
	}
}
