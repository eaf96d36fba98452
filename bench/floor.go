package bench

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"sync"
	"time"

	"golang.org/x/net/http2/hpack"
	"golang.org/x/sync/errgroup"
)

// Frame types and flags of HTTP/2 that the floor speaks (RFC 9113, section 6).
const (
	frameData, frameHeaders, frameReset, frameSettings, framePing, frameGoAway, frameWindow = 0, 1, 3, 4, 6, 7, 8

	flagEndStream, flagAck, flagEndHeaders = 1, 1, 4
	settingMaxStreams                      = 3
)

// floorPush is what every push has in common but its token: the header block in two pieces around the token's place in the path, and
// the body in two.
type floorPush struct {
	host                 string
	prefix, suffix       []byte // of the header block; the path of APNs holds the token
	bodyFront, bodyBack  []byte // of FCM: around the token
	body                 []byte // of APNs
	tokenInPath, needsID bool
}

// newFloorPush encodes the headers once, all of them literal and never indexed: what a floor is for.
func newFloorPush(target string, bearer string, extra [][2]string, body []byte, front, back []byte) (*floorPush, error) {
	u, err := url.Parse(target)
	if err != nil {
		return nil, fmt.Errorf("parse the provider's URL: %w", err)
	}
	f := &floorPush{host: u.Host, body: body, bodyFront: front, bodyBack: back, tokenInPath: front == nil}
	f.prefix = append(f.prefix, 0x83, 0x87) // :method POST, :scheme https, of the static table
	f.prefix = appendLiteral(f.prefix, 1, "", u.Host)
	if !f.tokenInPath {
		f.prefix = appendLiteral(f.prefix, 4, "", u.Path)
	}
	f.suffix = appendLiteral(f.suffix, 23, "", bearer) // authorization
	for _, h := range extra {
		f.suffix = appendLiteral(f.suffix, 0, h[0], h[1])
	}
	f.needsID = f.tokenInPath
	return f, nil
}

// appendLiteral appends a field without indexing: its name from the static table, or new (RFC 7541, section 6.2.2).
func appendLiteral(b []byte, index byte, name, value string) []byte {
	if index < 15 {
		b = append(b, index)
	} else {
		b = append(b, 15, index-15)
	}
	if index == 0 {
		b = appendString(b, name)
	}
	return appendString(b, value)
}

// appendString appends a string that is not Huffman-coded (RFC 7541, section 5.2).
func appendString(b []byte, s string) []byte {
	n := len(s)
	if n < 127 {
		b = append(b, byte(n))
	} else {
		b = append(b, 127)
		for n -= 127; n >= 128; n >>= 7 {
			b = append(b, byte(n)|128)
		}
		b = append(b, byte(n))
	}
	return append(b, s...)
}

// appendPush appends HEADERS and DATA of one push.
func (f *floorPush) appendPush(b []byte, stream uint32, token string, number uint64) []byte {
	head := len(b)
	b = append(b, 0, 0, 0, frameHeaders, flagEndHeaders, 0, 0, 0, 0)
	b = append(b, f.prefix...)
	if f.tokenInPath {
		b = appendLiteral(b, 4, "", "/3/device/"+token)
	}
	b = append(b, f.suffix...)
	if f.needsID {
		b = appendLiteral(b, 0, "apns-id", floorID(number))
	}
	seal(b[head:], stream)
	data := len(b)
	b = append(b, 0, 0, 0, frameData, flagEndStream, 0, 0, 0, 0)
	if f.tokenInPath {
		b = append(b, f.body...)
	} else {
		b = append(append(append(b, f.bodyFront...), token...), f.bodyBack...)
	}
	seal(b[data:], stream)
	return b
}

// floorID is a UUID that holds a number.
func floorID(n uint64) string {
	id := []byte("00000000-0000-4000-8000-000000000000")
	for at := len(id) - 1; at >= len(id)-12; at-- {
		id[at] = "0123456789abcdef"[n&15]
		n >>= 4
	}
	return string(id)
}

// seal writes length and stream into a frame's head.
func seal(frame []byte, stream uint32) {
	n := len(frame) - 9
	frame[0], frame[1], frame[2] = byte(n>>16), byte(n>>8), byte(n)
	binary.BigEndian.PutUint32(frame[5:], stream)
}

// floor is the least that pushing over HTTP/2 can cost: one writer that fills large TLS records, and one reader that only counts answers.
// It follows SETTINGS and flow control, and gives up on everything else.
type floor struct {
	push     *floorPush
	inFlight int
	conn     net.Conn

	mu       sync.Mutex
	turn     sync.Cond
	streams  int   // open
	most     int   // that the peer allows
	window   int64 // that the connection may send
	answered int
	settled  bool // the peer's first SETTINGS were read
	failed   error
	acks     []byte // to be written: acknowledgements
}

