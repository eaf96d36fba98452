package simulator_test

import (
	"bytes"
	"encoding/csv"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/campanile-push/campanile/simulator"
)

func openLedger(t *testing.T, dir string) *simulator.Ledger {
	t.Helper()
	l, err := simulator.OpenLedger(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func entry(app, token string, id byte) simulator.Entry {
	return simulator.Entry{TimeUS: 1_000_000 + int64(id), Service: simulator.APNS, App: app, Token: simulator.TokenHash(token), ID: [16]byte{id}}
}

func TestLedgerCountsRepeatsByAppTokenAndID(t *testing.T) {
	t.Parallel()
	l := openLedger(t, t.TempDir())
	same := entry("a", "t", 1)
	sandbox, fcm := same, same
	sandbox.Sandbox, fcm.Service = true, simulator.FCM
	cut := entry("a", "t", 2)
	cut.Unanswered = true
	if err := l.Append(same, same, entry("b", "t", 1), entry("a", "u", 1), sandbox, fcm, cut, same); err != nil {
		t.Fatal(err)
	}
	s := l.Summary()
	if s.Accepted != 8 || s.Unique != 6 || s.Repeats != 2 || s.Unanswered != 1 || s.Tokens != 3 || s.FirstUS != 1_000_001 || s.LastUS != 1_000_002 {
		t.Fatalf("got %+v", s)
	}
	if a := s.Of(simulator.APNS); a.Accepted != 7 || a.Repeats != 2 {
		t.Errorf("APNs: got %+v", a)
	}
	if f := s.Of(simulator.FCM); f.Accepted != 1 || f.Repeats != 0 {
		t.Errorf("FCM: got %+v", f)
	}
	want := []int{6, 1, 0}
	for i, got := range l.Counts(simulator.APNS, "t", "u", "nobody") {
		if got != want[i] {
			t.Errorf("count %d: want %d, got %d", i, want[i], got)
		}
	}
	if got := l.Counts(simulator.FCM, "t", "u"); got[0] != 1 || got[1] != 0 {
		t.Errorf("FCM: want 1 and 0, got %v", got)
	}
}

// fill writes a random history, and returns what the ledger says of it.
func fill(t *testing.T, dir string, n int, seed uint64) simulator.Summary {
	t.Helper()
	l := openLedger(t, dir)
	r := rand.New(rand.NewPCG(seed, 1))
	for range n {
		e := entry([]string{"a", "b", "c"}[r.IntN(3)], string(rune('a'+r.IntN(20))), byte(r.IntN(10)))
		e.Sandbox = r.IntN(4) == 0
		if err := l.Append(e); err != nil {
			t.Fatal(err)
		}
	}
	s := l.Summary()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestLedgerIsTheSameAfterARestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	want := fill(t, dir, 3000, 1)
	if got := openLedger(t, dir).Summary(); !equal(got, want) {
		t.Fatalf("want %+v, got %+v", want, got)
	}
}

func equal(a, b simulator.Summary) bool {
	if a.Accepted != b.Accepted || a.Unique != b.Unique || a.Repeats != b.Repeats || a.Tokens != b.Tokens || len(a.Apps) != len(b.Apps) || a.Damaged != b.Damaged {
		return false
	}
	for i := range a.Apps {
		if a.Apps[i] != b.Apps[i] {
			return false
		}
	}
	return true
}

func TestLedgerLosesOnlyATornTail(t *testing.T) {
	t.Parallel()
	for cut := 1; cut < 100; cut += 7 {
		dir := t.TempDir()
		whole := fill(t, dir, 50, 2)
		file := filepath.Join(dir, "ledger.dat")
		if err := os.Truncate(file, whole.FileBytes-int64(cut)); err != nil {
			t.Fatal(err)
		}
		l := openLedger(t, dir)
		lost := int64(cut+47) / 48
		if s := l.Summary(); s.Accepted != whole.Accepted-lost || s.Damaged != 0 {
			t.Fatalf("cut %d: want %d, got %+v", cut, whole.Accepted-lost, s)
		}
		if err := l.Append(entry("a", "new", 200)); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if s := openLedger(t, dir).Summary(); s.Accepted != whole.Accepted-lost+1 || s.Damaged != 0 {
			t.Fatalf("cut %d: want what was appended behind the cut, got %+v", cut, s)
		}
	}
}

func TestLedgerCountsDamageInTheMiddleAndKeepsTheRest(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	whole := fill(t, dir, 50, 3)
	file := filepath.Join(dir, "ledger.dat")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text[48*10+20] ^= 1
	if err := os.WriteFile(file, append(text, "torn"...), 0o600); err != nil {
		t.Fatal(err)
	}
	if s := openLedger(t, dir).Summary(); s.Accepted != whole.Accepted-1 || s.Damaged != 1 || s.FileBytes != whole.FileBytes {
		t.Fatalf("want one record less and one damaged, got %+v", s)
	}
}

func TestLedgerLeavesAForeignFileAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	text := []byte(strings.Repeat("a diary, not a ledger\n", 10))
	file := filepath.Join(dir, "ledger.dat")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := simulator.OpenLedger(dir, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "move it away") {
		t.Fatalf("want a refusal that says what to do, got %v", err)
	}
	if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, text) {
		t.Fatalf("the file was changed: %q, %v", got, err)
	}
}

