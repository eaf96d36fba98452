package broker

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// door is the listener that kfake accepts from: connections of this process come in memory, those of others through a socket.
type door struct {
	outside net.Listener
	knocks  chan net.Conn // who wants in
	closed  chan struct{}
	once    sync.Once
	waiting sync.WaitGroup // for who waits at the socket
}

// outOfFiles is the wait after a connection that could not be taken: the process has as many files open as it may.
const outOfFiles = 100 * time.Millisecond

func newDoor(outside net.Listener) *door {
	d := &door{outside: outside, knocks: make(chan net.Conn), closed: make(chan struct{})}
	d.waiting.Go(d.open)
	return d
}

// open lets in who comes to the socket, until the door is closed.
func (d *door) open() {
	for {
		conn, err := d.outside.Accept()
		if err != nil {
			select {
			case <-time.After(outOfFiles):
				continue
			case <-d.closed:
				return
			}
		}
		select {
		case d.knocks <- conn:
		case <-d.closed:
			_ = conn.Close()
			return
		}
	}
}

// dial makes a connection in memory.
func (d *door) dial(ctx context.Context) (net.Conn, error) {
	client, server := newPipe()
	select {
	case d.knocks <- server:
		return client, nil
	case <-d.closed:
		return nil, fmt.Errorf("connect to the embedded broker: %w", net.ErrClosed)
	case <-ctx.Done():
		return nil, fmt.Errorf("connect to the embedded broker: %w", ctx.Err())
	}
}

// Accept implements net.Listener.
func (d *door) Accept() (net.Conn, error) {
	select {
	case conn := <-d.knocks:
		return conn, nil
	case <-d.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (d *door) Close() (err error) {
	d.once.Do(func() {
		close(d.closed)
		err = d.outside.Close()
		d.waiting.Wait()
	})
	return err
}

// Addr implements net.Listener: kfake advertises host and port, so that a unix socket says it is TCP.
func (*door) Addr() net.Addr { return fakeAddr() }

func fakeAddr() net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(address)) }
