package chaos

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Apart makes a command start in a network namespace of its own, in which there is nothing yet: what Options.Network wants.
func Apart(cmd *exec.Cmd) error {
	if _, err := exec.LookPath("ip"); err != nil || os.Geteuid() != 0 {
		return errNoNetwork
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	return nil
}

// newNetwork lays the cables of the engines in this process's own namespace, which must be empty: Apart.
func newNetwork(ctx context.Context) (*network, error) {
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("find the network namespace: %w", err)
	}
	if err := loopback(ctx); err != nil {
		return nil, err
	}
	var lines []string
	for l := range links {
		lines = append(lines, "link add "+bridge(l)+" type bridge", "addr add "+l.engine()+"/24 dev "+bridge(l)+" scope global", "link set "+bridge(l)+" up")
	}
	return &network{home: home}, ip(ctx, nil, lines...)
}

// bridge is the name of a link's switch; a cable's inner end bears the link's own name.
func bridge(l link) string { return "at." + l.String() }

// loopback prepares the calling thread's namespace: 127.0.0.0/16 stays within it, and the rest of the loopback's addresses may be on
// cables.
func loopback(ctx context.Context) error {
	if err := os.WriteFile("/proc/sys/net/ipv4/conf/all/route_localnet", []byte("1"), 0o600); err != nil {
		return fmt.Errorf("prepare a network namespace: %w", err)
	}
	return ip(ctx, nil, "link set lo up", "addr del 127.0.0.1/8 dev lo", "addr add 127.0.0.1/16 dev lo")
}

// newHost makes a host with a cable to every link.
func (n *network) newHost(ctx context.Context) (*host, error) {
	if n == nil {
		return &host{}, nil
	}
	n.hosts++
	h := &host{n: n.hosts, net: n}
	err := n.apart(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		var err error
		if h.space, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		return loopback(ctx)
	})
	if err != nil {
		return nil, err
	}
	var outer, inner []string
	for l := range links {
		outer = append(outer, "link add "+h.port(l)+" type veth peer name "+l.String(), "link set "+l.String()+" netns /proc/self/fd/3",
			"link set "+h.port(l)+" master "+bridge(l), "link set "+h.port(l)+" up")
		inner = append(inner, "addr add "+l.address(h.n)+"/24 dev "+l.String()+" scope global", "link set "+l.String()+" up")
	}
	if err := ip(ctx, h.space, outer...); err != nil {
		return nil, err
	}
	return h, inSpace(h.space, n.home, func() error { return ip(ctx, nil, inner...) })
}

// apart runs f on a thread that it may move to another namespace, and moves it home.
func (n *network) apart(f func() error) error {
	runtime.LockOSThread()
	err := f()
	if back := unix.Setns(int(n.home.Fd()), unix.CLONE_NEWNET); back != nil {
		// The thread stays locked and ends with its goroutine, so that nothing else runs on it.
		return fmt.Errorf("come back from a network namespace: %w", back)
	}
	runtime.UnlockOSThread()
	return err
}

// inSpace runs f on a thread in a namespace.
func inSpace(space, home *os.File, f func() error) error {
	return (&network{home: home}).apart(func() error {
		if err := unix.Setns(int(space.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter a network namespace: %w", err)
		}
		return f()
	})
}

// ip runs the lines of a batch in the calling thread's namespace; space, where given, is its file 3.
func ip(ctx context.Context, space *os.File, lines ...string) error {
	cmd := exec.CommandContext(ctx, "ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	if space != nil {
		cmd.ExtraFiles = []*os.File{space}
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}
