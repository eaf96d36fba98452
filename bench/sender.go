package bench

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
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

// senderRows are named by provider, its latency, the size of the payload and the client that pushes.
func senderRows(transport schemas.Transport, client string) []string {
	name := "sender/" + transport.Word() + "/0ms/200B/" + client
	return []string{name + "/cpu_us", name + "/rate"}
}

// sender is the benchmark of a transport on one of its clients, senders.StockTransport or senders.H2Transport.
func sender(transport schemas.Transport, client string) benchmark {
	library, name := newBareAPNS, "apns2"
	if transport == schemas.FCM {
		library, name = newBareFCM, "go-fcm"
	}
	return benchmark{
		senderRows(transport, client),
		fmt.Sprintf("the whole %s sender (read, push, outcome, commit) on its %s client, against bare %s", transport.Word(), client, name),
		func(h *harness, ctx context.Context) ([]Row, error) { return h.sender(ctx, transport, client, library) },
	}
}

// provider is the simulator in a process of its own, which answers at once.
type provider struct {
	child   *child
	client  *simulator.Client
	at      simulator.Identity
	account []byte // FCM's service account
	roots   *x509.CertPool
	pushes  string // the client that a sender pushes with: senders.StockTransport or senders.H2Transport
}

// bundle is the topic of APNs pushes.
const bundle = "com.moodle.moodlemobile"

