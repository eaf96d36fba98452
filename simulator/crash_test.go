package simulator_test

import (
	"bufio"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"github.com/campanile-push/campanile/simulator"
)

// crashDir tells the child process of TestLedgerSurvivesAKilledProcess where to write.
const crashDir = "CAMPANILE_TEST_LEDGER_DIR"

// TestLedgerChild is the process that is killed: it appends for ever, and says so after each.
func TestLedgerChild(t *testing.T) { //nolint:paralleltest // it is a process of its own
	dir := os.Getenv(crashDir)
	if dir == "" {
		return // the suite itself: the parent starts this one
	}
	l, err := simulator.OpenLedger(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for i := uint64(0); ; i++ {
		if err := l.Append(simulator.Entry{TimeUS: int64(i), Service: simulator.FCM, App: "p", Token: i}); err != nil {
			t.Fatal(err)
		}
		fmt.Println("appended", i)
	}
}

func TestLedgerSurvivesAKilledProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var before int64
	for round := range 5 {
		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestLedgerChild$", "-test.v")
		child.Env = append(os.Environ(), crashDir+"="+dir)
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		acknowledged := int64(0)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if _, err := fmt.Sscanf(lines.Text(), "appended %d", new(uint64)); err == nil {
				acknowledged++
			}
			if acknowledged == int64(200*(round+1)) {
				if err := child.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = child.Wait() // it was killed
		l := openLedger(t, dir)
		s := l.Summary()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if s.Accepted < before+acknowledged || s.Damaged != 0 {
			t.Fatalf("round %s: want at least %d + %d pushes and no damage, got %+v", strconv.Itoa(round), before, acknowledged, s)
		}
		before = s.Accepted
	}
}

func TestAPushThatCannotBeRecordedIsNotAccepted(t *testing.T) {
	t.Parallel()
	r := setup(t)
	if err := r.Ledger().Close(); err != nil {
		t.Fatal(err)
	}
	if got := r.push(goodHex); got.status != 500 || got.reason != "InternalServerError" {
		t.Errorf("want 500, got %d %s", got.status, got.body)
	}
	if got := r.send(messageTo(fcmToken, goodID)); got.status != 500 || got.reason != "INTERNAL" {
		t.Errorf("want 500, got %d %s", got.status, got.body)
	}
}
