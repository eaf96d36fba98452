package broker_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/nettest"

	"github.com/campanile-push/campanile/eventlog/broker"
)

func TestAConnectionInMemoryIsAConnection(t *testing.T) {
	t.Parallel()
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		c1, c2 = broker.NewPipe()
		return c1, c2, func() {
			_ = c1.Close()
			_ = c2.Close()
		}, nil
	})
}

// TestAPipeKeepsWhatIsWritten: in pieces of every size, of which many are larger than its buffer.
func TestAPipeKeepsWhatIsWritten(t *testing.T) {
	t.Parallel()
	client, server := broker.NewPipe()
	r := rand.New(rand.NewPCG(1, 2))
	want := make([]byte, 8<<20)
	for i := range want {
		want[i] = byte(r.Uint32())
	}
	sent := make(chan error, 1)
	go func() {
		for left := want; len(left) > 0; {
			n := min(1+int(r.ExpFloat64()*40_000), len(left))
			wrote, err := client.Write(left[:n])
			if err != nil || wrote != n {
				sent <- errors.Join(err, io.ErrShortWrite)
				return
			}
			left = left[n:]
		}
		sent <- client.Close()
	}()
	got, err := io.ReadAll(server)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("want %d bytes as written, got %d others", len(want), len(got))
	}
}

// TestAWriteThatFitsWaitsForNobody: as with a socket, a request can be written behind one that is not answered yet.
func TestAWriteThatFitsWaitsForNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client, server := broker.NewPipe()
		fits := make([]byte, 64<<10)
		if n, err := client.Write(fits); n != len(fits) || err != nil {
			t.Fatalf("want all of it, got %d, %v", n, err)
		}
		if err := client.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		if n, err := client.Write([]byte("more")); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("want a write that waits until its deadline, got %d, %v", n, err)
		}
		if n, err := io.ReadFull(server, fits); n != len(fits) || err != nil {
			t.Errorf("want what was written, got %d, %v", n, err)
		}
		if err := client.Close(); err != nil {
			t.Fatal(err)
		}
		if n, err := server.Read(fits); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("want the end, and nothing of the write that failed, got %d, %v", n, err)
		}
		if _, err := server.Write(fits); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("want no write to a closed end, got %v", err)
		}
	})
}

func TestAClosedBrokerTakesNoConnection(t *testing.T) {
	t.Parallel()
	b := open(t, broker.Options{Dir: t.TempDir()})
	conn, err := b.Dial(t.Context(), "tcp", "")
	if err != nil {
		t.Fatal(err)
	}
	shut(t, b)
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("want the connection closed")
	}
	if _, err := b.Dial(t.Context(), "tcp", ""); !errors.Is(err, net.ErrClosed) {
		t.Errorf("want no connection, got %v", err)
	}
	if _, ok := broker.Running(t.TempDir()); ok {
		t.Error("want no broker where none is")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Dial(ctx, "tcp", ""); err == nil {
		t.Error("want no connection for who has gone")
	}
}
