//go:build unix

package providertest

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
	"github.com/campanile-push/campanile/senders"
	"github.com/campanile-push/campanile/vault"
)

// childEnv makes a test binary a server, and is its latency: so its CPU is not counted with the sender's.
const childEnv = "CAMPANILE_BENCH_SERVER"

// address is how a child says where it is.
type address struct {
	URL  string
	Cert []byte // DER
}

// ServeAsChild serves Frames over TLS until standard input ends, if this process is the child of StartChild, and reports whether it
// was. A TestMain calls it first. body is that of each answer.
func ServeAsChild(body string) bool {
	latency, err := time.ParseDuration(os.Getenv(childEnv))
	if err != nil {
		return false
	}
	borrowed := httptest.NewUnstartedServer(nil) // for its certificate and its listener
	borrowed.StartTLS()
	listener := tls.NewListener(listen(), &tls.Config{Certificates: borrowed.TLS.Certificates, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12})
	go Frames{Body: body, Latency: latency}.Serve(listener) // ends with the process
	defer borrowed.Close()
	if err := json.NewEncoder(os.Stdout).Encode(address{"https://" + listener.Addr().String(), borrowed.Certificate().Raw}); err != nil {
		return true
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	return true
}

func listen() net.Listener {
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		panic(fmt.Sprintf("listen on loopback: %v", err)) // a child of a benchmark has nobody else to tell
	}
	return l
}

// StartChild starts this test binary as a server of its own, which answers after latency and ends with b.
func StartChild(b *testing.B, latency time.Duration) (url string, roots *x509.CertPool) {
	b.Helper()
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	child := exec.CommandContext(b.Context(), self) //nolint:gosec // ourselves
	child.Env = append(os.Environ(), childEnv+"="+latency.String())
	in, err := child.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := child.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err = child.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = in.Close()
		_ = child.Wait()
	})
	var a address
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &a)
	}
	if err != nil {
		b.Fatal(err)
	}
	cert, err := x509.ParseCertificate(a.Cert)
	if err != nil {
		b.Fatal(err)
	}
	roots = x509.NewCertPool()
	roots.AddCert(cert)
	return a.URL, roots
}

// counter is a completion that encodes what is said, as the log does, and counts.
type counter struct {
	mu       sync.Mutex
	out      *schemas.Out
	places   chan struct{}
	rejected int
}

func (c *counter) Generation() int64 { return 1 }
func (c *counter) MayPush() bool     { return true }

func (c *counter) Complete(_ int64, say func(out *schemas.Out)) {
	c.mu.Lock()
	say(c.out)
	if c.out.Len() != 1 {
		c.rejected++ // accepted at the first try is one record
	}
	c.out.Reset()
	c.mu.Unlock()
	<-c.places
}

// BenchSender pushes b.N bulk sends with a text of so many bytes (80: a payload of about 200) through a whole sender on providers that open makes, and reports
// the CPU time of this process for each: the stage, its records' encoding and the provider, without the log and without the server
// where that is a child. credentials are those that open expects.
func BenchSender(b *testing.B, transport schemas.Transport, text int, credentials []byte, open func(ctx context.Context, a senders.Account) (senders.Provider, error)) {
	b.Helper()
	const app = "campus"
	keyring, err := vault.ParseKeyring(vault.NewKeyLine("k"))
	if err != nil {
		b.Fatal(err)
	}
	hasher, err := vault.ParseHasher(vault.NewHashKey())
	if err != nil {
		b.Fatal(err)
	}
	nothing := func(context.Context) error { return nil }
	catalog := senders.NewCatalog()
	s, err := senders.New(senders.Options{
		Transport: transport, Lane: schemas.Bulk, Open: open, Keyring: keyring, Hasher: hasher, Catalog: catalog,
		CatchUpApps: nothing, CatchUpBroadcasts: nothing, Rate: 1e9,
	})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	layout := schemas.Layout{Partitions: 1}
	broadcast := schemas.NewID()
	out := schemas.NewOut(layout)
	out.CredentialsSet(&pushv1.CredentialsSet{App: app, Transport: transport, CredentialsId: broadcast[:], Sealed: keyring.Seal(credentials, app, transport.Word())})
	out.BroadcastRequested(&pushv1.BroadcastRequested{BroadcastId: broadcast[:], RecordId: broadcast[:], App: app, Content: &pushv1.Content{
		Alert: pushv1.Content_ALERT_TITLE_BODY, Title: "Campus", Body: strings.Repeat("The bell rings. ", text/16),
	}})
	for _, r := range recordsOf(out) {
		if r.Topic == schemas.Apps {
			err = s.ApplyApps(r)
		} else {
			err = catalog.ApplyBroadcasts(r)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	done := &counter{out: schemas.NewOut(layout), places: make(chan struct{}, 4096)}
	make500s := func(from, n int) (batches []schemas.Batch) {
		for ; n > 0; n -= 500 {
			batches = append(batches, bulk(layout, transport, app, broadcast, from, min(n, 500)))
			from += 500
		}
		return batches
	}
	push := func(batches []schemas.Batch) {
		for _, batch := range batches {
			for range batch.Records {
				done.places <- struct{}{}
			}
			if err := s.Deliver(b.Context(), batch, done); err != nil {
				b.Fatal(err)
			}
		}
		for range cap(done.places) { // until all are done
			done.places <- struct{}{}
		}
		for range cap(done.places) {
			<-done.places
		}
	}
	const warm = 2000
	push(make500s(0, warm))
	batches := make500s(warm, b.N)
	b.ReportAllocs()
	b.ResetTimer()
	before := cpu(b)
	push(batches)
	used := cpu(b) - before
	b.StopTimer()
	b.ReportMetric(float64(used.Microseconds())/float64(b.N), "cpu_us/push")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "push/s")
	if done.rejected > 0 {
		b.Fatalf("want every push accepted at the first try, got %d others", done.rejected)
	}
}

// EachBench runs a benchmark for each transport, at no latency with texts for payloads of 200 bytes and of almost 4 KB, and at 50 ms.
func EachBench(b *testing.B, transports []string, run func(b *testing.B, transport string, latency time.Duration, text int)) {
	b.Helper()
	for _, transport := range transports {
		for _, c := range []struct {
			name    string
			latency time.Duration
			text    int
		}{{"0ms/200B", 0, 80}, {"0ms/4KB", 0, 3500}, {"50ms/200B", 50 * time.Millisecond, 80}} {
			b.Run(transport+"/"+c.name, func(b *testing.B) { run(b, transport, c.latency, c.text) })
		}
	}
}

func recordsOf(out *schemas.Out) (records []schemas.Record) {
	out.Each(func(topic schemas.Topic, partition int32, key, value []byte) {
		records = append(records, schemas.Record{
			Topic: topic, Partition: partition, Offset: int64(len(records)), TimeUS: time.Now().UnixMicro(), Key: key, Value: value,
		})
	})
	return records
}

func bulk(layout schemas.Layout, transport schemas.Transport, app string, broadcast schemas.ID, from, n int) schemas.Batch {
	out := schemas.NewOut(layout)
	for i := range n {
		token := fmt.Sprintf("%064x", from+i)
		out.SendRequested(schemas.Bulk, schemas.Device{App: app, Transport: transport, Token: token},
			&pushv1.SendRequested{BroadcastId: broadcast[:], Token: token, RegisteredAtUs: 1})
	}
	return schemas.Batch{Topic: schemas.SendTopic{Transport: transport, Lane: schemas.Bulk}.Topic(), Records: recordsOf(out)}
}

// cpu is the CPU time that this process has used, user and system.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
