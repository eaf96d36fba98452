package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/eventlog/broker"
	"github.com/campanile-push/campanile/projections"
	"github.com/campanile-push/campanile/projections/clickhouse"
	"github.com/campanile-push/campanile/senders/apns"
	"github.com/campanile-push/campanile/senders/fcm"
)

// process is a running campanile: what its stages stand on, and their supervisor.
type process struct {
	cfg      *Config
	logger   *slog.Logger
	health   *health
	registry *prometheus.Registry
	secrets  *secrets
	super    *supervisor

	broker    *broker.Broker // nil on Kafka
	log       *eventlog.Log
	store     projections.DeviceStore
	analytics *clickhouse.Analytics // nil: none can be had
	signers   *apns.Signers
	tokens    *fcm.Tokens
	senders   *pacing

	analyticsAddress string // a URL with a password in it

	apiAddress, opsAddress string
	demoClient             *http.Client

	closers []func() // run last to first
}

// drainTime is how long requests that run at shutdown may take.
const drainTime = 10 * time.Second

// newProcess starts the ops port and opens the log. close must be called, also after an error.
func newProcess(ctx context.Context, cfg *Config, logger *slog.Logger) (*process, error) {
	p := &process{cfg: cfg, logger: logger, health: newHealth(), registry: newRegistry(), senders: &pacing{}}
	p.super = newSupervisor(ctx, logger)
	p.health.wait("start", "starting")
	if err := checkSharedSecrets(cfg); err != nil {
		return p, err
	}
	var err error
	if p.secrets, err = loadSecrets(cfg); err != nil {
		return p, err
	}
	ops, err := p.listen(ctx, "ops.listen", cfg.Ops.Listen)
	if err != nil {
		return p, err
	}
	p.opsAddress = ops.Addr().String()
	p.super.start(engines, "ops", func(ctx context.Context) error {
		return serveHTTP(ctx, ops, opsHandler(p.health, p.registry, p.senders), nil, time.Second, logger)
	})
	return p, p.openLog(ctx)
}

// apiURL is where the API is served.
func (p *process) apiURL() string {
	if p.cfg.HTTP.TLSCert != "" {
		return "https://" + p.apiAddress
	}
	return "http://" + p.apiAddress
}

func (p *process) listen(ctx context.Context, setting, address string) (net.Listener, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: give another address with --%s", setting, err, flagName(setting))
	}
	p.closers = append(p.closers, func() { _ = l.Close() })
	return l, nil
}

func (p *process) openLog(ctx context.Context) error {
	var dial broker.Dial
	var base int64
	if p.cfg.embedded() {
		b, err := openEmbedded(p.cfg, p.logger)
		if err != nil {
			return err
		}
		p.broker, dial, base = b, b.Dial, b.Boots()<<32
		registerEmbedded(p.registry, b)
		p.closers = append(p.closers, func() { closeWithin(p.logger, "embedded log", b.Close) })
	}
	cfg, err := logConfig(p.cfg, dial, base)
	if err != nil {
		return err
	}
	opening, cancel := context.WithTimeout(ctx, openWait)
	defer cancel()
	if p.log, err = eventlog.Open(opening, cfg, p.logger, p.registry); err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	p.closers = append(p.closers, func() { closeWithin(p.logger, "log", p.log.Close) })
	if p.cfg.embedded() {
		if _, err = p.log.CreateTopics(opening, partitions(p.cfg)); err != nil {
			return fmt.Errorf("create the topics: %w", err)
		}
		return nil
	}
	if p.log.Layout().Partitions == 0 {
		return eventlog.ErrNoTopics
	}
	return nil
}

// follow starts a follower and keeps the process unready until it has caught up.
func (p *process) follow(name string, following *eventlog.Following) {
	p.health.wait(name, "reading the log")
	p.super.start(followers, name, following.Run)
	p.super.background(followers, func(ctx context.Context) {
		select {
		case <-following.CaughtUp():
			p.health.ready(name)
		case <-ctx.Done():
		}
	})
}

// close stops every part, then closes what they stood on.
func (p *process) close() {
	p.super.stopAll()
	p.closeEngines()
}

func (p *process) closeEngines() {
	for _, closePart := range slices.Backward(p.closers) {
		closePart()
	}
}

// runInfo is what a running `campanile up` leaves in its data folder for other commands: its addresses, and how to reach the embedded
// analytics engine. It is readable by its owner only.
type runInfo struct {
	PID       int    `json:"pid"`
	API       string `json:"api"`
	Ops       string `json:"ops"`
	Analytics string `json:"analytics,omitempty"`
	// Admin is where it rebuilds its device store for who has the token.
	Admin      string `json:"admin,omitempty"`
	AdminToken string `json:"admin_token,omitempty"`
}

func runFile(c *Config) string { return filepath.Join(c.Data, "up.json") }

func (p *process) writeRunFile(info runInfo) error {
	info.PID, info.API, info.Ops = os.Getpid(), p.apiURL(), "http://"+p.opsAddress
	text, err := json.Marshal(info)
	if err != nil {
		return err
	}
	temporary := runFile(p.cfg) + ".new"
	if err := os.WriteFile(temporary, append(text, '\n'), 0o600); err != nil {
		return err
	}
	p.closers = append(p.closers, func() { _ = os.Remove(runFile(p.cfg)) })
	return os.Rename(temporary, runFile(p.cfg))
}

// alive reports whether the process still runs: one that was killed leaves its file behind.
func (i runInfo) alive() bool {
	return i.PID > 0 && syscall.Kill(i.PID, 0) == nil
}

func readRunFile(c *Config) (runInfo, error) {
	text, err := os.ReadFile(runFile(c))
	if err != nil {
		return runInfo{}, err
	}
	var info runInfo
	return info, json.Unmarshal(text, &info)
}
