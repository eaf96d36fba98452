//go:build !linux || !amd64 || static

package chdb

import (
	"fmt"
	"runtime"
)

// openEngine refuses: the recipe that keeps Go's signals alive beside libchdb is written and tested for Linux x86-64, and a binary
// built with the tag static is linked without the loader that libchdb needs.
func openEngine(_, _ string, _ int64) (engine, error) {
	return nil, fmt.Errorf("the embedded ClickHouse engine is in the dynamic build for linux/amd64 only, and this is %s for %s/%s: give a ClickHouse server's URL",
		runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
