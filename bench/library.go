package bench

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"

	"firebase.google.com/go/v4/messaging"
	gofcm "github.com/appleboy/go-fcm"
	"github.com/sideshow/apns2"
	"github.com/sideshow/apns2/token"
	"golang.org/x/net/http2"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"

	"github.com/campanile-push/campanile/senders"
)

// What the libraries are given to be at their best here: apns2 500 pushes in flight over one client, go-fcm four calls with 500 messages
// each over HTTP/2.
const (
	apnsWorkers = 500
	fcmCalls    = 4
	fcmMessages = 500
)

// newBareAPNS pushes with apns2 alone.
func newBareAPNS(_ context.Context, p *provider) (bareSender, func(), error) {
	key, err := token.AuthKeyFromBytes([]byte(p.at.APNSKey.P8))
	if err != nil {
		return nil, nil, fmt.Errorf("read the simulator's key: %w", err)
	}
	rendered, err := senders.RenderAPNS(payload())
	if err != nil {
		return nil, nil, err
	}
	transport := &http2.Transport{TLSClientConfig: &tls.Config{RootCAs: p.roots, MinVersion: tls.VersionTLS12}}
	client := apns2.NewTokenClient(&token.Token{AuthKey: key, KeyID: p.at.APNSKey.KeyID, TeamID: p.at.APNSKey.TeamID})
	client.Host = p.at.APNSURL
	client.HTTPClient = &http.Client{Transport: transport}
	push := func(ctx context.Context, phones []Phone, n int) error {
		return Each(ctx, n, apnsWorkers, nil, func(ctx context.Context, i int) error {
			answer, err := client.PushWithContext(ctx, &apns2.Notification{
				DeviceToken: phones[i%len(phones)].Token, Topic: bundle, Payload: rendered.Payload, Priority: rendered.Priority,
				PushType: apns2.EPushType(rendered.PushType),
			})
			if err == nil && !answer.Sent() {
				err = fmt.Errorf("apns2: %d %s", answer.StatusCode, answer.Reason)
			}
			return err
		})
	}
	return push, transport.CloseIdleConnections, nil
}

// newBareFCM pushes with go-fcm alone.
func newBareFCM(ctx context.Context, p *provider) (bareSender, func(), error) {
	config, err := google.JWTConfigFromJSON(p.account, "https://www.googleapis.com/auth/firebase.messaging")
	if err != nil {
		return nil, nil, fmt.Errorf("read the simulator's service account: %w", err)
	}
	transport := &http2.Transport{TLSClientConfig: &tls.Config{RootCAs: p.roots, MinVersion: tls.VersionTLS12}}
	fetch := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: p.roots, MinVersion: tls.VersionTLS12}}}
	tokens := oauth2.ReuseTokenSource(nil, config.TokenSource(context.WithValue(context.WithoutCancel(ctx), oauth2.HTTPClient, fetch)))
	client, err := gofcm.NewClient(ctx, gofcm.WithProjectID(p.at.Project), gofcm.WithTokenSource(tokens), gofcm.WithEndpoint(p.at.FCMURL+"/v1"),
		gofcm.WithHTTPClient(&http.Client{Transport: transport}))
	if err != nil {
		return nil, nil, fmt.Errorf("open go-fcm: %w", err)
	}
	content := payload()
	push := func(ctx context.Context, phones []Phone, n int) error {
		var next atomic.Int64
		failed := newFirstError()
		var calls sync.WaitGroup
		for range fcmCalls {
			calls.Go(func() {
				for from := int(next.Add(fcmMessages)) - fcmMessages; from < n; from = int(next.Add(fcmMessages)) - fcmMessages {
					messages := make([]*messaging.Message, 0, fcmMessages)
					for i := from; i < min(from+fcmMessages, n); i++ {
						messages = append(messages, &messaging.Message{
							Token:        phones[i%len(phones)].Token,
							Notification: &messaging.Notification{Title: content.Title, Body: content.Body},
							Android:      &messaging.AndroidConfig{Priority: "high"},
						})
					}
					if err := allAccepted(client.Send(ctx, messages...)); err != nil {
						failed.set(err)
						return
					}
				}
			})
		}
		calls.Wait()
		return failed.get()
	}
	return push, func() {
		transport.CloseIdleConnections()
		fetch.CloseIdleConnections()
	}, nil
}

func allAccepted(answer *messaging.BatchResponse, err error) error {
	if err != nil {
		return fmt.Errorf("go-fcm: %w", err)
	}
	for _, r := range answer.Responses {
		if !r.Success {
			return fmt.Errorf("go-fcm: %w", errors.Join(errors.New("a message was refused"), r.Error))
		}
	}
	return nil
}
