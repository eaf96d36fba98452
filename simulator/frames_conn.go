package simulator

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// h2Conn is one HTTP/2 connection. The goroutine in serve reads, decides and appends answers to out; another one writes out. What
// stands in one TLS record is one batch: one write to the ledger, one lock, one wake-up of the writer.
type h2Conn struct {
	server      *framesServer
	door        h2Door
	secure      *tls.Conn
	under       *conn
	certificate *x509.Certificate
	settings    ConnScenario // in force when the connection was made
	streamsMax  int

	mu     sync.Mutex
	unsent *sync.Cond // out, or mode, has changed: for the writer
	sent   *sync.Cond // out has gone: for the reader

	// What the reader knows.
	decoder   *hpackDecoder
	opened    bool // the client's SETTINGS have come
	header    frameHeader
	block     []byte    // fragments of a header block
	inBlock   bool      // only CONTINUATION may come
	fragments int       // of the block
	youngest  *h2Stream // not in streams yet: most end with the next frame
	streams   map[uint32]*h2Stream
	free      []*h2Stream
	batch     []*h2Stream // complete, in the order of completion
	entries   []Entry     // of the batch
	active    int
	lastID    uint32    // highest stream that the client has opened
	doneID    uint32    // highest that was complete
	stop      bool      // nothing more is looked at
	now       time.Time // when the batch began
	lastPush  time.Time
	input     inputWindow
	limits    streamLimits

	// What goes out.
	out       []byte
	accepted  int64 // answers in out to pushes that were recorded
	tableGone bool  // the client's decoder must be told that we use no table
	peer      peerWindows
	blocked   []*h2Stream // answers that wait for window
	goingAway bool
	awayLast  uint32
	mode      connMode
	dripPause time.Duration // of the next write; 0: it goes out whole

	trusted, raised bool // credentials were good; the stream limit followed
	refused, fine   bool // of the answers since the limit was looked at

	marks   marks
	reply   reply // scratch
	counted tally
	dirty   bool // the wheel's: it has answered here in this tick
}

// connMode is how far a connection is on its way out.
type connMode uint8

const (
	modeOpen    connMode = iota
	modeClosing          // when out is written, TLS is closed
	modeReset            // when out is written, TCP is reset
	modeClosed
)

// Bounds of a connection's memory, bytes.
const (
	readBuffer    = 32 << 10 // a frame of 16,384 bytes and a TLS record
	mostUnsent    = 1 << 20  // beyond that nothing is read until the client has taken some
	keepOut       = 256 << 10
	mostBlock     = 32 << 10 // a header block as it comes
	mostFragments = 32       // frames of a header block
	mostFree      = 1024     // streams that are kept for the next
)

func newH2Conn(f *framesServer, secure *tls.Conn, raw net.Conn) *h2Conn {
	st := f.core.state.Load()
	p := f.door.provider()
	c := &h2Conn{
		server: f, door: f.door, secure: secure, under: underTLS(raw), settings: *st.scenario.connections(p), streamsMax: st.scenario.streams(p),
		decoder: newHPACKDecoder(), streams: map[uint32]*h2Stream{}, lastPush: time.Now(),
	}
	c.unsent, c.sent = sync.NewCond(&c.mu), sync.NewCond(&c.mu)
	c.peer = peerWindows{conn: defaultWindow, stream: defaultWindow, frame: leastFrameSize}
	c.input = newInputWindow(&c.settings)
	first := c.streamsMax
	if c.settings.FirstStreams > 0 {
		first = min(first, c.settings.FirstStreams)
	}
	c.limits = streamLimits{acknowledged: mostStreams, now: first, sent: []int{first}}
	return c
}

// serve runs the connection to its end.
func (c *h2Conn) serve() {
	var writing sync.WaitGroup
	c.mu.Lock()
	c.greet()
	c.mu.Unlock()
	writing.Go(c.write)
	err := c.read()
	if !errors.Is(err, io.EOF) {
		c.server.logger.Debug("connection ended", "error", err)
	}
	c.end()
	writing.Wait()
	c.mu.Lock()
	c.counted.doubt += c.marks.doubt()
	c.count() // what the writer has found out, too
	c.mu.Unlock()
}

// greet is what a server says first.
func (c *h2Conn) greet() {
	settings := []setting{{settingMaxStreams, uint32(c.limits.now)}, {settingMaxHeaderList, maxHeaderList}, {settingHeaderTableSize, maxTable}}
	if c.input.stream != defaultWindow {
		settings = append(settings, setting{settingInitialWindow, uint32(c.input.stream)})
	}
	c.out = appendSettings(c.out, settings...)
	if more := c.input.size - defaultWindow; more > 0 {
		c.out = appendWindowUpdate(c.out, 0, more)
	}
}

// read takes what comes until the connection ends, and returns why it did.
func (c *h2Conn) read() error {
	var preface [len(clientPreface)]byte
	if _, err := io.ReadFull(c.secure, preface[:]); err != nil {
		return err
	}
	if string(preface[:]) != clientPreface {
		c.server.core.stats.violated("preface")
		return errors.New("no HTTP/2 preface")
	}
	_ = c.secure.SetReadDeadline(time.Time{})
	buf := make([]byte, readBuffer)
	n := 0
	for {
		if c.settings.IdleClose > 0 {
			c.waitForPush()
		}
		m, err := c.secure.Read(buf[n:])
		n += m
		used := c.take(buf[:n])
		n = copy(buf, buf[used:n])
		if err == nil {
			continue
		}
		if c.settings.IdleClose > 0 && errors.Is(err, os.ErrDeadlineExceeded) && c.idle() {
			continue
		}
		return err
	}
}

