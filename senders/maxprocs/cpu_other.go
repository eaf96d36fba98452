//go:build !unix

package maxprocs

import (
	"errors"
	"time"
)

// ownCPU is not known here.
func ownCPU() (time.Duration, error) { return 0, errors.ErrUnsupported }
