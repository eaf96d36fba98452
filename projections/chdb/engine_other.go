//go:build !linux || !amd64

package chdb

import (
	"fmt"
	"runtime"
)

// openEngine refuses: the recipe that keeps Go's signals alive beside libchdb is written and tested for Linux x86-64.
func openEngine(_, _ string, _ int64) (engine, error) {
	return nil, fmt.Errorf("the embedded ClickHouse engine runs on linux/amd64 only, and this is %s/%s: give a ClickHouse server's URL", runtime.GOOS, runtime.GOARCH)
}
