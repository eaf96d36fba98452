package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/campanile-push/campanile/api"
	"github.com/campanile-push/campanile/bench"
)

// load registers phones, notifies them and broadcasts to them all, and writes down what was answered. What is refused for now, or cut
// off, is tried again at the next ingest: under the same Idempotency-Key, so that it counts once whether or not it had been taken.
// Some of the notifications are Moodle's own, without such a key: those are tried once, and the log says what came of them.
type load struct {
	clients []*api.Client
	moodles []bench.Moodle
	seed    uint64
	devices int // registered at the beginning

	working sync.WaitGroup

	mu            sync.Mutex
	phones        []bench.Phone // registered, in the order of the answers
	notifications []string      // ids that were answered
	broadcasts    []sentBroadcast
	open          int // broadcasts that have not ended
	ended         int
	unexpected    []string // answers that must not be
	retries       int
}

// sentBroadcast is a broadcast that was answered.
type sentBroadcast struct {
	id    string
	reach int // so many of the first phones were registered before it was asked for
}

const (
	channel       = "everybody"
	loadTimeout   = 15 * time.Second // of one try
	retryPause    = 200 * time.Millisecond
	onceEvery     = 4   // of the notifications, one is tried once
	registrations = 2.0 // a second: broadcasts must not become too long to end between two steps
	casters       = 2   // broadcasts at a time
)

func newLoad(w *world) *load {
	l := &load{seed: w.Seed, devices: w.Devices}
	client := bench.NewClient(64)
	client.Timeout, client.Transport = loadTimeout, watchful{client.Transport, l.complain}
	for _, name := range []string{"ingest-1", "ingest-2"} {
		url := "http://" + w.roles[name].api
		l.clients = append(l.clients, &api.Client{URL: url, App: app, Key: w.key, HTTP: client})
		l.moodles = append(l.moodles, bench.Moodle{BaseURL: url, App: app, Key: w.key, Client: client})
	}
	return l
}

// fill registers the first phones.
func (l *load) fill(ctx context.Context) error {
	return bench.Each(ctx, l.devices, 16, nil, l.register)
}

