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
	gates     map[string]*gate // by listener
	servers   []*http.Server
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

// Limits of the servers. A peer may hold a connection for days, as with the providers.
const (
	apnsStreams   = 1000 // SETTINGS_MAX_CONCURRENT_STREAMS; what APNs typically grants
	fcmStreams    = 100  // what FCM's front end grants
	headerTimeout = 10 * time.Second
	drainTime     = 500 * time.Millisecond
)

// Start opens the directory and the listeners, and serves until Close. ctx bounds the start alone.
func Start(ctx context.Context, o Options) (*Simulator, error) {
	if o.Dir == "" {
		return nil, errors.New("the simulator needs a directory for its credentials and ledger")
	}
	if err := o.Scenario.Validate(); err != nil {
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
	s := &Simulator{options: o, lock: lock, identity: id, ledger: ledger, gates: map[string]*gate{}}
	s.core = newCore(o.Scenario, ledger, o.Exact, time.Now)
	if err := s.serve(ctx); err != nil {
		return nil, errors.Join(err, s.Close()) //nolint:contextcheck // closing goes on when ctx has ended
	}
	o.Logger.Info("simulator started", "apns", s.APNSURL(), "apns_sandbox", s.SandboxURL(), "fcm", s.FCMURL(), "admin", s.AdminURL(), "ledger_accepted", ledger.Summary().Accepted)
	return s, nil
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
		s.gates[name] = &gate{Listener: l, stats: s.core.stats}
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
		ClientAuth: tls.RequestClientCert, // looked at in the handler: APNs answers a wrong one with a reason
	}
	fcm := &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	s.start(ctx, listenAPNS, apns, apnsStreams, &apnsHTTP{s.core, s.identity, Production, serviceAPNS, s.options.Logger})
	s.start(ctx, listenSandbox, apns, apnsStreams, &apnsHTTP{s.core, s.identity, Sandbox, serviceSandbox, s.options.Logger})
	s.start(ctx, listenFCM, fcm, fcmStreams, &fcmHTTP{s.core, s.identity, s.options.Logger})
	s.start(ctx, listenAdmin, nil, 0, newAdmin(s))
	clear(listeners)
	return nil
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

func (s *Simulator) start(ctx context.Context, name string, secure *tls.Config, streams int, h http.Handler) {
	base := context.WithoutCancel(ctx)
	if secure != nil {
		secure = secure.Clone() // net/http changes it
	}
	server := &http.Server{
		Handler: h, ReadHeaderTimeout: headerTimeout, TLSConfig: secure, ConnContext: withConn,
		BaseContext: func(net.Listener) context.Context { return base },
		HTTP2:       &http.HTTP2Config{MaxConcurrentStreams: streams},
		// Broken handshakes and streams are what a simulator makes: not worth a line.
		ErrorLog: slog.NewLogLogger(s.options.Logger.With("listener", name).Handler(), slog.LevelDebug),
	}
	s.servers = append(s.servers, server)
	s.running.Go(func() {
		var err error
		if secure == nil {
			err = server.Serve(s.gates[name])
		} else {
			err = server.ServeTLS(s.gates[name], "", "")
		}
		if !errors.Is(err, http.ErrServerClosed) {
			s.options.Logger.Error("listener ended", "listener", name, "error", err)
		}
	})
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
		drained.Wait()
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
func (s *Simulator) Stats() Stats { return s.core.stats.read(s.ledger.Summary()) }

// Client is a client of this simulator's admin API.
func (s *Simulator) Client() *Client { return NewClient(s.AdminURL(), nil) }
