package simulator

import "encoding/binary"

// marks tell which answers a client has read. Where a rule has a fault, a PING follows answers, one at a time: its acknowledgement says
// that the client has read what stands before it. What was written behind the last one that came back, a connection that breaks may
// have taken with it: TCP had it, and nobody else knows.
type marks struct {
	on      bool  // one was ever made
	waiting bool  // one is on its way
	written int64 // answers to recorded pushes that stand in out or were written
	at      int64 // written, as the mark on its way says
	read    int64 // of the answers written, those that the client has read
	lost    int64 // of the answers written, those that stats have as cut
}

// doubt is how many answers may never have been read, now that the connection has ended.
func (m *marks) doubt() int64 {
	if !m.on {
		return 0
	}
	return max(m.written-m.read-m.lost, 0)
}

// mark puts a mark behind the answers in out, unless one is on its way.
func (c *h2Conn) mark() {
	m := &c.marks
	if m.waiting || m.written == m.at || c.mode > modeClosing || !c.server.core.state.Load().faulty {
		return
	}
	m.on, m.waiting, m.at = true, true, m.written
	c.out = binary.BigEndian.AppendUint64(appendFrameHeader(c.out, 8, framePing, 0, 0), uint64(m.at))
}

// onMark takes the acknowledgement of a mark.
func (c *h2Conn) onMark(payload []byte) {
	if m := &c.marks; m.waiting && binary.BigEndian.Uint64(payload) == uint64(m.at) {
		m.waiting, m.read = false, m.at
	}
}