func (h *harness) newProvider(ctx context.Context) (*provider, error) {
	p := &provider{roots: x509.NewCertPool()}
	var err error
	if p.child, err = h.startChild(ctx, roleSimulator, order{Dir: filepath.Join(h.dir, "simulator")}, &p.at); err != nil {
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

type openLibrary func(ctx context.Context, p *provider) (push bareSender, closeLibrary func(), err error)

func (h *harness) sender(ctx context.Context, transport schemas.Transport, client string, library openLibrary) (rows []Row, err error) {
	names := senderRows(transport, client)
	c, err := h.newCluster(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.close() }()
	p, err := h.newProvider(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.child.end()) }()
	p.pushes = client
	t, err := c.newTopics(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = t.Close(context.WithoutCancel(ctx)) }()
	stage, err := t.newSending(ctx, h, p, transport)
	if err != nil {
		return nil, err
	}
	bare, closeBare, err := library(ctx, p)
	if err != nil {
		return nil, err
	}
	defer closeBare()
	n := h.scaled(100_000)
	size, err := bodySize(transport)
	if err != nil {
		return nil, err
	}
	h.say("%d bulk sends a round of one broadcast, bodies of %d bytes; simulator and broker are other processes; baseline: the library alone", n, size)
	watch := func() (*stopwatch, error) {
		return h.watch(map[string]*child{"broker": c.child, "simulator": p.child})
	}
	phones := makePhones(n, transport)
	d, err := h.duel(ctx, names[0],
		func(ctx context.Context) (sample, error) { return stage.round(ctx, phones, watch) },
		func(ctx context.Context) (sample, error) {
			w, err := watch()
			if err != nil {
				return sample{}, err
			}
			if err := bare(ctx, phones, n); err != nil {
				return sample{}, err
			}
			return w.stop(n)
		})
	if err != nil {
		return nil, err
	}
	return []Row{
		row(names[0], "µs/push", each(d.ours, sample.cpuUS), each(d.bare, sample.cpuUS)),
		row(names[1], "pushes/s", each(d.ours, sample.rate), each(d.bare, sample.rate)),
	}, nil
}

// bodySize is that of a request's body.
func bodySize(transport schemas.Transport) (int, error) {
	if transport == schemas.APNS {
		m, err := senders.RenderAPNS(payload())
		if err != nil {
			return 0, err
		}
		return len(m.Payload), nil
	}
	m, err := senders.RenderFCM(payload(), 0)
	if err != nil {
		return 0, err
	}
	return len(m.AppendBody(nil, makePhones(1, transport)[0].Token, -1)), nil
}

// sending is a sender with everything that it needs but its runner, which each round starts.
type sending struct {
	t         *topics
	h         *harness
	p         *provider
	transport schemas.Transport
	keyring   *vault.Keyring
	hasher    vault.Hasher
	rounds    int64 // so many times as many pushes stand in the log
}

func (t *topics) newSending(ctx context.Context, h *harness, p *provider, transport schemas.Transport) (*sending, error) {
	s := &sending{t: t, h: h, p: p, transport: transport}
	var err error
	if s.keyring, err = vault.ParseKeyring(vault.NewKeyLine("1")); err != nil {
		return nil, err
	}
	if s.hasher, err = vault.ParseHasher(vault.NewHashKey()); err != nil {
		return nil, err
	}
	return s, addApp(ctx, t.Log, s.keyring, p, transport)
}

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

// round fills the bulk lane with the sends of a broadcast of its own, and measures the stage from its start to its end.
func (s *sending) round(ctx context.Context, phones []Phone, watch func() (*stopwatch, error)) (sample, error) {
	id, record := schemas.NewID(), schemas.NewID()
	err := s.t.Append(ctx, func(out *schemas.Out) {
		out.BroadcastRequested(&pushv1.BroadcastRequested{
			BroadcastId: id[:], RecordId: record[:], App: app, Channels: []string{siteChannel}, Content: payload(), RequestedAtUs: time.Now().UnixMicro(),
		})
	})
	if err != nil {
		return sample{}, err
	}
	if err := s.t.fill(ctx, len(phones), func(out *schemas.Out, i int) { bulkSend(out, id, phones[i]) }); err != nil {
		return sample{}, err
	}
	before, err := s.p.accepted(ctx)
	if err != nil {
		return sample{}, err
	}
	w, err := watch()
	if err != nil {
		return sample{}, err
	}
	if err := s.run(ctx, before+int64(len(phones))); err != nil {
		return sample{}, err
	}
	measured, err := w.stop(len(phones))
	if err != nil {
		return sample{}, err
	}
	s.rounds++
	return measured, s.check(ctx, s.rounds*int64(len(phones)))
}

// run runs the stage until the simulator has accepted so many pushes, and then to its end: every outcome recorded and committed.
func (s *sending) run(ctx context.Context, accepted int64) error {
	following, stop := context.WithCancel(ctx)
	var parts sync.WaitGroup
	defer parts.Wait()
	defer stop()
	failed := newFirstError()
	follow := func(f *eventlog.Following) *eventlog.Following {
		parts.Go(func() {
			if err := f.Run(following); following.Err() == nil {
				failed.set(err)
			}
		})
		return f
	}
	catalog := senders.NewCatalog()
	broadcasts := follow(s.t.Follow("sender.broadcasts", catalog.ApplyBroadcasts, schemas.Broadcasts))
	var apps *eventlog.Following
	sender, err := senders.New(senders.Options{
		Transport: s.transport, Lane: schemas.Bulk, Open: s.p.open, Keyring: s.keyring, Hasher: s.hasher, Catalog: catalog,
		CatchUpApps: func(ctx context.Context) error { return apps.CatchUp(ctx) }, CatchUpBroadcasts: broadcasts.CatchUp,
		Log: s.h.Logger, Rate: 1e9, // FCM's default quota would be what is measured
	})
	if err != nil {
		return err
	}
	defer sender.Close()
	apps = follow(s.t.Follow("sender.apps", sender.ApplyApps, schemas.Apps))

	done := make(chan struct{})
	parts.Go(func() {
		defer close(done)
		failed.set(poll(following, 50*time.Millisecond, func() (bool, error) {
			n, err := s.p.accepted(following)
			return n >= accepted, err
		}))
	})
	var all []schemas.Topic
	for _, topic := range schemas.SendTopics(s.transport, schemas.Bulk) {
		all = append(all, topic.Topic())
	}
	err = untilDone(ctx, done, func(ctx context.Context) error {
		return s.t.RunDeliver(ctx, eventlog.DeliverOptions{
			Stage: "sender", Group: schemas.SenderGroup(s.transport, schemas.Bulk), Topics: all, NotBefore: sender.NotBefore,
		}, sender)
	})
	return errors.Join(err, failed.get())
}

// check counts the outcomes in the log: every send of every round accepted, once.
func (s *sending) check(ctx context.Context, want int64) error {
	var got int64
	err := replay(ctx, s.t.Log, func(r schemas.Record) error {
		if r.Type() != pushv1.EventType_EVENT_TYPE_DELIVERY_FINISHED {
			return nil
		}
		var e pushv1.DeliveryFinished
		if err := r.Into(&e); err != nil {
			return err
		}
		if e.Outcome == pushv1.Outcome_OUTCOME_ACCEPTED {
			got++
		}
		return nil
	}, schemas.Deliveries)
	if err == nil && got != want {
		err = fmt.Errorf("want %d accepted pushes in the log, got %d", want, got)
	}
	return err
}

// replay feeds apply with topics from their beginnings to their ends as they stand now.
func replay(ctx context.Context, log *eventlog.Log, apply func(schemas.Record) error, topics ...schemas.Topic) error {
	following := log.Follow("bench.replay", apply, topics...)
	return untilDone(ctx, following.CaughtUp(), following.Run)
}
