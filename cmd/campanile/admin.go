package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/campanile-push/campanile/projections"
)

// A running `campanile up` has the embedded device store to itself. What other commands want of it, they ask on a port of its own: on
// loopback, with a token that stands in the run file, which only its owner can read.

// startAdmin serves the port, and returns its URL and token.
func (p *process) startAdmin(ctx context.Context) (at, token string, err error) {
	listener, err := p.listen(ctx, "admin", "127.0.0.1:0")
	if err != nil {
		return "", "", err
	}
	token = rand.Text()
	p.super.start(intake, "admin", func(ctx context.Context) error {
		var running sync.WaitGroup
		mux := http.NewServeMux()
		mux.HandleFunc("POST /rebuild/devices", func(w http.ResponseWriter, r *http.Request) {
			if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), []byte("Bearer "+token)) != 1 {
				http.Error(w, "not yours", http.StatusForbidden)
				return
			}
			running.Add(1)
			defer running.Done()
			during, end := context.WithCancel(r.Context()) // ends with the caller, and with the process
			defer end()
			defer context.AfterFunc(ctx, end)()
			p.serveRebuild(during, w, projections.SwapOptions{Keep: r.URL.Query().Has("keep"), Force: r.URL.Query().Has("force")})
		})
		err := serveHTTP(ctx, listener, mux, nil, drainTime, p.logger)
		running.Wait() // the store is closed after this
		return err
	})
	return "http://" + listener.Addr().String(), token, nil
}

// serveRebuild answers with a line of JSON for each word of the rebuild; the last one has its error, if any.
func (p *process) serveRebuild(ctx context.Context, w http.ResponseWriter, o projections.SwapOptions) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	flush := http.NewResponseController(w)
	encoder := json.NewEncoder(w)
	var at time.Time
	say := func(r rebuilding) {
		if now := time.Now(); r.Says != "" || r.Error != "" || now.Sub(at) >= watchEvery || r.Building.Done == r.Building.Total {
			at = now
			_ = encoder.Encode(r) // who hung up has ended ctx
			_ = flush.Flush()
		}
	}
	p.logger.Info("a rebuild of the device store begins")
	err := rebuildDevices(ctx, p.log, p.store, o, say)
	if err != nil {
		p.logger.Error("a rebuild of the device store ended without a swap", "error", err)
		say(rebuilding{Error: err.Error()})
		return
	}
	p.logger.Info("the device store is rebuilt")
	say(rebuilding{Says: "done"})
}

// rebuildThrough asks a running `campanile up`.
func rebuildThrough(ctx context.Context, info runInfo, o projections.SwapOptions, show *buildProgress) error {
	if info.Admin == "" {
		return errors.New("the running campanile is of an older version, which cannot rebuild: restart it, or stop it and try again")
	}
	how := url.Values{}
	if o.Keep {
		how.Set("keep", "1")
	}
	if o.Force {
		how.Set("force", "1")
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, info.Admin+"/rebuild/devices?"+how.Encode(), nil)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+info.AdminToken)
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("ask the running campanile (pid %d): %w", info.PID, err)
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 1024))
		return fmt.Errorf("the running campanile (pid %d) answers %s: %s", info.PID, answer.Status, bytes.TrimSpace(text))
	}
	lines := bufio.NewScanner(answer.Body)
	for lines.Scan() {
		var r rebuilding
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return fmt.Errorf("read the answer of the running campanile: %w", err)
		}
		switch {
		case r.Error != "":
			return errors.New(r.Error)
		case r.Says == "done":
			return nil
		}
		show.said(r)
	}
	return errors.Join(fmt.Errorf("the running campanile (pid %d) ended in the middle of the rebuild: its store is whole; start the rebuild again", info.PID), lines.Err())
}