// take handles the whole frames in b and returns their length.
func (c *h2Conn) take(b []byte) (used int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.server.core.now()
	for !c.stop && c.mode <= modeClosing && len(b)-used >= frameHeaderSize {
		h := parseFrameHeader(b[used:])
		if h.length > leastFrameSize && c.mode == modeClosing {
			c.stop = true
			break
		}
		if h.length > leastFrameSize {
			c.violate(&violation{0, codeFrameSize, "frame_too_large"})
			break
		}
		end := used + frameHeaderSize + h.length
		if end > len(b) {
			break
		}
		payload := b[used+frameHeaderSize : end]
		used = end
		if c.mode == modeClosing { // nothing more is looked at but what the client has read
			if h.kind == framePing && h.has(flagAck) && h.length == 8 {
				c.onMark(payload)
			}
			continue
		}
		if v := c.frame(h, payload); v != nil {
			c.violate(v)
		}
	}
	c.settle()
	if c.stop || c.mode > modeClosing {
		used = len(b)
	}
	c.count()
	c.flush()
	for len(c.out) > mostUnsent && c.mode == modeOpen {
		c.sent.Wait()
	}
	return used
}

// frame handles one.
func (c *h2Conn) frame(h frameHeader, payload []byte) *violation {
	if !c.opened {
		if h.kind != frameSettings || h.has(flagAck) {
			return &violation{0, codeProtocol, "settings_not_first"}
		}
		c.opened = true
	}
	if c.inBlock && h.kind != frameContinuation {
		return &violation{0, codeProtocol, "block_interrupted"}
	}
	switch h.kind {
	case frameData:
		return c.onData(h, payload)
	case frameHeaders:
		return c.onHeaders(h, payload)
	case frameContinuation:
		return c.onContinuation(h, payload)
	case framePriority:
		if h.stream == 0 || h.length != 5 {
			return &violation{0, codeProtocol, "malformed_priority"}
		}
	case frameRSTStream:
		return c.onRST(h)
	case frameSettings:
		return c.onSettings(h, payload)
	case framePushPromise:
		return &violation{0, codeProtocol, "push_promise"}
	case framePing:
		if h.stream != 0 || h.length != 8 {
			return &violation{0, codeFrameSize, "malformed_ping"}
		}
		if h.has(flagAck) {
			c.onMark(payload)
		} else {
			c.out = append(appendFrameHeader(c.out, 8, framePing, flagAck, 0), payload...)
		}
	case frameGoAway: // the client opens no more; it closes when it has its answers
	case frameWindowUpdate:
		return c.onWindowUpdate(h, payload)
	}
	return nil // unknown types are ignored: RFC 9113, section 5.5
}

// violate answers a breach of a rule: with a reset of the stream, or the end of the connection.
func (c *h2Conn) violate(v *violation) {
	c.server.core.stats.violated(v.rule)
	c.settle() // what came before it stands
	if v.stream == 0 {
		c.away(c.doneID, v.code, violationText(v.rule))
		c.drop(c.doneID)
		c.stop = true
		c.close(modeClosing)
		return
	}
	c.out = appendRSTStream(c.out, v.stream, v.code)
	if s := c.find(v.stream); s != nil {
		c.forget(s)
	}
}

// violationText is GOAWAY's debug data.
func violationText(rule string) string {
	if rule == ruleStreams {
		return "Maximum active streams violated" // Apple's words
	}
	return rule
}

// waitForPush bounds the next read by what is left of the time without a push.
func (c *h2Conn) waitForPush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mode == modeOpen { // afterwards the deadline is that of hanging up
		_ = c.secure.SetReadDeadline(c.lastPush.Add(c.settings.IdleClose.D()))
	}
}

// idle ends a connection that had no push for too long; false: it had one.
func (c *h2Conn) idle() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mode == modeOpen {
		if c.active > 0 {
			c.lastPush = time.Now() // an answer is under way
			return true
		}
		c.away(c.lastID, codeNo, `{"reason":"IdleTimeout"}`)
		_ = c.secure.SetReadDeadline(time.Now().Add(hangUpPatience)) // the one that has passed would end the connection before it is said
		c.flush()
		return true
	}
	return false
}

// leave ends the connection in peace.
func (c *h2Conn) leave(why code, debug string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.away(c.lastID, why, debug)
	c.flush()
}

// away says GOAWAY. Streams up to last are answered still; then the connection closes.
func (c *h2Conn) away(last uint32, why code, debug string) {
	if c.goingAway && last >= c.awayLast && why == codeNo {
		return
	}
	if c.goingAway {
		last = min(last, c.awayLast) // it may never grow
	}
	c.goingAway, c.awayLast = true, last
	c.out = appendGoAway(c.out, last, why, debug)
	c.closeIfDone()
}

func (c *h2Conn) closeIfDone() {
	if c.goingAway && c.active == 0 {
		c.close(modeClosing)
	}
}

func (c *h2Conn) close(m connMode) {
	if c.mode < m {
		c.mode = m
	}
}

// end forgets everything that was under way.
func (c *h2Conn) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mode = modeClosed
	c.drop(0)
	c.batch, c.entries = nil, nil
	c.count()
	c.unsent.Broadcast()
	c.sent.Broadcast()
}

// drop gives up the streams above last: nobody will answer them.
func (c *h2Conn) drop(last uint32) {
	if s := c.youngest; s != nil && s.id > last {
		c.abandon(s, "")
	}
	for id, s := range c.streams {
		if id > last {
			c.abandon(s, "")
		}
	}
}
