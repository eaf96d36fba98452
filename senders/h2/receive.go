package h2

import (
	"bytes"
	"encoding/binary"
	"time"
)

func breach(code Code, text string) error { return ConnError{Code: code, Text: text} }

// take acts on one frame; the lock is held, and the link lives. An error ends the connection.
func (l *link) take(e *event) error {
	switch e.kind {
	case frameData:
		return l.takeData(e.frameHeader, e.payload)
	case frameHeaders, frameContinuation:
		if e.whole {
			return l.takeBlock(e.stream, &e.block)
		}
	case frameRSTStream:
		return l.takeReset(e.frameHeader, e.payload)
	case frameSettings:
		return l.takeSettings(e.frameHeader, e.payload)
	case framePing:
		return l.takePing(e.frameHeader, e.payload)
	case frameGoAway:
		return l.takeGoAway(e.frameHeader, e.payload)
	case frameWindowUpdate:
		return l.takeWindow(e.frameHeader, e.payload)
	case framePushPromise:
		return breach(ProtocolError, "a push was promised, which we do not allow")
	}
	return nil // PRIORITY says nothing to a client; types unknown to us are to be ignored
}

// idle reports whether a stream was never opened.
func (l *link) idle(id uint32) bool { return id%2 == 0 || id >= l.next }

func (l *link) takeData(h frameHeader, p []byte) error {
	body, ok := unpad(h, p)
	if h.stream == 0 || !ok {
		return breach(ProtocolError, "malformed DATA")
	}
	l.credit -= int64(len(p))
	if l.credit < 0 {
		return breach(FlowControlError, "more DATA than the connection's window")
	}
	if l.credit < connWindow/2 {
		l.buf = appendWindowUpdate(l.buf, 0, uint32(connWindow-l.credit))
		l.credit = connWindow
		l.kick()
	}
	r := l.streams.get(h.stream)
	if r == nil {
		if l.idle(h.stream) {
			return breach(ProtocolError, "DATA on an idle stream")
		}
		return nil // it was reset
	}
	r.received += int64(len(p))
	switch {
	case !r.answered:
		l.refuse(r, ProtocolError)
	case r.received > int64(l.c.streamWindow()):
		l.refuse(r, FlowControlError)
	default:
		room := l.c.o.MaxBody - len(r.response.Body)
		r.response.Cut = len(body) > room
		r.response.Body = append(r.response.Body, body[:min(len(body), room)]...)
		if h.has(flagEndStream) || r.response.Cut {
			l.complete(r, h.has(flagEndStream))
		}
	}
	return nil
}

// refuse gives up a stream that broke the protocol.
func (l *link) refuse(r *Request, code Code) {
	l.reset(r, code)
	l.c.finish(r, StreamError{code})
}

// complete ends a stream with its answer. ended: the peer has said its last.
func (l *link) complete(r *Request, ended bool) {
	if r.left() > 0 || !ended { // answered before it was asked in full, or cut off
		l.reset(r, Cancel)
	} else {
		l.forget(r)
	}
	l.refusals = 0
	if !l.proven {
		l.proven = true
		l.c.failures = 0
	}
	r.response.At = l.now
	l.c.finish(r, nil)
}

// takeBlock acts on a whole header block.
func (l *link) takeBlock(id uint32, b *block) error {
	r := l.streams.get(id)
	if r == nil {
		if l.idle(id) {
			return breach(ProtocolError, "HEADERS on an idle stream")
		}
		return nil
	}
	switch b.judge(r.answered) {
	case malformed:
		l.refuse(r, ProtocolError)
		return nil
	case final:
		r.answered = true
		r.response.Status = b.status
		r.response.fields = append(r.response.fields[:0], b.fields...)
	case interim, trailer:
	}
	if b.end {
		l.complete(r, true)
	}
	return nil
}

func (l *link) takeReset(h frameHeader, p []byte) error {
	if len(p) != 4 {
		return breach(FrameSizeError, "malformed RST_STREAM")
	}
	code := Code(binary.BigEndian.Uint32(p))
	r := l.streams.get(h.stream)
	if r == nil {
		if h.stream == 0 || l.idle(h.stream) {
			return breach(ProtocolError, "RST_STREAM on an idle stream")
		}
		return nil
	}
	l.forget(r)
	if code == RefusedStream && !r.answered {
		l.hold()
		l.c.resend([]*Request{r}, StreamError{code}, true)
	} else {
		l.c.finish(r, StreamError{code})
	}
	return nil
}

// hold lets a link rest that refuses streams: 10 ms, and twice as long each time in a row, up to 640 ms.
func (l *link) hold() {
	l.held = time.Now().Add(10 * time.Millisecond << min(l.refusals, 6))
	l.refusals++
}

