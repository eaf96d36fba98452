package eventlog

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/campanile-push/campanile/schemas"
)

// proofs is the number of topics in which a send's end can stand: deliveries, and the retry tiers.
const proofs = 1 + schemas.Tiers

// mark is what an offset commit of a delivering stage carries as metadata: from where on, in deliveries (0) and in each tier's
// topic, a new owner must read to know which sends above the committed offset are done already.
type mark struct {
	generation int64 // of who committed
	from       ends
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

// String is the metadata's text: version, generation, offsets.
func (m mark) String() string {
	b := strconv.AppendInt([]byte("1 "), m.generation, 10)
	for _, from := range m.from {
		b = strconv.AppendInt(append(b, ' '), from, 10)
	}
	return string(b)
}

// parseMark is the inverse of String. The empty text, which a group has that was started or reset by hand, is the zero mark:
// everything that is still there must be read.
func parseMark(s string) (mark, error) {
	var m mark
	if s == "" {
		return m, nil
	}
	fields := strings.Split(s, " ")
	if len(fields) != 2+proofs || fields[0] != "1" {
		return mark{}, fmt.Errorf("offset metadata %q: want version 1 and %d numbers", s, 1+proofs)
	}
	for i, field := range fields[1:] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil || n < 0 {
			return mark{}, fmt.Errorf("offset metadata %q: %q is no offset", s, field)
		}
		if i == 0 {
			m.generation = n
		} else {
			m.from[i-1] = n
		}
	}
	return m, nil
}
