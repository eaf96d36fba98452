package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestReconcileLeavesItsResultForPrometheus(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "campanile.prom")
	for _, c := range []struct {
		counts map[string]int64
		want   []string
	}{
		{map[string]int64{"lost": 3, "twice": 1}, []string{`campanile_reconcile_differences{kind="lost"} 3`, `{kind="twice"} 1`, `{kind="all"} 4`}},
		{nil, []string{`campanile_reconcile_differences{kind="all"} 0`, "campanile_reconcile_success_timestamp_seconds 1.7e+09"}},
	} {
		if err := writeReconcile(path, c.counts, time.Unix(1_700_000_000, 0)); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range c.want {
			if !strings.Contains(string(text), want) {
				t.Errorf("want %q in\n%s", want, text)
			}
		}
		if len(c.counts) == 0 && strings.Contains(string(text), "lost") {
			t.Errorf("what was found the last time is still there:\n%s", text)
		}
	}
}
