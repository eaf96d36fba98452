package bench

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"syscall"
	"time"

	"github.com/campanile-push/campanile/schemas"
)

const (
	freshCallers = 128
	freshPushes  = 6000 // a round
	stall        = time.Second
	// moodlePatience is Moodle's limit for a push, connection and all: after it the site goes on without.
	moodlePatience = 2 * time.Second
)

// tlsFresh measures what Moodle puts on the TLS front: a connection for each push.
func (h *harness) tlsFresh(ctx context.Context) (rows []Row, err error) {
	const name = "tls/fresh"
	c, err := h.newCluster(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	t, err := c.newTopics(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = t.Close(context.WithoutCancel(ctx)) }()
	server, err := t.startIngest(ctx, h)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.stop()) }()
	pair, err := benchCertificate()
	if err != nil {
		return nil, err
	}
	bare := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusAccepted)
	})
	var webs [2]*webServer
	for i, handler := range []http.Handler{server.handler, bare} {
		if webs[i], err = serveWebTLS(ctx, handler, pair); err != nil {
			return nil, err
		}
		defer webs[i].close()
	}
	f := &fresh{h: h, cluster: c, webs: webs, loads: map[bool]*child{}}
	for _, two := range []bool{true, false} {
		var ready struct{}
		load, err := h.startChild(ctx, roleFresh, order{Fresh: freshLoad(two)}, &ready)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, load.end()) }()
		f.loads[two] = load
	}
	f.n = h.scaled(freshPushes)
	h.say("%d connections a round with one push each, %d at once, P-256; the client is another process", f.n, freshCallers)
	for _, kind := range []struct {
		name         string
		http2, again bool
	}{{name, true, false}, {name + "/resumed", true, true}, {name + "/http1", false, false}} {
		d, err := h.duel(ctx, kind.name, f.side(0, kind.http2, kind.again), f.side(1, kind.http2, kind.again))
		if err != nil {
			return rows, err
		}
		rows = append(rows, d.rows(kind.name, "connection")...)
	}
	paced, err := f.paced(ctx, name, rows[1].Value/2)
	if err != nil {
		return rows, err
	}
	return append(rows, paced...), t.mustHold(ctx, schemas.Notifications, f.taken)
}

// fresh is two servers, and a client for each version of HTTP.
type fresh struct {
	h       *harness
	cluster *cluster
	webs    [2]*webServer // ours and the bare one
	loads   map[bool]*child
	n       int
	taken   int64 // pushes that ours has answered for
}

// ask lets a client do one order on one of the servers.
func (f *fresh) ask(web int, http2 bool, o freshOrder) (report freshReport, err error) {
	o.Address = f.webs[web].address
	if err = f.loads[http2].write(o); err == nil {
		err = f.loads[http2].read(&report)
	}
	if err == nil && report.Failed != "" {
		err = errors.New(report.Failed)
	}
	if err == nil && o.Resume && report.Resumed < int64(o.N-freshCallers) {
		err = fmt.Errorf("%d of %d connections were resumed", report.Resumed, o.N)
	}
	if web == 0 {
		f.taken += int64(o.N)
	}
	return report, err
}

func (f *fresh) side(web int, http2, resume bool) side {
	return func(context.Context) (sample, error) {
		watch, err := f.h.watch(map[string]*child{"broker": f.cluster.child, "client": f.loads[http2]})
		if err != nil {
			return sample{}, err
		}
		report, err := f.ask(web, http2, freshOrder{N: f.n, Resume: resume})
		if err != nil {
			return sample{}, err
		}
		s, err := watch.stop(f.n)
		s.wall = time.Duration(report.WallNS)
		return s, err
	}
}

// paced is how long answers take at a rate, connection and all, and how long the slowest one takes while the log stands still for a
// second: the broker's process is stopped, and goes on after it.
func (f *fresh) paced(ctx context.Context, name string, rate float64) ([]Row, error) {
	var p99, slowest []float64
	for range f.h.Rounds {
		report, err := f.ask(0, true, freshOrder{N: f.n, Rate: rate})
		if err != nil {
			return nil, err
		}
		f.h.say("%.0f connections/s: p50 %s, p99 %s, max %s", rate, ms(report.P50NS), ms(report.P99NS), ms(report.MaxNS))
		p99 = append(p99, float64(report.P99NS)/1e6)
	}
	for range f.h.Rounds {
		n := max(f.n, int(3*rate)) // three seconds, with the standstill in the middle
		broker := f.cluster.child.cmd.Process
		stalled := make(chan error, 1)
		go func() { stalled <- standStill(ctx, broker) }()
		report, err := f.ask(0, true, freshOrder{N: n, Rate: rate})
		if err = errors.Join(err, <-stalled); err != nil {
			return nil, fmt.Errorf("while the log stands still: %w", err)
		}
		f.h.say("the log stands still for %s: p50 %s, p99 %s, max %s, all 202", stall, ms(report.P50NS), ms(report.P99NS), ms(report.MaxNS))
		slowest = append(slowest, float64(report.MaxNS)/1e6)
	}
	rows := []Row{row(name+"/p99_ms", "ms", p99, nil), row(name+"/stall/max_ms", "ms", slowest, nil)}
	for _, took := range slowest {
		if took > float64(moodlePatience.Milliseconds()) {
			rows[1].Void = fmt.Sprintf("a push took %.0f ms: Moodle's patience is %s", took, moodlePatience)
		}
	}
	return rows, nil
}

// standStill stops a process after a while, for as long again.
func standStill(ctx context.Context, p *os.Process) error {
	pause := func() {
		timer := time.NewTimer(stall)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	pause()
	err := p.Signal(syscall.SIGSTOP)
	pause()
	return errors.Join(err, p.Signal(syscall.SIGCONT))
}

func ms(ns int64) string { return number(float64(ns)/1e6) + " ms" }

// freshLoad is the pushes of Moodle's size to the devices that ingest knows.
func freshLoad(http2 bool) *freshPlan {
	plan := &freshPlan{Callers: freshCallers, HTTP2: http2, Want: "202"}
	for i := range loadToken {
		plan.Requests = append(plan.Requests, pushing{
			Headers: [][2]string{
				{"user-agent", "MoodleBot/5.1 (+https://moodle.example.org)"},
				{"accept-encoding", "deflate, gzip, br"},
				{"accept", "application/json"},
				{"x-an-app-name", app},
				{"x-an-app-key", benchKey},
				{"content-type", "application/x-www-form-urlencoded"},
			},
			Body: pushBody(MakePhone("bench", i)),
		})
	}
	return plan
}

// benchCertificate is of the kind that the documents advise: ECDSA on P-256, which signs in a thirtieth of the time of RSA with 2048 bits.
func benchCertificate() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make a certificate: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "push.example.org"}, DNSNames: []string{"push.example.org"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make a certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
