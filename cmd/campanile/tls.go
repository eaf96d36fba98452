package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// certificateEvery is how often the certificate's files are read again: an ACME client renews weeks before the end.
const certificateEvery = 10 * time.Second

// certificates serve the pair of two PEM files, and take a new one over while the server runs. Connections that are open keep theirs.
type certificates struct {
	certFile, keyFile string
	logger            *slog.Logger
	hangups           chan os.Signal // 1
	current           atomic.Pointer[tls.Certificate]
	seen              [sha256.Size]byte // of the files as they were read last, good or bad; of run alone
	notAfter          prometheus.Gauge
	reloads           *prometheus.CounterVec
}

// apiCertificates are those of the settings; nil where they name none.
func apiCertificates(cfg *Config, logger *slog.Logger, reg prometheus.Registerer) (*certificates, error) {
	if cfg.HTTP.TLSCert == "" {
		return nil, nil //nolint:nilnil // plain HTTP
	}
	c, err := openCertificates(cfg.HTTP.TLSCert, cfg.HTTP.TLSKey, logger, reg)
	if err != nil {
		return nil, fmt.Errorf("http.tls_cert, http.tls_key: %w", err)
	}
	return c, nil
}

// openCertificates reads the pair. reg may be nil. From here on SIGHUP no longer ends the process, until run has returned.
func openCertificates(certFile, keyFile string, logger *slog.Logger, reg prometheus.Registerer) (*certificates, error) {
	c := &certificates{
		certFile: certFile, keyFile: keyFile, logger: logger, hangups: make(chan os.Signal, 1),
		notAfter: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: "campanile", Subsystem: "http", Name: "certificate_not_after_seconds",
			Help: "When the certificate that is served ends, in seconds since 1970.",
		}),
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "campanile", Subsystem: "http", Name: "certificate_reloads_total",
			Help: "Changes of the certificate's files, by what became of them: taken, or refused and the old certificate kept.",
		}, []string{"result"}),
	}
	for _, result := range []string{"taken", "refused"} {
		c.reloads.WithLabelValues(result)
	}
	if reg != nil {
		reg.MustRegister(c.notAfter, c.reloads)
	}
	cert, key, err := c.read()
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %w", certFile, keyFile, err)
	}
	c.seen = fingerprint(cert, key)
	c.serve(&pair)
	if pair.Leaf.NotAfter.Before(time.Now()) {
		logger.Warn("the certificate has ended: clients that verify it hang up", "not_after", pair.Leaf.NotAfter)
	}
	signal.Notify(c.hangups, syscall.SIGHUP)
	return c, nil
}

// config is the server's side of TLS. Session tickets are crypto/tls's own, under keys that it changes daily; both versions of HTTP are
// offered by the server that takes this.
func (c *certificates) config() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.current.Load(), nil },
	}
}

// run looks at the files now and then, and at once after SIGHUP, until ctx ends; it returns nil then.
func (c *certificates) run(ctx context.Context) error {
	defer signal.Stop(c.hangups)
	tick := time.NewTicker(certificateEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.hangups:
			c.seen = [sha256.Size]byte{} // asked for: say again what is wrong
		case <-tick.C:
		}
		c.reload()
	}
}

// reload takes the files over if they have changed and hold a pair that can be served; else the old one stays, and what is wrong is said
// once for each change: the two files are seldom written at the same moment.
func (c *certificates) reload() {
	cert, key, err := c.read()
	seen := fingerprint(cert, key)
	if seen == c.seen {
		return
	}
	c.seen = seen
	var pair tls.Certificate
	if err == nil {
		pair, err = tls.X509KeyPair(cert, key)
	}
	old := c.current.Load()
	if err == nil && pair.Leaf.NotAfter.Before(time.Now()) && pair.Leaf.NotAfter.Before(old.Leaf.NotAfter) {
		err = errors.New("it has ended already")
	}
	if err != nil {
		c.reloads.WithLabelValues("refused").Inc()
		c.logger.Error("new certificate refused, the old one stays", "file", c.certFile, "error", err, "old_not_after", old.Leaf.NotAfter)
		return
	}
	if bytes.Equal(pair.Leaf.Raw, old.Leaf.Raw) && len(pair.Certificate) == len(old.Certificate) {
		return // asked for, or what was wrong was put right
	}
	c.serve(&pair)
	c.reloads.WithLabelValues("taken").Inc()
	c.logger.Info("new certificate", "not_after", pair.Leaf.NotAfter)
}

func (c *certificates) serve(pair *tls.Certificate) {
	c.current.Store(pair)
	c.notAfter.Set(float64(pair.Leaf.NotAfter.Unix()))
}

func (c *certificates) read() (cert, key []byte, err error) {
	cert, certErr := os.ReadFile(c.certFile)
	key, keyErr := os.ReadFile(c.keyFile)
	return cert, key, errors.Join(certErr, keyErr)
}

func fingerprint(cert, key []byte) (sum [sha256.Size]byte) {
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "%d:%s%s", len(cert), cert, key)
	h.Sum(sum[:0])
	return sum
}
