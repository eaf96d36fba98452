package migrate

import (
	"cmp"
	"slices"
	"strings"
)

// Result is what became of something.
type Result string

// The results. Everything that was read has exactly one.
const (
	Imported  Result = "imported"  // said to the log, or would be without --dry-run
	Unchanged Result = "unchanged" // the log has it, or has decided otherwise since
	Folded    Result = "folded"    // says the same as another record that was taken
	Rejected  Result = "rejected"  // cannot be used
	LeftOut   Result = "left out"  // not meant to be imported
	Noted     Result = "note"      // taken, with something to know
)

// Row is one line of a report.
type Row struct {
	App    string `json:"app"`
	What   string `json:"what"`
	Result Result `json:"result"`
	Reason string `json:"reason"`
	Count  int64  `json:"count"`
}

// What a row counts.
const (
	whatApp           = "app"
	whatCredentials   = "credentials"
	whatKey           = "keys"
	whatToken         = "tokens"
	whatSubscription  = "subscriptions"
	whatFile          = "files"
	reasonThere       = "in the log already"
	reasonUnregister  = "unregistered since, in Campanile"
	reasonDead        = "found dead since, by its provider"
	reasonMalformed   = "malformed document"
	reasonOtherApp    = "names another app"
	reasonNoApp       = "of an app that neither the export nor Campanile has"
	reasonSameToken   = "the same token in several records"
	reasonSubscribed  = "in the log already"
	reasonBadChannel  = "unusable channel, put into default"
	reasonDisabled    = "switched off by its user"
	reasonOtherMobile = "of another mobile app"
)

// Report counts what became of everything that was read.
type Report struct {
	DryRun bool  `json:"dry_run"`
	Rows   []Row `json:"rows"`

	index map[Row]int
}

func newReport(dryRun bool) *Report { return &Report{DryRun: dryRun, index: map[Row]int{}} }

func (r *Report) add(app, what string, result Result, reason string, n int64) {
	if n == 0 {
		return
	}
	k := Row{App: app, What: what, Result: result, Reason: reason}
	i, ok := r.index[k]
	if !ok {
		i = len(r.Rows)
		r.index[k] = i
		r.Rows = append(r.Rows, k)
	}
	r.Rows[i].Count += n
}

// Count sums the rows of one kind: what ("tokens", "keys", …) with that result, over all apps and reasons.
func (r *Report) Count(what string, result Result) (n int64) {
	for _, row := range r.Rows {
		if row.What == what && row.Result == result {
			n += row.Count
		}
	}
	return n
}

// sort brings the rows into an order that does not depend on the files': by app, by what happens first, by result.
func (r *Report) sort() {
	whats := []string{whatApp, whatCredentials, whatKey, whatToken, whatSubscription, whatFile}
	results := []Result{Imported, Unchanged, Folded, Rejected, LeftOut, Noted}
	slices.SortStableFunc(r.Rows, func(a, b Row) int {
		return cmp.Or(strings.Compare(a.App, b.App), cmp.Compare(slices.Index(whats, a.What), slices.Index(whats, b.What)),
			cmp.Compare(slices.Index(results, a.Result), slices.Index(results, b.Result)), strings.Compare(a.Reason, b.Reason))
	})
	r.index = nil
}
