package simulator

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// Options says where a simulator stands. Only Dir and Logger are needed.
type Options struct {
	// Dir holds identity, credentials and ledger. It is made where missing, and is for one simulator at a time.
	Dir string
	// Addresses to listen on; "" is 127.0.0.1:0. Port 0 takes the port of the last run in Dir again if it is free, so that
	// whoever was told of it finds it.
	APNSAddr, APNSSandboxAddr, FCMAddr, AdminAddr string
	// Project of the service account that is written into Dir; "" is DefaultProject. Other projects work as well.
	Project string
	// Server is ServerFrames or ServerNetHTTP; "" is ServerFrames.
	Server string
	// Scenario at the start.
	Scenario Scenario
	// Exact keeps that many of the last accepted pushes whole, tokens and texts included: for tests.
	Exact int
	// Logger gets state changes; no token and no text.
	Logger *slog.Logger
}

// Simulator is a running stand-in for APNs and FCM. Close it.
type Simulator struct {
	options   Options
	lock      *os.File // of the directory
	identity  *identity
	ledger    *Ledger
	core      *core
	topics    *topics
	gates     map[string]*gate // by listener
	servers   []*http.Server
	frames    []*framesServer
	wheel     *wheel
	running   sync.WaitGroup
	closeOnce sync.Once
	closeErr  error
}

// Names of the listeners.
const (
	listenAPNS    = "apns"
	listenSandbox = "apns-sandbox"
	listenFCM     = "fcm"
	listenAdmin   = "admin"
)

// The servers of pushes. Both decide by the same code and keep the same ledger.
const (
	ServerFrames  = "frames"  // works on HTTP/2's frames: for measuring, and for every fault
	ServerNetHTTP = "nethttp" // Go's own server: the reference for the other, at more than ten times the CPU
)

// Limits of the servers. A peer may hold a connection for days, as with the providers.
const (
	headerTimeout = 10 * time.Second
	drainTime     = 500 * time.Millisecond
)

// Start opens the directory and the listeners, and serves until Close. ctx bounds the start alone.
func Start(ctx context.Context, o Options) (*Simulator, error) {
	if o.Dir == "" {
		return nil, errors.New("the simulator needs a directory for its credentials and ledger")
	}
	if o.Server == "" {
		o.Server = ServerFrames
	}
	if o.Server != ServerFrames && o.Server != ServerNetHTTP {
		return nil, fmt.Errorf("%q is no server: want %s or %s", o.Server, ServerFrames, ServerNetHTTP)
	}
	if err := checkScenario(o.Server, &o.Scenario); err != nil {
		return nil, fmt.Errorf("scenario: %w", err)
	}
	if o.Project == "" {
		o.Project = DefaultProject
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the simulator's directory: %w", err)
	}
	lock, err := lockDir(o.Dir)
	if err != nil {
		return nil, err
	}
	id, err := openIdentity(o.Dir)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	ledger, err := OpenLedger(o.Dir, o.Logger)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	s := &Simulator{options: o, lock: lock, identity: id, ledger: ledger, gates: map[string]*gate{}, topics: newTopics()}
	s.core = newCore(o.Scenario, ledger, o.Exact, time.Now)
	if err := s.serve(ctx); err != nil {
		return nil, errors.Join(err, s.Close()) //nolint:contextcheck // closing goes on when ctx has ended
	}
	o.Logger.Info("simulator started", "apns", s.APNSURL(), "apns_sandbox", s.SandboxURL(), "fcm", s.FCMURL(), "admin", s.AdminURL(), "ledger_accepted", ledger.Summary().Accepted)
	return s, nil
}

// checkScenario says what is wrong with a scenario on a server.
func checkScenario(server string, s *Scenario) error {
	if err := s.Validate(); err != nil {
		return err
	}
	if server == ServerNetHTTP {
		return s.needsFrames()
	}
	return nil
}

