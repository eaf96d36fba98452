package ingest_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/campanile-push/campanile/ingest"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
	"github.com/campanile-push/campanile/vault"
)

// memLog is a log in memory: partitions, offsets, ends, and followers that read it when they like.
type memLog struct {
	mu      sync.Mutex
	layout  schemas.Layout
	records map[schemas.Topic][][]schemas.Record
	refuse  error // of Append and Ends
	hangs   bool  // both, until their contexts end
	appends int
}

func newMemLog() *memLog {
	return &memLog{layout: schemas.Layout{Partitions: 4}, records: map[schemas.Topic][][]schemas.Record{}}
}

func (l *memLog) Layout() schemas.Layout { return l.layout }

func (l *memLog) topic(t schemas.Topic) [][]schemas.Record {
	if l.records[t] == nil {
		l.records[t] = make([][]schemas.Record, l.layout.Partitions)
	}
	return l.records[t]
}

func (l *memLog) Append(ctx context.Context, say func(out *schemas.Out)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	out := schemas.NewOut(l.layout)
	say(out)
	if err := l.hung(ctx); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refuse != nil {
		return l.refuse
	}
	l.appends++
	out.Each(func(topic schemas.Topic, p int32, key, value []byte) {
		parts := l.topic(topic)
		parts[p] = append(parts[p], schemas.Record{
			Topic: topic, Partition: p, Offset: int64(len(parts[p])), Key: bytes.Clone(key), Value: bytes.Clone(value),
		})
	})
	return nil
}

func (l *memLog) Ends(ctx context.Context, t schemas.Topic) ([]int64, error) {
	if err := l.hung(ctx); err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refuse != nil {
		return nil, l.refuse
	}
	ends := make([]int64, l.layout.Partitions)
	for p, records := range l.topic(t) {
		ends[p] = int64(len(records))
	}
	return ends, nil
}

func (l *memLog) hung(ctx context.Context) error {
	l.mu.Lock()
	hangs := l.hangs
	l.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

// hang lets the log neither take nor answer anything from now on.
func (l *memLog) hang() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hangs = true
}

func (l *memLog) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refuse = err
}

// from returns a partition's records from an offset on.
func (l *memLog) from(t schemas.Topic, p int32, offset int64) []schemas.Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.topic(t)[p][offset:])
}

// events returns all events of a topic, decoded.
func (l *memLog) events(t *testing.T, topic schemas.Topic) (all []schemas.Event) {
	t.Helper()
	for p := range l.layout.Partitions {
		for _, r := range l.from(topic, p, 0) {
			e, err := r.Event()
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, e)
		}
	}
	return all
}

// follower applies a topic to a reader.
type follower struct {
	log   *memLog
	topic schemas.Topic
	apply func(schemas.Record) error
	mu    sync.Mutex
	next  []int64
}

func (l *memLog) follow(topic schemas.Topic, apply func(schemas.Record) error) *follower {
	return &follower{log: l, topic: topic, apply: apply, next: make([]int64, l.layout.Partitions)}
}

func (f *follower) catchUp(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for p := range f.log.layout.Partitions {
		for _, r := range f.log.from(f.topic, p, f.next[p]) {
			if err := f.apply(r); err != nil {
				return err
			}
			f.next[p]++
		}
	}
	return nil
}

// memStore folds devices as DESIGN has it, and is as far behind as it is told.
type memStore struct {
	mu      sync.Mutex
	follow  *follower
	frozen  bool
	lazy    int // applies at each lazy-th question only; zero: at each
	away    bool
	devices map[schemas.Device]*row
	lookups int
	asked   int
}

type row struct {
	registered, unregistered int64 // order, from 1
	asOf, registeredAtUS     int64
	platform                 string
	channels                 map[string]int64 // order of the subscription
}

func newMemStore(l *memLog) *memStore {
	s := &memStore{devices: map[schemas.Device]*row{}}
	s.follow = l.follow(schemas.Devices, s.fold)
	return s
}

func (s *memStore) fold(r schemas.Record) error {
	e, err := r.Event()
	if err != nil {
		return err
	}
	named, ok := e.(interface {
		GetApp() string
		GetTransport() schemas.Transport
		GetEnvironment() schemas.Environment
		GetToken() string
	})
	if !ok {
		return errors.New("no device event")
	}
	d := schemas.DeviceOf(named)
	w := s.devices[d]
	if w == nil {
		w = &row{channels: map[string]int64{}}
		s.devices[d] = w
	}
	order := r.Offset + 1
	switch e := e.(type) {
	case *pushv1.TokenRegistered:
		w.registered, w.registeredAtUS, w.platform = order, e.RegisteredAtUs, e.Platform
	case *pushv1.TokenUnregistered:
		w.unregistered = order
	case *pushv1.TokenInvalidated:
		w.asOf = max(w.asOf, e.AsOfUs)
	case *pushv1.ChannelSubscribed:
		w.channels[e.Channel] = order
	case *pushv1.ChannelUnsubscribed:
		delete(w.channels, e.Channel)
	}
	return nil
}

