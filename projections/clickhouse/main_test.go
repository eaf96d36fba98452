package clickhouse_test

import (
	"os"
	"testing"

	"github.com/campanile-push/campanile/projections/chdbtest"
)

func TestMain(m *testing.M) { os.Exit(chdbtest.Main(m)) }