func (s *Simulator) serve(ctx context.Context) error {
	addresses := map[string]string{
		listenAPNS: s.options.APNSAddr, listenSandbox: s.options.APNSSandboxAddr, listenFCM: s.options.FCMAddr, listenAdmin: s.options.AdminAddr,
	}
	listeners := map[string]net.Listener{}
	defer func() { // those that no server took over
		for _, l := range listeners {
			_ = l.Close()
		}
	}()
	for _, name := range sortedKeys(addresses) {
		l, err := listen(ctx, addresses[name], s.identity.address(name))
		if err != nil {
			return fmt.Errorf("listen for %s: %w", name, err)
		}
		listeners[name] = l
		s.gates[name] = &gate{Listener: l, stats: s.core.stats, most: s.mostConns(name)}
		addresses[name] = l.Addr().String()
	}
	s.gates[listenAdmin].stats = newStats(time.Now()) // who asks does not count
	if err := s.identity.setAddresses(addresses); err != nil {
		return err
	}
	account, err := s.ServiceAccount(s.options.Project)
	if err != nil {
		return err
	}
	if err := writeFile(s.options.Dir, ServiceAccountFile, account); err != nil {
		return err
	}
	certificate, err := s.identity.ca.serverCertificate(addresses[listenAPNS], addresses[listenSandbox], addresses[listenFCM])
	if err != nil {
		return fmt.Errorf("make the server's certificate: %w", err)
	}
	apns := &tls.Config{
		Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"},
		ClientAuth: tls.RequestClientCert, // looked at with the request: APNs answers a wrong one with a reason
	}
	fcm := &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	production := &apnsDoor{s.core, s.identity, Production, serviceAPNS, s.options.Logger}
	sandbox := &apnsDoor{s.core, s.identity, Sandbox, serviceSandbox, s.options.Logger}
	google := &fcmDoor{s.core, s.identity, s.options.Logger, s.topics}
	if s.options.Server == ServerFrames {
		s.wheel = newWheel(fire)
		s.running.Go(s.wheel.run)
	}
	s.start(ctx, listenAPNS, apns, &apnsHTTP{production}, apnsFrames{production})
	s.start(ctx, listenSandbox, apns, &apnsHTTP{sandbox}, apnsFrames{sandbox})
	s.start(ctx, listenFCM, fcm, &fcmHTTP{google}, fcmFrames{google, &fcmHTTP{google}})
	s.start(ctx, listenAdmin, nil, newAdmin(s), nil)
	clear(listeners)
	return nil
}

// mostConns reads a listener's cap from the scenario in force.
func (s *Simulator) mostConns(listener string) func() int {
	return func() int {
		now := &s.core.state.Load().scenario
		switch listener {
		case listenAPNS, listenSandbox:
			return now.APNS.Connections.Max
		case listenFCM:
			return now.FCM.Connections.Max
		}
		return 0
	}
}

// listen takes the address of the last run where the wanted one leaves the port open.
func listen(ctx context.Context, wanted, last string) (net.Listener, error) {
	if wanted == "" {
		wanted = "127.0.0.1:0"
	}
	host, port, err := net.SplitHostPort(wanted)
	if err != nil {
		return nil, fmt.Errorf("%q is no address: want host:port, such as 127.0.0.1:0", wanted)
	}
	var c net.ListenConfig
	if lastHost, lastPort, err := net.SplitHostPort(last); err == nil && port == "0" && lastHost == host {
		if l, err := c.Listen(ctx, "tcp", net.JoinHostPort(host, lastPort)); err == nil {
			return l, nil
		}
	}
	return c.Listen(ctx, "tcp", wanted)
}

// start serves a listener. door is nil for the admin API, and secure too.
func (s *Simulator) start(ctx context.Context, name string, secure *tls.Config, h http.Handler, door h2Door) {
	base := context.WithoutCancel(ctx)
	gate := s.gates[name]
	if secure != nil {
		secure = secure.Clone() // net/http changes it, and each listener's gate is its own
		secure.GetConfigForClient = gate.handshake
	}
	logger := s.options.Logger.With("listener", name)
	server := &http.Server{
		Handler: h, ReadHeaderTimeout: headerTimeout, ConnContext: withConn,
		BaseContext: func(net.Listener) context.Context { return base },
		// Broken handshakes and streams are what a simulator makes: not worth a line.
		ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
	run := func(serve func() error) {
		s.running.Go(func() {
			if err := serve(); !errors.Is(err, http.ErrServerClosed) {
				logger.Error("listener ended", "error", err)
			}
		})
	}
	switch {
	case door == nil:
		s.servers = append(s.servers, server)
		run(func() error { return server.Serve(gate) })
	case s.options.Server == ServerNetHTTP:
		server.TLSConfig = secure
		server.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: s.core.state.Load().scenario.streams(door.provider())}
		s.servers = append(s.servers, server)
		run(func() error { return server.ServeTLS(gate, "", "") })
	default:
		secure.DynamicRecordSizingDisabled = true // a batch in one record
		others := newHandedOver(gate.Addr())
		f := &framesServer{
			gate: gate, secure: secure, door: door, core: s.core, wheel: s.wheel, logger: logger, http1: server, others: others,
			conns: map[*h2Conn]struct{}{}, pending: map[net.Conn]struct{}{},
		}
		s.frames = append(s.frames, f)
		run(f.serve)
		run(func() error { return server.Serve(others) })
	}
}