var errAway = errors.New("the store is away")

// sync applies what is there unless frozen, and checks a watermark. s.mu is held.
func (s *memStore) sync(ctx context.Context, need schemas.Watermark) error {
	if s.away {
		return errAway
	}
	s.asked++
	if !s.frozen && (s.lazy == 0 || s.asked%s.lazy == 0) {
		if err := s.follow.catchUp(ctx); err != nil {
			return err
		}
	}
	if !need.Reached(s.follow.next) {
		return schemas.ErrBehind
	}
	return nil
}

func (s *memStore) Lookup(ctx context.Context, devices []schemas.Device, need schemas.Watermark) ([]schemas.DeviceState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lookups++
	layout := s.follow.log.layout
	asked := make(schemas.Watermark, layout.Partitions)
	for _, d := range devices {
		if need != nil {
			asked[layout.Of(d)] = need[layout.Of(d)]
		}
	}
	if err := s.sync(ctx, asked); err != nil {
		return nil, err
	}
	states := make([]schemas.DeviceState, len(devices))
	for i, d := range devices {
		w := s.devices[d]
		if w == nil || w.registered <= w.unregistered {
			continue
		}
		st := schemas.DeviceState{Known: true, Alive: w.registeredAtUS > w.asOf, RegisteredAtUS: w.registeredAtUS, Platform: w.platform}
		for ch, order := range w.channels {
			if order > w.unregistered {
				st.Channels = append(st.Channels, ch)
			}
		}
		slices.Sort(st.Channels)
		states[i] = st
	}
	return states, nil
}

func (s *memStore) FindToken(ctx context.Context, app, token string, need schemas.Watermark) (found []schemas.Device, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.sync(ctx, need); err != nil {
		return nil, err
	}
	for d, w := range s.devices {
		if d.App == app && d.Token == token && w.registered > w.unregistered {
			found = append(found, d)
		}
	}
	return found, nil
}

func (s *memStore) Estimate(ctx context.Context, app string, channels []string) (n int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.sync(ctx, nil); err != nil {
		return 0, err
	}
	for d, w := range s.devices {
		for _, ch := range channels {
			if _, in := w.channels[ch]; in && d.App == app {
				n++
			}
		}
	}
	return n, nil
}

