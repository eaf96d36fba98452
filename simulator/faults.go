package simulator

import "slices"

// Fault is what happens to a connection instead of an answer, or besides it.
type Fault string

// The faults. Those of HTTP/2's own frames need the server "frames".
const (
	FaultGoAway      Fault = "goaway"             // the push is answered, and the connection told to end
	FaultUnprocessed Fault = "goaway_unprocessed" // GOAWAY below the push's stream: it and what came behind it were not looked at
	FaultRST         Fault = "rst_stream"         // the stream is reset with INTERNAL_ERROR; nothing is recorded
	FaultRSTRefused  Fault = "rst_refused"        // as rst_stream, with REFUSED_STREAM
	FaultRSTCancel   Fault = "rst_cancel"         // as rst_stream, with CANCEL
	FaultRSTAfter    Fault = "rst_after"          // as rst_stream, after the push was accepted and recorded
	FaultReset       Fault = "reset"              // TCP reset before anything is recorded
	FaultResetAfter  Fault = "reset_after"        // TCP reset after the push was accepted and recorded
	FaultBlackhole   Fault = "blackhole"          // accepted and recorded, and never answered
	FaultFreeze      Fault = "freeze"             // as blackhole, and the whole connection falls silent, pings too
	FaultDrip        Fault = "drip"               // the answer's write goes out in up to a hundred pieces, a pause (10 ms) between them
	FaultSlowRead    Fault = "slow_read"          // the push is answered, and nothing more is read for a pause (1 s)
	FaultStarve      Fault = "starve"             // the push is answered, and the client given no more window for a pause (1 s)
)

var (
	faults = []Fault{ //nolint:gochecknoglobals // a table
		FaultGoAway, FaultUnprocessed, FaultRST, FaultRSTRefused, FaultRSTCancel, FaultRSTAfter, FaultReset, FaultResetAfter,
		FaultBlackhole, FaultFreeze, FaultDrip, FaultSlowRead, FaultStarve,
	}
	cuttingFaults = []Fault{FaultResetAfter, FaultBlackhole, FaultFreeze, FaultRSTAfter}             //nolint:gochecknoglobals // a table
	sparingFaults = []Fault{FaultRST, FaultRSTRefused, FaultRSTCancel, FaultReset, FaultUnprocessed} //nolint:gochecknoglobals // a table
	// frameFaults are those that net/http cannot be made to have.
	frameFaults = []Fault{FaultUnprocessed, FaultRSTRefused, FaultRSTCancel, FaultStarve} //nolint:gochecknoglobals // a table
)

// Faults lists what a rule may name.
func Faults() []Fault { return slices.Clone(faults) }

// cuts reports whether a push with the fault is recorded and its answer withheld.
func (f Fault) cuts() bool {
	if f == "" {
		return false
	}
	return slices.Contains(cuttingFaults, f)
}

// spares reports whether a push with the fault is neither recorded nor answered.
func (f Fault) spares() bool {
	if f == "" {
		return false
	}
	return slices.Contains(sparingFaults, f)
}
