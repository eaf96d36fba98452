package bench

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sideshow/apns2/token"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"
	"golang.org/x/sync/errgroup"

	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/eventlog/broker"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
	"github.com/campanile-push/campanile/senders"
	"github.com/campanile-push/campanile/senders/maxprocs"
	"github.com/campanile-push/campanile/simulator"
	"github.com/campanile-push/campanile/vault"
)

// senderOrder says what a client pushes in a process of its own.
type senderOrder struct {
	Transport   schemas.Transport  `json:"transport"`
	Client      string             `json:"client"`
	Content     *pushv1.Content    `json:"content"`
	N           int                `json:"n"`
	Connections int                `json:"connections"`     // of the floor
	Marks       []int64            `json:"marks,omitempty"` // pushes after which the stage's memory is noted, rising
	At          simulator.Identity `json:"at"`
	Account     []byte             `json:"account"`
	Log         string             `json:"log"` // the broker's folder
	Prefix      string             `json:"prefix"`
	Keyring     string             `json:"keyring"`
	Hash        string             `json:"hash"`
	Profile     string             `json:"profile,omitempty"`
}

// floorInFlight is that of a sender's app while it is alone, so that the floor waits for as many answers.
const floorInFlight = 2000

// serve gets ready, says so, and pushes when it is told how many pushes the ledger will hold then. Its report is a line of JSON.
func (o *senderOrder) serve(ctx context.Context, in *bufio.Reader, stdout io.Writer) error {
	p := &provider{client: simulator.NewClient(o.At.AdminURL, nil), at: o.At, account: o.Account, roots: x509.NewCertPool(), pushes: o.Client}
	if !p.roots.AppendCertsFromPEM([]byte(o.At.CAPEM)) {
		return errors.New("the simulator's certificate is none")
	}
	run, done, err := o.prepare(ctx, p)
	if err != nil {
		return err
	}
	defer done()
	if err := json.NewEncoder(stdout).Encode(struct{}{}); err != nil {
		return fmt.Errorf("say that all is ready: %w", err)
	}
	line, err := in.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("wait for the word: %w", err)
	}
	var until int64
	if err := json.Unmarshal(line, &until); err != nil {
		return fmt.Errorf("wait for the word: %w", err)
	}
	r, err := o.measure(ctx, run, until)
	if err != nil {
		return err
	}
	return json.NewEncoder(stdout).Encode(r)
}

// pushUntil pushes until the ledger holds so many pushes.
type pushUntil func(ctx context.Context, until int64) (seen, error)

// seen is what a stage was seen to do while it pushed. The zero value is that of a client that nobody looks into.
type seen struct {
	inFlight float64       // pushes that waited for an answer, on average over busy
	busy     time.Duration // from the first push to the last answer
	peaks    []int64       // resident memory by senderOrder.Marks, bytes
}

