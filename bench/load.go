package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// loadPlan is what a child puts on an HTTP server: connections that are kept, as those of a proxy, each with one request at a time.
type loadPlan struct {
	Conns    int      `json:"conns"`
	Requests [][]byte `json:"requests"` // whole ones, HTTP/1.1, sent in turns
	Want     string   `json:"want"`     // the status of every answer
}

// loadOrder is one round of it, and loadReport what came of that.
type (
	loadOrder struct {
		Address string `json:"address"`
		N       int    `json:"n"`
	}
	loadReport struct {
		WallNS int64  `json:"wall_ns"`
		Failed string `json:"failed,omitempty"`
	}
)

// serve works off orders, one line each, until there are no more.
func (p *loadPlan) serve(ctx context.Context, in *bufio.Reader, out io.Writer) error {
	encoder := json.NewEncoder(out)
	if err := encoder.Encode(struct{}{}); err != nil {
		return fmt.Errorf("say that all is ready: %w", err)
	}
	for {
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the order: %w", err)
		}
		var o loadOrder
		if err := json.Unmarshal(line, &o); err != nil {
			return fmt.Errorf("read the order: %w", err)
		}
		var report loadReport
		wall, err := p.run(ctx, o)
		report.WallNS = wall.Nanoseconds()
		if err != nil {
			report.Failed = err.Error()
		}
		if err := encoder.Encode(report); err != nil {
			return fmt.Errorf("report: %w", err)
		}
	}
}

// run sends o.N requests over connections that are open before the clock starts.
func (p *loadPlan) run(ctx context.Context, o loadOrder) (time.Duration, error) {
	conns := make([]net.Conn, p.Conns)
	defer func() {
		for _, c := range conns {
			if c != nil {
				_ = c.Close()
			}
		}
	}()
	for i := range conns {
		var d net.Dialer
		var err error
		if conns[i], err = d.DialContext(ctx, "tcp", o.Address); err != nil {
			return 0, err
		}
	}
	var next atomic.Int64
	failed := newFirstError()
	var callers sync.WaitGroup
	began := time.Now()
	for _, conn := range conns {
		callers.Go(func() {
			r := bufio.NewReader(conn)
			for i := next.Add(1) - 1; i < int64(o.N); i = next.Add(1) - 1 {
				if err := p.one(conn, r, p.Requests[int(i)%len(p.Requests)]); err != nil {
					failed.set(err)
					return
				}
			}
		})
	}
	callers.Wait()
	return time.Since(began), failed.get()
}

// one sends a request and reads an answer without a body, and does as little else as it can.
func (p *loadPlan) one(conn net.Conn, r *bufio.Reader, request []byte) error {
	if _, err := conn.Write(request); err != nil {
		return err
	}
	return readStatus(r, p.Want)
}

// readStatus reads an answer without a body and compares its status.
func readStatus(r *bufio.Reader, want string) error {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return err
	}
	if len(line) < 12 || string(line[9:12]) != want {
		return fmt.Errorf("want %s, got %q", want, line)
	}
	for len(line) > 2 {
		if line, err = r.ReadSlice('\n'); err != nil {
			return err
		}
	}
	return nil
}
