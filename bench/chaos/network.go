package chaos

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
)

// link is one of the networks between a host and what stands at its other end.
type link int

// The links of a host, in the order of their addresses.
const (
	toOutside    link = iota // the simulator; who calls the API
	toKafka                  // the brokers
	toStore                  // PostgreSQL
	toClickHouse             // the analytics engine
	links
)

func (l link) String() string {
	return [...]string{"outside", "kafka", "postgres", "clickhouse"}[l]
}

// engine is the address at the far end of a link. All are of the loopback, so that engines which serve nothing else can be there.
func (l link) engine() string { return fmt.Sprintf("127.77.%d.1", l) }

// address is that of host number n on a link.
func (l link) address(n int) string { return fmt.Sprintf("127.77.%d.%d", l, n+10) }

// errNoNetwork is for systems on which namespaces cannot be had.
var errNoNetwork = errors.New("networks of namespaces need Linux, root and the command ip: without them, give --network=false, and no link is cut")

// network makes hosts. A nil network makes hosts that share the machine's loopback and cannot be cut.
type network struct {
	home  *os.File // the namespace of the engines and of this process
	hosts int
}

// host is where one process runs at a time. The zero number is the host of the engines.
type host struct {
	n     int
	net   *network // nil: not cut off from anything
	space *os.File // its namespace
}

// start starts a command on the host.
func (h *host) start(cmd *exec.Cmd) error {
	if h.net == nil {
		return cmd.Start()
	}
	return inSpace(h.space, h.net.home, cmd.Start)
}

// listen is an address for a server of this host: the same one for ever.
func (h *host) listen(port int) (string, error) {
	if h.net != nil {
		return fmt.Sprintf("%s:%d", toOutside.address(h.n), port), nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // no name is looked up
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	return l.Addr().String(), l.Close()
}

// cut takes the host off a link: what it sends is lost without a word, until heal.
func (h *host) cut(ctx context.Context, l link) error { return h.set(ctx, l, "down") }

// heal puts the host back on a link.
func (h *host) heal(ctx context.Context, l link) error { return h.set(ctx, l, "up") }

func (h *host) set(ctx context.Context, l link, state string) error {
	if h.net == nil {
		return errNoNetwork
	}
	return ip(ctx, nil, fmt.Sprintf("link set dev %s %s", h.port(l), state))
}

// port is the far end of the host's cable of a link, on the engines' side.
func (h *host) port(l link) string { return fmt.Sprintf("h%d.%d", h.n, l) }
