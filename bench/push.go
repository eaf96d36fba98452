package bench

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/ingest"
	"github.com/campanile-push/campanile/projections/pebble"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
	"github.com/campanile-push/campanile/vault"
)

const (
	loadConns = 256  // enough that the append of one request fills while the others are answered
	loadToken = 1024 // devices that are pushed to in turns
	benchKey  = "0123456789abcdef0123456789abcdef"
)

func (h *harness) ingestPush(ctx context.Context) (rows []Row, err error) {
	const name = "ingest/push"
	c, err := h.newCluster(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.close() }()
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
	gin.SetMode(gin.ReleaseMode)
	engine := gin.New()
	engine.POST("/api/v2/push/", func(g *gin.Context) {
		_, _ = io.Copy(io.Discard, g.Request.Body)
		g.Status(http.StatusAccepted)
	})
	var listeners [2]*webServer
	for i, handler := range []http.Handler{server.handler, engine} {
		if listeners[i], err = serveWeb(ctx, handler); err != nil {
			return nil, err
		}
		defer listeners[i].close()
	}
	plan := &loadPlan{Conns: loadConns, Want: "202"}
	for i := range loadToken {
		plan.Requests = append(plan.Requests, pushRequest(MakePhone("bench", i)))
	}
	var ready struct{}
	load, err := h.startChild(ctx, roleLoad, order{Load: plan}, &ready)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, load.end()) }()
	n := h.scaled(200_000)
	h.say("%d pushes a round of %d bytes over %d connections that are kept; the client is another process", n, len(plan.Requests[0]), loadConns)
	over := func(web *webServer) side {
		return func(context.Context) (sample, error) {
			watch, err := h.watch(map[string]*child{"broker": c.child, "client": load})
			if err != nil {
				return sample{}, err
			}
			var report loadReport
			if err = load.write(loadOrder{Address: web.address, N: n}); err == nil {
				err = load.read(&report)
			}
			if err == nil && report.Failed != "" {
				err = errors.New(report.Failed)
			}
			if err != nil {
				return sample{}, err
			}
			s, err := watch.stop(n)
			s.wall = time.Duration(report.WallNS)
			return s, err
		}
	}
	d, err := h.duel(ctx, name, over(listeners[0]), over(listeners[1]))
	if err != nil {
		return nil, err
	}
	if err := t.mustHold(ctx, schemas.Notifications, int64(n)*int64(h.Rounds+1)); err != nil {
		return nil, err
	}
	return d.rows(name, "request"), nil
}

// mustHold checks that a topic has as many records as were answered for.
func (t *topics) mustHold(ctx context.Context, topic schemas.Topic, want int64) error {
	ends, err := t.Ends(ctx, topic)
	if err != nil {
		return err
	}
	var got int64
	for _, end := range ends {
		got += end
	}
	if got != want {
		return fmt.Errorf("want %d records in %s, got %d", want, topic, got)
	}
	return nil
}

// pushBody is what Moodle says of a post in a forum.
func pushBody(p Phone) string {
	return fmt.Sprintf(`{"device":%q,"token":%q,"extra":{"courseid":"1","component":"mod_forum","name":"posts","subject":"Re: Timetable",`+
		`"smallmessage":"Anne posted in Timetable","notification":1,"contexturl":"https:\/\/moodle.example.org\/mod\/forum\/discuss.php?d=7#p9",`+
		`"contexturlname":"Forum","replyto":"","timecreated":1800000000,"savedmessageid":42,"customdata":"{\"cmid\":\"5\",\"instance\":\"2\"}",`+
		`"userfromid":"3","userfromfullname":"Anne O'Neil","usertoid":"4","processor":"moodle","site":"0123456789abcdef0123456789abcdef",`+
		`"date":1800000000,"sitefullname":"Campus","siteshortname":"campus","wwwroot":"https:\/\/moodle.example.org","encrypted":false}}`, p.Platform, p.Token)
}

