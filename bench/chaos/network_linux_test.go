package chaos

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"
)

const apartEnv = "TEST_CHAOS_APART"

// TestACutLinkCarriesNothing runs itself again in a namespace of its own.
func TestACutLinkCarriesNothing(t *testing.T) {
	t.Parallel()
	if os.Getenv(apartEnv) != "" {
		cutAndHeal(t)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestACutLinkCarriesNothing$", "-test.v")
	cmd.Env = append(os.Environ(), apartEnv+"=1")
	if err := Apart(cmd); err != nil {
		t.Skipf("NOT TESTED in network namespaces: %v", err)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// cutAndHeal lets two hosts talk to the engines' side, and cuts one of the links of one.
func cutAndHeal(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	n, err := newNetwork(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var hosts []*host
	for range 2 {
		h, err := n.newHost(ctx)
		if err != nil {
			t.Fatal(err)
		}
		hosts = append(hosts, h)
	}
	store := talk(t, hosts[0], toStore)
	kafka := talk(t, hosts[0], toKafka)
	neighbour := talk(t, hosts[1], toKafka)
	for _, c := range []*talking{store, kafka, neighbour} {
		c.say(t, "before")
		c.hears(t, "before")
	}
	if err := hosts[0].cut(ctx, toKafka); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*talking{store, kafka, neighbour} {
		c.say(t, "during")
	}
	store.hears(t, "during")
	neighbour.hears(t, "during")
	kafka.hearsNothing(t)
	if err := hosts[0].heal(ctx, toKafka); err != nil {
		t.Fatal(err)
	}
	kafka.hears(t, "during")
	kafka.say(t, "after")
	kafka.hears(t, "after")
}

// talking is a connection from a host: what is said there is heard here.
type talking struct {
	in   io.Writer
	conn net.Conn
	read *bufio.Reader
}

func talk(t *testing.T, h *host, l link) *talking {
	t.Helper()
	listener, err := net.Listen("tcp", l.engine()+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	address, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("bash", "-c", "exec cat >/dev/tcp/"+address+"/"+port)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.start(cmd); err != nil {
		t.Fatal(err)
	}
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if from, _, _ := net.SplitHostPort(conn.RemoteAddr().String()); from != l.address(h.n) {
		t.Errorf("host %d calls the %s from %s, want %s", h.n, l, from, l.address(h.n))
	}
	return &talking{in, conn, bufio.NewReader(conn)}
}

func (c *talking) say(t *testing.T, line string) {
	t.Helper()
	if _, err := io.WriteString(c.in, line+"\n"); err != nil {
		t.Fatal(err)
	}
}

func (c *talking) hears(t *testing.T, want string) {
	t.Helper()
	if err := c.conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if got, err := c.read.ReadString('\n'); err != nil || got != want+"\n" {
		t.Fatalf("want %q, got %q, %v", want, got, err)
	}
}

func (c *talking) hearsNothing(t *testing.T) {
	t.Helper()
	if err := c.conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if got, err := c.read.ReadString('\n'); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("want nothing, got %q, %v", got, err)
	}
}