func (o *senderOrder) measure(ctx context.Context, run pushUntil, until int64) (clientReport, error) {
	r := clientReport{N: o.N}
	if o.Profile != "" {
		f, err := os.Create(o.Profile)
		if err != nil {
			return r, fmt.Errorf("keep a profile: %w", err)
		}
		defer func() { _ = f.Close() }()
		if err := pprof.StartCPUProfile(f); err != nil {
			return r, fmt.Errorf("keep a profile: %w", err)
		}
		defer pprof.StopCPUProfile()
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	cpu, err := maxprocs.CPUTime()
	if err != nil {
		return r, err
	}
	began := time.Now()
	s, err := run(ctx, until)
	if err != nil {
		return r, err
	}
	r.Wall = time.Since(began)
	r.InFlight, r.Busy, r.Peaks = s.inFlight, s.busy, s.peaks
	used, err := maxprocs.CPUTime()
	if err != nil {
		return r, err
	}
	r.CPU = used - cpu
	runtime.ReadMemStats(&after)
	r.Allocs = after.Mallocs - before.Mallocs
	if r.File, err = fileRSS(os.Getpid()); err != nil {
		return r, err
	}
	r.RSS, err = peakRSS(os.Getpid())
	return r, err
}

func (o *senderOrder) prepare(ctx context.Context, p *provider) (run pushUntil, done func(), err error) {
	switch o.Client {
	case floorClient:
		return o.prepareFloor(ctx, p)
	case libraryClient:
		library := newBareAPNS
		if o.Transport == schemas.FCM {
			library = newBareFCM
		}
		push, done, err := library(ctx, p)
		phones := makePhones(o.N, o.Transport)
		return func(ctx context.Context, _ int64) (seen, error) { return seen{}, push(ctx, phones, o.N) }, done, err
	}
	return o.prepareStage(ctx, p)
}

func (o *senderOrder) prepareFloor(ctx context.Context, p *provider) (pushUntil, func(), error) {
	push, err := o.floorPush(ctx, p)
	if err != nil {
		return nil, nil, err
	}
	config := &tls.Config{RootCAs: p.roots, MinVersion: tls.VersionTLS13}
	floors := make([]*floor, o.Connections)
	for i := range floors {
		if floors[i], err = dialFloor(ctx, push, config, floorInFlight/o.Connections); err != nil {
			return nil, nil, err
		}
	}
	phones := makePhones(o.N, o.Transport)
	share := (len(phones) + len(floors) - 1) / len(floors)
	run := func(ctx context.Context, _ int64) (seen, error) {
		var group errgroup.Group
		i := 0
		for part := range slices.Chunk(phones, share) {
			f := floors[i]
			i++
			group.Go(func() error { return f.run(ctx, part) })
		}
		return seen{}, group.Wait()
	}
	return run, func() {
		for _, f := range floors {
			_ = f.conn.Close()
		}
	}, nil
}

// floorPush is what the stage pushes, with headers and tokens made as the libraries make them.
func (o *senderOrder) floorPush(ctx context.Context, p *provider) (*floorPush, error) {
	if o.Transport == schemas.APNS {
		rendered, err := senders.RenderAPNS(o.Content)
		if err != nil {
			return nil, err
		}
		key, err := token.AuthKeyFromBytes([]byte(o.At.APNSKey.P8))
		if err != nil {
			return nil, fmt.Errorf("read the simulator's key: %w", err)
		}
		signer := &token.Token{AuthKey: key, KeyID: o.At.APNSKey.KeyID, TeamID: o.At.APNSKey.TeamID}
		if _, err := signer.Generate(); err != nil {
			return nil, fmt.Errorf("sign a provider token: %w", err)
		}
		extra := [][2]string{
			{"apns-topic", bundle},
			{"apns-push-type", rendered.PushType},
			{"apns-priority", fmt.Sprint(rendered.Priority)},
			{"apns-expiration", fmt.Sprint(time.Now().Add(24 * time.Hour).Unix())},
		}
		return newFloorPush(o.At.APNSURL, "bearer "+signer.Bearer, extra, rendered.Payload, nil, nil)
	}
	rendered, err := senders.RenderFCM(o.Content, 0)
	if err != nil {
		return nil, err
	}
	const mark = "@"
	body := rendered.AppendBody(nil, mark, -1)
	at := slices.Index(body, mark[0])
	config, err := google.JWTConfigFromJSON(o.Account, "https://www.googleapis.com/auth/firebase.messaging")
	if err != nil {
		return nil, fmt.Errorf("read the simulator's service account: %w", err)
	}
	fetch := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: p.roots, MinVersion: tls.VersionTLS12}}}
	defer fetch.CloseIdleConnections()
	access, err := config.TokenSource(context.WithValue(ctx, oauth2.HTTPClient, fetch)).Token()
	if err != nil {
		return nil, fmt.Errorf("fetch an access token: %w", err)
	}
	extra := [][2]string{{"content-type", "application/json"}}
	return newFloorPush(o.At.FCMURL+"/v1/projects/"+o.At.Project+"/messages:send", "Bearer "+access.AccessToken, extra, nil, body[:at], body[at+1:])
}

