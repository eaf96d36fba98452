package senders

import "github.com/campanile-push/campanile/schemas"

// backlog is an app's queue: a line for each broadcast and one for direct sends, which take turns, so that a broadcast to a few
// phones does not stand behind one to a million. The zero value is empty.
type backlog struct {
	lines []line
	turn  int // the line whose send is next
	last  int // the line of the last push: most come from one
	n     int
	spare []fifo // memory of lines that ended
}

type line struct {
	of schemas.ID // broadcast; zero: direct sends
	fifo
}

func (b *backlog) len() int { return b.n }

func (b *backlog) push(f *flight) {
	b.n++
	if b.last >= len(b.lines) || b.lines[b.last].of != f.broadcast {
		b.last = b.find(f.broadcast)
	}
	b.lines[b.last].push(f)
}

// find returns a broadcast's line, a new one where it has none.
func (b *backlog) find(of schemas.ID) int {
	for i := range b.lines {
		if b.lines[i].of == of {
			return i
		}
	}
	l := line{of: of}
	if n := len(b.spare); n > 0 {
		l.fifo, b.spare = b.spare[n-1], b.spare[:n-1]
	}
	b.lines = append(b.lines, l)
	return len(b.lines) - 1
}

// peek is the send that pop would return; the backlog must not be empty.
func (b *backlog) peek() *flight {
	q := &b.lines[b.turn]
	return q.items[q.head]
}

// pop takes the next send; the backlog must not be empty.
func (b *backlog) pop() *flight {
	b.n--
	q := &b.lines[b.turn]
	f := q.pop()
	if q.len() > 0 {
		b.turn++
	} else {
		const spares = 4
		if len(b.spare) < spares {
			b.spare = append(b.spare, q.fifo)
		}
		b.lines = append(b.lines[:b.turn], b.lines[b.turn+1:]...)
	}
	if b.turn >= len(b.lines) {
		b.turn = 0
	}
	return f
}

func (b *backlog) each(do func(f *flight)) {
	for i := range b.lines {
		for _, f := range b.lines[i].items[b.lines[i].head:] {
			do(f)
		}
	}
}
