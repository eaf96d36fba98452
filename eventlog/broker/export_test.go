package broker

// Steps of a compaction.
const (
	StepLinked    = stepLinked
	StepReady     = stepReady
	StepCompacted = stepCompacted
	StepDone      = stepDone
)

// OnStep makes f be called at each step of a compaction, while the broker waits.
func (b *Broker) OnStep(f func(step string)) { b.onStep = f }

// RepairStore is repair; it returns how many things it changed.
func RepairStore(store string) (int, error) {
	r, err := repair(store)
	return r.committed + r.aborted + r.indexEntries + r.partitions + r.stateLogs, err
}

// The decisions that are pure.
var (
	Verdict         = verdict
	WorthCompacting = worthCompacting
)

// NewPipe is newPipe.
var NewPipe = newPipe
