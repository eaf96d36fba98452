package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/pprof"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/campanile-push/campanile/senders"
)

// health says which parts of the process are not ready yet, and why.
type health struct {
	mu      sync.Mutex
	waiting map[string]string
}

func newHealth() *health { return &health{waiting: map[string]string{}} }

// wait marks a part as not ready.
func (h *health) wait(part, why string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.waiting[part] = why
}

// ready marks a part as ready.
func (h *health) ready(part string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.waiting, part)
}

func (h *health) snapshot() map[string]string {
	h.mu.Lock()
	defer h.mu.Unlock()
	m := make(map[string]string, len(h.waiting))
	maps.Copy(m, h.waiting)
	return m
}

func newRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	registerBuild(r)
	return r
}

// opsHandler serves what operators and their tools ask: is it alive, is it ready, what does it count, what is it doing.
func opsHandler(h *health, metrics prometheus.Gatherer, sending *pacing) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		waiting := h.snapshot()
		w.Header().Set("Content-Type", "application/json")
		if len(waiting) > 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"ready": len(waiting) == 0, "waiting": waiting})
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /senders", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"accounts": sending.accounts()})
	})
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}

// serveHTTP serves until ctx ends, then lets running requests finish for as long as patience lasts. The listener is closed on return.
// secure is for TLS, with HTTP/1.1 and HTTP/2; nil is plain HTTP/1.1.
func serveHTTP(ctx context.Context, listener net.Listener, handler http.Handler, secure *tls.Config, patience time.Duration, logger *slog.Logger) error {
	server := &http.Server{
		Handler:           handler,
		TLSConfig:         secure,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       60 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		stopped <- server.Shutdown(drain)
	})
	var err error
	if secure != nil {
		err = server.ServeTLS(listener, "", "")
	} else {
		err = server.Serve(listener)
	}
	if stop() { // it ended by itself
		return err
	}
	if shutdownErr := <-stopped; shutdownErr != nil {
		_ = server.Close()
		logger.Warn("requests were cut off at shutdown", "error", shutdownErr)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// pacing are this process's senders, for who asks what holds them back.
type pacing struct {
	mu   sync.Mutex
	list []*senders.Sender
}

func (p *pacing) add(s *senders.Sender) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list = append(p.list, s)
}

func (p *pacing) accounts() []senders.AccountStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := []senders.AccountStatus{}
	for _, s := range p.list {
		all = append(all, s.Accounts()...)
	}
	return all
}
