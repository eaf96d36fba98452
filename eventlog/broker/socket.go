package broker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// address is what the broker calls itself in its answers. Nobody listens there: Dial ignores it.
const address = "127.0.0.1:9092"

// maxSocketPath is the longest path of a unix socket: sun_path is 108 bytes on Linux and 104 on macOS, with a NUL.
const maxSocketPath = 103

// Dial is a dialer for kgo.Dialer: whatever the address, it connects to the broker's socket.
type Dial func(ctx context.Context, network, host string) (net.Conn, error)

// socket is where the broker listens for other processes.
type socket struct {
	path string
	link string // the file that holds the path, if it is not in the data directory
	temp string // the private directory made for a path that was too long
}

// newSocket chooses the path. A path too long for a socket becomes a short one in a private temporary directory.
func newSocket(dir string) (socket, error) {
	clearSocket(dir)
	path := filepath.Join(dir, socketDir, socketFile)
	if len(path) <= maxSocketPath {
		private := filepath.Dir(path)
		if err := os.Mkdir(private, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return socket{}, fmt.Errorf("make a place for the broker's socket: %w", err)
		}
		if err := os.Chmod(private, 0o700); err != nil { //nolint:gosec // a directory needs its x
			return socket{}, fmt.Errorf("make a place for the broker's socket: %w", err)
		}
		return socket{path: path}, nil
	}
	temp, err := os.MkdirTemp("", "campanile-")
	if err == nil && len(filepath.Join(temp, socketFile)) > maxSocketPath {
		_ = os.Remove(temp)
		temp, err = os.MkdirTemp("/tmp", "campanile-")
	}
	if err != nil {
		return socket{}, fmt.Errorf("make a short path for the broker's socket: %w", err)
	}
	s := socket{path: filepath.Join(temp, socketFile), link: filepath.Join(dir, socketPath), temp: temp}
	if err := replaceFile(s.link, []byte(s.path)); err != nil {
		s.remove()
		return socket{}, err
	}
	return s, nil
}

// clearSocket removes what a killed process left. The caller has the lock of dir.
func clearSocket(dir string) {
	_ = os.Remove(filepath.Join(dir, socketDir, socketFile))
	link := filepath.Join(dir, socketPath)
	raw, err := os.ReadFile(link)
	if err != nil {
		return
	}
	old := string(raw)
	if filepath.Base(old) == socketFile && strings.HasPrefix(filepath.Base(filepath.Dir(old)), "campanile-") {
		_ = os.Remove(old)               //nolint:gosec // checked above, and it was our own process that wrote it
		_ = os.Remove(filepath.Dir(old)) //nolint:gosec // as above
	}
	_ = os.Remove(link)
}

func (s socket) remove() {
	_ = os.Remove(s.path)
	if s.temp != "" {
		_ = os.Remove(s.temp)
		_ = os.Remove(s.link)
	}
}

// listen opens the unix socket.
func (s socket) listen() (net.Listener, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(context.Background(), "unix", s.path)
	if err != nil {
		return nil, fmt.Errorf("listen for clients of the embedded broker: %w", err)
	}
	// Its directory is ours alone (0700), so nobody else could connect before this line.
	if err := os.Chmod(s.path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("listen for clients of the embedded broker: %w", err), ln.Close())
	}
	return ln, nil
}

func dialer(path string) Dial {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "unix", path)
		if err != nil {
			return nil, fmt.Errorf("connect to the embedded broker: %w", err)
		}
		return conn, nil
	}
}

// Dial connects to the broker in this process, in memory; hand it to kgo.Dialer with Brokers as seeds.
func (b *Broker) Dial(ctx context.Context, _, _ string) (net.Conn, error) { return b.door.dial(ctx) }

// Brokers are the seed addresses that go with Dial.
func (*Broker) Brokers() []string { return Brokers() }

// Brokers are the seed addresses that go with the Dial that Running returns.
func Brokers() []string { return []string{address} }

// Addr is the path of the broker's socket.
func (b *Broker) Addr() string { return b.socket.path }

// Running finds the broker that another process runs on dir. It is how `campanile app create --data DIR` speaks to a running
// `campanile up`.
func Running(dir string) (dial Dial, ok bool) {
	path := filepath.Join(dir, socketDir, socketFile)
	if raw, err := os.ReadFile(filepath.Join(dir, socketPath)); err == nil {
		path = string(raw)
	}
	dial = dialer(path)
	conn, err := dial(context.Background(), "unix", path)
	if err != nil {
		return nil, false
	}
	_ = conn.Close()
	return dial, true
}
