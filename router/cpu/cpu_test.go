package cpu

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

const stat = `cpu  100 20 30 400 50 6 7 8 90 0
cpu0 100 20 30 400 50 6 7 8 90 0
intr 1 2
ctxt 3
btime 1780000000
processes 4
procs_running 1
procs_blocked 0
softirq 1 2 3 4 5 6 7 8 9 10 11
`

// folders writes a procfs and a file system of control groups.
func folders(t *testing.T, files map[string]string) *Reader {
	t.Helper()
	root := t.TempDir()
	for path, text := range files {
		file := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(root, "proc", "7"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("7", filepath.Join(root, "proc", "self")); err != nil {
		t.Fatal(err)
	}
	began := time.Unix(1_780_000_000, 0)
	return &Reader{
		proc: filepath.Join(root, "proc"), cgroup: filepath.Join(root, "cgroup"), began: began, now: func() time.Time { return began.Add(10 * time.Second) },
	}
}

func TestRead(t *testing.T) {
	t.Parallel()
	const group, usage = "0::/system.slice/campanile.service\n", "usage_usec 4500000\nuser_usec 1\n"
	const tick = time.Second / 100
	host := [2]time.Duration{(100 + 30 + 6 + 7 + 8) * tick, (100 + 30 + 6 + 7 + 8 + 20 + 400 + 50) * tick}
	for name, c := range map[string]struct {
		files map[string]string
		want  [2]time.Duration // used and all
	}{
		"a machine":                        {map[string]string{"proc/stat": stat, "proc/7/cgroup": group}, host},
		"a machine without control groups": {map[string]string{"proc/stat": stat}, host},
		"a group without a limit": {map[string]string{
			"proc/stat": stat, "proc/7/cgroup": group, "cgroup/system.slice/campanile.service/cpu.max": "max 100000\n",
			"cgroup/system.slice/campanile.service/cpu.stat": usage,
		}, host},
		"a group of a core and a half": {map[string]string{
			"proc/stat": stat, "proc/7/cgroup": group, "cgroup/system.slice/campanile.service/cpu.max": "150000 100000\n",
			"cgroup/system.slice/campanile.service/cpu.stat": usage,
		}, [2]time.Duration{4500 * time.Millisecond, 15 * time.Second}},
		"a group in one with a limit": {map[string]string{
			"proc/stat": stat, "proc/7/cgroup": group, "cgroup/system.slice/campanile.service/cpu.max": "max 100000\n",
			"cgroup/system.slice/cpu.max": "200000 100000\n", "cgroup/system.slice/cpu.stat": usage,
		}, [2]time.Duration{4500 * time.Millisecond, 20 * time.Second}},
		"a container": {map[string]string{
			"proc/stat": stat, "proc/7/cgroup": "0::/\n", "cgroup/cpu.max": "50000 100000\n", "cgroup/cpu.stat": usage,
		}, [2]time.Duration{4500 * time.Millisecond, 5 * time.Second}},
		"groups of version 1": {map[string]string{
			"proc/stat": stat, "proc/7/cgroup": "4:cpu,cpuacct:/x\n0::/\n", "cgroup/cpu/x/cpu.cfs_quota_us": "1\n",
		}, host},
		"a limit that is none": {map[string]string{
			"proc/stat": stat, "proc/7/cgroup": "0::/\n", "cgroup/cpu.max": "0 0\n", "cgroup/cpu.stat": usage,
		}, host},
		"a limit of which nothing is told": {map[string]string{
			"proc/stat": stat, "proc/7/cgroup": "0::/\n", "cgroup/cpu.max": "50000 100000\n", "cgroup/cpu.stat": "nr_periods 0\n",
		}, host},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			used, all, err := folders(t, c.files).Read()
			if got := [2]time.Duration{used, all}; err != nil || got != c.want {
				t.Errorf("want %v, got %v and error %v", c.want, got, err)
			}
		})
	}
}

func TestReadSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	for name, r := range map[string]*Reader{
		"no procfs":   {proc: filepath.Join(t.TempDir(), "none")},
		"no stat":     folders(t, map[string]string{}),
		"a sorry one": folders(t, map[string]string{"proc/stat": "cpu  a b\n"}),
	} {
		if used, all, err := r.Read(); err == nil {
			t.Errorf("%s: want an error, got %v of %v", name, used, all)
		}
	}
}

// TestReadHere reads what is really there.
func TestReadHere(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/stat"); err != nil {
		t.Skip("there is no procfs here")
	}
	r := New()
	used, all, err := r.Read()
	if err != nil || used < 0 || all <= 0 {
		t.Fatalf("want CPU time, got %v of %v and error %v", used, all, err)
	}
	for before := all; all == before; { // until some of it has gone by
		if _, all, err = r.Read(); err != nil {
			t.Fatal(err)
		}
	}
}
