package cockroach

import "github.com/campanile-push/campanile/projections"

// BreakOff makes an epoch's swap end with an error at a step, as if its process were killed there: nothing is released or dropped.
func BreakOff(e projections.Epoch, at func(step string) error) bool {
	b, ok := e.(*building)
	if ok {
		b.at = at
	}
	return ok
}

// Statements of a page, in the order in which they are executed.
const (
	SQLInOrder = sqlInOrder
	SQLPage    = sqlPage
)
