package audit

import "fmt"

// Totals is where every accepted push is: accepted = delivered + rejected + invalid + expired + cancelled + dead + pending, by construction.
// What must be shown is that pending is what it should be and that nothing is unexplained: see Prove.
type Totals struct {
	Accepted  int64 `json:"accepted"` // notifications in the log, and sends that broadcasts were expanded to
	Delivered int64 `json:"delivered"`
	Rejected  int64 `json:"rejected"`
	Invalid   int64 `json:"invalid"`
	Expired   int64 `json:"expired"`
	Cancelled int64 `json:"cancelled"`
	// Dead are notifications that the direct router could not handle: dead letters, which nobody sends.
	Dead    int64 `json:"dead_lettered"`
	Pending int64 `json:"pending"`
	// Repeats are sends that a provider took again after another owner had finished them or had lost them.
	Repeats int64 `json:"repeats"`
	// Forgotten are those of Accepted whose request the log no longer holds, and of which only the end is left: deliveries are kept
	// longer than notifications and the cursors of ended broadcasts.
	Forgotten int64 `json:"forgotten"`
}

// String is the totals on one line.
func (t Totals) String() string {
	dead := ""
	if t.Dead > 0 { // a defect, and not a way to end
		dead = fmt.Sprintf(" dead_lettered=%d", t.Dead)
	}
	return fmt.Sprintf("accepted=%d delivered=%d rejected=%d invalid=%d expired=%d cancelled=%d%s pending=%d",
		t.Accepted, t.Delivered, t.Rejected, t.Invalid, t.Expired, t.Cancelled, dead, t.Pending)
}