// Close stops listening, gives answers under way half a second, and closes the ledger. More than once is fine.
func (s *Simulator) Close() error {
	s.closeOnce.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), drainTime)
		defer cancel()
		var drained sync.WaitGroup
		for _, server := range s.servers {
			drained.Go(func() {
				if server.Shutdown(ctx) != nil {
					_ = server.Close()
				}
			})
		}
		for _, f := range s.frames {
			drained.Go(func() { f.shutdown(ctx) })
		}
		drained.Wait()
		if s.wheel != nil {
			s.wheel.stop()
		}
		s.running.Wait()
		s.closeErr = errors.Join(s.ledger.Close(), s.lock.Close())
	})
	return s.closeErr
}

func (s *Simulator) url(scheme, listener string) string {
	host, port, err := net.SplitHostPort(s.gates[listener].Addr().String())
	if err != nil {
		return ""
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1" // an address for clients on this machine
	}
	return scheme + "://" + net.JoinHostPort(host, port)
}

// APNSURL is where APNs' production environment stands: https, without a path.
func (s *Simulator) APNSURL() string { return s.url("https", listenAPNS) }

// SandboxURL is where APNs' development environment stands.
func (s *Simulator) SandboxURL() string { return s.url("https", listenSandbox) }

// FCMURL is where FCM stands, without a path: go-fcm's endpoint is this and "/v1".
func (s *Simulator) FCMURL() string { return s.url("https", listenFCM) }

// AdminURL is where the admin API stands: plain http, without authentication, for loopback only.
func (s *Simulator) AdminURL() string { return s.url("http", listenAdmin) }

// CAPEM is the certificate to trust; it stands in Dir too.
func (s *Simulator) CAPEM() []byte { return s.identity.ca.certificatePEM }

// RootCAs trusts the simulator alone.
func (s *Simulator) RootCAs() *x509.CertPool { return s.identity.ca.pool() }

// APNSKey is the key for provider tokens that was made with Dir. It works for every topic in both environments.
func (s *Simulator) APNSKey() APNSKey { return s.identity.firstKey() }

// NewAPNSKey issues another key, for k's team, environment and topics, and keeps it in Dir.
func (s *Simulator) NewAPNSKey(k APNSKey) (APNSKey, error) { return s.identity.newKey(k) }

// APNSCertificate issues a push certificate for a bundle id, for both environments: PEM of the chain and of the key.
func (s *Simulator) APNSCertificate(bundle string) (certificate, key []byte, err error) {
	c, err := s.identity.ca.clientCertificate(bundle)
	if err != nil {
		return nil, nil, fmt.Errorf("issue a push certificate: %w", err)
	}
	for _, der := range c.Certificate {
		certificate = append(certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return certificate, []byte(privatePEM(c.PrivateKey)), nil
}

// ServiceAccount is the credentials file of an FCM project, whose token_uri is here.
func (s *Simulator) ServiceAccount(project string) ([]byte, error) {
	return s.identity.serviceAccount(project, s.FCMURL()+"/token")
}

// Ledger is the ledger, open until Close.
func (s *Simulator) Ledger() *Ledger { return s.ledger }

// Stats is what happened since the start or the last reset.
func (s *Simulator) Stats() Stats {
	now := s.core.stats.read(s.ledger.Summary())
	now.Server = s.options.Server
	return now
}

// Client is a client of this simulator's admin API.
func (s *Simulator) Client() *Client { return NewClient(s.AdminURL(), nil) }
