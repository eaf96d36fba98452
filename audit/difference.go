package audit

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/campanile-push/campanile/schemas"
)

// Kind is a way in which the log, or ClickHouse, can break the promise that every accepted push ends in exactly one way.
type Kind string

// The kinds, in the order in which they are printed.
const (
	// Lost: a notification that was accepted and routed, has not ended, and that no topic of sends holds.
	Lost Kind = "lost"
	// Overdue: a push that has not ended, though nobody may work on it for so long.
	Overdue Kind = "overdue"
	// FinishedTwice: a send that ended again though its owner knew, or should have known, that it had.
	FinishedTwice Kind = "finished_twice"
	// FinishedWithoutSend: an end of a push that was never accepted.
	FinishedWithoutSend Kind = "finished_without_send"
	// Expansion: a broadcast whose cursors count other than its sends that have ended or wait.
	Expansion Kind = "expansion"
	// Progress: the counts of a broadcast's progress, or of its end, are not those of its deliveries.
	Progress Kind = "progress"
	// ClickHouse: a count by app, transport and outcome is other in ClickHouse than in the log.
	ClickHouse Kind = "clickhouse"
	// ClickHouseRow: an end that is missing, too much or other in ClickHouse.
	ClickHouseRow Kind = "clickhouse_row"
	// ClickHouseRollup: ClickHouse's sums are not those of its rows.
	ClickHouseRollup Kind = "clickhouse_rollup"
)

func kinds() []Kind {
	return []Kind{Lost, Overdue, FinishedTwice, FinishedWithoutSend, Expansion, Progress, ClickHouse, ClickHouseRow, ClickHouseRollup}
}

// Difference is one thing to look at. It names ids and places alone: no token and no text.
type Difference struct {
	Kind      Kind   `json:"kind"`
	Request   string `json:"request_id,omitempty"`
	Broadcast string `json:"broadcast_id,omitempty"`
	Send      string `json:"send_id,omitempty"`
	App       string `json:"app,omitempty"`
	Transport string `json:"transport,omitempty"`
	Outcome   string `json:"outcome,omitempty"`
	// Place is topic[partition]@offset of the record to look at; empty where it is none.
	Place string `json:"place,omitempty"`
	// Detail says what is wrong, in words and figures.
	Detail string `json:"detail"`
}

// String is the difference on one line.
func (d Difference) String() string {
	parts := []string{"difference: " + string(d.Kind)}
	for _, f := range []struct{ name, value string }{
		{"request", d.Request}, {"broadcast", d.Broadcast}, {"send", d.Send}, {"app", d.App}, {"platform", d.Transport}, {"outcome", d.Outcome}, {"at", d.Place},
	} {
		if f.value != "" {
			parts = append(parts, f.name+"="+f.value)
		}
	}
	return strings.Join(append(parts, "("+d.Detail+")"), " ")
}

// same is a difference but for its figures, which move while the pipeline runs.
func (d Difference) same() Difference {
	d.Detail = ""
	return d
}

// place writes a record's place.
func place(topic schemas.Topic, partition int32, offset int64) string {
	return fmt.Sprintf("%s[%d]@%d", topic, partition, offset)
}

// text is an id, or nothing for none.
func text(id schemas.ID) string {
	if id.IsZero() {
		return ""
	}
	return id.String()
}

// found keeps the first differences of each kind, and counts them all.
type found struct {
	limit int
	list  map[Kind][]Difference
	n     map[Kind]int64
}

func newFound(limit int) *found {
	return &found{limit: limit, list: map[Kind][]Difference{}, n: map[Kind]int64{}}
}

func (f *found) add(d Difference) {
	f.n[d.Kind]++
	if len(f.list[d.Kind]) < f.limit {
		f.list[d.Kind] = append(f.list[d.Kind], d)
	}
}

// both are the differences that two readings show: what one shows alone was on its way. A kind of which the first could not keep all is
// taken as the second has it.
func both(first, second *found) *found {
	out := newFound(second.limit)
	for kind, list := range second.list {
		if first.n[kind] > int64(len(first.list[kind])) || second.n[kind] > int64(len(list)) && first.n[kind] > 0 {
			out.list[kind], out.n[kind] = list, min(first.n[kind], second.n[kind])
			continue
		}
		for _, d := range list {
			if slices.ContainsFunc(first.list[kind], func(o Difference) bool { return o.same() == d.same() }) {
				out.add(d)
			}
		}
	}
	return out
}

// sorted are all that were kept, by kind and place.
func (f *found) sorted() (all []Difference) {
	for _, kind := range kinds() {
		list := slices.Clone(f.list[kind])
		slices.SortStableFunc(list, func(a, b Difference) int {
			return cmp.Or(strings.Compare(a.Broadcast, b.Broadcast), strings.Compare(a.Request, b.Request), strings.Compare(a.Place, b.Place),
				strings.Compare(a.App+a.Transport+a.Outcome, b.App+b.Transport+b.Outcome))
		})
		all = append(all, list...)
	}
	return all
}

// moment writes a time for people.
func moment(us int64) string { return time.UnixMicro(us).UTC().Format(time.RFC3339) }
