package pebble

import "github.com/campanile-push/campanile/projections"

// BreakOff makes an epoch's swap end with an error at a step, as if its process were killed there.
func BreakOff(e projections.Epoch, at func(step string) error) bool {
	b, ok := e.(*building)
	if ok {
		b.at = at
	}
	return ok
}
