package bench

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
	"github.com/campanile-push/campanile/senders"
	"github.com/campanile-push/campanile/senders/apns"
	"github.com/campanile-push/campanile/senders/fcm"
	"github.com/campanile-push/campanile/simulator"
	"github.com/campanile-push/campanile/vault"
)

// provider is the simulator in a process of its own, which answers at once.
type provider struct {
	child   *child
	client  *simulator.Client
	at      simulator.Identity
	account []byte // FCM's service account
	roots   *x509.CertPool
	pushes  string // the client that a sender pushes with: senders.StockTransport or senders.H2Transport
}

// answerAfter has the providers answer every push after so long, and accept it.
func (p *provider) answerAfter(ctx context.Context, latency time.Duration) error {
	scenario := simulator.Scenario{Seed: 1}
	var err error
	if scenario.Latency, err = simulator.ParseLatency(latency.String()); err != nil {
		return fmt.Errorf("the provider's latency: %w", err)
	}
	return p.client.SetScenario(ctx, scenario)
}

// bundle is the topic of APNs pushes.
const bundle = "com.moodle.moodlemobile"

func (h *harness) newProvider(ctx context.Context) (*provider, error) {
	p := &provider{roots: x509.NewCertPool()}
	var err error
	if p.child, err = h.startChild(ctx, roleSimulator, order{
		Dir: filepath.Join(h.dir, "simulator"), Threads: h.providerThreads, Nice: h.providerNice,
	}, &p.at); err != nil {
		return nil, err
	}
	p.client = simulator.NewClient(p.at.AdminURL, nil)
	if !p.roots.AppendCertsFromPEM([]byte(p.at.CAPEM)) {
		return nil, errors.Join(errors.New("the simulator's certificate is none"), p.child.end())
	}
	if p.account, err = p.client.ServiceAccount(ctx, ""); err != nil {
		return nil, errors.Join(err, p.child.end())
	}
	return p, nil
}

// credentials are the simulator's, as they are sealed into the log.
func (p *provider) credentials(t schemas.Transport) ([]byte, error) {
	if t == schemas.APNS {
		return (&pushv1.ApnsCredentials{Topic: bundle, TeamId: p.at.APNSKey.TeamID, KeyId: p.at.APNSKey.KeyID, P8: p.at.APNSKey.P8}).MarshalVT()
	}
	return (&pushv1.FcmCredentials{ProjectId: p.at.Project, ServiceAccountJson: string(p.account)}).MarshalVT()
}

func (p *provider) open(ctx context.Context, a senders.Account) (senders.Provider, error) {
	if a.FCM != nil {
		return fcm.Open(ctx, a, fcm.Options{Endpoint: p.at.FCMURL + "/v1", RootCAs: p.roots, Transport: p.pushes})
	}
	return apns.Open(ctx, a, apns.Options{Production: p.at.APNSURL, Sandbox: p.at.SandboxURL, RootCAs: p.roots, Transport: p.pushes})
}

func (p *provider) accepted(ctx context.Context) (int64, error) {
	s, err := p.client.Summary(ctx)
	return s.Accepted, err
}

// bareSender pushes n times with a library alone.
type bareSender func(ctx context.Context, phones []Phone, n int) error

// addApp configures the app, with the simulator's credentials for some transports.
func addApp(ctx context.Context, log *eventlog.Log, keyring *vault.Keyring, p *provider, transports ...schemas.Transport) error {
	var sets []*pushv1.CredentialsSet
	for _, transport := range transports {
		plain, err := p.credentials(transport)
		if err != nil {
			return fmt.Errorf("make credentials: %w", err)
		}
		id := schemas.NewID()
		sets = append(sets, &pushv1.CredentialsSet{
			App: app, Transport: transport, CredentialsId: id[:], Sealed: keyring.Seal(plain, app, transport.Word()), SetAtUs: 1, SetBy: "bench",
		})
	}
	return log.Append(ctx, func(out *schemas.Out) {
		out.AppConfigured(&pushv1.AppConfigured{App: app, Title: "Benchmark"})
		for _, e := range sets {
			out.CredentialsSet(e)
		}
	})
}

// replay feeds apply with topics from their beginnings to their ends as they stand now.
func replay(ctx context.Context, log *eventlog.Log, apply func(schemas.Record) error, topics ...schemas.Topic) error {
	following := log.Follow("bench.replay", apply, topics...)
	return untilDone(ctx, following.CaughtUp(), following.Run)
}