func (l *link) takeSettings(h frameHeader, p []byte) error {
	switch {
	case h.stream != 0:
		return breach(ProtocolError, "SETTINGS on a stream")
	case h.has(flagAck) && len(p) == 0:
		return nil
	case h.has(flagAck), len(p)%6 != 0:
		return breach(FrameSizeError, "malformed SETTINGS")
	}
	for ; len(p) > 0; p = p[6:] {
		if err := l.set(binary.BigEndian.Uint16(p), binary.BigEndian.Uint32(p[2:])); err != nil {
			return err
		}
	}
	l.greeted = true
	l.buf = appendFrameHeader(l.buf, 0, frameSettings, flagAck, 0)
	l.unblock()
	return l.calm()
}

// set takes one setting.
func (l *link) set(id uint16, v uint32) error {
	switch id {
	case settingHeaderTableSize:
		l.enc.resize(v)
	case settingEnablePush:
		if v != 0 {
			return breach(ProtocolError, "a server that would be pushed to")
		}
	case settingMaxStreams:
		l.peerStreams = v
	case settingInitialWindow:
		if v > largestWindow {
			return breach(FlowControlError, "an initial window above 2^31-1")
		}
		change := int64(v) - l.peerWindow
		l.peerWindow = int64(v)
		for r := range l.streams.all() {
			if r.window += change; r.window > largestWindow {
				return breach(FlowControlError, "a stream's window above 2^31-1")
			}
		}
	case settingMaxFrameSize:
		if v < leastFrameSize || v > largestFrameSize {
			return breach(ProtocolError, "a frame size out of bounds")
		}
		l.peerFrame = int(v)
	case settingMaxHeaderListSize:
		l.peerHeaderList = int64(v)
	}
	return nil
}

// calm says whether the peer asks for answers of ours without reading them.
func (l *link) calm() error {
	if l.owed += frameHeaderSize + 8; l.owed > mostOwed {
		return breach(EnhanceYourCalm, "more PING or SETTINGS than answers read")
	}
	return nil
}

func (l *link) takePing(h frameHeader, p []byte) error {
	switch {
	case h.stream != 0:
		return breach(ProtocolError, "PING on a stream")
	case len(p) != 8:
		return breach(FrameSizeError, "malformed PING")
	}
	switch {
	case !h.has(flagAck):
		l.buf = appendPing(l.buf, flagAck, p)
		l.kick()
		return l.calm()
	case bytes.Equal(p, resetPing):
		l.resets -= l.resetsPinged
		l.resetsPinged = 0
		l.pingForResets()
	}
	return nil
}

func (l *link) takeGoAway(h frameHeader, p []byte) error {
	switch {
	case h.stream != 0:
		return breach(ProtocolError, "GOAWAY on a stream")
	case len(p) < 8:
		return breach(FrameSizeError, "malformed GOAWAY")
	}
	last, code := binary.BigEndian.Uint32(p)&largestStreamID, Code(binary.BigEndian.Uint32(p[4:]))
	const mostText = 256
	text := string(p[8:min(len(p), 8+mostText)])
	if code != NoError && l.c.o.Log != nil {
		l.c.o.Log.Warn("connection is ended by the server", "code", code.String())
	}
	l.remote = ConnError{Code: code, Remote: true, Text: text}
	l.draining = true
	var again []*Request
	for r := range l.streams.all() {
		if r.id > last {
			l.streams.remove(r)
			r.link, r.unsent, r.tail = nil, nil, nil
			again = append(again, r)
		}
	}
	if !l.proven {
		l.c.buried(l, l.remote)
	}
	l.c.resend(again, l.remote, true)
	if l.streams.len() == 0 {
		l.retire()
	}
	return nil
}

func (l *link) takeWindow(h frameHeader, p []byte) error {
	if len(p) != 4 {
		return breach(FrameSizeError, "malformed WINDOW_UPDATE")
	}
	n := int64(binary.BigEndian.Uint32(p) & largestWindow)
	if h.stream == 0 {
		if l.window += n; n == 0 || l.window > largestWindow {
			return breach(windowCode(n), "a connection's window out of bounds")
		}
		l.unblock()
		return nil
	}
	r := l.streams.get(h.stream)
	if r == nil {
		if l.idle(h.stream) {
			return breach(ProtocolError, "WINDOW_UPDATE on an idle stream")
		}
		return nil
	}
	if r.window += n; n == 0 || r.window > largestWindow {
		l.refuse(r, windowCode(n))
		return nil
	}
	if r.left() > 0 {
		l.flow(r)
		l.kick()
	}
	return nil
}

func windowCode(n int64) Code {
	if n == 0 {
		return ProtocolError
	}
	return FlowControlError
}
