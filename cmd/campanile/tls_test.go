package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// pairFiles are a certificate's two files in a test's folder.
type pairFiles struct{ cert, key string }

func newPairFiles(t *testing.T) pairFiles {
	t.Helper()
	dir := t.TempDir()
	return pairFiles{filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")}
}

// write makes a certificate of its own authority for loopback, and writes it down; it returns it.
func (f pairFiles) write(t *testing.T, name string, notAfter time.Time) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-48 * time.Hour),
		NotAfter: notAfter, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, f.key, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})))
	writeFile(t, f.cert, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func opened(t *testing.T, f pairFiles) (*certificates, *bytes.Buffer, *prometheus.Registry) {
	t.Helper()
	var said bytes.Buffer
	reg := prometheus.NewRegistry()
	c, err := openCertificates(f.cert, f.key, slog.New(slog.NewTextHandler(&said, nil)), reg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // gives SIGHUP back
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = c.run(ctx)
	})
	return c, &said, reg
}

// figures are the values of a metric, by its first label.
func figures(t *testing.T, reg *prometheus.Registry, name string) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			label := ""
			if len(m.GetLabel()) > 0 {
				label = m.GetLabel()[0].GetValue()
			}
			values[label] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return values
}

func TestANewCertificateIsTakenAndABadOneIsNot(t *testing.T) {
	t.Parallel()
	f, year := newPairFiles(t), time.Now().AddDate(1, 0, 0)
	f.write(t, "first", year)
	c, said, reg := opened(t, f)
	serves := func(name string, taken, refused float64) {
		t.Helper()
		leaf := c.current.Load().Leaf
		if leaf.Subject.CommonName != name {
			t.Errorf("want the certificate %q, got %q", name, leaf.Subject.CommonName)
		}
		if got := figures(t, reg, "campanile_http_certificate_not_after_seconds")[""]; got != float64(leaf.NotAfter.Unix()) {
			t.Errorf("the metric says that it ends at %v, it says %v", got, leaf.NotAfter.Unix())
		}
		if got := figures(t, reg, "campanile_http_certificate_reloads_total"); got["taken"] != taken || got["refused"] != refused {
			t.Errorf("want %v taken and %v refused, got %v", taken, refused, got)
		}
	}
	serves("first", 0, 0)
	c.reload()
	serves("first", 0, 0)
	f.write(t, "second", year.AddDate(0, 1, 0))
	c.reload()
	serves("second", 1, 0)

	good, err := os.ReadFile(f.key)
	if err != nil {
		t.Fatal(err)
	}
	other := newPairFiles(t)
	other.write(t, "other", year)
	otherKey, err := os.ReadFile(other.key)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, f.key, string(otherKey))
	c.reload()
	c.reload() // said once
	serves("second", 1, 1)
	writeFile(t, f.cert, "half a cert")
	c.reload()
	serves("second", 1, 2)
	if err := os.Remove(f.cert); err != nil {
		t.Fatal(err)
	}
	c.reload()
	serves("second", 1, 3)
	f.write(t, "ended", time.Now().Add(-time.Hour))
	c.reload()
	serves("second", 1, 4)
	if n := strings.Count(said.String(), "new certificate refused"); n != 4 {
		t.Errorf("want 4 complaints, got %d:\n%s", n, said)
	}
	if strings.Contains(said.String(), "PRIVATE") || strings.Contains(said.String(), string(good)) {
		t.Error("the log holds a key")
	}
	f.write(t, "third", year)
	c.reload()
	serves("third", 2, 4)
}

func TestMistakesWithCertificatesAreToldAtTheStart(t *testing.T) {
	t.Parallel()
	f, other := newPairFiles(t), newPairFiles(t)
	f.write(t, "one", time.Now().AddDate(1, 0, 0))
	other.write(t, "other", time.Now().AddDate(1, 0, 0))
	dir := t.TempDir()
	for want, flags := range map[string][]string{
		"go together":    {"--http-tls-cert", f.cert},
		"no such file":   {"--http-tls-cert", f.cert + ".gone", "--http-tls-key", f.key},
		"does not match": {"--http-tls-cert", f.cert, "--http-tls-key", other.key},
		"switched":       {"--http-tls-cert", f.key, "--http-tls-key", f.key},
		"--demo":         {"--demo", "--http-tls-cert", f.cert, "--http-tls-key", f.key},
	} {
		args := append([]string{"up", "--data", dir, "--http-listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"}, flags...)
		if _, err := command(t, dir, nil, args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: want a word of %q, got %v", flags, want, err)
		}
	}
}

// TestTLSOfTheBinary serves the API over TLS, and takes a new certificate over on SIGHUP while connections stay open.
func TestTLSOfTheBinary(t *testing.T) {
	t.Parallel()
	f := newPairFiles(t)
	first := f.write(t, "first", time.Now().AddDate(0, 1, 0))
	w := newWorld(t)
	u := w.up(t, withoutAnalytics, "CAMPANILE_HTTP_TLS_CERT="+f.cert, "CAMPANILE_HTTP_TLS_KEY="+f.key)
	if !strings.HasPrefix(u.info.API, "https://") {
		t.Fatalf("the API is said to be at %s", u.info.API)
	}
	pool := x509.NewCertPool()
	pool.AddCert(first)
	ask := func(client *http.Client) *http.Response {
		t.Helper()
		res, err := client.Get(u.info.API + "/")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		if res.StatusCode != http.StatusOK {
			t.Errorf("GET /: %d", res.StatusCode)
		}
		return res
	}
	trust := &tls.Config{RootCAs: pool, ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	h1 := &http.Client{Transport: &http.Transport{TLSClientConfig: trust, DisableKeepAlives: true}}
	h2 := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}}
	defer h2.CloseIdleConnections()
	if res := ask(h1); res.Proto != "HTTP/1.1" || res.TLS.DidResume {
		t.Errorf("first: %s, resumed: %v", res.Proto, res.TLS.DidResume)
	}
	if res := ask(h1); !res.TLS.DidResume {
		t.Error("a second connection of the same client was not resumed")
	}
	if res := ask(h2); res.Proto != "HTTP/2.0" {
		t.Errorf("a client that offers HTTP/2 got %s", res.Proto)
	}
	old := &tls.Config{RootCAs: pool, MaxVersion: tls.VersionTLS11}
	if conn, err := (&tls.Dialer{Config: old}).DialContext(t.Context(), "tcp", strings.TrimPrefix(u.info.API, "https://")); err == nil {
		_ = conn.Close()
		t.Error("TLS 1.1 was taken")
	}

	second := f.write(t, "second", time.Now().AddDate(0, 2, 0))
	if err := u.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	both := x509.NewCertPool()
	both.AddCert(first)
	both.AddCert(second)
	fresh := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: both}, DisableKeepAlives: true}}
	eventually(t, time.Minute, "a new connection gets the new certificate", func() bool {
		return ask(fresh).TLS.PeerCertificates[0].Subject.CommonName == "second"
	})
	if res := ask(h2); res.TLS.PeerCertificates[0].Subject.CommonName != "first" {
		t.Error("the connection that was open has gone")
	}
	res, err := http.Get(u.info.Ops + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^campanile_http_certificate_not_after_seconds (\S+)$`).FindSubmatch(text)
	if found == nil {
		t.Fatal("no metric says when the certificate ends")
	}
	if got, err := strconv.ParseFloat(string(found[1]), 64); err != nil || got != float64(second.NotAfter.Unix()) {
		t.Errorf("the metric says that the certificate ends at %s, it does at %d", found[1], second.NotAfter.Unix())
	}
	u.stop(t)
}