// pushRequest is a push as Moodle makes it, whole.
func pushRequest(p Phone) []byte {
	body := pushBody(p)
	return fmt.Appendf(nil, "POST /api/v2/push/ HTTP/1.1\r\nHost: push.example.org\r\nUser-Agent: MoodleBot/5.1 (+https://moodle.example.org)\r\n"+
		"Accept: application/json\r\nX-AN-APP-NAME: %s\r\nX-AN-APP-KEY: %s\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s",
		app, benchKey, len(body), body)
}

// webServer listens with the settings of `campanile ingest`.
type webServer struct {
	address string
	server  *http.Server
	ended   chan struct{}
}

func serveWeb(ctx context.Context, handler http.Handler) (*webServer, error) {
	return serveWebWith(ctx, handler, nil)
}

// serveWebTLS is serveWeb with a certificate.
func serveWebTLS(ctx context.Context, handler http.Handler, pair tls.Certificate) (*webServer, error) {
	return serveWebWith(ctx, handler, &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &pair, nil },
	})
}

func serveWebWith(ctx context.Context, handler http.Handler, secure *tls.Config) (*webServer, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	w := &webServer{address: l.Addr().String(), ended: make(chan struct{}), server: &http.Server{
		Handler: handler, TLSConfig: secure, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 60 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
	}}
	go func() {
		defer close(w.ended)
		if secure != nil { // either ends with close
			_ = w.server.ServeTLS(l, "", "")
			return
		}
		_ = w.server.Serve(l)
	}()
	return w, nil
}

func (w *webServer) close() {
	_ = w.server.Close()
	<-w.ended
}

// runningIngest is an ingest with its followers and its store.
type runningIngest struct {
	handler http.Handler
	end     context.CancelFunc
	parts   sync.WaitGroup
	store   *pebble.Store
	failed  firstError
}

// startIngest makes an app, its key and its devices, and an ingest that knows them.
func (t *topics) startIngest(ctx context.Context, h *harness) (*runningIngest, error) {
	if err := t.register(ctx, loadToken); err != nil {
		return nil, err
	}
	err := t.Append(ctx, func(out *schemas.Out) {
		out.AppConfigured(&pushv1.AppConfigured{App: app, Title: "Benchmark"})
		out.AccessKeyIssued(issued(5)) // register and notify: a site's
	})
	if err != nil {
		return nil, err
	}
	store, err := pebble.Open(filepath.Join(h.dir, "devices"), pebble.Options{Layout: t.Layout()})
	if err != nil {
		return nil, err
	}
	if err := t.project(ctx, store); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	hasher, err := vault.ParseHasher(vault.NewHashKey())
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	r := &runningIngest{end: cancel, store: store, failed: newFirstError()}
	var apps *eventlog.Following
	server := ingest.New(ingest.Options{CatchUpApps: func(ctx context.Context) error { return apps.CatchUp(ctx) }},
		t.Log, store, hasher, h.Logger, prometheus.NewRegistry())
	apps = t.Follow("ingest.apps", server.ApplyApps, schemas.Apps)
	devices := t.Follow("ingest.devices", server.ApplyDevices, schemas.Devices)
	for _, run := range []func(context.Context) error{apps.Run, devices.Run, server.Run} {
		r.parts.Go(func() {
			if err := run(ctx); ctx.Err() == nil {
				r.failed.set(fmt.Errorf("a part of ingest ended by itself: %w", err))
			}
		})
	}
	for _, caught := range []<-chan struct{}{apps.CaughtUp(), devices.CaughtUp()} {
		select {
		case <-caught:
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), r.stop())
		}
	}
	r.handler = server.Handler()
	return r, nil
}

func (r *runningIngest) stop() error {
	r.end()
	r.parts.Wait()
	return errors.Join(r.failed.get(), r.store.Close())
}

// issued is benchKey with some permissions.
func issued(permissions uint32) *pushv1.AccessKeyIssued {
	hash := sha256.Sum256([]byte(benchKey))
	return &pushv1.AccessKeyIssued{App: app, KeyId: hex.EncodeToString(hash[:16]), ValueHash: hash[:], Permissions: permissions, IssuedAtUs: 1, IssuedBy: "bench"}
}
