package simulator

import (
	"encoding/binary"
	"time"
)

// h2Stream is a request and its answer. It is reused by its connection.
type h2Stream struct {
	conn *h2Conn
	id   uint32

	request  h2Request
	body     []byte // what came before the last DATA frame
	received int64  // bytes of DATA
	window   int    // what the client may send still
	complete bool   // the request is
	early    bool   // answered before it was complete

	push     Push
	counted  bool // as a push, in the stats
	decided  bool // by the core: it was a valid push
	recorded bool // accepted: the ledger has it
	held     bool // by the wheel
	answer   answer
	answerID string        // APNs
	refusal  string        // APNs; "": none
	problem  *fcmProblem   // FCM; nil: none
	wait     time.Duration // FCM, with problem
	dry      bool          // FCM: validate_only
	ready    *reply        // an answer that is neither; nil: none
	silent   bool          // no answer will come

	sending int    // window for the answer
	rest    []byte // of the answer's body
	isRest  bool   // rest waits for window

	// The wheel's.
	next, prev *h2Stream
	tick       int64
	onWheel    bool
	gone       bool // nobody waits for the answer
	starving   bool // no stream at all: the end of a starvation
}

// open makes a stream.
func (c *h2Conn) open(id uint32) *h2Stream {
	if c.youngest != nil {
		c.streams[c.youngest.id] = c.youngest
	}
	var s *h2Stream
	if n := len(c.free); n > 0 {
		s = c.free[n-1]
		c.free = c.free[:n-1]
	} else {
		s = &h2Stream{conn: c}
	}
	s.id, s.window, s.sending = id, c.input.stream, c.peer.stream
	c.youngest = s
	c.active++
	return s
}

// find returns an open stream; nil where there is none.
func (c *h2Conn) find(id uint32) *h2Stream {
	if s := c.youngest; s != nil && s.id == id {
		return s
	}
	return c.streams[id]
}

// forget ends a stream that was answered or reset.
func (c *h2Conn) forget(s *h2Stream) {
	if c.youngest == s {
		c.youngest = nil
	} else {
		delete(c.streams, s.id)
	}
	c.active--
	if s.counted {
		c.counted.left++
	}
	if !s.gone {
		c.recycle(s)
	}
	c.closeIfDone()
}

func (c *h2Conn) recycle(s *h2Stream) {
	if len(c.free) >= mostFree || cap(s.body) > keepOut || cap(s.request.others) > 64 {
		return
	}
	*s = h2Stream{conn: c, body: s.body[:0], request: h2Request{others: s.request.others[:0]}}
	c.free = append(c.free, s)
}

// abandon ends a stream whose answer nobody will see. why is what stats call it; "": the connection broke.
func (c *h2Conn) abandon(s *h2Stream, why string) {
	if s.complete && s.counted && !s.silent {
		if why == "" {
			why = "connection_ended"
		}
		c.counted.answer(0, why)
	}
	if s.recorded && !s.silent {
		c.counted.cut++
	}
	if s.held && !c.server.wheel.remove(s) {
		s.gone = true // the wheel has it in its hands: it is not to be reused before that
	}
	c.forget(s)
}

const (
	ruleStreams = "too_many_streams"
	ruleWindow  = "window_exceeded"
)

// onHeaders begins a stream, or ends one with trailers.
func (c *h2Conn) onHeaders(h frameHeader, payload []byte) *violation {
	if h.stream%2 == 0 {
		return &violation{0, codeProtocol, "stream_id"}
	}
	fragment, ok := unpad(h, payload)
	if !ok {
		return &violation{0, codeProtocol, "malformed_headers"}
	}
	if h.has(flagEndHeaders) {
		return c.onBlock(h, fragment)
	}
	c.header, c.inBlock, c.fragments = h, true, 1
	c.block = append(c.block[:0], fragment...)
	return nil
}

func (c *h2Conn) onContinuation(h frameHeader, payload []byte) *violation {
	if !c.inBlock || h.stream != c.header.stream {
		return &violation{0, codeProtocol, "stray_continuation"}
	}
	c.fragments++
	if len(c.block)+len(payload) > mostBlock || c.fragments > mostFragments {
		return &violation{0, codeCalm, "header_block_too_large"}
	}
	c.block = append(c.block, payload...)
	if !h.has(flagEndHeaders) {
		return nil
	}
	c.inBlock = false
	return c.onBlock(c.header, c.block)
}

// onBlock handles a whole header block. It is decoded in any case: the tables depend on it.
func (c *h2Conn) onBlock(h frameHeader, block []byte) *violation {
	if err := c.decoder.decode(block); err != nil {
		return &violation{0, codeCompression, "malformed_header_block"}
	}
	if c.goingAway && h.stream > c.awayLast {
		return nil // the client has been told, or will be: it sends that elsewhere
	}
	if h.stream <= c.lastID {
		return c.onTrailers(h)
	}
	c.lastID = h.stream
	if c.active >= c.limits.allowed() {
		return &violation{0, codeCalm, ruleStreams}
	}
	s := c.open(h.stream)
	if c.decoder.tooLong {
		c.server.core.stats.violated("header_list_too_large")
		s.early, s.ready = !h.has(flagEndStream), &reply{status: 431, reason: "header_list_too_large"}
		c.completed(s, nil, false)
		return nil
	}
	if rule := s.request.read(c.decoder.fields); rule != "" {
		return &violation{h.stream, codeProtocol, rule}
	}
	if h.has(flagEndStream) {
		if s.request.length > 0 {
			return &violation{h.stream, codeProtocol, "content_length"}
		}
		c.completed(s, nil, false)
	}
	return nil
}