// set changes what the store does.
func (s *memStore) set(f func(*memStore)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

// house is a log, a store and one or more ingests over them.
type house struct {
	t     *testing.T
	log   *memLog
	store *memStore
	doors []*door
}

// door is one ingest, behind a real listener.
type door struct {
	server  *ingest.Server
	url     string
	apps    *follower
	devices *follower
	casts   *follower
}

const testHashKey = "AAECAwQFBgcICQoLDA0ODw=="

// Keys of the test apps, by value.
const (
	keyAll   = "31bde27540b03bb221f14a815a690582"
	keyNone  = "00000000000000000000000000000000"
	keyPhone = "11111111111111111111111111111111"
	keyPush  = "44444444444444444444444444444444"
	appName  = "commoodlemoodlemobile"
)

// setup opens a house with some doors and the app with its operator's keys.
func setup(t *testing.T, doors int, change func(*ingest.Options)) *house {
	t.Helper()
	h := &house{t: t, log: newMemLog()}
	h.store = newMemStore(h.log)
	hasher, err := vault.ParseHasher(testHashKey)
	if err != nil {
		t.Fatal(err)
	}
	h.say(func(out *schemas.Out) {
		out.AppConfigured(&pushv1.AppConfigured{App: appName})
		out.AppConfigured(&pushv1.AppConfigured{App: "otherapp"})
	})
	h.issue(appName, keyAll, 15)
	h.issue(appName, keyNone, 0)
	h.issue(appName, keyPhone, 1)
	h.issue(appName, keyPush, 4)
	h.issue("otherapp", "99999999999999999999999999999999", 15)
	for range doors {
		d := &door{}
		o := ingest.Options{
			CatchUpApps:       func(ctx context.Context) error { return d.apps.catchUp(ctx) },
			CatchUpBroadcasts: func(ctx context.Context) error { return d.casts.catchUp(ctx) },
		}
		if change != nil {
			change(&o)
		}
		d.server = ingest.New(o, h.log, h.store, hasher, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		d.apps = h.log.follow(schemas.Apps, d.server.ApplyApps)
		d.devices = h.log.follow(schemas.Devices, d.server.ApplyDevices)
		d.casts = h.log.follow(schemas.Broadcasts, d.server.ApplyBroadcasts)
		web := httptest.NewServer(d.server.Handler())
		d.url = web.URL
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- d.server.Run(ctx) }()
		t.Cleanup(func() {
			web.Close()
			stop()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
		h.doors = append(h.doors, d)
	}
	return h
}

func (h *house) say(f func(out *schemas.Out)) {
	h.t.Helper()
	if err := h.log.Append(context.Background(), f); err != nil {
		h.t.Fatal(err)
	}
}

// issue is what the operator's command does.
func (h *house) issue(app, value string, permissions uint32) {
	h.t.Helper()
	h.say(operatorKey(app, value, permissions))
}

func operatorKey(app, value string, permissions uint32) func(*schemas.Out) {
	sum := sha256.Sum256([]byte(value))
	return func(out *schemas.Out) {
		out.AccessKeyIssued(&pushv1.AccessKeyIssued{
			App: app, KeyId: hex.EncodeToString(sum[:16]), ValueHash: sum[:], Permissions: permissions, IssuedAtUs: 1,
		})
	}
}

// appWithKey is the test app with the key that may everything.
func appWithKey(out *schemas.Out) {
	out.AppConfigured(&pushv1.AppConfigured{App: appName})
	operatorKey(appName, keyAll, 15)(out)
}

// configure changes the app's settings.
func (h *house) configure(e *pushv1.AppConfigured) {
	h.t.Helper()
	e.App = appName
	h.say(func(out *schemas.Out) { out.AppConfigured(e) })
	h.settle()
}

// settle lets every door read apps and devices to their ends.
func (h *house) settle() {
	h.t.Helper()
	for _, d := range h.doors {
		if err := errors.Join(d.apps.catchUp(context.Background()), d.devices.catchUp(context.Background())); err != nil {
			h.t.Fatal(err)
		}
	}
}

// invalidate says what a sender would, and lets every door know.
func (h *house) invalidate(d schemas.Device, asOfUS int64) {
	h.t.Helper()
	h.say(func(out *schemas.Out) {
		out.TokenInvalidated(&pushv1.TokenInvalidated{
			App: d.App, Transport: d.Transport, Environment: d.Environment, Token: d.Token, AsOfUs: asOfUS, Reason: "Unregistered",
		})
	})
	h.settle()
}

// request is one HTTP request in short.
type request struct {
	method, path string // method: POST where empty
	app, key     string // "-": no such header
	label        string // Content-Type
	body         string
	header       map[string]string
}

// reply is its answer.
type reply struct {
	status int
	body   string
	header http.Header
}

func (h *house) do(door int, r request) reply {
	h.t.Helper()
	if r.method == "" {
		r.method = http.MethodPost
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, r.method, h.doors[door].url+r.path, strings.NewReader(r.body))
	if err != nil {
		h.t.Fatal(err)
	}
	for name, v := range map[string]string{"X-AN-APP-NAME": r.app, "X-AN-APP-KEY": r.key} {
		if v != "-" {
			req.Header[name] = []string{v}
		}
	}
	if r.label != "" {
		req.Header.Set("Content-Type", r.label)
	}
	for name, v := range r.header {
		req.Header.Set(name, v)
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return reply{res.StatusCode, string(body), res.Header}
}

// post is do with the test app, as JSON under a form label where the body is JSON.
func (h *house) post(key, path, body string) reply {
	h.t.Helper()
	return h.do(0, request{path: path, app: appName, key: key, label: "application/x-www-form-urlencoded", body: body})
}

func (h *house) want(got reply, status int, body string) {
	h.t.Helper()
	if got.status != status || got.body != body {
		h.t.Fatalf("want %d %q, got %d %q", status, body, got.status, got.body)
	}
}

// eventually waits for what happens beside the requests.
func (h *house) eventually(what string, holds func() bool) {
	h.t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for range 5000 {
		if holds() {
			return
		}
		<-tick.C
	}
	h.t.Fatalf("never: %s", what)
}

// fcmDevice is a device of the test app.
func fcmDevice(token string) schemas.Device {
	return schemas.Device{App: appName, Transport: schemas.FCM, Token: token}
}