func dialFloor(ctx context.Context, push *floorPush, config *tls.Config, inFlight int) (*floor, error) {
	config = config.Clone()
	config.NextProtos = []string{"h2"}
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", push.host)
	if err != nil {
		return nil, fmt.Errorf("dial the provider: %w", err)
	}
	f := &floor{push: push, inFlight: inFlight, conn: conn, most: 1, window: 65535}
	f.turn.L = &f.mu
	hello := []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	hello = append(hello, 0, 0, 0, frameSettings, 0, 0, 0, 0, 0)
	hello = append(hello, 0, 0, 4, frameWindow, 0, 0, 0, 0, 0, 0x7f, 0, 0, 0) // answers of 2 GiB need no more word
	if _, err := conn.Write(hello); err != nil {
		return nil, errors.Join(fmt.Errorf("greet the provider: %w", err), conn.Close())
	}
	return f, nil
}

// run pushes to each token of phones once.
func (f *floor) run(ctx context.Context, phones []Phone) error {
	stop := context.AfterFunc(ctx, func() { _ = f.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var group errgroup.Group
	group.Go(func() error {
		err := f.read(len(phones))
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.failed = err; err != nil {
			f.turn.Broadcast()
		}
		return err
	})
	err := f.write(phones)
	if err != nil {
		_ = f.conn.SetDeadline(time.Unix(1, 0))
	}
	return errors.Join(err, group.Wait())
}

func (f *floor) write(phones []Phone) error {
	var buffer []byte
	for next := 0; next < len(phones); {
		f.mu.Lock()
		size := int64(max(len(f.push.body), len(f.push.bodyFront)+len(f.push.bodyBack)+len(phones[0].Token)))
		for f.failed == nil && len(f.acks) == 0 && (!f.settled || f.streams >= min(f.most, f.inFlight) || f.window < size) {
			f.turn.Wait()
		}
		if f.failed != nil {
			f.mu.Unlock()
			return nil //nolint:nilerr // the reader tells
		}
		buffer = append(buffer[:0], f.acks...)
		f.acks = f.acks[:0]
		n := 0
		if f.settled {
			n = min(min(f.most, f.inFlight)-f.streams, int(f.window/size), len(phones)-next, 256)
		}
		n = max(n, 0)
		f.streams += n
		f.window -= int64(n) * size
		f.mu.Unlock()
		for range n {
			buffer = f.push.appendPush(buffer, uint32(2*next+1), phones[next].Token, uint64(next))
			next++
		}
		if _, err := f.conn.Write(buffer); err != nil {
			return fmt.Errorf("push: %w", err)
		}
	}
	return nil
}

// read counts answers until there are n.
func (f *floor) read(n int) error {
	in := bufio.NewReaderSize(f.conn, 64<<10)
	var head [9]byte
	body := make([]byte, 16<<10)
	decoder := hpack.NewDecoder(4096, nil)
	answers := 0 // not yet told
	for {
		if answers > 0 && (in.Buffered() < len(head) || answers >= 64) {
			f.mu.Lock()
			f.streams -= answers
			f.answered += answers
			done := f.answered >= n
			f.turn.Signal()
			f.mu.Unlock()
			if answers = 0; done {
				return nil
			}
		}
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return fmt.Errorf("read an answer: %w", err)
		}
		size := int(head[0])<<16 | int(head[1])<<8 | int(head[2])
		if size > len(body) {
			return fmt.Errorf("a frame of %d bytes", size)
		}
		payload := body[:size]
		if _, err := io.ReadFull(in, payload); err != nil {
			return fmt.Errorf("read an answer: %w", err)
		}
		switch head[3] {
		case frameHeaders:
			if size == 0 || payload[0] != 0x88 { // :status 200 of the static table
				fields, err := decoder.DecodeFull(payload)
				return fmt.Errorf("a push was refused: %v, %w", fields, errors.Join(err, errors.New("want 200")))
			}
			fallthrough
		case frameData:
			if head[4]&flagEndStream != 0 {
				answers++
			}
		case frameSettings:
			f.settings(head[4], payload)
		case frameWindow:
			if binary.BigEndian.Uint32(head[5:]) == 0 {
				f.mu.Lock()
				f.window += int64(binary.BigEndian.Uint32(payload))
				f.turn.Signal()
				f.mu.Unlock()
			}
		case framePing:
			if head[4]&flagAck == 0 {
				f.acknowledge(append([]byte{0, 0, 8, framePing, flagAck, 0, 0, 0, 0}, payload...))
			}
		case frameReset, frameGoAway:
			return fmt.Errorf("the provider ended a stream or the connection: frame type %d, %x", head[3], payload)
		}
	}
}

func (f *floor) settings(flags byte, payload []byte) {
	if flags&flagAck != 0 {
		return
	}
	f.mu.Lock()
	for ; len(payload) >= 6; payload = payload[6:] {
		if binary.BigEndian.Uint16(payload) == settingMaxStreams {
			f.most = int(binary.BigEndian.Uint32(payload[2:]))
		}
	}
	f.settled = true
	f.mu.Unlock()
	f.acknowledge([]byte{0, 0, 0, frameSettings, flagAck, 0, 0, 0, 0})
}

// acknowledge has the writer write a frame.
func (f *floor) acknowledge(frame []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.acks = append(f.acks, frame...)
	f.turn.Signal()
}
