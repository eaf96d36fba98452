package simulator

import (
	"encoding/binary"
	"strconv"
)

// Frame types (RFC 9113, section 6).
const (
	frameData         = 0x0
	frameHeaders      = 0x1
	framePriority     = 0x2
	frameRSTStream    = 0x3
	frameSettings     = 0x4
	framePushPromise  = 0x5
	framePing         = 0x6
	frameGoAway       = 0x7
	frameWindowUpdate = 0x8
	frameContinuation = 0x9
)

// Flags of frames.
const (
	flagEndStream  = 0x1
	flagAck        = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20
)

// Settings (RFC 9113, section 6.5.2).
const (
	settingHeaderTableSize = 0x1
	settingEnablePush      = 0x2
	settingMaxStreams      = 0x3
	settingInitialWindow   = 0x4
	settingMaxFrameSize    = 0x5
	settingMaxHeaderList   = 0x6
)

const (
	clientPreface    = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	frameHeaderSize  = 9
	defaultWindow    = 65_535
	defaultTableSize = 4096
	leastFrameSize   = 16_384
	largestFrameSize = 1<<24 - 1
	largestWindow    = 1<<31 - 1
	largestStreamID  = 1<<31 - 1
)

// code is an error code of HTTP/2 (RFC 9113, section 7).
type code uint32

const (
	codeNo           code = 0x0
	codeProtocol     code = 0x1
	codeInternal     code = 0x2
	codeFlowControl  code = 0x3
	codeStreamClosed code = 0x5
	codeFrameSize    code = 0x6
	codeRefused      code = 0x7
	codeCancel       code = 0x8
	codeCompression  code = 0x9
	codeCalm         code = 0xb
)

// violation is a breach of a rule by the client.
type violation struct {
	stream uint32 // 0: it ends the connection
	code   code
	rule   string // as stats name it, in snake case
}

// Error says which.
func (v *violation) Error() string {
	return "HTTP/2: " + v.rule + " (error " + strconv.Itoa(int(v.code)) + ")"
}

// frameHeader is the beginning of a frame.
type frameHeader struct {
	length      int
	kind, flags byte
	stream      uint32
}

func (h frameHeader) has(flag byte) bool { return h.flags&flag != 0 }

// parseFrameHeader reads the first nine bytes of b.
func parseFrameHeader(b []byte) frameHeader {
	_ = b[8]
	return frameHeader{
		length: int(b[0])<<16 | int(b[1])<<8 | int(b[2]), kind: b[3], flags: b[4],
		stream: binary.BigEndian.Uint32(b[5:]) & largestStreamID,
	}
}

func appendFrameHeader(b []byte, length int, kind, flags byte, stream uint32) []byte {
	return append(b, byte(length>>16), byte(length>>8), byte(length), kind, flags, byte(stream>>24), byte(stream>>16), byte(stream>>8), byte(stream))
}

func appendRSTStream(b []byte, stream uint32, c code) []byte {
	b = appendFrameHeader(b, 4, frameRSTStream, 0, stream)
	return binary.BigEndian.AppendUint32(b, uint32(c))
}

func appendWindowUpdate(b []byte, stream uint32, n int) []byte {
	b = appendFrameHeader(b, 4, frameWindowUpdate, 0, stream)
	return binary.BigEndian.AppendUint32(b, uint32(n))
}

func appendGoAway(b []byte, last uint32, c code, debug string) []byte {
	b = appendFrameHeader(b, 8+len(debug), frameGoAway, 0, 0)
	b = binary.BigEndian.AppendUint32(b, last)
	b = binary.BigEndian.AppendUint32(b, uint32(c))
	return append(b, debug...)
}

// setting is one of a SETTINGS frame.
type setting struct {
	id    uint16
	value uint32
}

func appendSettings(b []byte, settings ...setting) []byte {
	b = appendFrameHeader(b, 6*len(settings), frameSettings, 0, 0)
	for _, s := range settings {
		b = binary.BigEndian.AppendUint16(b, s.id)
		b = binary.BigEndian.AppendUint32(b, s.value)
	}
	return b
}

// unpad returns the payload of a DATA or HEADERS frame without padding and priority; false: the frame is malformed.
func unpad(h frameHeader, p []byte) ([]byte, bool) {
	pad := 0
	if h.has(flagPadded) {
		if len(p) == 0 {
			return nil, false
		}
		pad, p = int(p[0]), p[1:]
	}
	if h.kind == frameHeaders && h.has(flagPriority) {
		if len(p) < 5 {
			return nil, false
		}
		p = p[5:]
	}
	if pad > len(p) {
		return nil, false
	}
	return p[:len(p)-pad], true
}
