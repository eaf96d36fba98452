//go:build !unix

package simulator

import "time"

// processCPU is not known here: the figure in stats is 0.
func processCPU() time.Duration { return 0 }

func processPeak() int64 { return 0 }
