package h2

import "time"

const (
	readBuffer = 64 << 10 // four of the largest frames
	mostEvents = 128      // frames that are acted on under one hold of the lock
)

// event is one frame, as far as it can be read without the lock: a header block is decoded.
type event struct {
	frameHeader

	payload []byte // valid until the batch has been acted on
	block   block  // of HEADERS or the CONTINUATION that ends one
	whole   bool   // block is set
	err     error  // the connection ends here
}

// read takes what the peer says until the link ends. All that one read of the connection brings is decoded first and then acted on
// under one hold of the lock, since answers come many at a time.
func (l *link) read() {
	var spare []outcome
	var events []event
	buf := make([]byte, readBuffer)
	start, end := 0, 0
	for {
		var used int
		events, used = l.decode(events[:0], buf[start:end])
		if len(events) > 0 {
			if !l.act(events, &spare) {
				return
			}
			start += used
			continue
		}
		end = copy(buf, buf[start:end])
		start = 0
		l.waitsSince.Store(time.Now().UnixNano())
		n, err := l.conn.Read(buf[end:])
		l.waitsSince.Store(0)
		end += n
		if n == 0 && err != nil {
			l.fail(err, NoError, &spare)
			return
		}
	}
}

// decode reads the whole frames at the beginning of b, up to a bound, and counts their bytes. Nothing follows an event with an error.
func (l *link) decode(events []event, b []byte) (_ []event, used int) {
	l.dec.begin()
	for len(events) < mostEvents && len(b)-used >= frameHeaderSize {
		e := event{frameHeader: parseFrameHeader(b[used:])}
		if e.length > leastFrameSize { // we never allowed more
			e.err = breach(FrameSizeError, "a frame above SETTINGS_MAX_FRAME_SIZE")
			return append(events, e), used
		}
		size := frameHeaderSize + e.length
		if len(b)-used < size {
			break
		}
		e.payload = b[used+frameHeaderSize : used+size]
		used += size
		e.err = l.assemble(&e)
		events = append(events, e)
		if e.err != nil {
			break
		}
	}
	return events, used
}

// assemble checks the order of frames, and puts header blocks together and decodes them.
func (l *link) assemble(e *event) error {
	if !l.dec.begun && (e.kind != frameSettings || e.has(flagAck)) {
		return breach(ProtocolError, "the first frame is not SETTINGS")
	}
	l.dec.begun = true
	if l.dec.continuing != 0 && (e.kind != frameContinuation || e.stream != l.dec.continuing) {
		return breach(ProtocolError, "a header block is interrupted")
	}
	fragment, end := e.payload, e.has(flagEndHeaders)
	switch e.kind {
	case frameHeaders:
		var ok bool
		if fragment, ok = unpad(e.frameHeader, e.payload); e.stream == 0 || !ok {
			return breach(ProtocolError, "malformed HEADERS")
		}
		e.block.end = e.has(flagEndStream)
		if !end {
			l.dec.continuing, l.dec.endsStream = e.stream, e.block.end
			l.dec.fragments = append(l.dec.fragments[:0], fragment...)
			return nil
		}
	case frameContinuation:
		switch {
		case l.dec.continuing == 0:
			return breach(ProtocolError, "CONTINUATION of nothing")
		case len(l.dec.fragments)+len(fragment) > maxHeaderBlock:
			return breach(EnhanceYourCalm, "a header block without end")
		case len(fragment) == 0 && !end:
			return breach(EnhanceYourCalm, "an empty CONTINUATION")
		}
		l.dec.fragments = append(l.dec.fragments, fragment...)
		if !end {
			return nil
		}
		fragment, e.block.end = l.dec.fragments, l.dec.endsStream
		l.dec.continuing = 0
	default:
		return nil
	}
	e.whole = true
	if !l.dec.decode(fragment, &e.block) { // whose stream it is or was makes no difference to the table
		return breach(CompressionError, "a header block that cannot be decoded")
	}
	return nil
}

// act carries a batch out, and reports whether the link goes on.
func (l *link) act(events []event, spare *[]outcome) bool {
	l.c.mu.Lock()
	var err error
	l.now = time.Now()
	for i := range events {
		if l.dead {
			break
		}
		e := &events[i]
		if err = e.err; err == nil {
			err = l.take(e)
		}
		if err != nil {
			break
		}
	}
	if err != nil {
		var code Code
		if broken, ok := err.(ConnError); ok { //nolint:errorlint // our own, never wrapped
			code = broken.Code
		}
		l.die(err, code)
	}
	dead := l.dead
	l.c.pump()
	l.c.unlock(spare)
	return !dead
}
