//go:build !unix

package maxprocs

import (
	"errors"
	"time"
)

// CPUTime cannot be read here.
func CPUTime() (time.Duration, error) { return 0, errors.ErrUnsupported }
