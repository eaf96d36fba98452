package main

import (
	"os"
	"runtime/debug"

	"github.com/campanile-push/campanile/senders"
)

// collectOften trades a little CPU for memory in a process of senders alone. The variable GOGC, where the operator has set it, stands; and
// with the vendors' clients, which leave a hundred times as much garbage, so does Go's default.
func (p *process) collectOften() {
	if percent := p.cfg.Senders.GCPercent; os.Getenv("GOGC") == "" && percent > 0 && p.cfg.Senders.Transport == senders.H2Transport {
		debug.SetGCPercent(percent)
	}
}
