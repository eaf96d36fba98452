package eventlog

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/campanile-push/campanile/schemas"
)

// proofs is the number of topics in which a send's end can stand: deliveries, and the retry tiers.
const proofs = 1 + schemas.Tiers

// mark is what an offset commit of a delivering stage carries as metadata: from where on, in deliveries (0) and in each tier's
// topic, a new owner must read to know which sends above the committed offset are done already.
type mark struct {
	generation int64 // of who committed
	// base is added to the group's generations since the group was reset: they may have started over, and what owners of before wrote is
	// still in the log.
	base int64
	from ends
	// owners of the window's sends at from, by topic as there; and, of the topic of a tier, the owners of all sends of its partition at the
	// committed offset.
	owners generations
	moving generations
}

// ends are offsets in the topics where a send's end can stand: deliveries (0), and each tier's.
type ends [proofs]int64

// leastRaise is how far a mark falls behind before it is raised for no other reason: a commit a second for each partition that carries
// nothing would be for nothing.
const leastRaise = 4096

// raised is e, or the higher of both where e has fallen behind.
func (e ends) raised(to ends) ends {
	for i := range e {
		if to[i] >= e[i]+leastRaise {
			return e.max(to)
		}
	}
	return e
}

func (e ends) max(f ends) ends {
	for i := range e {
		e[i] = max(e[i], f[i])
	}
	return e
}

// String is the metadata's text: version, generation, offsets, owners.
func (m mark) String() string {
	b := strconv.AppendInt([]byte("2 "), m.generation, 10)
	b = strconv.AppendInt(append(b, ' '), m.base, 10)
	for _, numbers := range [...][proofs]int64{m.from, m.owners, m.moving} {
		for _, n := range numbers {
			b = strconv.AppendInt(append(b, ' '), n, 10)
		}
	}
	return string(b)
}

// parseMark is the inverse of String. The empty text, which a group has that was started or reset by hand, is the zero mark:
// everything that is still there must be read. Version 1 knew no owners.
func parseMark(s string) (mark, error) {
	var m mark
	if s == "" {
		return m, nil
	}
	fields := strings.Split(s, " ")
	sets := map[string][]*[proofs]int64{"1": {(*[proofs]int64)(&m.from)}, "2": {(*[proofs]int64)(&m.from), (*[proofs]int64)(&m.owners), (*[proofs]int64)(&m.moving)}}[fields[0]]
	numbers := []*int64{&m.generation}
	if fields[0] == "2" {
		numbers = append(numbers, &m.base)
	}
	for _, set := range sets {
		for i := range set {
			numbers = append(numbers, &set[i])
		}
	}
	if len(sets) == 0 || len(fields) != 1+len(numbers) {
		return mark{}, fmt.Errorf("offset metadata %q: want version 1 and %d numbers, or 2 and %d", s, 1+proofs, 2+3*proofs)
	}
	for i, field := range fields[1:] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil || n < 0 {
			return mark{}, fmt.Errorf("offset metadata %q: %q is no offset", s, field)
		}
		*numbers[i] = n
	}
	return m, nil
}

// resetMark is the mark of a group that a person put somewhere at a time: its owners come after all before. A group has fewer generations than
// seconds have gone by, so that those of the time before are lower.
func resetMark(at time.Time) mark { return mark{base: at.Unix()} }
