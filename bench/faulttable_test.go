package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"text/tabwriter"
	"time"
)

// faultResult is what became of the pushes under one fault.
type faultResult struct {
	Transport string `json:"transport"`
	Fault     string `json:"fault"`
	Pushes    int    `json:"pushes"`
	Accepted  int    `json:"accepted"`
	Ended     int    `json:"ended_otherwise"` // refused for good, as the fault has it
	Lost      int64  `json:"lost"`
	Repeats   int64  `json:"repeats"`
	Cut       int64  `json:"answers_cut"`
	Doubt     int64  `json:"answers_in_doubt"`
	Dials     int64  `json:"dials"`
	MostDials int64  `json:"most_dials"`
	// StallMS is the longest time in which no push ended, OwnMS how much of that the fault itself takes.
	StallMS int64   `json:"longest_stall_ms"`
	OwnMS   int64   `json:"fault_ms"`
	Seconds float64 `json:"seconds"`
}

// faultResults are those of one run of the test.
type faultResults struct {
	mu  sync.Mutex
	all []faultResult
}

func (r *faultResults) add(one faultResult) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, one)
}

// tell prints the table, and keeps it as JSON where CAMPANILE_FAULT_OUT says.
func (r *faultResults) tell(t *testing.T) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.print(t.Output()); err != nil {
		t.Error(err)
	}
	file := os.Getenv("CAMPANILE_FAULT_OUT")
	if file == "" {
		return
	}
	text, err := json.MarshalIndent(r.all, "", "  ")
	if err == nil {
		err = os.MkdirAll(filepath.Dir(file), 0o750)
	}
	if err == nil {
		err = os.WriteFile(file, append(text, '\n'), 0o600)
	}
	if err != nil {
		t.Error(err)
	}
}

func (r *faultResults) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "provider\tfault\tpushes\tlost\trepeats\tcut\tin doubt\tdials\tlongest stall\tof the fault\tseconds\t")
	for _, o := range r.all {
		ms := func(n int64) time.Duration { return time.Duration(n) * time.Millisecond }
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t%s\t%.1f\t\n",
			o.Transport, o.Fault, o.Pushes, o.Lost, o.Repeats, o.Cut, o.Doubt, o.Dials, ms(o.StallMS), ms(o.OwnMS), o.Seconds)
	}
	return w.Flush()
}