func TestLedgerExportsEveryPush(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	want := fill(t, dir, 9000, 4)
	var out bytes.Buffer
	if err := openLedger(t, dir).Export(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(&out).ReadAll()
	if err != nil || int64(len(rows)) != want.Accepted+1 {
		t.Fatalf("want %d rows and a head, got %d, %v", want.Accepted, len(rows), err)
	}
	if got := strings.Join(rows[0], " "); got != "time_us provider environment app token_hash notification_id body_hash unanswered" {
		t.Errorf("head: %s", got)
	}
	if row := rows[1]; row[1] != "apns" || len(row[4]) != 16 || len(row[5]) != 36 {
		t.Errorf("first row: %q", row)
	}
}

func TestLedgerResetForgetsOnFileToo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fill(t, dir, 10, 5)
	l := openLedger(t, dir)
	if err := l.Reset(); err != nil {
		t.Fatal(err)
	}
	if s := l.Summary(); s.Accepted != 0 || s.Tokens != 0 || len(s.Apps) != 0 {
		t.Fatalf("want nothing, got %+v", s)
	}
	if err := l.Append(entry("b", "t", 1)); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if s := openLedger(t, dir).Summary(); s.Accepted != 1 || len(s.Apps) != 1 || s.Apps[0].App != "b" {
		t.Fatalf("want the one push since, got %+v", s)
	}
	if err := l.Append(entry("b", "t", 1)); !errors.Is(err, simulator.ErrClosed) {
		t.Fatalf("want ErrClosed, got %v", err)
	}
}

func TestLedgerCountsRightUnderConcurrency(t *testing.T) {
	t.Parallel()
	l := openLedger(t, t.TempDir())
	var writers sync.WaitGroup
	for w := range 8 {
		writers.Go(func() {
			for i := range 500 {
				if err := l.Append(entry("a", string(rune('a'+w)), byte(i))); err != nil {
					t.Error(err)
				}
				if i%100 == 0 {
					if err := l.Each(t.Context(), func(*simulator.Entry) bool { return true }); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	writers.Wait()
	if s := l.Summary(); s.Accepted != 4000 || s.Unique != 8*256 || s.Repeats != 4000-8*256 {
		t.Fatalf("got %+v", s)
	}
}

func TestLedgerMemoryIsBounded(t *testing.T) {
	t.Parallel()
	l := openLedger(t, t.TempDir())
	const n = 200_000
	batch := make([]simulator.Entry, 0, 1000)
	for i := range n {
		e := simulator.Entry{TimeUS: int64(i), Service: simulator.FCM, App: "p", Token: rand.Uint64(), ID: [16]byte{byte(i), byte(i >> 8), byte(i >> 16)}}
		if batch = append(batch, e); len(batch) == cap(batch) {
			if err := l.Append(batch...); err != nil {
				t.Fatal(err)
			}
			batch = batch[:0]
		}
	}
	s := l.Summary()
	if perPush := float64(s.Memory) / n; s.Unique != n || perPush > 32 {
		t.Fatalf("want at most 32 bytes for each of %d pushes, each of a token of its own, got %.1f (%d unique)", n, perPush, s.Unique)
	}
}

func BenchmarkLedgerAppend(b *testing.B) {
	for _, size := range []int{1, 64} {
		b.Run(map[int]string{1: "one", 64: "batch64"}[size], func(b *testing.B) {
			l, err := simulator.OpenLedger(b.TempDir(), slog.New(slog.DiscardHandler))
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			batch := make([]simulator.Entry, size)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				for j := range batch {
					batch[j] = simulator.Entry{TimeUS: int64(i), Service: simulator.FCM, App: "p", Token: uint64(i*size + j)}
				}
				if err := l.Append(batch...); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*size), "ns/push")
		})
	}
}
