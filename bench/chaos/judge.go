package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"sort"
	"time"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// Result is what a run shows. Each repeat counts for the step in which the provider took the push again.
type Result struct {
	Kills, Stops, Outages int
	Accepted              int64 // notifications in the log, and sends that broadcasts were expanded to
	Lost                  int64
	// Repeats that are for kills, or for nothing, and what the senders that were killed had in flight at most. Those for stops, and for
	// outages of brokers and cut links, have bounds of their own.
	Repeats, Bound               int64
	StopRepeats, StopBound       int64
	OutageRepeats, OutageBound   int64
	AnalyticsDiff                int64
	TallyDiff                    int64 // between the final counts of ended broadcasts and the log
	Strays                       int64 // pushes that the log does not know of
	Falls                        int   // processes that ended by themselves
	Problems                     []string
	Retries                      int
	Notifications, Broadcasts    int // that were answered
	LedgerAccepted, LedgerUnique int64
}

// String is the run's last line.
func (r Result) String() string {
	return fmt.Sprintf("chaos: kills=%d stops=%d outages=%d accepted=%d lost=%d repeats=%d bound=%d analytics_diff=%d",
		r.Kills, r.Stops, r.Outages, r.Accepted, r.Lost, r.Repeats, r.Bound, r.AnalyticsDiff)
}

// Failed reports whether a promise was broken.
func (r Result) Failed() bool {
	return r.Lost > 0 || r.Repeats > r.Bound || r.StopRepeats > r.StopBound || r.OutageRepeats > r.OutageBound || r.AnalyticsDiff > 0 || r.TallyDiff > 0 ||
		r.Strays > 0 || len(r.Problems) > 0
}

// How long the last counts may take to come.
const countPatience = 2 * time.Minute

// judge reads log, ledger and ClickHouse, and compares.
func (w *world) judge(ctx context.Context, a asked, steps []performed) (Result, error) {
	var r Result
	err := w.await(ctx, countPatience, func(ctx context.Context) string {
		h, err := w.readHistory(ctx)
		if err != nil {
			return err.Error()
		}
		pushes, err := w.ledger(ctx)
		if err != nil {
			return err.Error()
		}
		counted, err := w.statistics(ctx)
		if err != nil {
			return err.Error()
		}
		r = compare(h, pushes, counted, a, steps)
		if r.Lost > 0 || r.AnalyticsDiff > 0 {
			return r.String()
		}
		return ""
	})
	for name, p := range w.roles {
		if _, falls := p.state(); falls > 0 {
			r.Falls += falls
			w.say("%s ended by itself %d times: see %s", name, falls, p.file("log"))
		}
	}
	if r.Accepted == 0 && err != nil {
		return r, err
	}
	// What an operator would ask: another reading of the same, by other code.
	proof, err := w.campanile(ctx, "reconcile")
	w.say("campanile reconcile:\n%s", proof)
	if err != nil {
		r.problem("%v", err)
	}
	return r, ctx.Err()
}

// statistics are ClickHouse's counts.
func (w *world) statistics(ctx context.Context) (map[count]int64, error) {
	text, err := w.campanile(ctx, "stats", "--json")
	if err != nil {
		return nil, err
	}
	var stats struct {
		Totals []struct {
			Platform, Outcome string
			Repeat            bool
			Pushes            int64
		}
	}
	if err := json.Unmarshal([]byte(text), &stats); err != nil {
		return nil, fmt.Errorf("read the statistics: %w", err)
	}
	counted := map[count]int64{}
	for _, t := range stats.Totals {
		counted[count{t.Platform, t.Outcome, t.Repeat}] += t.Pushes
	}
	return counted, nil
}

// compare decides. steps are in the order of their times.
func compare(h *history, pushes []taken, counted map[count]int64, a asked, steps []performed) Result {
	r := Result{Retries: a.retries, Notifications: len(a.notifications), Broadcasts: len(a.broadcasts), Accepted: h.Totals().Accepted}
	r.Problems = append(r.Problems, a.unexpected...)
	for _, s := range steps {
		r.Kills += s.kills()
		switch s.kind {
		case kill, scale:
			r.Bound += s.bound
		case stop:
			r.Stops++
			r.StopBound += s.bound
		case store, engine: // no sender needs them: what is repeated meanwhile is for the kills
			r.Outages++
			r.Bound += s.bound
		case broker, cut:
			r.Outages++
			r.OutageBound += s.bound
		}
	}
	seen := r.repeats(h, pushes, steps)
	r.losses(h, seen, a)
	for c := range union(counted, h.counts) {
		if d := counted[c] - h.counts[c]; d != 0 {
			r.AnalyticsDiff += max(d, -d)
			r.problem("%s %s (repeat: %v): ClickHouse has %d, the log %d", c.transport, c.outcome, c.repeat, counted[c], h.counts[c])
		}
	}
	r.tally(h)
	if h.letters > 0 {
		r.problem("%d dead letters", h.letters)
	}
	return r
}