func (c *h2Conn) onTrailers(h frameHeader) *violation {
	s := c.find(h.stream)
	switch {
	case s == nil && h.stream > c.doneID, s != nil && s.complete:
		return &violation{0, codeStreamClosed, "headers_on_closed_stream"}
	case s == nil:
		return nil // it was answered before its end
	case !h.has(flagEndStream):
		return &violation{h.stream, codeProtocol, "headers_twice"}
	}
	return c.ended(s, nil)
}

// onData takes a piece of a body.
func (c *h2Conn) onData(h frameHeader, payload []byte) *violation {
	if h.stream == 0 || c.isIdle(h.stream) {
		return &violation{0, codeProtocol, "data_on_idle_stream"}
	}
	data, ok := unpad(h, payload)
	if !ok {
		return &violation{0, codeProtocol, "malformed_data"}
	}
	if !c.input.take(h.length) {
		return &violation{0, codeFlowControl, ruleWindow}
	}
	c.giveWindow()
	s := c.find(h.stream)
	if s == nil {
		return nil // reset, or answered before its end
	}
	if s.complete {
		return &violation{h.stream, codeStreamClosed, "data_on_closed_stream"}
	}
	s.window -= h.length
	if s.window < 0 {
		return &violation{h.stream, codeFlowControl, ruleWindow}
	}
	s.received += int64(len(data))
	if h.has(flagEndStream) {
		return c.ended(s, data)
	}
	if s.request.length >= 0 && s.received > s.request.length {
		return &violation{h.stream, codeProtocol, "content_length"}
	}
	if len(s.body)+len(data) > c.door.maxBody() {
		s.early = true
		c.completed(s, nil, true)
		return nil
	}
	s.body = append(s.body, data...)
	if s.window < c.input.stream/2 && !c.input.starved {
		c.out = appendWindowUpdate(c.out, s.id, c.input.stream-s.window)
		s.window = c.input.stream
	}
	return nil
}

// ended completes a request with the last piece of its body.
func (c *h2Conn) ended(s *h2Stream, last []byte) *violation {
	if s.request.length >= 0 && s.received != s.request.length {
		return &violation{s.id, codeProtocol, "content_length"}
	}
	body := last
	if len(s.body) > 0 {
		s.body = append(s.body, last...)
		body = s.body
	}
	tooLarge := len(body) > c.door.maxBody()
	c.completed(s, body, tooLarge)
	return nil
}

// isIdle reports whether the client never opened that stream. Those above GOAWAY's last are not looked at.
func (c *h2Conn) isIdle(stream uint32) bool {
	return stream > c.lastID && (!c.goingAway || stream <= c.awayLast)
}

// onRST ends a stream whose answer the client does not want.
func (c *h2Conn) onRST(h frameHeader) *violation {
	switch {
	case h.length != 4:
		return &violation{0, codeFrameSize, "malformed_rst_stream"}
	case h.stream == 0 || c.isIdle(h.stream):
		return &violation{0, codeProtocol, "rst_on_idle_stream"}
	}
	c.settle() // what is complete is decided: its answer may have crossed this
	if s := c.find(h.stream); s != nil {
		c.abandon(s, "client_gone")
	} else if h.stream <= c.doneID {
		c.counted.doubt++ // its answer was on its way, and nobody wants it any more
	}
	return nil
}

// onSettings takes the client's, or its acknowledgement of ours.
func (c *h2Conn) onSettings(h frameHeader, payload []byte) *violation {
	switch {
	case h.stream != 0:
		return &violation{0, codeProtocol, "settings_on_stream"}
	case h.has(flagAck) && h.length == 0:
		if !c.limits.acknowledge() {
			return &violation{0, codeProtocol, "settings_ack"}
		}
		return nil
	case h.has(flagAck) || h.length%6 != 0:
		return &violation{0, codeFrameSize, "malformed_settings"}
	}
	for ; len(payload) > 0; payload = payload[6:] {
		value := binary.BigEndian.Uint32(payload[2:])
		if v := c.onSetting(binary.BigEndian.Uint16(payload), value); v != nil {
			return v
		}
	}
	c.out = appendFrameHeader(c.out, 0, frameSettings, flagAck, 0)
	c.unblock()
	return nil
}

func (c *h2Conn) onSetting(id uint16, value uint32) *violation {
	switch id {
	case settingHeaderTableSize:
		c.tableGone = c.tableGone || value < defaultTableSize
	case settingEnablePush:
		if value > 1 {
			return &violation{0, codeProtocol, "malformed_settings"}
		}
	case settingInitialWindow:
		if value > largestWindow {
			return &violation{0, codeFlowControl, "malformed_settings"}
		}
		return c.resizeWindows(int(value))
	case settingMaxFrameSize:
		if value < leastFrameSize || value > largestFrameSize {
			return &violation{0, codeProtocol, "malformed_settings"}
		}
		c.peer.frame = int(value)
	}
	return nil
}
