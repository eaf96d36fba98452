package chdb

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Options say how to serve the engine.
type Options struct {
	Dir     string // of the engine's data; created
	Listen  string // an address of the loopback; empty: 127.0.0.1 and a free port
	Library string // path of libchdb.so; empty: FindLibrary
	// Key is what clients give as password. Empty: a random one.
	Key string
	// MaxMemory bounds the engine's memory, in bytes; a query past it fails. 0: 2 GiB.
	MaxMemory int64
	Sessions  int // statements that run at once; 0: 4
	Logger    *slog.Logger
	// Ready is called once, when the engine answers at url under key; nil: nobody is told.
	Ready func(url, key string)
}

const (
	defaultMemory   = 2 << 30
	defaultSessions = 4
	// drain is how long statements may go on after ctx ended, before they are killed.
	drain = 3 * time.Second
)

// ErrInUse says that another process serves the directory.
var ErrInUse = errors.New("another process has this directory of the embedded engine open")

// Serve runs the engine on a directory and answers HTTP until ctx ends; then it returns nil. It loads the library into this
// process, where it stays: call it in a process of its own (see ServeChild). One process at a time can have a directory:
// ErrInUse.
func Serve(ctx context.Context, o Options) (err error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	if o.MaxMemory == 0 {
		o.MaxMemory = defaultMemory
	}
	if o.Sessions <= 0 {
		o.Sessions = defaultSessions
	}
	if o.Key == "" {
		o.Key = newKey()
	}
	if err := checkLoopback(o.Listen); err != nil {
		return err
	}
	library, err := FindLibrary(o.Library)
	if err != nil {
		return err
	}
	unlock, err := lock(o.Dir)
	if err != nil {
		return err
	}
	defer unlock()
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", o.Listen)
	if err != nil {
		return fmt.Errorf("listen for the embedded engine: %w", err)
	}
	defer func() { _ = listener.Close() }() // the server closes it too
	e, err := openEngine(library, o.Dir, o.MaxMemory)
	if err != nil {
		return err
	}
	defer e.close()
	h, err := newHandler(e, o.Sessions, o.Key, o.Logger)
	if err != nil {
		return fmt.Errorf("open the embedded engine in %s: %w", o.Dir, err)
	}
	defer h.close()

	// Requests end with this context, and their statements with them.
	requests, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return requests },
		ErrorLog:          slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	url := "http://" + listener.Addr().String()
	o.Logger.Info("embedded ClickHouse engine serves", "url", url, "version", e.version())
	if o.Ready != nil {
		o.Ready(url, o.Key)
	}
	select {
	case err := <-served:
		return fmt.Errorf("serve the embedded engine: %w", err)
	case <-ctx.Done():
	}
	grace, done := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer done()
	if server.Shutdown(grace) != nil {
		cut()
		last, done := context.WithTimeout(context.WithoutCancel(ctx), drain)
		defer done()
		if err := server.Shutdown(last); err != nil {
			_ = server.Close() // a statement that even KILL does not end
		}
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the embedded engine: %w", err)
	}
	return nil
}

// newKey is 128 bits of chance.
func newKey() string {
	var raw [16]byte
	_, _ = rand.Read(raw[:])
	return hex.EncodeToString(raw[:])
}

// checkLoopback refuses an address that others could reach: the key is not meant to cross a network.
func checkLoopback(address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("listen address of the embedded engine: %w", err)
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return fmt.Errorf("listen address %q of the embedded engine: want an address of the loopback, such as 127.0.0.1:0", address)
	}
	return nil
}

// lock makes dir this process's own until unlock, or until the process is gone however it ends.
func lock(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create the embedded engine's directory: %w", err)
	}
	name := filepath.Join(dir, "campanile.lock")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the embedded engine's directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s: %w", dir, ErrInUse)
		}
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	return func() { _ = f.Close() }, nil
}