func union[V any](a, b map[count]V) map[count]struct{} {
	all := map[count]struct{}{}
	for k := range a {
		all[k] = struct{}{}
	}
	for k := range b {
		all[k] = struct{}{}
	}
	return all
}

// repeats counts what the ledger has twice, by the step in whose time it was, and returns what it has.
func (r *Result) repeats(h *history, pushes []taken, steps []performed) map[schemas.ID]bool {
	seen := make(map[schemas.ID]bool, len(pushes))
	byStep := make([]int64, len(steps)+1)
	for _, p := range pushes {
		r.LedgerAccepted++
		if !seen[p.id] {
			seen[p.id] = true
			r.LedgerUnique++
			if _, known := h.finished[p.id]; !known {
				if r.Strays++; r.Strays <= 3 {
					r.problem("the ledger has %s, of which the log knows no end", p.id)
				}
			}
			continue
		}
		// The first step that began after the push, which counts for the one before.
		byStep[sort.Search(len(steps), func(i int) bool { return steps[i].fromUS > p.timeUS })]++
	}
	r.Repeats += byStep[0]
	for i, s := range steps {
		n := byStep[i+1]
		switch s.kind {
		case kill, scale, store, engine:
			r.Repeats += n
		case stop:
			r.StopRepeats += n
		case broker, cut:
			r.OutageRepeats += n
		}
		if n > s.bound {
			r.problem("step %d (%s): %d repeats, the bound is %d", i+1, s.step, n, s.bound)
		}
	}
	return seen
}

// losses counts what was answered, accepted or delivered, and is not where it should be.
func (r *Result) losses(h *history, seen map[schemas.ID]bool, a asked) {
	lose := func(format string, args ...any) {
		if r.Lost++; r.Lost <= 20 {
			r.problem("lost: "+format, args...)
		}
	}
	for _, text := range a.notifications {
		if id, err := schemas.ParseID(text); err != nil || !h.notifications[id] {
			lose("notification %s was answered and is not in the log", text)
		}
	}
	devices := make([]schemas.Device, len(a.phones))
	for i, p := range a.phones {
		devices[i] = schemas.Device{App: app, Transport: schemas.FCM, Environment: schemas.Production, Token: p.Token}
		if p.Platform == "ios" {
			devices[i].Transport = schemas.APNS
		}
	}
	for _, b := range a.broadcasts {
		id, err := schemas.ParseID(b.id)
		if err != nil || !h.broadcasts[id] {
			lose("broadcast %s was answered and is not in the log", b.id)
			continue
		}
		for i, d := range devices[:b.reach] {
			if _, ok := h.finished[schemas.BulkSendID(id, d)]; !ok {
				lose("broadcast %s did not reach phone %d, which was registered before", b.id, i)
			}
		}
	}
	for id, outcome := range h.finished {
		if outcome == pushv1.Outcome_OUTCOME_ACCEPTED && !seen[id] {
			lose("%s is delivered by the log, and the ledger does not have it", id)
		}
	}
	if pending := h.Totals().Pending; pending > 0 {
		r.Lost += pending
		r.problem("lost: %d accepted pushes have no end", pending)
	} else if pending < 0 {
		r.problem("%d more ends than accepted pushes", -pending)
	}
}

// tally compares the final counts of broadcasts with the log.
func (r *Result) tally(h *history) {
	type part struct {
		broadcast schemas.ID
		transport schemas.Transport
	}
	emitted := map[part]int64{}
	for k, n := range h.emitted {
		emitted[part{k.Broadcast, k.Transport}] += n
	}
	for id := range h.broadcasts {
		end := h.ends[id]
		if end == nil {
			r.TallyDiff++
			r.problem("broadcast %s has not ended", id)
			continue
		}
		for _, c := range end.Counts {
			finished := c.Accepted + c.TokenInvalid + c.Rejected + c.Expired + c.Cancelled
			if want := emitted[part{id, c.Transport}]; c.Emitted != want || finished != want {
				r.TallyDiff++
				r.problem("broadcast %s ended with %d sends to %s and %d finished; the log has %d", id, c.Emitted, c.Transport.Word(), finished, want)
			}
		}
	}
}

func (r *Result) problem(format string, args ...any) {
	if len(r.Problems) < 200 {
		r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
	}
}
