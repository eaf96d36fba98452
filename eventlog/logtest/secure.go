package logtest

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
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/campanile-push/campanile/eventlog"
)

// Secure is how to reach a real Kafka of the test's own behind TLS and SASL, with a certificate that was made for it; the caller
// chooses among the mechanisms. It ends with the test, which is skipped as Kafka says.
func Secure(tb testing.TB) eventlog.Config {
	tb.Helper()
	Kafka(tb) // the jars are there, or the test is skipped
	root, err := moduleRoot()
	if err != nil {
		tb.Fatal(err)
	}
	dir := tb.TempDir()
	roots, err := certify(filepath.Join(dir, "broker.pem"))
	if err == nil {
		err = os.Symlink(filepath.Join(root, "build", "kafka", "libs"), filepath.Join(dir, "libs"))
	}
	var port int
	if err == nil {
		port, err = freePorts()
	}
	if err != nil {
		tb.Fatal(err)
	}
	sasl := eventlog.SASL{User: "campanile", Password: "open sesame"}
	run := func(args ...string) string {
		var told bytes.Buffer
		cmd := exec.CommandContext(context.Background(), filepath.Join(root, "deployments", "local", "kafka.sh"), args...) //nolint:gosec // our own script
		cmd.Env = append(os.Environ(), "KAFKA_DIR="+dir, fmt.Sprintf("KAFKA_PORT=%d", port), "KAFKA_HOST=127.0.0.1", "KAFKA_HEAP=256m",
			"KAFKA_TLS_PEM="+filepath.Join(dir, "broker.pem"), "KAFKA_USER="+sasl.User, "KAFKA_PASSWORD="+sasl.Password)
		cmd.Stderr = &told
		out, err := cmd.Output()
		if err != nil {
			tb.Errorf("kafka.sh %v: %v %s", args, err, told.String())
		}
		return string(out)
	}
	tb.Cleanup(func() { run("stop") })
	for line := range strings.Lines(run("start", "1")) {
		if list, ok := strings.CutPrefix(strings.TrimSpace(line), "KAFKA_SECURE_BROKERS="); ok {
			return eventlog.Config{
				Brokers: strings.Split(list, ","), Replication: 1, SASL: sasl, TLS: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			}
		}
	}
	tb.Fatal("kafka.sh start says no KAFKA_SECURE_BROKERS")
	return eventlog.Config{}
}

// certify makes a key and a certificate for 127.0.0.1, writes both to a file, and returns who trusts it.
func certify(file string) (*x509.CertPool, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a broker under test"}, // Java refuses an empty one
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	made, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: made})
	text := append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), certificate...)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(certificate)
	return roots, os.WriteFile(file, text, 0o600)
}

// freePorts is the first of those that one broker takes: itself, the next and the eighth after it.
func freePorts() (int, error) {
	for base := 27100; base < 32000; base += 10 {
		free := true
		for _, offset := range []int{0, 1, 8} {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", base+offset)) //nolint:noctx // it does not wait
			if err != nil {
				free = false
				break
			}
			_ = l.Close()
		}
		if free {
			return base, nil
		}
	}
	return 0, fmt.Errorf("no free ports from 27100 on")
}
