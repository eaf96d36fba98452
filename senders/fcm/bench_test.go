package fcm_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/campanile-push/campanile/schemas"
	"github.com/campanile-push/campanile/senders"
	"github.com/campanile-push/campanile/senders/fcm"
	"github.com/campanile-push/campanile/senders/providertest"
)

func TestMain(m *testing.M) {
	if providertest.ServeAsChild(`{"name":"projects/campus/messages/0:1234567890123456%31bd1c9ff9fd7ecd"}`) {
		return
	}
	goleak.VerifyTestMain(m)
}

// BenchmarkSenderFCM is the whole sender on each transport; the server is another process.
func BenchmarkSenderFCM(b *testing.B) {
	providertest.EachBench(b, transports, func(b *testing.B, transport string, latency time.Duration, text int) {
		b.Helper()
		url, roots := providertest.StartChild(b, latency)
		oauth := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("content-type", "application/json")
			_, _ = io.WriteString(w, `{"access_token":"a","token_type":"Bearer","expires_in":3600}`)
		}))
		defer oauth.Close()
		roots.AddCert(oauth.Certificate())
		plain, err := credentials(b, oauth.URL+"/token").MarshalVT()
		if err != nil {
			b.Fatal(err)
		}
		providertest.BenchSender(b, schemas.FCM, text, plain, func(ctx context.Context, a senders.Account) (senders.Provider, error) {
			return fcm.Open(ctx, a, fcm.Options{Endpoint: url, RootCAs: roots, Transport: transport})
		})
	})
}