// prepareStage opens the log and makes the sender.
func (o *senderOrder) prepareStage(ctx context.Context, p *provider) (pushUntil, func(), error) {
	keyring, err := vault.ParseKeyring(o.Keyring)
	if err != nil {
		return nil, nil, err
	}
	hasher, err := vault.ParseHasher(o.Hash)
	if err != nil {
		return nil, nil, err
	}
	dial, ok := broker.Running(o.Log)
	if !ok {
		return nil, nil, errors.New("the broker is not where it was said to be")
	}
	if o.Client == senders.H2Transport && os.Getenv("GOGC") == "" {
		debug.SetGCPercent(senders.GCPercent) // as `campanile sender` does
	}
	quiet := slog.New(slog.DiscardHandler)
	log, err := eventlog.Open(ctx, eventlog.Config{Brokers: broker.Brokers(), Dial: dial, Prefix: o.Prefix, Replication: 1}, quiet, nil)
	if err != nil {
		return nil, nil, err
	}
	catalog := senders.NewCatalog()
	broadcasts := log.Follow("sender.broadcasts", catalog.ApplyBroadcasts, schemas.Broadcasts)
	var apps *eventlog.Following
	sender, err := senders.New(senders.Options{
		Transport: o.Transport, Lane: schemas.Bulk, Open: p.open, Keyring: keyring, Hasher: hasher, Catalog: catalog,
		CatchUpApps: func(ctx context.Context) error { return apps.CatchUp(ctx) }, CatchUpBroadcasts: broadcasts.CatchUp,
		Log: quiet, Metrics: prometheus.NewRegistry(), Rate: 1e9, // FCM's default quota would be what is measured
	})
	if err != nil {
		return nil, nil, errors.Join(err, log.Close(ctx))
	}
	apps = log.Follow("sender.apps", sender.ApplyApps, schemas.Apps)
	s := &stage{log: log, sender: sender, p: p, o: o, followings: []*eventlog.Following{broadcasts, apps}}
	stop := followWork(ctx)
	return s.run, func() {
		sender.Close()
		_ = log.Close(context.WithoutCancel(ctx))
		stop()
	}, nil
}

// followWork lets this process have as many threads as it has work for until stop is called, as `campanile sender` does.
func followWork(ctx context.Context) (stop func()) {
	if os.Getenv("GOMAXPROCS") != "" {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	most := runtime.GOMAXPROCS(0)
	var following sync.WaitGroup
	following.Go(func() { maxprocs.Follow(ctx, most) })
	return func() {
		cancel()
		following.Wait()
	}
}

// stage is a whole sender.
type stage struct {
	log        *eventlog.Log
	sender     *senders.Sender
	p          *provider
	o          *senderOrder
	followings []*eventlog.Following
}

// run runs the stage until the simulator has accepted so many pushes, and then to its end: every outcome recorded and committed.
func (s *stage) run(ctx context.Context, until int64) (_ seen, err error) {
	following, stop := context.WithCancel(ctx)
	var parts sync.WaitGroup
	defer parts.Wait()
	defer stop()
	failed := newFirstError()
	for _, f := range s.followings {
		parts.Go(func() {
			if err := f.Run(following); following.Err() == nil {
				failed.set(err)
			}
		})
	}
	w := watcher{s: s, before: until - int64(s.o.N)}
	done := make(chan struct{})
	parts.Go(func() {
		defer close(done)
		failed.set(poll(following, watchEvery, func() (bool, error) { return w.look(following, until) }))
	})
	var topics []schemas.Topic
	for _, topic := range schemas.SendTopics(s.o.Transport, schemas.Bulk) {
		topics = append(topics, topic.Topic())
	}
	err = untilDone(ctx, done, func(ctx context.Context) error {
		return s.log.RunDeliver(ctx, eventlog.DeliverOptions{
			Stage: "sender", Group: schemas.SenderGroup(s.o.Transport, schemas.Bulk), Topics: topics, NotBefore: s.sender.NotBefore,
		}, s.sender)
	})
	<-done
	return w.seen(), errors.Join(err, failed.get())
}
