package bench

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// freshPlan is what a child puts on an HTTPS server: each request on a connection of its own, as Moodle's curl does, which makes a new
// handle for each push.
type freshPlan struct {
	Callers  int       `json:"callers"` // at once, where no rate is ordered
	HTTP2    bool      `json:"http2"`   // as a curl with nghttp2, such as Debian's; else HTTP/1.1
	Requests []pushing `json:"requests"`
	Want     string    `json:"want"` // the status of every answer
}

// pushing is one push: its headers and its body.
type pushing struct {
	Headers [][2]string `json:"headers"` // lower case
	Body    string      `json:"body"`
}

// freshOrder is one round of it. Its report holds how long answers took, from when the connection was to be begun.
type (
	freshOrder struct {
		Address string  `json:"address"`
		N       int     `json:"n"`
		Rate    float64 `json:"rate"`   // connections a second, begun whatever became of those before; zero: as fast as Callers get answers
		Resume  bool    `json:"resume"` // with the session ticket of the one before
	}
	freshReport struct {
		WallNS  int64  `json:"wall_ns"`
		P50NS   int64  `json:"p50_ns"`
		P99NS   int64  `json:"p99_ns"`
		MaxNS   int64  `json:"max_ns"`
		Resumed int64  `json:"resumed"`
		Failed  string `json:"failed,omitempty"`
	}
)

// serve works off orders, one line each, until there are no more.
func (p *freshPlan) serve(ctx context.Context, in *bufio.Reader, out io.Writer) error {
	encoder := json.NewEncoder(out)
	if err := encoder.Encode(struct{}{}); err != nil {
		return fmt.Errorf("say that all is ready: %w", err)
	}
	wires := make([][]byte, len(p.Requests))
	for i := range wires {
		var err error
		if wires[i], err = p.wire(&p.Requests[i]); err != nil {
			return err
		}
	}
	for {
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the order: %w", err)
		}
		var o freshOrder
		if err := json.Unmarshal(line, &o); err != nil {
			return fmt.Errorf("read the order: %w", err)
		}
		if err := encoder.Encode(p.run(ctx, o, wires)); err != nil {
			return fmt.Errorf("report: %w", err)
		}
	}
}

// wire is a request as bytes: the first one on its connection.
func (p *freshPlan) wire(r *pushing) ([]byte, error) {
	var b bytes.Buffer
	if !p.HTTP2 {
		b.WriteString("POST /api/v2/push/ HTTP/1.1\r\nhost: push.example.org\r\n")
		for _, h := range r.Headers {
			fmt.Fprintf(&b, "%s: %s\r\n", h[0], h[1])
		}
		fmt.Fprintf(&b, "content-length: %d\r\n\r\n%s", len(r.Body), r.Body)
		return b.Bytes(), nil
	}
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	pseudo := [][2]string{{":method", "POST"}, {":path", "/api/v2/push/"}, {":scheme", "https"}, {":authority", "push.example.org"}}
	for _, h := range append(append(pseudo, r.Headers...), [2]string{"content-length", fmt.Sprint(len(r.Body))}) {
		if err := encoder.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}); err != nil {
			return nil, fmt.Errorf("encode a request: %w", err)
		}
	}
	b.WriteString(http2.ClientPreface)
	framer := http2.NewFramer(&b, nil)
	err := errors.Join(
		// What curl says first.
		framer.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 100}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 32 << 20}, http2.Setting{ID: http2.SettingEnablePush, Val: 0}),
		framer.WriteWindowUpdate(0, 32<<20-65535),
		framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true}),
		framer.WriteData(1, true, []byte(r.Body)),
	)
	return b.Bytes(), err
}

// config is TLS as OpenSSL 3.0 under curl has it. Moodle does not verify the chain.
func (p *freshPlan) config(resume bool) *tls.Config {
	c := &tls.Config{
		InsecureSkipVerify: true, //nolint:gosec // the server is this program, and Moodle does not verify either
		ServerName:         "push.example.org", MinVersion: tls.VersionTLS12,
		CurvePreferences: []tls.CurveID{tls.X25519, tls.CurveP256}, NextProtos: []string{"http/1.1"},
	}
	if p.HTTP2 {
		c.NextProtos = []string{"h2", "http/1.1"}
	}
	if resume {
		c.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	}
	return c
}

// run sends o.N requests.
func (p *freshPlan) run(ctx context.Context, o freshOrder, wires [][]byte) (report freshReport) {
	took := make([]int64, o.N)
	failed := newFirstError()
	var resumed atomic.Int64
	one := func(i int, due time.Time, config *tls.Config) {
		again, err := p.push(ctx, o.Address, i, config, wires[i%len(wires)])
		took[i] = time.Since(due).Nanoseconds()
		if again {
			resumed.Add(1)
		}
		failed.set(err)
	}
	var callers sync.WaitGroup
	began := time.Now()
	if o.Rate > 0 {
		config, tick := p.config(o.Resume), time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for i := range o.N {
			due := began.Add(time.Duration(float64(i) / o.Rate * float64(time.Second)))
			for due.After(time.Now()) {
				<-tick.C
			}
			callers.Go(func() { one(i, due, config) })
		}
	} else {
		var next atomic.Int64
		for range p.Callers {
			callers.Go(func() {
				config := p.config(o.Resume)
				for i := next.Add(1) - 1; i < int64(o.N); i = next.Add(1) - 1 {
					one(int(i), time.Now(), config)
				}
			})
		}
	}
	callers.Wait()
	report.WallNS, report.Resumed = time.Since(began).Nanoseconds(), resumed.Load()
	slices.Sort(took)
	report.P50NS, report.P99NS, report.MaxNS = took[len(took)/2], took[len(took)*99/100], took[len(took)-1]
	if err := failed.get(); err != nil {
		report.Failed = err.Error()
	}
	return report
}

// sources are loopback addresses that connections come from in turns: one alone has too few ports for what waits in TIME_WAIT.
const sources = 16

// push makes one connection, sends one request over it, reads its answer and hangs up.
func (p *freshPlan) push(ctx context.Context, address string, i int, config *tls.Config, wire []byte) (resumed bool, err error) {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+i%sources))}}
	raw, err := dialer.DialContext(ctx, "tcp4", address)
	if err != nil {
		return false, err
	}
	conn := tls.Client(raw, config)
	defer func() { _ = conn.Close() }()
	if err := conn.HandshakeContext(ctx); err != nil {
		return false, err
	}
	resumed = conn.ConnectionState().DidResume
	if _, err := conn.Write(wire); err != nil {
		return resumed, err
	}
	if !p.HTTP2 {
		return resumed, readStatus(bufio.NewReaderSize(conn, 1<<10), p.Want)
	}
	return resumed, p.readHTTP2(conn)
}

// readHTTP2 reads frames up to the end of the answer.
func (p *freshPlan) readHTTP2(conn net.Conn) error {
	framer := http2.NewFramer(io.Discard, bufio.NewReaderSize(conn, 1<<10))
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return err
		}
		switch f := frame.(type) {
		case *http2.MetaHeadersFrame:
			if status := f.PseudoValue("status"); status != p.Want {
				return fmt.Errorf("want %s, got %q", p.Want, status)
			}
		case *http2.GoAwayFrame:
			return fmt.Errorf("the server ends the connection: %v", f.ErrCode)
		case *http2.RSTStreamFrame:
			return fmt.Errorf("the server ends the request: %v", f.ErrCode)
		}
		if frame.Header().StreamID == 1 && frame.Header().Flags.Has(http2.FlagDataEndStream) { // the same bit in HEADERS
			return nil
		}
	}
}
