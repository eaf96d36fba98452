package clickhouse

import "context"

// Exec runs a statement of a test.
func (a *Analytics) Exec(ctx context.Context, statement string) error {
	return a.exec(ctx, "break something", statement)
}

// BreakOff makes a rebuild end with an error at a step, as if its process were killed there.
func (a *Analytics) BreakOff(at func(step string) error) { a.at = at }

// Orphan makes whoever comes next finish what a dead rebuild left, without waiting.
func (a *Analytics) Orphan() { a.orphaned = 0 }
