//go:build linux && amd64 && !static

package chdb_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/campanile-push/campanile/projections/chdb"
	"github.com/campanile-push/campanile/projections/chdbtest"
)

// signalsEnv, when it is set, makes the test binary a process that provokes signals beside the engine of that directory.
const signalsEnv = "CAMPANILE_CHDB_SIGNALS_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(signalsEnv); dir != "" {
		if err := chdb.ProvokeSignals(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println("signals are Go's")
		os.Exit(0)
	}
	os.Exit(chdbtest.Main(m))
}