// begin starts the load, which goes on until stop is closed: what has begun then is finished, so that everything asked for has an answer.
// ctx breaks it off. wait must be called.
func (l *load) begin(ctx context.Context, stop <-chan struct{}, rate float64) {
	const workers = 4
	every := func(i int, rate float64, do func(ctx context.Context, r *rand.Rand, n int) error) {
		l.working.Go(func() {
			r := rand.New(rand.NewPCG(l.seed, uint64(i)))
			tick := time.NewTicker(time.Duration(float64(time.Second) / rate))
			defer tick.Stop()
			for n := i; ; n += workers {
				select {
				case <-stop:
					return
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				if err := do(ctx, r, n); err != nil {
					l.complain(err.Error())
				}
			}
		})
	}
	for i := range workers {
		every(i, rate/workers, l.notify)
	}
	every(workers, registrations, func(ctx context.Context, _ *rand.Rand, n int) error { return l.register(ctx, l.devices+n) })
	for i := range casters {
		l.working.Go(func() {
			for n := i; ; n += casters {
				select {
				case <-stop:
					return
				case <-ctx.Done():
					return
				default:
				}
				if err := l.broadcast(ctx, n); err != nil {
					l.complain(err.Error())
				}
			}
		})
	}
}

// wait returns when everything that was begun has its answer.
func (l *load) wait() { l.working.Wait() }

// errRefused is an answer that a retry does not change.
var errRefused = errors.New("refused")

// retried calls do with the number of the ingest to ask until it succeeds, or is refused for good.
func (l *load) retried(ctx context.Context, what string, first int, do func(ctx context.Context, ingest int) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for try := first; ; try++ {
		err := do(ctx, try%len(l.clients))
		var p *api.Problem
		switch {
		case err == nil:
			return nil
		case errors.Is(err, errRefused), errors.As(err, &p) && p.Status < http.StatusInternalServerError && p.Status != http.StatusTooManyRequests:
			return fmt.Errorf("%s: %w", what, err)
		}
		l.mu.Lock()
		l.retries++
		l.mu.Unlock()
		if !pause(ctx, retryPause) {
			return fmt.Errorf("%s: %w", what, errors.Join(ctx.Err(), err))
		}
	}
}

func (l *load) register(ctx context.Context, n int) error {
	p := bench.MakePhone(app, n)
	err := l.retried(ctx, "register", n, func(ctx context.Context, ingest int) error {
		return l.moodles[ingest].Register(ctx, p.Token, p.Platform, channel)
	})
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.phones = append(l.phones, p)
	return nil
}

// notify pushes to one of the registered phones.
func (l *load) notify(ctx context.Context, r *rand.Rand, n int) error {
	l.mu.Lock()
	p := l.phones[r.IntN(len(l.phones))]
	l.mu.Unlock()
	if n%onceEvery == 0 {
		a, err := l.moodles[n%len(l.moodles)].Push(ctx, p.Token, p.Platform, "A new post")
		switch {
		case err != nil || a.Status == http.StatusServiceUnavailable:
			return nil //nolint:nilerr // taken or not: the log says
		case a.Status != http.StatusAccepted:
			return fmt.Errorf("notify as Moodle: %d %s", a.Status, a.Body)
		}
		l.answered(a.ID)
		return nil
	}
	request := api.NotificationRequest{Token: p.Token, Platform: p.Platform, Message: api.Message{Text: "A new post"}}
	var id string
	err := l.retried(ctx, "notify", n, func(ctx context.Context, ingest int) error {
		accepted, err := l.clients[ingest].SendNotification(ctx, fmt.Sprintf("notification-%d-%d", l.seed, n), request)
		id = accepted.ID
		return err
	})
	if err == nil {
		l.answered(id)
	}
	return err
}

func (l *load) answered(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.notifications = append(l.notifications, id)
}

// broadcast pushes to every phone, and waits until that has ended.
func (l *load) broadcast(ctx context.Context, n int) error {
	l.mu.Lock()
	b := sentBroadcast{reach: len(l.phones)}
	l.mu.Unlock()
	request := api.BroadcastRequest{Channels: []string{channel}, Message: &api.Message{Text: "The library closes at six"}}
	err := l.retried(ctx, "broadcast", n, func(ctx context.Context, ingest int) error {
		accepted, err := l.clients[ingest].SendBroadcast(ctx, fmt.Sprintf("broadcast-%d-%d", l.seed, n), request)
		b.id = accepted.ID
		return err
	})
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.broadcasts = append(l.broadcasts, b)
	l.open++
	l.mu.Unlock()
	// A broadcast that was answered is known, or becomes known to an ingest that starts: a 404 is asked again.
	until, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for try := n; ; try++ {
		status, err := l.clients[try%len(l.clients)].GetBroadcast(until, b.id)
		if err == nil && status.State == "ended" {
			break
		}
		if !pause(until, retryPause) {
			return errors.Join(fmt.Errorf("broadcast %s has not ended %s after it was asked for: it is %s, and %d of %d expanded are finished",
				b.id, patience, status.State, status.Progress.Finished, status.Progress.Expanded), err)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	l.ended++
	return nil
}

// patience of a caller is longer than the longest outage, and than all that may come before things have settled again.
const patience = 8 * time.Minute

// watchful complains of answers that an ingest must not give, whatever is away: an error of the server is 503 and says when to come again.
type watchful struct {
	http.RoundTripper

	complain func(text string)
}

// RoundTrip implements http.RoundTripper.
func (w watchful) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := w.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	switch {
	case answer.StatusCode < http.StatusInternalServerError:
	case answer.StatusCode != http.StatusServiceUnavailable:
		w.complain(fmt.Sprintf("%s %s was answered %s", r.Method, route(r.URL.Path), answer.Status))
	case answer.Header.Get("Retry-After") == "":
		w.complain(fmt.Sprintf("%s %s was answered 503 without Retry-After", r.Method, route(r.URL.Path)))
	}
	return answer, nil
}

// route is a path without the token in it.
func route(path string) string {
	if before, _, ok := strings.Cut(path, "/tokens/"); ok {
		return before + "/tokens/…"
	}
	return path
}

func (l *load) complain(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.unexpected) < 100 {
		l.unexpected = append(l.unexpected, text)
	}
}

// endedBroadcasts is how many broadcasts have ended.
func (l *load) endedBroadcasts() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ended
}

// answers is how many notifications were answered.
func (l *load) answers() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.notifications)
}

// asked is what was asked for and answered, and what came of it at once.
func (l *load) asked() asked {
	l.mu.Lock()
	defer l.mu.Unlock()
	return asked{slices.Clone(l.phones), slices.Clone(l.notifications), slices.Clone(l.broadcasts), slices.Clone(l.unexpected), l.retries}
}

// asked is what a load had answered.
type asked struct {
	phones        []bench.Phone
	notifications []string
	broadcasts    []sentBroadcast
	unexpected    []string
	retries       int
}

// pause waits; false: ctx ended before.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
